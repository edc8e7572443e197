//! Connecting stored blocks at the start: what is written on the way, and a stop meanwhile.

use tokio::sync::watch;

use super::*;

fn storage(dir: &Path) -> (Arc<Params>, Arc<Storage>, Options) {
    let network = Arc::new(params());
    let storage = Arc::new(Storage::open(dir, &network).unwrap());
    let options = Options { coin_cache: 1 << 20, ..Options::of(&network) };
    (network, storage, options)
}

/// The data of a node that was killed with five stored blocks above the written tip, and these.
fn killed(tree: &mut Tree, dir: &Path) -> Vec<usize> {
    let mut state = with_trunk(tree, dir, 1 << 20);
    let mut nodes: Vec<usize> = Vec::new();
    for seed in 0..5 {
        let parent = nodes.last().copied().unwrap_or(TRUNK as usize);
        nodes.push(tree.extend(parent, 5 + seed * 91));
    }
    for &node in &nodes {
        assert_eq!(state.submit(tree.nodes[node].block.clone(), NOW).unwrap(), Submitted::Accepted);
    }
    assert_eq!(state.storage().tip().unwrap(), Some(tree.hash(TRUNK as usize)));
    nodes
}

/// They were written after the last one only: a node killed meanwhile began again each time.
#[test]
fn blocks_that_are_connected_at_the_start_are_written_on_the_way() {
    let (mut tree, dir) = (Tree::new(), tempfile::tempdir().unwrap());
    let nodes = killed(&mut tree, dir.path());
    let (params, storage, options) = storage(dir.path());
    let mut state = ChainState::load_idle(params, storage, options).unwrap();
    state.unwritten.age();
    state.connect_stored().unwrap();
    assert_eq!(tip(&state), tree.hash(nodes[4]));
    assert_eq!(state.storage().tip().unwrap(), Some(tree.hash(nodes[0])), "once it was old enough");
    drop(state);
    let mut state = open(dir.path(), 1 << 20).unwrap();
    assert_eq!(snapshot(&mut state), replayed(&tree, nodes[4]));
}

#[test]
fn a_stop_ends_the_start_at_the_next_block_and_the_next_start_goes_on() {
    let (mut tree, dir) = (Tree::new(), tempfile::tempdir().unwrap());
    let nodes = killed(&mut tree, dir.path());
    let (params, storage, options) = storage(dir.path());
    let (tell, told) = watch::channel(true);
    let mut state = ChainState::load_until(params, storage, options, told).unwrap();
    assert_eq!(tip(&state), tree.hash(TRUNK as usize));
    state.close().unwrap();
    drop((state, tell));
    let mut state = open(dir.path(), 1 << 20).unwrap();
    assert_eq!(snapshot(&mut state), replayed(&tree, nodes[4]));
}
