//! Network files: a private chain as a base network and its differences, in TOML.
//!
//! Values are validated here, so that no rule meets an impossible network. The genesis block is the base's; if the
//! limit is overridden it has the bits of the new limit, so that chains with different limits never mix.

use bitcoin::Target;
use serde::Deserialize;

use super::{Deployment, MAX_RULE_BIT, Params, toml_error};
use crate::address::Address;
use crate::license::pubkey::has_valid_encoding;

/// Why a text is not a network file; one line that names the key and what was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NetworkFileError(String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NetworkFile {
    base: String,
    name: Option<String>,
    magic: Option<String>,
    p2p_port: Option<u16>,
    rpc_port: Option<u16>,
    license_activation_height: Option<u32>,
    cap_change_height: Option<u32>,
    admin_pubkeys: Option<Vec<String>>,
    admin_addresses: Option<Vec<String>>,
    initial_licenses: Option<Vec<String>>,
    initial_cap_factor: Option<u32>,
    halving_interval: Option<u32>,
    pow_limit: Option<String>,
    pow_target_spacing: Option<u32>,
    pow_target_timespan: Option<u32>,
    no_retarget: Option<bool>,
    min_difficulty_blocks: Option<bool>,
    require_standard: Option<bool>,
    dns_seeds: Option<Vec<String>>,
    deployments: Option<DeploymentsFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeploymentsFile {
    window: Option<u32>,
    threshold: Option<u32>,
    testdummy: Option<DeploymentFile>,
    csv: Option<DeploymentFile>,
    segwit: Option<DeploymentFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeploymentFile {
    bit: u8,
    start_time: i64,
    timeout: i64,
}

impl Params {
    /// Parses the text of a network file.
    ///
    /// # Errors
    /// [`NetworkFileError`], one line, for a key that is unknown or a value that is impossible.
    pub fn from_network_file(text: &str) -> Result<Self, NetworkFileError> {
        let file: NetworkFile =
            toml::from_str(text).map_err(|error| NetworkFileError(toml_error(text, &error)))?;
        let mut params = Self::by_name(&file.base).ok_or_else(|| {
            NetworkFileError(format!("base is '{}', one of {} expected", file.base, Self::NAMES.join(", ")))
        })?;
        params.name = network_name(file.name.clone())?;
        set(&mut params.p2p_port, file.p2p_port);
        set(&mut params.rpc_port, file.rpc_port);
        if let Some(text) = &file.magic {
            params.magic = fixed_hex("magic", text)?;
        }
        set(&mut params.halving_interval, file.halving_interval);
        set(&mut params.require_standard, file.require_standard);
        override_pow(&mut params, &file)?;
        override_license(&mut params, &file)?;
        if let Some(deployments) = file.deployments {
            override_deployments(&mut params, deployments)?;
        }
        if params.halving_interval < 2 {
            return Err(NetworkFileError("halving_interval must be at least 2 blocks".to_owned()));
        }
        // Data about the base chain, which does not apply to a private chain.
        params.checkpoints.clear();
        params.minimum_chain_work = [0; 32];
        params.assume_valid = None;
        params.dns_seeds = seeds(file.dns_seeds.unwrap_or_default())?;
        params.mine_on_demand = true;
        Ok(params)
    }
}

fn set<T>(target: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *target = value;
    }
}

/// The name is also that of a folder: letters, digits, '-' and '_', and not a built-in network's.
fn network_name(name: Option<String>) -> Result<String, NetworkFileError> {
    let name = name.unwrap_or_else(|| "custom".to_owned());
    let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if !plain || !(1..=32).contains(&name.len()) || Params::NAMES.contains(&name.as_str()) {
        return Err(NetworkFileError(format!(
            "name is '{name}', 1 to 32 letters, digits, '-' or '_' expected, and none of {}",
            Params::NAMES.join(", ")
        )));
    }
    Ok(name)
}

fn seeds(names: Vec<String>) -> Result<Vec<String>, NetworkFileError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let is_name = |name: &str| (1..=253).contains(&name.len()) && name.bytes().all(allowed);
    match names.iter().find(|name| !is_name(name)) {
        None => Ok(names),
        Some(name) => {
            Err(NetworkFileError(format!("dns_seeds has '{name}', a host name without a port expected")))
        }
    }
}

fn fixed_hex<const N: usize>(key: &str, text: &str) -> Result<[u8; N], NetworkFileError> {
    hex::decode(text)
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or_else(|| NetworkFileError(format!("{key} is '{text}', {} hex digits expected", 2 * N)))
}

