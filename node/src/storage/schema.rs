//! Encodings of the records, format 3. Numbers in values are little-endian.

use bitcoin::block::Header;
use bitcoin::consensus::encode::{Decodable, Encodable, serialize};
use bitcoin::hashes::{Hash, sha256};
use bitcoin::{OutPoint, TxOut};
use iop_consensus::address::{Address, AddressKind};
use iop_consensus::coins::Coin;
use iop_consensus::license::registry::{Globals, LicenseRecord, RegistryUndo};
use iop_consensus::params::Params;

/// The stored record of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexRecord {
    /// The header.
    pub header: Header,
    /// Its height.
    pub height: u32,
    /// Number of transactions in its block; 0 while only the header is known.
    pub tx_count: u32,
    /// Its block was connected once, so its scripts passed.
    pub connected_once: bool,
    /// Its block breaks a rule.
    pub failed: bool,
    /// One of its ancestors breaks a rule.
    pub failed_ancestor: bool,
    /// Its block was stored and has been pruned.
    pub pruned: bool,
    /// Size of its block as stored, bytes; 0 while only the header is known.
    pub bytes: u32,
    /// Its position, from 1 on, in the order in which blocks were stored with all their ancestors; 0 before that,
    /// and in records of format 2.
    pub arrival: u32,
}

impl IndexRecord {
    /// The record of a header whose block is not stored.
    pub fn of_header(header: Header, height: u32) -> Self {
        Self {
            header,
            height,
            tx_count: 0,
            connected_once: false,
            failed: false,
            failed_ancestor: false,
            pruned: false,
            bytes: 0,
            arrival: 0,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = serialize(&self.header);
        bytes.extend_from_slice(&self.height.to_le_bytes());
        bytes.extend_from_slice(&self.tx_count.to_le_bytes());
        let flags = [self.connected_once, self.failed, self.failed_ancestor, self.pruned];
        bytes.push(flags.iter().rev().fold(0, |byte, &flag| byte << 1 | u8::from(flag)));
        bytes.extend_from_slice(&self.bytes.to_le_bytes());
        bytes.extend_from_slice(&self.arrival.to_le_bytes());
        bytes
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let header = Header::consensus_decode(&mut bytes).ok()?;
        let height = u32::from_le_bytes(take(&mut bytes)?);
        let tx_count = u32::from_le_bytes(take(&mut bytes)?);
        let [flags] = take(&mut bytes)?;
        let stored = u32::from_le_bytes(take(&mut bytes)?);
        let arrival = if bytes.is_empty() { 0 } else { u32::from_le_bytes(take(&mut bytes)?) };
        bytes.is_empty().then_some(Self {
            header,
            height,
            tx_count,
            connected_once: flags & 1 != 0,
            failed: flags & 2 != 0,
            failed_ancestor: flags & 4 != 0,
            pruned: flags & 8 != 0,
            bytes: stored,
            arrival,
        })
    }
}

/// The undo data of a connected block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockUndo {
    /// The coins it spent, in order of transactions and inputs.
    pub spent: Vec<Coin>,
    /// The registry's previous values.
    pub registry: RegistryUndo,
}

impl BlockUndo {
    /// The stored form.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = encode_globals(&self.registry.globals);
        bytes.extend_from_slice(&(self.registry.licenses.len() as u32).to_le_bytes());
        for (address, record) in &self.registry.licenses {
            bytes.extend_from_slice(&encode_address(address));
            bytes.push(u8::from(record.is_some()));
            bytes.extend_from_slice(&encode_license(&record.unwrap_or_default()));
        }
        for coin in &self.spent {
            bytes.extend_from_slice(&encode_coin(coin));
        }
        bytes
    }

    pub(super) fn decode(mut bytes: &[u8]) -> Option<Self> {
        let globals = decode_globals(&take::<GLOBALS_LEN>(&mut bytes)?)?;
        let count = u32::from_le_bytes(take(&mut bytes)?);
        let mut licenses = std::collections::BTreeMap::new();
        for _ in 0..count {
            let address = decode_address(&take::<ADDRESS_LEN>(&mut bytes)?)?;
            let [known] = take(&mut bytes)?;
            let record = decode_license(&take::<LICENSE_LEN>(&mut bytes)?)?;
            licenses.insert(address, (known != 0).then_some(record));
        }
        let mut spent = Vec::new();
        while !bytes.is_empty() {
            spent.push(take_coin(&mut bytes)?);
        }
        Some(Self { spent, registry: RegistryUndo { globals, licenses } })
    }
}

