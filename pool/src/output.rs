//! Results on stdout. Logs go to stderr.

use std::io::{ErrorKind, Write};

use crate::run::RunError;

/// Prints whole lines of the result. A reader that closed stdout early, as `head` does, has seen enough; any other
/// error, such as a full disk, is a failure.
pub(crate) fn print(lines: &str) -> Result<(), RunError> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(lines.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(RunError(format!("stdout cannot be written: {error}")))
        }
        _ => Ok(()),
    }
}