fn override_pow(params: &mut Params, file: &NetworkFile) -> Result<(), NetworkFileError> {
    let pow = &mut params.pow;
    if let Some(text) = &file.pow_limit {
        let limit = Target::from_be_bytes(fixed_hex("pow_limit", text)?);
        if limit == Target::ZERO {
            return Err(NetworkFileError("pow_limit must be above zero".to_owned()));
        }
        pow.limit = limit;
        params.genesis.bits = limit.to_compact_lossy().to_consensus();
    }
    set(&mut pow.target_spacing, file.pow_target_spacing);
    set(&mut pow.target_timespan, file.pow_target_timespan);
    set(&mut pow.no_retarget, file.no_retarget);
    set(&mut pow.min_difficulty_blocks, file.min_difficulty_blocks);
    // A retarget looks back a whole interval, and clamps the time between a quarter of the timespan and four times it.
    if pow.target_spacing == 0 || pow.target_timespan < 4 || pow.target_timespan > u32::MAX / 4 {
        return Err(NetworkFileError(
            "pow_target_spacing must be at least 1 second, pow_target_timespan between 4 and 2^30".to_owned(),
        ));
    }
    // The product of old target and actual time is computed in 256 bits.
    let span_bits = u64::from(pow.target_timespan).ilog2() + 3;
    if !pow.no_retarget && leading_zero_bits(pow.limit) < span_bits {
        return Err(NetworkFileError(format!(
            "pow_limit times four pow_target_timespan exceeds 256 bits: {span_bits} leading zero bits expected in \
             pow_limit, or no_retarget"
        )));
    }
    if pow.retarget_interval() < 2 {
        return Err(NetworkFileError(
            "pow_target_timespan must be at least twice pow_target_spacing".to_owned(),
        ));
    }
    Ok(())
}

fn leading_zero_bits(target: Target) -> u32 {
    let bytes = target.to_be_bytes();
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    8 * zeros as u32 + bytes.get(zeros).map_or(0, |byte| byte.leading_zeros())
}

fn override_license(params: &mut Params, file: &NetworkFile) -> Result<(), NetworkFileError> {
    let prefixes = params.prefixes;
    let addresses = |key: &str, texts: &[String]| -> Result<Vec<Address>, NetworkFileError> {
        let parse = |text: &String| Address::parse(text, &prefixes);
        texts.iter().map(parse).collect::<Result<_, _>>().map_err(|e| NetworkFileError(format!("{key}: {e}")))
    };
    let license = &mut params.license;
    set(&mut license.activation_height, file.license_activation_height);
    set(&mut license.cap_change_height, file.cap_change_height);
    if let Some(texts) = &file.admin_pubkeys {
        license.admin_pubkeys = texts.iter().map(|text| pubkey(text)).collect::<Result<_, _>>()?;
    }
    if let Some(texts) = &file.admin_addresses {
        license.admin_addresses = addresses("admin_addresses", texts)?;
    }
    if let Some(texts) = &file.initial_licenses {
        license.initial_licenses = addresses("initial_licenses", texts)?;
    }
    if let Some(factor) = file.initial_cap_factor {
        // The highest factor that an enable_cap verb can set.
        if factor > 54 {
            return Err(NetworkFileError(format!("initial_cap_factor is {factor}, at most 54 expected")));
        }
        license.initial_cap_factor = Some(factor);
    }
    license.history = super::History::default();
    Ok(())
}

fn pubkey(text: &str) -> Result<Vec<u8>, NetworkFileError> {
    hex::decode(text).ok().filter(|key| has_valid_encoding(key)).ok_or_else(|| {
        NetworkFileError(format!(
            "admin_pubkeys has '{text}', a public key of 33 or 65 bytes in hex expected"
        ))
    })
}

fn override_deployments(params: &mut Params, file: DeploymentsFile) -> Result<(), NetworkFileError> {
    let deployments = &mut params.deployments;
    set(&mut deployments.window, file.window);
    set(&mut deployments.threshold, file.threshold);
    if deployments.window == 0 || !(1..=deployments.window).contains(&deployments.threshold) {
        return Err(NetworkFileError(
            "deployments.window must be at least 1 block, deployments.threshold 1 to window".to_owned(),
        ));
    }
    for (name, target, value) in [
        ("testdummy", &mut deployments.testdummy, file.testdummy),
        ("csv", &mut deployments.csv, file.csv),
        ("segwit", &mut deployments.segwit, file.segwit),
    ] {
        let Some(DeploymentFile { bit, start_time, timeout }) = value else { continue };
        check_bit(name, bit)?;
        *target = Deployment { bit, start_time, timeout };
    }
    let bits = deployments.named().map(|(_, deployment)| deployment.bit);
    if bits[0] == bits[1] || bits[0] == bits[2] || bits[1] == bits[2] {
        return Err(NetworkFileError("deployments: each must have a bit of its own".to_owned()));
    }
    Ok(())
}