const ADDRESS_LEN: usize = 21;
const LICENSE_LEN: usize = 13;
const GLOBALS_LEN: usize = 17;

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk::<N>()?;
    *bytes = rest;
    Some(*taken)
}

/// The key of a coin: transaction id, then the output index big-endian.
pub(super) fn encode_outpoint(outpoint: &OutPoint) -> [u8; 36] {
    let mut key = [0; 36];
    key[..32].copy_from_slice(outpoint.txid.as_ref());
    key[32..].copy_from_slice(&outpoint.vout.to_be_bytes());
    key
}

pub(super) fn decode_outpoint(mut bytes: &[u8]) -> Option<OutPoint> {
    let txid = bitcoin::Txid::from_byte_array(take(&mut bytes)?);
    let vout = u32::from_be_bytes(take(&mut bytes)?);
    bytes.is_empty().then_some(OutPoint { txid, vout })
}

/// The value of a coin: height times two plus the coinbase bit, then the output.
pub(super) fn encode_coin(coin: &Coin) -> Vec<u8> {
    let mut bytes = (coin.height << 1 | u32::from(coin.coinbase)).to_le_bytes().to_vec();
    coin.output.consensus_encode(&mut bytes).expect("a vector takes every byte");
    bytes
}

pub(super) fn decode_coin(mut bytes: &[u8]) -> Option<Coin> {
    take_coin(&mut bytes).filter(|_| bytes.is_empty())
}

fn take_coin(bytes: &mut &[u8]) -> Option<Coin> {
    let code = u32::from_le_bytes(take(bytes)?);
    let output = TxOut::consensus_decode(bytes).ok()?;
    Some(Coin { output, height: code >> 1, coinbase: code & 1 != 0 })
}

pub(super) fn encode_address(address: &Address) -> [u8; ADDRESS_LEN] {
    let mut bytes = [0; ADDRESS_LEN];
    bytes[0] = match address.kind {
        AddressKind::PubkeyHash => 0,
        AddressKind::ScriptHash => 1,
    };
    bytes[1..].copy_from_slice(&address.hash);
    bytes
}

pub(super) fn decode_address(bytes: &[u8]) -> Option<Address> {
    let (&kind, hash) = bytes.split_first()?;
    let kind = match kind {
        0 => AddressKind::PubkeyHash,
        1 => AddressKind::ScriptHash,
        _ => return None,
    };
    Some(Address { kind, hash: hash.try_into().ok()? })
}

pub(super) fn encode_license(record: &LicenseRecord) -> Vec<u8> {
    let mut bytes = vec![u8::from(record.whitelisted)];
    for number in [record.window_blocks, record.total_blocks, record.last_block] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes
}

pub(super) fn decode_license(mut bytes: &[u8]) -> Option<LicenseRecord> {
    let [whitelisted] = take(&mut bytes)?;
    let [window_blocks, total_blocks, last_block] = take_numbers(&mut bytes)?;
    bytes.is_empty().then_some(LicenseRecord {
        whitelisted: whitelisted != 0,
        window_blocks,
        total_blocks,
        last_block,
    })
}

pub(super) fn encode_globals(globals: &Globals) -> Vec<u8> {
    let mut bytes = vec![u8::from(globals.cap_enabled)];
    for number in [globals.height, globals.counted_height, globals.factor, globals.whitelisted] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    bytes
}

pub(super) fn decode_globals(mut bytes: &[u8]) -> Option<Globals> {
    let [cap_enabled] = take(&mut bytes)?;
    let [height, counted_height, factor, whitelisted] = take_numbers(&mut bytes)?;
    bytes.is_empty().then_some(Globals {
        height,
        counted_height,
        cap_enabled: cap_enabled != 0,
        factor,
        whitelisted,
    })
}

fn take_numbers<const N: usize>(bytes: &mut &[u8]) -> Option<[u32; N]> {
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = u32::from_le_bytes(take(bytes)?);
    }
    Some(numbers)
}

/// What stands in a network's identity before the digest of its rules.
pub(super) const RULES: &str = ", rules ";

