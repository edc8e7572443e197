//! The rules by which the state changes.

use super::*;
use crate::id::Key;

#[test]
fn mail_is_taken_once_until_it_could_not_come_again() {
    let mut state = State::new("test");
    assert!(state.take([1; 32], 100, 50));
    assert!(!state.take([1; 32], 100, 50));
    assert!(state.take([2; 32], 200, 101));
    assert_eq!(state.taken.len(), 1, "the first has expired");
    for number in 0..MAX_CONTACTS as u64 + 10 {
        let mut secret = [0; 32];
        secret[..8].copy_from_slice(&number.to_be_bytes());
        state.contact_mut(Key::from_secret(&secret).id());
    }
    assert_eq!(state.contacts.len(), MAX_CONTACTS);
}

fn id(number: u64) -> Id {
    let mut secret = [0; 32];
    secret[..8].copy_from_slice(&number.to_be_bytes());
    Key::from_secret(&secret).id()
}

#[test]
fn no_relation_that_holds_or_is_asked_for_makes_room_for_another_contact() {
    let mut state = State::new("test");
    for number in 0..MAX_CONTACTS as u64 {
        let contact = state.contact_mut(id(number));
        contact.standing = if number % 2 == 0 { Standing::Held } else { Standing::Asked };
    }
    let mut take_back = |number, upto| {
        let contact = state.contact_mut(id(number));
        (contact.standing, contact.revoked_upto) = (Standing::Revoked, Some(upto));
    };
    take_back(7, 200);
    take_back(8, 100);
    state.contact_mut(id(10_000));
    assert!(state.contact(id(7)).is_some() && state.contact(id(8)).is_none(), "taken back the longest ago");
    state.contact_mut(id(10_001)).standing = Standing::Held;
    assert!(state.contact(id(7)).is_some() && state.contact(id(10_000)).is_none(), "a stranger first");
    state.contact_mut(id(10_002)).standing = Standing::Held;
    assert!(state.contact(id(7)).is_none());
    // Homes hold fewer than this; one more must not be dropped.
    state.contact_mut(id(10_003)).standing = Standing::Asked;
    let kept = (0..MAX_CONTACTS as u64).filter(|&number| state.contact(id(number)).is_some()).count();
    assert_eq!((kept, state.contacts.len()), (MAX_CONTACTS - 2, MAX_CONTACTS + 1));
}

#[test]
fn mail_of_before_the_other_revoked_is_taken_also_when_the_relation_is_asked_for_anew() {
    let mut state = State::new("test");
    for left in [Some(100), None] {
        let contact = state.contact_mut(id(1));
        contact.standing = Standing::Held;
        contact.take_back([1; 32], 100, left);
        for standing in [Standing::Revoked, Standing::Asked] {
            state.contact_mut(id(1)).standing = standing;
            assert_eq!(state.takes(id(1), 100), left.is_some(), "{standing:?}");
            assert!(!state.takes(id(1), 101), "{standing:?}");
        }
    }
    state.contact_mut(id(2)).standing = Standing::Asked;
    assert!(!state.takes(id(2), 0), "asked for the first time");
}

#[test]
fn a_state_of_before_moves_were_kept_is_read() {
    let state = State::new("test");
    let mut bytes = crate::cbor::to_vec(&state);
    // An array of sixteen fields, the last eight of which take a byte each.
    assert_eq!(bytes[0], 0x90);
    bytes[0] = 0x88;
    bytes.truncate(bytes.len() - 8);
    assert_eq!(crate::cbor::from_slice(&bytes), Some(state));
}

#[test]
fn versions_of_strangers_are_remembered_and_never_go_back_and_there_are_not_too_many() {
    let mut state = State::new("test");
    state.see(id(0), 7);
    state.see(id(0), 5);
    assert_eq!(state.newest_seen(id(0)), 7);
    state.contact_mut(id(0));
    assert_eq!(state.newest_seen(id(0)), 7, "also when the stranger becomes a contact");
    state.see(id(0), 8);
    assert_eq!((state.contact(id(0)).map(|one| one.version), state.seen.len()), (Some(8), 0));
    (1..=MAX_SEEN as u64 + 1).for_each(|number| state.see(id(number), number));
    assert_eq!((state.seen.len(), state.newest_seen(id(1))), (MAX_SEEN, 0), "the oldest goes");
}

#[test]
fn a_version_is_given_once_whatever_clock_and_profile_say() {
    let mut state = State::new("test");
    assert_eq!(state.next_version(0, 100), 100);
    assert_eq!(state.next_version(0, 100), 101);
    assert_eq!(state.next_version(200, 100), 201);
    assert_eq!(state.next_version(0, 50), 202);
}

#[test]
fn homes_that_were_left_are_told_later_and_later_and_not_for_ever() {
    let mut state = State::new("test");
    let home = |number| HomeAddress { home: id(number), addresses: Vec::new() };
    state.leave(home(1), None, 1000);
    assert_eq!(state.untold(1000), [home(1)]);
    state.told(id(1), false, 1000);
    assert!(state.untold(1000 + PAUSE.0 - 1).is_empty());
    assert_eq!(state.untold(1000 + PAUSE.0), [home(1)]);
    state.told(id(1), false, 11_000);
    assert!(state.untold(20_999).is_empty());
    assert_eq!(state.untold(21_000), [home(1)]);
    assert!(state.untold(1001 + LEAVING_TIME).is_empty());
    assert!(state.leaving.is_empty());
    (0..20).for_each(|number| state.leave(home(number), None, 1));
    assert_eq!(state.leaving.len(), MAX_LEAVING);
}