/// The test vote changes no rule, and uses bit 28 on most networks.
fn check_bit(name: &str, bit: u8) -> Result<(), NetworkFileError> {
    let (most, why) =
        if name == "testdummy" { (28, "") } else { (MAX_RULE_BIT, ": version rolling uses 13 to 28") };
    if bit > most {
        return Err(NetworkFileError(format!("deployments.{name}.bit is {bit}, 0 to {most} expected{why}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_network_file_overrides_its_base() {
        let params = Params::from_network_file(
            r#"
            base = "regtest"
            name = "vectors"
            license_activation_height = 110
            cap_change_height = 150
            admin_pubkeys = ["0340aaee8d03e3de9198526f0f2678ac2c6dd56d63edd1226fef345b8dd425aae2"]
            admin_addresses = ["uZjbBr4DCy4AhFK4vCziVsuYBb7Nro9xYa"]
            dns_seeds = ["seed.example"]
            "#,
        )
        .unwrap();
        assert_eq!(params.license.activation_height, 110);
        assert_eq!(params.license.admin_pubkeys.len(), 1);
        assert_eq!(params.genesis, Params::regtest().genesis);
        assert_eq!(params.pow, Params::regtest().pow);
        assert_eq!(params.dns_seeds, ["seed.example"]);
        let of_main = Params::from_network_file("base = \"main\"").unwrap();
        assert!(of_main.dns_seeds.is_empty(), "the base's seeds know nothing of this chain");
    }

    #[test]
    fn the_test_vote_may_be_on_any_bit_and_others_where_nobody_rolls() {
        let params = Params::from_network_file(
            r#"
            base = "regtest"
            deployments.testdummy = {bit = 28, start_time = 0, timeout = 0}
            deployments.csv = {bit = 12, start_time = 0, timeout = 0}
            "#,
        )
        .unwrap();
        assert_eq!(params.deployments.named().map(|(_, deployment)| deployment.bit), [28, 12, 1]);
    }

    #[test]
    fn an_impossible_network_is_refused_in_one_line_that_names_the_key() {
        for (text, expected) in [
            ("", "base"),
            ("base = \"mainnet\"", "base is 'mainnet'"),
            ("base = \"regtest\"\nhalving = 3", "line 2: unknown field `halving`"),
            ("base = \"regtest\"\nname = \"../x\"", "name is '../x'"),
            ("base = \"regtest\"\nname = \"main\"", "name is 'main'"),
            ("base = \"regtest\"\nmagic = \"12\"", "magic is '12', 8 hex digits expected"),
            ("base = \"regtest\"\nhalving_interval = 0", "halving_interval"),
            ("base = \"regtest\"\npow_limit = \"zz\"", "pow_limit is 'zz'"),
            ("base = \"regtest\"\npow_target_spacing = 0", "pow_target_spacing"),
            ("base = \"regtest\"\nno_retarget = false", "23 leading zero bits"),
            ("base = \"regtest\"\nadmin_pubkeys = [\"03\"]", "admin_pubkeys has '03'"),
            (
                "base = \"regtest\"\nadmin_addresses = [\"pUSydiLr9kFjtL7VbtfMYXMz7GLV413coQ\"]",
                "version byte 117",
            ),
            ("base = \"regtest\"\ndns_seeds = [\"a.b:1\"]", "dns_seeds has 'a.b:1'"),
            ("base = \"regtest\"\ndns_seeds = [\"\"]", "dns_seeds has ''"),
            ("base = \"regtest\"\n[deployments]\nwindow = 0", "deployments.window"),
            (
                "base = \"regtest\"\ndeployments.csv = {bit = 1, start_time = 0, timeout = 0}",
                "a bit of its own",
            ),
            (
                "base = \"regtest\"\ndeployments.csv = {bit = 29, start_time = 0, timeout = 0}",
                "deployments.csv.bit",
            ),
            (
                "base = \"regtest\"\ndeployments.csv = {bit = 13, start_time = 0, timeout = 0}",
                "deployments.csv.bit is 13, 0 to 12 expected: version rolling uses 13 to 28",
            ),
            (
                "base = \"main\"\ndeployments.segwit = {bit = 28, start_time = 0, timeout = 0}",
                "deployments.segwit.bit is 28, 0 to 12 expected: version rolling uses 13 to 28",
            ),
        ] {
            let error = Params::from_network_file(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains('\n'), "{error}");
        }
    }
}
