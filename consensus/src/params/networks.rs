//! The built-in networks (`chainparams.cpp`), and `devnet`, which is ours.

use bitcoin::hashes::{Hash, sha256};
use bitcoin::{BlockHash, Target};

use super::{Deployment, Deployments, History, LicenseParams, Params, PowParams};
use crate::address::{Address, Prefixes};
use crate::difficulty::target_from_compact;
use crate::genesis::GenesisParts;
use crate::license::key::LicenseKey;

const TWO_WEEKS: u32 = 14 * 24 * 60 * 60;
const TEN_MINUTES: u32 = 10 * 60;
/// Bitcoin's test deployment, as on the public networks: voting ended in 2008.
const TESTDUMMY: Deployment = Deployment { bit: 28, start_time: 1_199_145_601, timeout: 1_230_767_999 };
/// A timeout of 0 is always past: segwit is FAILED on the public networks.
const SEGWIT_NEVER: Deployment = Deployment { bit: 1, start_time: 0, timeout: 0 };
const MAIN_PREFIXES: Prefixes = Prefixes {
    pubkey_hash: 117,
    script_hash: 174,
    secret_key: 49,
    ext_public: [0x27, 0x80, 0x91, 0x5f],
    ext_secret: [0xae, 0x34, 0x16, 0xf6],
};
const TEST_PREFIXES: Prefixes = Prefixes {
    pubkey_hash: 130,
    script_hash: 49,
    secret_key: 76,
    ext_public: [0xbb, 0x8f, 0x48, 0x52],
    ext_secret: [0x2b, 0x7f, 0xa4, 0x2a],
};

/// The built-in networks whose prefixes answer yes, in words. Networks from files share those of their base.
pub(crate) fn networks_with(is_so: impl Fn(&Prefixes) -> bool) -> Option<&'static str> {
    [(MAIN_PREFIXES, "main"), (TEST_PREFIXES, "test, regtest and devnet")]
        .into_iter()
        .find(|(prefixes, _)| is_so(prefixes))
        .map(|(_, names)| names)
}

/// Which networks an address or a key is of, as an error says it: `found` with what its first byte is called,
/// and those of this network, which are `expected`.
pub(crate) fn of_other_network(found: Option<&str>, byte: &str, expected: &str, own: Option<&str>) -> String {
    let belongs = match found {
        Some(names) => format!("belongs to {names} ({byte})"),
        None => format!("belongs to no network that is known ({byte})"),
    };
    let like = own.map(|names| format!(", as those of {names}")).unwrap_or_default();
    format!("{belongs}; this network's {expected}{like}")
}

impl Params {
    /// The public main network.
    pub fn main() -> Self {
        let address = |text| known_address(text, &MAIN_PREFIXES);
        let third_admin = address("pGNcLNCavQLGXwXkVDwoHPCuQUBoXzJtPh");
        Self {
            name: "main".to_owned(),
            magic: [0xfd, 0xb0, 0xbb, 0xd3],
            p2p_port: 4877,
            rpc_port: 8337,
            prefixes: MAIN_PREFIXES,
            genesis: GenesisParts { time: 1_463_452_181, nonce: 1_875_087_468, bits: 0x1d00_ffff },
            pow: public_pow(false),
            halving_interval: 150_000,
            deployments: Deployments {
                window: 2016,
                threshold: 1916,
                testdummy: TESTDUMMY,
                csv: Deployment { bit: 0, start_time: 1_462_060_800, timeout: 1_493_596_800 },
                segwit: SEGWIT_NEVER,
            },
            license: LicenseParams {
                activation_height: 110,
                cap_change_height: 40_320,
                admin_pubkeys: vec![
                    known_bytes("03902b311c298f7d32eb2ccb71abde7afd39745f505e6e677cabc3964eea7960dc"),
                    known_bytes("02fbb99b84746c13489fa81ff8540fa76d496e26d34bebd1b0e81a0997e97ea952"),
                ],
                admin_addresses: vec![
                    address("pUSydiLr9kFjtL7VbtfMYXMz7GLV413coQ"),
                    address("pN4SiSeN1btEAoVCnVToKf9RSb5gKZgpU4"),
                ],
                initial_licenses: vec![third_admin],
                initial_cap_factor: None,
                history: History {
                    whitelisted_at: vec![
                        (616, address("pQAqAHfaJaCDQKedbgSXvDkJHhSsTmKGV9")),
                        (9_912, address("pDqhZSLQGfz2JGq1MNdYpp5M2QLjdujeAF")),
                    ],
                    exempt_below: Some((third_admin, 38_304)),
                    one_license_fewer_below: 34_342,
                    too_fast_above: Some(122_976),
                },
            },
            checkpoints: vec![
                (20_000, known_hash("000000000205ce279aed9220fbac67f6f7a863f898f98ef0cdeae863e2d19bc1")),
                (47_654, known_hash("00000000118494c6822e81f33ef08f074991a76fbae32425482a6bfecc26ec0a")),
                (138_799, known_hash("0000000000004027a23648bad8c0316fd0568a3681203f091122f4ce668fde89")),
            ],
            minimum_chain_work: known_bytes(
                "000000000000000000000000000000000000000000000000000e20799b006d2c",
            )
            .try_into()
            .expect("the constant has 32 bytes"),
            assume_valid: Some(known_hash(
                "0000000002733bb68bb8e61e375f18cb071500d9be729051b0203a4371b3962a",
            )),
            mine_on_demand: false,
            require_standard: true,
            dns_seeds: std::iter::once("mainnet.iop.cash".to_owned())
                .chain((1..=6).map(|n| format!("main{n}.iop.cash")))
                .collect(),
        }
    }

