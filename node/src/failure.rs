//! The program's exit on failure.

/// Why the program fails.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Wrong usage, configuration included: exit status 2.
    Usage(String),
    /// The usage was right, but the work failed: exit status 1.
    Failed(String),
}
