//! The address table's file, `peers.dat`, in our own format.
//!
//! Lives here: reading, writing, the checksum. Does not live here: when it is written. The whole file is written
//! under another name and then renamed, so that a power failure leaves the old file or the new one. Integers are
//! little-endian; beyond the checksum the content is not trusted.
//!
//! `"IOPPEERS"`, version 4 bytes, network magic 4, key 16, count 4; for each address: ip 16, port 2, services 8,
//! time 8, source 16, last success 8, failures 4, number of new buckets 1 (0 for a tried address), each bucket 2;
//! then the SHA256d of all before it, 32. A full table has 5.3 MB.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bitcoin::hashes::{Hash, sha256d};
use thiserror::Error;

use super::buckets::{NEW_BUCKETS, Placement};
use super::ip::{Ip, NetAddress};
use super::table::{AddressTable, MAX_ADDRESSES, Restored};

/// The first bytes of the file.
const BEGIN: &[u8; 8] = b"IOPPEERS";
/// The format. 1: the first.
const VERSION: u32 = 1;
/// Bytes before the addresses.
const HEAD: usize = 8 + 4 + 4 + 16 + 4;
/// Minimum bytes of an address record.
const RECORD: usize = 16 + 2 + 8 + 8 + 16 + 8 + 4 + 1;
/// Bytes of the checksum.
const CHECKSUM: usize = 32;
/// The largest file that is read: a full table, each slot of the new buckets listed once.
const MAX_BYTES: usize = HEAD + MAX_ADDRESSES * (RECORD + 2) + CHECKSUM;

/// Why a file gives no table.
#[derive(Debug, Error)]
pub enum PeersFileError {
    /// The file cannot be read.
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    /// It does not begin as a peers file.
    #[error("is not a file of peers")]
    Begin,
    /// It has another format.
    #[error("has format {0}, {VERSION} expected")]
    Version(u32),
    /// It belongs to another network.
    #[error("is of a network with magic {found}, {expected} expected")]
    Network {
        /// The file's magic in hex.
        found: String,
        /// Ours in hex.
        expected: String,
    },
    /// It is truncated, too long, or altered.
    #[error("is damaged: its checksum does not fit")]
    Checksum,
    /// The checksum matches, but the content is inconsistent.
    #[error("is damaged: its content does not end where its checksum begins")]
    Content,
}

/// Reads the table from a file. A missing or unusable file gives an empty table, the latter with the reason: one
/// line without the file's name. `seed` is as for [`AddressTable::new`].
pub fn open(path: &Path, magic: [u8; 4], seed: [u8; 32]) -> (AddressTable, Option<PeersFileError>) {
    match read(path).and_then(|bytes| decode(&bytes, magic, seed)) {
        Ok(table) => (table, None),
        Err(PeersFileError::Io(error)) if error.kind() == io::ErrorKind::NotFound => {
            (AddressTable::new(seed), None)
        }
        Err(error) => (AddressTable::new(seed), Some(error)),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, PeersFileError> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_BYTES { Err(PeersFileError::Checksum) } else { Ok(bytes) }
}

/// Writes a table's [`encode`]d form atomically. Blocks until it is on disk.
///
/// # Errors
/// The operating system's error.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("dat.new");
    // The key is a secret.
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// Encodes a table.
pub fn encode(table: &AddressTable, magic: [u8; 4]) -> Vec<u8> {
    let mut entries = table.entries_with_buckets();
    entries.sort_unstable_by_key(|(entry, _)| entry.address);
    let mut out = Vec::with_capacity(HEAD + entries.len() * (RECORD + 2) + CHECKSUM);
    out.extend_from_slice(BEGIN);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&magic);
    out.extend_from_slice(&table.placement.0);
    out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    for (entry, buckets) in entries {
        out.extend_from_slice(&entry.address.ip.0);
        out.extend_from_slice(&entry.address.port.to_le_bytes());
        out.extend_from_slice(&entry.services.to_le_bytes());
        out.extend_from_slice(&entry.time.to_le_bytes());
        out.extend_from_slice(&entry.source.0);
        out.extend_from_slice(&entry.last_success.to_le_bytes());
        out.extend_from_slice(&entry.failures.to_le_bytes());
        out.push(buckets.len() as u8);
        buckets.iter().for_each(|bucket| out.extend_from_slice(&bucket.to_le_bytes()));
    }
    let checksum = sha256d::Hash::hash(&out).to_byte_array();
    out.extend_from_slice(&checksum);
    out
}

/// Decodes a table.
///
/// # Errors
/// When the bytes are not a complete, unaltered file of this format and network.
pub fn decode(bytes: &[u8], magic: [u8; 4], seed: [u8; 32]) -> Result<AddressTable, PeersFileError> {
    let mut rest = bytes;
    if rest.split_off(..BEGIN.len()) != Some(BEGIN) {
        return Err(PeersFileError::Begin);
    }
    let version = take(&mut rest).map(u32::from_le_bytes).ok_or(PeersFileError::Checksum)?;
    if version != VERSION {
        return Err(PeersFileError::Version(version));
    }
    let (content, checksum) = bytes.split_last_chunk::<CHECKSUM>().ok_or(PeersFileError::Checksum)?;
    if sha256d::Hash::hash(content).as_byte_array() != checksum {
        return Err(PeersFileError::Checksum);
    }
    let found: [u8; 4] = take(&mut rest).ok_or(PeersFileError::Content)?;
    if found != magic {
        let (found, expected) = (hex::encode(found), hex::encode(magic));
        return Err(PeersFileError::Network { found, expected });
    }
    let mut rest = content.get(BEGIN.len() + 8..).ok_or(PeersFileError::Content)?;
    decode_addresses(&mut rest, seed).filter(|_| rest.is_empty()).ok_or(PeersFileError::Content)
}

