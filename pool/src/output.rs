//! Results on stdout. Logs go to stderr.

use std::io::{ErrorKind, Write};

use crate::run::RunError;

/// Whole lines of the result. Who closed the other end of stdout, as `head` does, has seen enough; all else that keeps
/// them from being written, as a full disk does, is a failure.
pub(crate) fn print(lines: &str) -> Result<(), RunError> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(RunError(format!("stdout cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}