    /// The public test network.
    pub fn test() -> Self {
        let address = |text| known_address(text, &TEST_PREFIXES);
        Self {
            name: "test".to_owned(),
            magic: [0xb1, 0xfc, 0x50, 0xb3],
            p2p_port: 7475,
            rpc_port: 14_337,
            prefixes: TEST_PREFIXES,
            genesis: GenesisParts { time: 1_463_452_342, nonce: 3_335_213_172, bits: 0x1d00_ffff },
            pow: public_pow(true),
            halving_interval: 100_000,
            deployments: Deployments {
                window: 2016,
                threshold: 1512,
                testdummy: TESTDUMMY,
                csv: Deployment { bit: 0, start_time: 1_456_790_400, timeout: 1_493_596_800 },
                segwit: SEGWIT_NEVER,
            },
            license: LicenseParams {
                activation_height: 110,
                cap_change_height: 7_800,
                admin_pubkeys: vec![known_bytes(
                    "03f331bdfe024cf106fa1dcedb8b78e084480fa665d91c50b61822d7830c9ea840",
                )],
                admin_addresses: vec![address("uh2SKjE6R1uw3b5smZ8i1G8rDoQv458Lsj")],
                initial_licenses: vec![],
                initial_cap_factor: None,
                history: History {
                    whitelisted_at: vec![
                        (750, address("uQNQ5CUnrH57Mr9FRGZPk99pK9whnKJdjH")),
                        (1_861, address("uey4mzGT2Cb1fgm9XAoFFvDzV3Wx1LEqJR")),
                    ],
                    ..History::default()
                },
            },
            checkpoints: vec![
                (7_800, known_hash("000000008c8074841b9ed5c62d61a84f659f19f716b56f774a3d9a28fec693a4")),
                (87_782, known_hash("00000000044a06ffdf9263e492f8df6a32589cfa7e8b5968b9bd637ed09181d2")),
            ],
            minimum_chain_work: [0; 32],
            assume_valid: None,
            mine_on_demand: false,
            require_standard: false,
            dns_seeds: ["testnet", "test1", "test2"].map(|host| format!("{host}.iop.cash")).to_vec(),
        }
    }

