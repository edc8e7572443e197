//! How the program ends when it does not succeed.

/// Why the program ends without success.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Wrong usage, configuration included: exit status 2.
    Usage(String),
    /// It was asked rightly and failed: exit status 1.
    Failed(String),
}
