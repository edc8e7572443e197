//! New blocks, and in which form peers are told.

use super::*;

/// The tip after a reorganisation of so many blocks, as a peer that wants headers is told.
#[test]
fn after_a_long_reorganisation_the_tip_is_announced() {
    for length in [2, 8, 9, 10, 40] {
        let mut stage = Stage::new();
        stage.net.initial_download = false;
        let id = stage.peer(1, Origin::Inbound);
        stage.say(id, Message::SendHeaders);
        let headers = headers_on(&genesis(), length, 1);
        stage.connect(&headers);
        stage.net.flush(stage.now);
        let newest = headers.last().unwrap().0;
        let told: Vec<BlockHash> = stage
            .sent(id)
            .into_iter()
            .flat_map(|message| match message {
                Message::Inv(list) => list.iter().map(Inv::block_hash).collect(),
                Message::Headers(headers) => headers.iter().map(|(hash, _)| *hash).collect(),
                _ => Vec::new(),
            })
            .collect();
        assert_eq!(told.last(), Some(&newest), "{length} blocks");
    }
}

/// IoP Core offers no witnesses, and only the first kind of compact blocks, where segwit cannot be active.
#[test]
fn compact_blocks_are_asked_for_in_the_kind_of_the_network() {
    for (timeout, version) in [(i64::MAX, 2), (0, 1)] {
        let mut params = Params::regtest();
        params.deployments.segwit.timeout = timeout;
        let tree = HeaderTree::new(params.genesis.block().header);
        let net = Net::new(Arc::new(params), tree, AddressTable::new([7; 32]));
        let mut stage = Stage { net, now: START };
        assert_eq!(stage.net.services() & NODE_WITNESS != 0, version == 2);
        stage.net.initial_download = false;
        let address = SocketAddr::from(([8, 1, 1, 1], 14_877));
        let id = PeerId(1);
        stage.net.connected(id, address, Origin::Outbound, None, stage.now);
        stage.say(id, super::version(9));
        stage.say(id, Message::Verack);
        let offered: Vec<u64> = stage
            .sent(id)
            .iter()
            .filter_map(|message| match message {
                Message::SendCmpct { version, .. } => Some(*version),
                _ => None,
            })
            .collect();
        assert_eq!(offered, if version == 2 { vec![2, 1] } else { vec![1] });
        stage.say(id, Message::SendCmpct { announce: false, version });
        assert!(stage.net.peers[&id].sync.gives_compact);
    }
}
