//! Prints results to stdout. Logs, warnings and progress go to stderr and are written where they arise.

use std::io::{ErrorKind, Write};

use crate::failure::Failure;

/// Prints a line of the result. A closed stdout, as with `head`, is no error; any other failed write, as on a full
/// disk, is.
pub(crate) fn print(line: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout().lock();
    match writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure::Failed(format!("stdout cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}
