//! Results on stdout. Logs, warnings and progress go to stderr and are written where they arise.

use std::io::{ErrorKind, Write};

use crate::failure::Failure;

/// A line of the result. Who closed the other end of stdout, as `head` does, has seen enough; all else that keeps it from
/// being written, as a full disk does, is a failure.
pub(crate) fn print(line: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("stdout cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}
