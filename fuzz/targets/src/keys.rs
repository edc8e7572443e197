//! Text formats: addresses, keys, network files.

use iop_consensus::address::Address;
use iop_consensus::license::key::{LicenseKey, has_wif_form};
use iop_consensus::params::Params;

/// An address or key that parses is written as the same text.
pub(crate) fn address(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for prefixes in [Params::main().prefixes, Params::regtest().prefixes] {
        if let Ok(address) = Address::parse(text, &prefixes) {
            assert_eq!(address.to_base58(&prefixes), text);
            assert_eq!(Address::from_script(&address.script_pubkey()), Some(address));
        }
        if let Ok(key) = LicenseKey::from_wif(text, &prefixes) {
            assert_eq!(*key.to_wif(&prefixes), text.trim());
            assert!(has_wif_form(text.trim()));
        }
    }
}

/// An error is one line; an accepted network is usable.
pub(crate) fn network_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Params::from_network_file(text) {
        Ok(params) => {
            assert!(params.halving_interval >= 2 && params.pow.retarget_interval() >= 2);
            let _ = params.genesis.block().block_hash();
            let _ = iop_consensus::license::registry::Registry::genesis(&params).cap(&params);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