fn decode_addresses(rest: &mut &[u8], seed: [u8; 32]) -> Option<AddressTable> {
    let mut table = AddressTable::new(seed);
    table.placement = Placement(take(rest)?);
    let count = u32::from_le_bytes(take(rest)?);
    for _ in 0..count {
        let ip = Ip(take(rest)?);
        let address = NetAddress { ip, port: u16::from_le_bytes(take(rest)?) };
        let services = u64::from_le_bytes(take(rest)?);
        let time = u64::from_le_bytes(take(rest)?);
        let source = Ip(take(rest)?);
        let last_success = u64::from_le_bytes(take(rest)?);
        let failures = u32::from_le_bytes(take(rest)?);
        let [buckets] = take(rest)?;
        let buckets = (0..buckets).map(|_| take(rest).map(u16::from_le_bytes)).collect::<Option<Vec<_>>>()?;
        if buckets.iter().any(|bucket| usize::from(*bucket) >= NEW_BUCKETS) {
            return None;
        }
        // An address whose slots are taken, which happens only in a crafted file, is left out.
        table.restore(Restored { address, source, services, time, last_success, failures }, &buckets);
    }
    Some(table)
}

fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, others) = rest.split_first_chunk::<N>()?;
    *rest = others;
    Some(*first)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::p2p::addresses::ip::TimedAddress;
    use proptest::prelude::*;

    const MAGIC: [u8; 4] = [1, 2, 3, 4];
    const NOW: u64 = 1_600_000_000;

    fn heard(n: u32) -> TimedAddress {
        let ip = std::net::Ipv4Addr::from(0x1000_0000 + n * 65_537);
        let address = std::net::SocketAddr::from((ip, 4877)).into();
        TimedAddress { address, services: 1, time: NOW - u64::from(n) }
    }

    fn table(count: u32) -> AddressTable {
        let mut table = AddressTable::new([7; 32]);
        for n in 0..count {
            table.add(&heard(n), heard(n / 8).address.ip, 0, NOW);
            table.add(&TimedAddress { time: NOW, ..heard(n) }, heard(n / 5 + 1_000).address.ip, 0, NOW);
            if n % 3 == 0 {
                table.good(&heard(n).address, NOW);
            }
            if n % 5 == 0 {
                table.attempt(&heard(n).address, true, NOW);
            }
        }
        table
    }

    #[test]
    fn a_table_comes_back_with_its_buckets_and_its_key() {
        let before = table(2_000);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.dat");
        for _ in 0..2 {
            write(&path, &encode(&before, MAGIC)).unwrap();
        }
        let (after, reason) = open(&path, MAGIC, [9; 32]);
        assert!(reason.is_none(), "{reason:?}");
        assert!(before.len() > 1_700 && before.tried() > 500);
        assert_eq!((after.len(), after.tried()), (before.len(), before.tried()));
        assert_eq!(encode(&after, MAGIC), encode(&before, MAGIC));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_file_that_is_of_no_use_is_named_and_a_new_table_begun() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("peers.dat");
        assert!(open(&path, MAGIC, [9; 32]).1.is_none(), "no file is no fault");
        let good = encode(&table(50), MAGIC);
        let mut flipped = good.clone();
        flipped[100] ^= 1;
        let mut other_version = good.clone();
        other_version[8] = 9;
        for (bytes, line) in [
            (b"something else, longer than the head of such a file".to_vec(), "is not a file of peers"),
            (vec![], "is not a file of peers"),
            (flipped, "is damaged: its checksum does not fit"),
            (good[..good.len() - 1].to_vec(), "is damaged: its checksum does not fit"),
            (other_version, "has format 9, 1 expected"),
            (encode(&table(50), [9; 4]), "is of a network with magic 09090909, 01020304 expected"),
            (vec![0; MAX_BYTES + 1], "is damaged: its checksum does not fit"),
        ] {
            fs::write(&path, bytes).unwrap();
            let (table, reason) = open(&path, MAGIC, [9; 32]);
            assert_eq!((table.len(), reason.unwrap().to_string().as_str()), (0, line));
        }
        let (_, reason) = open(folder.path(), MAGIC, [9; 32]);
        assert!(reason.unwrap().to_string().starts_with("cannot be read: "));
    }

    /// Adds a valid head and checksum.
    fn sealed(content: &[u8]) -> Vec<u8> {
        let mut bytes = [&BEGIN[..], &VERSION.to_le_bytes(), &MAGIC, content].concat();
        bytes.extend(sha256d::Hash::hash(&bytes).to_byte_array());
        bytes
    }

    proptest! {
        #[test]
        fn any_content_gives_a_sound_table_or_a_reason(
            mut content in prop::collection::vec(any::<u8>(), 0..600),
            count in 0..6u32,
        ) {
            if content.len() >= 20 {
                content[16..20].copy_from_slice(&count.to_le_bytes());
            }
            if let Ok(table) = decode(&sealed(&content), MAGIC, [9; 32]) {
                table.check();
            }
        }

        #[test]
        fn an_altered_file_is_noticed(at in 0..2_000usize, bit in 0..8u8) {
            let mut bytes = encode(&table(60), MAGIC);
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            prop_assert!(decode(&bytes, MAGIC, [9; 32]).is_err());
        }
    }
}
