//! The mempool file, which survives restarts.

use bitcoin::hashes::sha256d;

use super::super::persist::{Kept, LoadError, load, save};
use super::*;

fn filled() -> World {
    let mut world = World::new();
    for number in 0..20 {
        let coin = world.coin(number);
        world.now = NOW + u64::from(number);
        let parent = world.tx(&[coin], 2, 1_000 + u64::from(number));
        world.must(&parent);
        let child = world.tx(&[output(&parent, 1)], 1, 9_000);
        world.must(&child);
    }
    world
}

#[test]
fn what_was_written_is_read_with_its_times_and_accepted_in_its_order() {
    let (folder, mut world) = (tempfile::tempdir().unwrap(), filled());
    let path = folder.path().join("mempool.dat");
    assert!(load(&path).unwrap().is_none());
    let waiting = world.pool.waiting();
    let own = vec![waiting[7].0.compute_txid(), waiting[3].0.compute_txid()];
    let kept = Kept { waiting, own };
    save(&path, &kept).unwrap();
    save(&path, &kept).unwrap();
    let read = load(&path).unwrap().unwrap();
    assert_eq!(read, kept);
    let mut again = World { coins: std::mem::take(&mut world.coins), ..World::new() };
    for (tx, time) in read.waiting {
        let outcome = again.run(|pool, tip| pool.accept_again(tx, time, tip).unwrap());
        assert!(outcome.is_ok(), "{outcome:?}");
    }
    assert_eq!(again.pool.waiting(), world.pool.waiting());
    let names: Vec<_> = folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["mempool.dat"], "nothing unfinished is left");
}

#[test]
fn a_damaged_file_is_told_from_a_good_one_wherever_the_damage_is() {
    let (folder, world) = (tempfile::tempdir().unwrap(), filled());
    let path = folder.path().join("mempool.dat");
    let waiting = world.pool.waiting()[..3].to_vec();
    let own = vec![waiting[0].0.compute_txid()];
    save(&path, &Kept { waiting, own }).unwrap();
    let good = std::fs::read(&path).unwrap();
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&path, &bad).unwrap();
        assert!(load(&path).is_err(), "byte {at}");
        std::fs::write(&path, &good[..at]).unwrap();
        assert!(load(&path).is_err(), "cut at {at}");
    }
    std::fs::write(&path, [&good[..], &[0]].concat()).unwrap();
    assert!(matches!(load(&path), Err(LoadError::Damaged(_))));
    let mut newer = good;
    newer[8] = 3;
    std::fs::write(&path, &newer).unwrap();
    assert_eq!(load(&path).unwrap_err().to_string(), "has version 3, this program reads 1 to 2");
}

#[test]
fn a_file_of_the_first_version_is_read() {
    let (folder, world) = (tempfile::tempdir().unwrap(), filled());
    let path = folder.path().join("mempool.dat");
    let kept = Kept { waiting: world.pool.waiting(), own: vec![] };
    save(&path, &kept).unwrap();
    let mut old = std::fs::read(&path).unwrap();
    // Without checksum and the count of ids.
    old.truncate(old.len() - 32 - 8);
    old[8] = 1;
    let checksum = sha256d::Hash::hash(&old);
    old.extend_from_slice(checksum.as_byte_array());
    std::fs::write(&path, &old).unwrap();
    assert_eq!(load(&path).unwrap(), Some(kept));
}
