//! Fuzz targets for database records: a decoded record must survive encoding and decoding unchanged.

use super::schema::{BlockUndo, IndexRecord};

/// See [`crate::fuzzing::undo_record`].
pub(crate) fn undo_record(data: &[u8]) {
    if let Some(undo) = BlockUndo::decode(data) {
        assert_eq!(BlockUndo::decode(&undo.encode()), Some(undo));
    }
}

/// See [`crate::fuzzing::index_record`].
pub(crate) fn index_record(data: &[u8]) {
    if let Some(record) = IndexRecord::decode(data) {
        assert_eq!(IndexRecord::decode(&record.encode()), Some(record));
    }
}

/// Seed inputs for these targets.
pub(crate) fn seeds(target: &str) -> Vec<(&'static str, Vec<u8>)> {
    use bitcoin::{Amount, TxOut};
    use iop_consensus::address::{Address, AddressKind};
    use iop_consensus::coins::Coin;
    use iop_consensus::license::registry::{Globals, LicenseRecord, RegistryUndo};
    use iop_consensus::params::Params;

    let globals = Globals { height: 9, counted_height: 8, cap_enabled: true, factor: 7, whitelisted: 6 };
    let address = Address { kind: AddressKind::ScriptHash, hash: [7; 20] };
    let coin = |script: Vec<u8>| Coin {
        output: TxOut { value: Amount::from_sat(5), script_pubkey: script.into() },
        height: 70_000,
        coinbase: true,
    };
    let undo = |spent, licenses| BlockUndo { spent, registry: RegistryUndo { globals, licenses } }.encode();
    let license = LicenseRecord { whitelisted: true, window_blocks: 1, total_blocks: 2, last_block: 3 };
    match target {
        "undo_record" => vec![
            ("empty", undo(Vec::new(), [].into())),
            (
                "licenses",
                undo(
                    Vec::new(),
                    [(address, Some(license)), (Address { hash: [8; 20], ..address }, None)].into(),
                ),
            ),
            (
                "coins",
                undo(vec![coin(address.script_pubkey().into_bytes()), coin(vec![0x51; 300])], [].into()),
            ),
        ],
        "index_record" => {
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
            vec![("genesis", record.encode())]
        }
        _ => Vec::new(),
    }
}
