//! Attachments of taken mail that were not downloaded yet.

use std::collections::HashMap;

use minicbor::{Decode, Encode};

use super::folder::State;
use super::seal::Attachment;
use crate::id::Id;
use crate::limits::{MAX_MAIL_OF_SENDER, MAX_MAILBOX};

/// An attachment that can still be downloaded.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Waiting {
    /// The sender.
    #[n(0)]
    pub from: Id,
    /// When it is dropped, in seconds since 1970.
    #[n(1)]
    pub until: u64,
    /// Where it is stored, and the key to open it.
    #[n(2)]
    pub attachment: Attachment,
}

impl State {
    /// Stores attachments for a later download. If one sender's, or all, exceed the limits of mail, the oldest are
    /// dropped.
    pub fn keep_waiting(&mut self, fresh: impl IntoIterator<Item = Waiting>, now: u64) {
        self.waiting.retain(|one| one.until >= now);
        for one in fresh {
            if !self.waiting.iter().any(|known| known.attachment == one.attachment) {
                self.waiting.push(one);
            }
        }
        let (mut all, mut each) = (0, HashMap::<Id, u64>::new());
        let mut kept = Vec::with_capacity(self.waiting.len());
        for one in self.waiting.drain(..).rev() {
            let size = crate::cbor::to_vec(&one).len() as u64;
            let of_sender = each.entry(one.from).or_default();
            if all + size <= MAX_MAILBOX && *of_sender + size <= MAX_MAIL_OF_SENDER {
                (all, *of_sender) = (all + size, *of_sender + size);
                kept.push(one);
            }
        }
        kept.reverse();
        self.waiting = kept;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::body::{BlobRef, HomeAddress};
    use crate::client::folder::Folder;
    use crate::id::Key;

    fn waiting(from: Id, number: u64, until: u64) -> Waiting {
        let home = HomeAddress { home: from, addresses: Vec::new() };
        let blob = BlobRef { hash: [0; 32].into(), size: number };
        let name = "n".repeat(1000);
        Waiting { from, until, attachment: Attachment { name, blob, owner: from, home, key: [1; 32].into() } }
    }

    #[test]
    fn each_is_kept_once_until_its_time_and_one_sender_drives_out_its_own_only() {
        let place = tempfile::tempdir().unwrap();
        let mut state = Folder::create(&place.path().join("me"), "test").unwrap().state().unwrap();
        let [one, other] = [1, 2].map(|byte| Key::from_secret(&[byte; 32]).id());
        state.keep_waiting([waiting(one, 0, 100), waiting(one, 0, 100), waiting(one, 1, 10)], 5);
        assert_eq!(state.waiting.len(), 2);
        state.keep_waiting([], 11);
        assert_eq!(state.waiting.len(), 1, "one has expired");
        state.keep_waiting((0..1000).map(|number| waiting(other, number, 100)), 11);
        assert_eq!(state.waiting[0].from, one);
        assert_eq!(state.waiting.last().unwrap().attachment.blob.size, 999, "the newest is kept");
        let bytes = crate::cbor::to_vec(&state.waiting).len() as u64;
        assert!(bytes < 2 * MAX_MAIL_OF_SENDER, "{bytes}");
    }
}
