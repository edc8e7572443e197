//! IoP addresses: Base58Check of a version byte and a HASH160.
//!
//! An [`Address`] is a kind and a hash. The network's prefixes matter only when an address is parsed or printed, so the
//! registry can use it as a key on any network. Witness programs have no address on this chain.

use std::fmt;

use bitcoin::base58;
use bitcoin::hashes::{Hash, hash160};
use bitcoin::opcodes::all::{OP_CHECKSIG, OP_DUP, OP_EQUAL, OP_EQUALVERIFY, OP_HASH160};
use bitcoin::{Script, ScriptBuf};

use crate::license::pubkey::has_valid_encoding;
use crate::params::networks::{networks_with, of_other_network};
use crate::script::{ScriptReader, is_p2sh, is_witness_program};

/// Version bytes of Base58Check texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefixes {
    /// P2PKH addresses, and so licenses.
    pub pubkey_hash: u8,
    /// P2SH addresses.
    pub script_hash: u8,
    /// Private keys (WIF).
    pub secret_key: u8,
    /// Extended public keys (BIP32).
    pub ext_public: [u8; 4],
    /// Extended private keys (BIP32).
    pub ext_secret: [u8; 4],
}

/// What the hash of an address was computed from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddressKind {
    /// HASH160 of a public key as it was given: each encoding of a key has its own address.
    PubkeyHash,
    /// HASH160 of a redeem script.
    ScriptHash,
}

/// An address without its network. A *license* is the P2PKH address of its public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// What kind of data was hashed.
    pub kind: AddressKind,
    /// The HASH160.
    pub hash: [u8; 20],
}

/// Why a text is not an address of the expected network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Invalid character, bad checksum or wrong length.
    #[error("'{0}' is not a valid address (Base58Check of 21 bytes expected)")]
    Malformed(String),
    /// The checksum is right, but the version byte belongs to another network.
    #[error("address '{text}' {}", whose(*found, *pubkey_hash, *script_hash))]
    OtherNetwork {
        /// The text as given.
        text: String,
        /// The version byte found.
        found: u8,
        /// The network's P2PKH version byte.
        pubkey_hash: u8,
        /// The network's P2SH version byte.
        script_hash: u8,
    },
}

fn whose(found: u8, pubkey_hash: u8, script_hash: u8) -> String {
    of_other_network(
        networks_with(|prefixes| [prefixes.pubkey_hash, prefixes.script_hash].contains(&found)),
        &format!("version byte {found}"),
        &format!("addresses have {pubkey_hash} or {script_hash}"),
        networks_with(|prefixes| (prefixes.pubkey_hash, prefixes.script_hash) == (pubkey_hash, script_hash)),
    )
}

impl Address {
    /// The license (P2PKH) address of a public key, hashed in the encoding given.
    pub fn of_pubkey(pubkey: &[u8]) -> Self {
        Self { kind: AddressKind::PubkeyHash, hash: hash160::Hash::hash(pubkey).to_byte_array() }
    }

    /// Parses an address of the network with these prefixes.
    pub fn parse(text: &str, prefixes: &Prefixes) -> Result<Self, AddressError> {
        // A Base58Check address has at most 35 characters; longer text is rejected without decoding it.
        let malformed = || AddressError::Malformed(text.chars().take(64).collect());
        if text.len() > 64 {
            return Err(malformed());
        }
        let bytes = base58::decode_check(text).map_err(|_| malformed())?;
        let (&version, hash) = bytes.split_first().ok_or_else(malformed)?;
        let hash: [u8; 20] = hash.try_into().map_err(|_| malformed())?;
        let kind = match version {
            v if v == prefixes.pubkey_hash => AddressKind::PubkeyHash,
            v if v == prefixes.script_hash => AddressKind::ScriptHash,
            found => {
                return Err(AddressError::OtherNetwork {
                    text: text.to_owned(),
                    found,
                    pubkey_hash: prefixes.pubkey_hash,
                    script_hash: prefixes.script_hash,
                });
            }
        };
        Ok(Self { kind, hash })
    }

    /// Encodes the address as Base58Check with these prefixes.
    pub fn to_base58(&self, prefixes: &Prefixes) -> String {
        let version = match self.kind {
            AddressKind::PubkeyHash => prefixes.pubkey_hash,
            AddressKind::ScriptHash => prefixes.script_hash,
        };
        let mut bytes = [0; 21];
        bytes[0] = version;
        bytes[1..].copy_from_slice(&self.hash);
        base58::encode_check(&bytes)
    }

    /// The output script that pays this address.
    pub fn script_pubkey(&self) -> ScriptBuf {
        let builder = bitcoin::script::Builder::new();
        match self.kind {
            AddressKind::PubkeyHash => builder
                .push_opcode(OP_DUP)
                .push_opcode(OP_HASH160)
                .push_slice(self.hash)
                .push_opcode(OP_EQUALVERIFY)
                .push_opcode(OP_CHECKSIG),
            AddressKind::ScriptHash => {
                builder.push_opcode(OP_HASH160).push_slice(self.hash).push_opcode(OP_EQUAL)
            }
        }
        .into_script()
    }