/// A network's name, its genesis and a digest of everything that decides which blocks are valid: a database written
/// under other rules must not be continued. Every rule parameter is listed here by value, so that the digest
/// survives changes of our own types; a new parameter is included only if it differs from its default.
pub(super) fn network_identity(params: &Params) -> String {
    let (pow, votes, license) = (&params.pow, &params.deployments, &params.license);
    let addresses = |list: &[Address]| -> Vec<String> {
        list.iter().map(|address| address.to_base58(&params.prefixes)).collect()
    };
    let rules = [
        format!(
            "pow {} {} {}",
            hex::encode(pow.limit.to_be_bytes()),
            pow.target_spacing,
            pow.target_timespan
        ),
        format!("retarget {} {}", pow.min_difficulty_blocks, pow.no_retarget),
        format!("halving {}", params.halving_interval),
        format!("votes {} {}", votes.window, votes.threshold),
        votes.named().map(|(name, d)| format!("{name} {} {} {}", d.bit, d.start_time, d.timeout)).join(" "),
        format!("heights {} {}", license.activation_height, license.cap_change_height),
        format!("admin keys {}", license.admin_pubkeys.iter().map(hex::encode).collect::<Vec<_>>().join(" ")),
        format!("admins {}", addresses(&license.admin_addresses).join(" ")),
        format!("licenses {}", addresses(&license.initial_licenses).join(" ")),
        format!("cap {}", license.initial_cap_factor.map_or("off".to_owned(), |factor| factor.to_string())),
    ];
    // The rest, checkpoints and the public chains' history, is implied by a built-in name and its genesis.
    let digest = sha256::Hash::hash(rules.join("\n").as_bytes()).to_string();
    format!("{}, genesis {}{RULES}{}", params.name, params.genesis.block().block_hash(), &digest[..8])
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitcoin::consensus::encode::deserialize;
    use bitcoin::{Amount, ScriptBuf};

    #[test]
    fn records_read_back_as_written_and_not_when_cut() {
        let coin = Coin {
            output: TxOut { value: Amount::from_sat(5), script_pubkey: ScriptBuf::from_bytes(vec![1, 2, 3]) },
            height: 70_000,
            coinbase: true,
        };
        let address = Address { kind: AddressKind::ScriptHash, hash: [7; 20] };
        let record = LicenseRecord { whitelisted: true, window_blocks: 1, total_blocks: 2, last_block: 3 };
        let globals = Globals { height: 9, counted_height: 8, cap_enabled: true, factor: 7, whitelisted: 6 };
        let undo = BlockUndo {
            spent: vec![coin.clone(), coin.clone()],
            registry: RegistryUndo {
                globals,
                licenses: [(address, Some(record)), (Address { hash: [8; 20], ..address }, None)].into(),
            },
        };
        let bytes = undo.encode();
        assert_eq!(BlockUndo::decode(&bytes), Some(undo));
        assert_eq!(BlockUndo::decode(&bytes[..bytes.len() - 1]), None);
        let bytes = encode_coin(&coin);
        assert_eq!(decode_coin(&bytes), Some(coin));
        assert_eq!(decode_coin(&bytes[1..]), None);
        let record = IndexRecord {
            header: Params::main().genesis.block().header,
            height: 3,
            tx_count: 4,
            connected_once: true,
            failed: false,
            failed_ancestor: true,
            pruned: false,
            bytes: 300,
            arrival: 7,
        };
        assert_eq!(IndexRecord::decode(&record.encode()), Some(record));
        let of_format_2 = &record.encode()[..93];
        assert_eq!(IndexRecord::decode(of_format_2), Some(IndexRecord { arrival: 0, ..record }));
        assert_eq!(IndexRecord::decode(&record.encode()[..95]), None);
        assert_eq!(deserialize::<Header>(&record.encode()[..80]).ok(), Some(record.header));
    }

    #[test]
    fn a_network_with_another_cap_rule_is_another_network() {
        let regtest = Params::regtest();
        let mut other = regtest.clone();
        other.license.cap_change_height += 1;
        assert_ne!(network_identity(&regtest), network_identity(&other));
        // Existing databases must stay readable, so these texts must never change.
        assert!(
            network_identity(&Params::main()).ends_with("rules 428e15d2"),
            "{}",
            network_identity(&Params::main())
        );
        assert!(
            network_identity(&Params::devnet()).ends_with("rules c4c4e49f"),
            "{}",
            network_identity(&Params::devnet())
        );
    }
}
