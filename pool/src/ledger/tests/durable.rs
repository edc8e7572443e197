//! A database that has lost data once on disk is not used.

use std::path::PathBuf;

use super::super::durable::{Durable, Note};
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
    // Nothing of it is left.
    std::fs::write(&journal, b"").unwrap();
    let said = refusal(folder);
    assert!(said.contains("its beginning is lost"), "{said}");
    // An operator who wants to go on with what is left can.
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
    for damage in ["shares many", "shares 1 blocks 1 lost 5", "\0\0\0", "shares 1 blocks 1 found 5 ab"] {
        std::fs::write(folder.path().join("ledger.durable"), damage).unwrap();
        let said = refusal(folder.path());
        assert!(
            said.contains("the file is damaged") && said.contains("or remove it") && !said.contains('\0'),
            "{said}"
        );
    }
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
    assert_eq!(Note::read(folder).unwrap().least, Durable { shares: 151, blocks: 1 });
    let noted = Note { least: Durable { shares: 120, blocks: 1 }, off_disk: Vec::new() };
    noted.write(folder).unwrap();
    let journal = journal(folder);
    let length = journal.metadata().unwrap().len();
    std::fs::File::options().write(true).open(&journal).unwrap().set_len(length - length / 10).unwrap();
    Pool::open(folder, rules()).close();
    let report = audited(folder);
    assert!((120..151).contains(&report.shares) && report.is_clean(), "{report:?}");
}

/// As a disk without room has it: nothing is written elsewhere, nor more than before.
#[test]
fn a_note_has_one_length_and_an_earlier_versions_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("ledger.durable");
    let least = Durable { shares: 7, blocks: 3 };
    std::fs::write(&place, format!("shares {:020} blocks {:020}\n", 7, 3)).unwrap();
    assert_eq!(Note::read(folder.path()).unwrap(), Note { least, off_disk: Vec::new() });
    let block = |height: u32| BlockId { height, hash: BlockHash::hash(&height.to_le_bytes()) };
    for count in [0, 5, 1, 9, 0] {
        let note = Note { least, off_disk: (0..count).map(block).collect() };
        note.write(folder.path()).unwrap();
        assert_eq!(place.metadata().unwrap().len(), 512);
        let read = Note::read(folder.path()).unwrap();
        assert_eq!((read.least, &read.off_disk[..]), (least, &note.off_disk[..note.off_disk.len().min(5)]));
    }
}

/// Its folder is removed under a running pool.
#[tokio::test]
async fn a_pool_whose_folder_is_gone_says_so_and_ends() {
    let folder = tempfile::tempdir().unwrap();
    let mut pool = Pool::open(folder.path(), rules());
    std::fs::remove_dir_all(folder.path()).unwrap();
    pool.share(1, 1.0, 1, None);
    let mut writer = pool.writer.take().unwrap();
    let failed = tokio::time::timeout(Duration::from_secs(20), writer.failed()).await;
    assert_eq!(failed, Ok(()));
    let trouble = pool.ledger.log_state().trouble.unwrap();
    assert!(trouble.contains("ledger.durable") && trouble.contains("No such file"), "{trouble}");
    writer.close();
}