    /// The address that an output script pays, as the reference's `ExtractDestination` determines it: P2SH, P2PKH and
    /// P2PK, the latter two with any push opcode. Witness programs, multisig and data outputs have none.
    pub fn from_script(script: &Script) -> Option<Self> {
        let bytes = script.as_bytes();
        if is_p2sh(bytes) {
            let hash = bytes[2..22].try_into().expect("a P2SH script has 23 bytes");
            return Some(Self { kind: AddressKind::ScriptHash, hash });
        }
        if is_witness_program(bytes) || bytes.first() == Some(&bitcoin::opcodes::all::OP_RETURN.to_u8()) {
            return None;
        }
        pay_to_pubkey(bytes).or_else(|| pay_to_pubkey_hash(bytes))
    }
}

fn pay_to_pubkey(script: &[u8]) -> Option<Address> {
    let mut ops = ScriptReader::new(script);
    let key = ops.next_op().ok()?.data;
    expect_opcode(&mut ops, OP_CHECKSIG)?;
    (ops.at_end() && has_valid_encoding(key)).then(|| Address::of_pubkey(key))
}

fn pay_to_pubkey_hash(script: &[u8]) -> Option<Address> {
    let mut ops = ScriptReader::new(script);
    expect_opcode(&mut ops, OP_DUP)?;
    expect_opcode(&mut ops, OP_HASH160)?;
    let hash = ops.next_op().ok()?.data.try_into().ok()?;
    expect_opcode(&mut ops, OP_EQUALVERIFY)?;
    expect_opcode(&mut ops, OP_CHECKSIG)?;
    ops.at_end().then_some(Address { kind: AddressKind::PubkeyHash, hash })
}

fn expect_opcode(ops: &mut ScriptReader<'_>, opcode: bitcoin::Opcode) -> Option<()> {
    (ops.next_op().ok()?.opcode == opcode.to_u8()).then_some(())
}

impl fmt::Display for AddressKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PubkeyHash => "P2PKH",
            Self::ScriptHash => "P2SH",
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::params::Params;

    #[test]
    fn addresses_of_the_reference_read_back_as_written() {
        let main = Params::main();
        for text in ["pUSydiLr9kFjtL7VbtfMYXMz7GLV413coQ", "pGNcLNCavQLGXwXkVDwoHPCuQUBoXzJtPh"] {
            let address = Address::parse(text, &main.prefixes).unwrap();
            assert_eq!(address.kind, AddressKind::PubkeyHash);
            assert_eq!(address.to_base58(&main.prefixes), text);
            assert_eq!(Address::from_script(&address.script_pubkey()), Some(address));
        }
    }

    #[test]
    fn another_networks_address_is_named_as_such() {
        let error =
            Address::parse("uh2SKjE6R1uw3b5smZ8i1G8rDoQv458Lsj", &Params::main().prefixes).unwrap_err();
        assert!(matches!(error, AddressError::OtherNetwork { found: 130, .. }), "{error}");
        assert_eq!(
            error.to_string(),
            "address 'uh2SKjE6R1uw3b5smZ8i1G8rDoQv458Lsj' belongs to test, regtest and devnet (version byte 130); \
             this network's addresses have 117 or 174, as those of main"
        );
        let bitcoins = Address { kind: AddressKind::PubkeyHash, hash: [7; 20] }
            .to_base58(&Prefixes { pubkey_hash: 0, ..Params::main().prefixes });
        let error = Address::parse(&bitcoins, &Params::devnet().prefixes).unwrap_err().to_string();
        assert!(error.contains("belongs to no network that is known (version byte 0)"), "{error}");
        assert!(matches!(
            Address::parse(&"p".repeat(100_000), &Params::main().prefixes),
            Err(AddressError::Malformed(_))
        ));
    }

    #[test]
    fn every_built_in_network_is_found_by_its_prefixes() {
        for name in Params::NAMES {
            let own = Params::by_name(name).unwrap().prefixes;
            let names = networks_with(|prefixes| *prefixes == own).unwrap();
            assert!(names.split([',', ' ']).any(|found| found == name), "{name}: {names}");
        }
    }

    #[test]
    fn pushes_that_are_not_minimal_still_name_an_address() {
        let hash = [7; 20];
        let expected = Some(Address { kind: AddressKind::PubkeyHash, hash });
        for push in [&[0x14][..], &[0x4c, 0x14], &[0x4d, 0x14, 0], &[0x4e, 0x14, 0, 0, 0]] {
            let script = [&[0x76, 0xa9], push, &hash, &[0x88, 0xac]].concat();
            assert_eq!(Address::from_script(Script::from_bytes(&script)), expected);
        }
        let trailing = [&[0x76, 0xa9, 0x14][..], &hash, &[0x88, 0xac, 0x00]].concat();
        assert_eq!(Address::from_script(Script::from_bytes(&trailing)), None);
    }

    #[test]
    fn a_script_hash_is_an_address_and_a_witness_program_is_not() {
        let p2sh = Address { kind: AddressKind::ScriptHash, hash: [9; 20] };
        assert_eq!(Address::from_script(&p2sh.script_pubkey()), Some(p2sh));
        let p2wpkh = [&[0x00, 0x14][..], &[9; 20]].concat();
        assert_eq!(Address::from_script(Script::from_bytes(&p2wpkh)), None);
    }
}
