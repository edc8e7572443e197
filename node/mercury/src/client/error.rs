//! Errors of a device.

use crate::envelope::EnvelopeError;
use crate::id::Id;
use crate::wire::Refusal;

use super::folder::FolderError;
use super::seal::SealError;

/// Maximum number of characters of a home's own text that are passed on.
const MAX_WORDS: usize = 200;

/// Why an operation failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The home refuses.
    #[error("the home refuses: {0}")]
    Refused(Refusal),
    /// The home's answer is false or unasked for; the text says what is wrong.
    #[error("the home is not to be believed: {0}")]
    Lie(String),
    /// A home or a device is unreachable.
    #[error("not reached: {0}")]
    Unreachable(String),
    /// There was no answer in time.
    #[error("no answer in time: {0}")]
    TimedOut(&'static str),
    /// No home knows where a persona is hosted.
    #[error("{0} is not found: not where it was, and no home knows where it is")]
    NotFound(Id),
    /// The operation is not possible.
    #[error("{0}")]
    Wrong(String),
    /// An error of the folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// An error of sealing or opening.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The device has been stopped.
    #[error("the device has been stopped")]
    Stopped,
}

impl ClientError {
    /// Whether the home is to blame: unreachable, silent, or refusing. Such a home cannot keep anyone from leaving
    /// it.
    #[must_use]
    pub fn is_of_home(&self) -> bool {
        matches!(self, Self::Refused(_) | Self::Unreachable(_) | Self::TimedOut(_) | Self::Lie(_))
    }

    /// A home's refusal, as one line that is safe for a terminal.
    pub(super) fn refused(refusal: Refusal) -> Self {
        Self::Refused(Refusal::new(refusal.code, one_line(&refusal.reason)))
    }

    /// Something from a home that does not verify.
    pub(super) fn lie(what: &str, error: EnvelopeError) -> Self {
        Self::Lie(format!("{what}: {error}"))
    }

    /// An answer of the wrong kind.
    pub(super) fn unasked() -> Self {
        Self::Lie("it answers something else than what was asked".to_owned())
    }
}

/// Shortens a stranger's text and removes characters that a terminal might obey.
#[must_use]
pub(super) fn one_line(text: &str) -> String {
    text.chars().take(MAX_WORDS).map(|one| if steers_terminals(one) { '\u{fffd}' } else { one }).collect()
}

/// Whether a character may move the cursor, end a line, or change the direction of neighbouring text.
#[must_use]
pub fn steers_terminals(one: char) -> bool {
    let marks_direction = matches!(
        one,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    one.is_control() || marks_direction
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Code;

    #[test]
    fn a_homes_words_are_one_short_line() {
        let said = Refusal::new(Code::Fault, format!("\u{1b}[2Jno\n\u{202e}{}", "x".repeat(10_000)));
        let ClientError::Refused(shown) = ClientError::refused(said) else { panic!() };
        assert_eq!(shown.reason.chars().count(), MAX_WORDS);
        assert!(!shown.reason.contains(char::is_control) && !shown.reason.contains('\u{202e}'));
    }
}
