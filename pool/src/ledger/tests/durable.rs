//! A database that has lost what the disk had is not gone on with.

use std::path::PathBuf;

use super::super::durable::Durable;
use super::*;

/// A ledger of 101 shares and a block.
fn filled() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut pool = Pool::open(folder.path(), rules());
    (0..100).for_each(|number| pool.share(number % 4, 1.0, 1, None));
    pool.block(None, 0, 1_000_000);
    pool.close();
    folder
}

fn journal(folder: &Path) -> PathBuf {
    let files = std::fs::read_dir(folder.join("ledger")).unwrap().map(|entry| entry.unwrap().path());
    let logs = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.max_by_key(|path| path.metadata().unwrap().len()).unwrap()
}

fn refusal(folder: &Path) -> String {
    let to_write = Ledger::open(folder, rules(), prefixes()).map(|_| ()).unwrap_err();
    assert_eq!(Store::open_to_read(folder).map(|_| ()).unwrap_err(), to_write);
    to_write.to_string()
}

#[test]
fn a_damaged_journal_is_refused_and_stays_as_it_is() {
    let folder = filled();
    let folder = folder.path();
    let journal = journal(folder);
    let whole = std::fs::read(&journal).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 5] ^= 1;
    std::fs::write(&journal, &damaged).unwrap();
    let said = refusal(folder);
    assert!(said.contains("and had 101 and 1 on the disk before") && !said.contains('\n'), "{said}");
    assert!(std::fs::read(&journal).unwrap() == damaged);
    std::fs::write(&journal, &whole).unwrap();
    let report = audited(folder);
    assert_eq!((report.shares, report.blocks, report.is_clean()), (101, 1, true), "{report:?}");
    // Nothing is left of it.
    std::fs::write(&journal, b"").unwrap();
    let said = refusal(folder);
    assert!(said.contains("its beginning is lost"), "{said}");
    // Who wants to go on with what is left can.
    std::fs::write(&journal, &damaged).unwrap();
    std::fs::remove_file(folder.join("ledger.durable")).unwrap();
    Pool::open(folder, rules()).close();
    assert!(audited(folder).shares < 101);
}

#[test]
fn a_ledger_that_is_gone_is_not_made_anew() {
    let folder = filled();
    std::fs::remove_dir_all(folder.path().join("ledger")).unwrap();
    let said = refusal(folder.path());
    assert!(said.contains("it has 0 shares and 0 blocks, and had 101 and 1"), "{said}");
    assert!(!folder.path().join("ledger").exists());
    std::fs::write(folder.path().join("ledger.durable"), "shares many").unwrap();
    assert!(refusal(folder.path()).contains("'shares N blocks N' expected"));
}

#[test]
fn what_is_no_file_in_its_place_is_named() {
    let folder = filled();
    let note = folder.path().join("ledger.durable");
    std::fs::remove_file(&note).unwrap();
    std::fs::create_dir(&note).unwrap();
    let said = Ledger::open(folder.path(), rules(), prefixes()).map(|_| ()).unwrap_err().to_string();
    assert!(said.contains("ledger.durable: "), "{said}");
}

#[test]
fn a_torn_end_that_the_disk_never_had_for_certain_is_no_damage() {
    let folder = filled();
    let folder = folder.path();
    let mut pool = Pool::open(folder, rules());
    (0..50).for_each(|number| {
        pool.share(number % 4, 1.0, 2, None);
        pool.wait();
    });
    pool.close();
    assert_eq!(Durable::read(folder).unwrap(), Durable { shares: 151, blocks: 1 });
    Durable { shares: 120, blocks: 1 }.note(folder).unwrap();
    let journal = journal(folder);
    let length = journal.metadata().unwrap().len();
    std::fs::File::options().write(true).open(&journal).unwrap().set_len(length - length / 10).unwrap();
    Pool::open(folder, rules()).close();
    let report = audited(folder);
    assert!((120..151).contains(&report.shares) && report.is_clean(), "{report:?}");
}