    /// The private network used by the reference's tests.
    pub fn regtest() -> Self {
        let always = |bit| Deployment { bit, start_time: 0, timeout: 999_999_999_999 };
        Self {
            name: "regtest".to_owned(),
            magic: [0x35, 0xb2, 0xcc, 0x9e],
            p2p_port: 14_877,
            rpc_port: 18_337,
            prefixes: TEST_PREFIXES,
            genesis: GenesisParts { time: 1_463_452_384, nonce: 2_528_424_328, bits: 0x207f_ffff },
            pow: PowParams {
                limit: Target::from_be_bytes({
                    let mut limit = [0xff; 32];
                    limit[0] = 0x7f;
                    limit
                }),
                target_spacing: TEN_MINUTES,
                target_timespan: TWO_WEEKS,
                min_difficulty_blocks: true,
                no_retarget: true,
            },
            halving_interval: 150,
            deployments: Deployments {
                window: 144,
                threshold: 108,
                testdummy: always(28),
                csv: always(0),
                segwit: always(1),
            },
            license: LicenseParams {
                activation_height: 5_000,
                cap_change_height: 5_200,
                admin_pubkeys: vec![known_bytes(
                    "03760087582c5e225aea2a6781f4df8b12d7124e4f039fbd3e6d053fdcaacc60eb",
                )],
                admin_addresses: vec![known_address("ucNbB1K3BaHWY5tXrWiyWn11QB51vPDuVE", &TEST_PREFIXES)],
                initial_licenses: vec![],
                initial_cap_factor: None,
                history: History::default(),
            },
            checkpoints: vec![],
            minimum_chain_work: [0; 32],
            assume_valid: None,
            mine_on_demand: true,
            require_standard: false,
            dns_seeds: vec![],
        }
    }

    /// A private licensed chain for experiments: every block is licensed, three licenses are whitelisted from the
    /// start, the cap is on, and a block takes about 2^25 hashes, some seconds on one core.
    pub fn devnet() -> Self {
        let [admin, licenses @ ..] = devnet_keys().map(|(_, key)| key);
        let bits = 0x1d7f_ffff;
        let limit = target_from_compact(bitcoin::CompactTarget::from_consensus(bits))
            .expect("the constant is a valid compact target");
        let regtest = Self::regtest();
        Self {
            name: "devnet".to_owned(),
            magic: [0xde, 0xb2, 0xcc, 0x9e],
            p2p_port: 15_877,
            rpc_port: 19_337,
            genesis: GenesisParts { time: 1_790_000_000, nonce: DEVNET_GENESIS_NONCE, bits },
            pow: PowParams {
                limit,
                target_spacing: 5,
                target_timespan: 5 * 2016,
                min_difficulty_blocks: false,
                no_retarget: true,
            },
            halving_interval: 150_000,
            license: LicenseParams {
                activation_height: 0,
                cap_change_height: 0,
                admin_pubkeys: vec![admin.pubkey().to_vec()],
                admin_addresses: vec![admin.address()],
                initial_licenses: licenses.iter().map(LicenseKey::address).collect(),
                // Cap 1,008: three licenses fill a window of 2,016, so none waits forever for the others.
                initial_cap_factor: Some(2),
                history: History::default(),
            },
            ..regtest
        }
    }
}

/// Found by counting up from 0 until the genesis header met its bits.
const DEVNET_GENESIS_NONCE: u32 = 14_212_349;

/// The admin and license keys of devnet, with the names of their files. They are public: each is the SHA-256 of
/// `IoP devnet NAME`.
pub fn devnet_keys() -> [(&'static str, LicenseKey); 4] {
    ["admin", "license-1", "license-2", "license-3"].map(|name| {
        let secret = sha256::Hash::hash(format!("IoP devnet {name}").as_bytes()).to_byte_array();
        (
            name,
            LicenseKey::from_secret(&secret, true).expect("these four digests are below the curve's order"),
        )
    })
}

fn public_pow(min_difficulty_blocks: bool) -> PowParams {
    let mut limit = [0xff; 32];
    limit[..4].fill(0);
    PowParams {
        limit: Target::from_be_bytes(limit),
        target_spacing: TEN_MINUTES,
        target_timespan: TWO_WEEKS,
        min_difficulty_blocks,
        no_retarget: false,
    }
}

fn known_address(text: &str, prefixes: &Prefixes) -> Address {
    Address::parse(text, prefixes).expect("the constant is an address of its network")
}

fn known_hash(text: &str) -> BlockHash {
    text.parse().expect("the constant is a block hash")
}

fn known_bytes(text: &str) -> Vec<u8> {
    hex::decode(text).expect("the constant is hex")
}
