//! Whatever happens to a pool, its state matches what its transactions alone imply.

use proptest::prelude::*;

use super::*;

/// One event; numbers choose among what exists.
#[derive(Debug, Clone)]
enum Step {
    /// A transaction that spends some free outputs, confirmed or not.
    Spend { choices: Vec<usize>, outputs: usize, fee: u64, replaceable: bool },
    /// A transaction that conflicts with one in the pool.
    Replace { choice: usize, fee: u64 },
    /// A block of some transactions of the pool, with their ancestors.
    Block { choices: Vec<usize> },
    /// A block that conflicts with a transaction in the pool.
    RivalBlock { choice: usize },
    /// The newest blocks are disconnected; blocks of their transactions and of waiting ones are connected and disconnected,
    /// as on branches that fail; and an empty one may be connected.
    Reorganise { depth: usize, failed: Vec<u64>, comes: bool },
    /// Time goes on.
    Wait { seconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (prop::collection::vec(any::<usize>(), 1..4), 1..4usize, 0..100_000u64, any::<bool>())
            .prop_map(|(choices, outputs, fee, replaceable)| Step::Spend { choices, outputs, fee, replaceable }),
        2 => (any::<usize>(), 0..400_000u64).prop_map(|(choice, fee)| Step::Replace { choice, fee }),
        2 => prop::collection::vec(any::<usize>(), 0..5).prop_map(|choices| Step::Block { choices }),
        1 => any::<usize>().prop_map(|choice| Step::RivalBlock { choice }),
        2 => (1..4usize, prop::collection::vec(any::<u64>(), 0..3), any::<bool>())
            .prop_map(|(depth, failed, comes)| Step::Reorganise { depth, failed, comes }),
        1 => (0..400_000u64).prop_map(|seconds| Step::Wait { seconds }),
    ]
}

/// A world that remembers its blocks and the coins that they spent.
struct History {
    world: World,
    blocks: Vec<(Block, Vec<(OutPoint, Coin)>)>,
}

impl History {
    /// Every unspent output.
    fn free_outputs(&self) -> Vec<OutPoint> {
        let waiting = self.world.pool.entries().flat_map(|entry| {
            (0..entry.tx.output.len() as u32)
                .map(|vout| OutPoint { txid: entry.txid, vout })
                .collect::<Vec<_>>()
        });
        let all = self.world.coins.0.keys().copied().chain(waiting);
        let mut free: Vec<_> = all.filter(|outpoint| !self.world.pool.spends(outpoint)).collect();
        free.sort_unstable();
        free
    }

    fn waiting(&self, choice: usize) -> Option<Txid> {
        let ids = self.world.pool.txids();
        (!ids.is_empty()).then(|| ids[choice % ids.len()])
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::Spend { choices, outputs, fee, replaceable: signal } => {
                let free = self.free_outputs();
                let mut inputs: Vec<_> = choices.iter().map(|choice| free[choice % free.len()]).collect();
                inputs.sort_unstable();
                inputs.dedup();
                if self.world.value_in(&inputs) < fee + 10 {
                    return;
                }
                let tx = self.world.tx(&inputs, *outputs, *fee);
                let _refused = self.world.offer(&if *signal { replaceable(tx) } else { tx });
            }
            Step::Replace { choice, fee } => {
                let Some(rival) = self.waiting(*choice) else { return };
                let input = self.world.pool.get(&rival).unwrap().tx.input[0].previous_output;
                if self.world.value_in(&[input]) > fee + 10 {
                    let tx = self.world.tx(&[input], 1, *fee);
                    let _refused = self.world.offer(&tx);
                }
            }
            Step::Block { choices } => {
                let ids: Vec<_> = choices.iter().filter_map(|choice| self.waiting(*choice)).collect();
                let wanted: std::collections::HashSet<Txid> =
                    ids.iter().flat_map(|id| [vec![*id], self.world.pool.ancestors(id)].concat()).collect();
                // `txids` lists parents first.
                let order = self.world.pool.txids();
                let chosen = order.into_iter().filter(|id| wanted.contains(id));
                let txs = chosen.map(|id| (*self.world.pool.get(&id).unwrap().tx).clone()).collect();
                self.connect(txs);
            }
            Step::RivalBlock { choice } => {
                let Some(rival) = self.waiting(*choice) else { return };
                let confirmed =
                    self.world.pool.get(&rival).unwrap().tx.input.iter().map(|i| i.previous_output);
                let inputs: Vec<_> = confirmed.filter(|o| self.world.coins.0.contains_key(o)).collect();
                if !inputs.is_empty() {
                    let tx = self.world.tx(&inputs, 1, 77);
                    self.connect(vec![tx]);
                }
            }
            Step::Reorganise { depth, failed, comes } => {
                let mut left = Vec::new();
                for _ in 0..*depth {
                    let Some((block, spent)) = self.blocks.pop() else { break };
                    left.splice(0..0, block.txdata.iter().cloned());
                    self.world.disconnect(block, spent);
                }
                for choice in failed {
                    let block = self.block_of(&left, *choice);
                    self.connect(block);
                    let (block, spent) = self.blocks.pop().unwrap();
                    self.world.disconnect(block, spent);
                }
                if *comes {
                    self.connect(vec![]);
                }
                self.world.finish();
            }
            Step::Wait { seconds } => self.world.now += seconds,
        }
    }

    /// What a block could hold of these transactions and those that wait, one for each bit of `choice` that is set.
    fn block_of(&self, left: &[Transaction], choice: u64) -> Vec<Transaction> {
        let waiting = self.world.pool.txids();
        let waiting = waiting.iter().map(|id| (*self.world.pool.get(id).unwrap().tx).clone());
        let mut coins: std::collections::HashSet<OutPoint> = self.world.coins.0.keys().copied().collect();
        let mut chosen = Vec::new();
        for (place, tx) in left.iter().cloned().chain(waiting).enumerate() {
            let inputs: Vec<_> = tx.input.iter().map(|input| input.previous_output).collect();
            if choice >> (place % 64) & 1 == 1 && inputs.iter().all(|input| coins.contains(input)) {
                coins.retain(|coin| !inputs.contains(coin));
                coins.extend((0..tx.output.len() as u32).map(|vout| output(&tx, vout)));
                chosen.push(tx);
            }
        }
        chosen
    }

    fn connect(&mut self, txs: Vec<Transaction>) {
        let inputs = txs.iter().flat_map(|tx| tx.input.iter().map(|input| input.previous_output));
        let spent = inputs.filter_map(|o| Some((o, self.world.coins.0.get(&o)?.clone()))).collect();
        let block = self.world.connect(txs);
        self.blocks.push((block, spent));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn totals_links_and_orders_are_those_of_a_fresh_count(
        steps in prop::collection::vec(step(), 1..70),
        room in prop_oneof![Just(300_000_000usize), Just(30_000)],
    ) {
        let policy = Policy { require_standard: false, max_usage: room, ..Policy::default() };
        let mut history = History { world: World::with(policy), blocks: Vec::new() };
        for number in 0..12 {
            history.world.coin(number);
        }
        for step in &steps {
            history.take(step);
            history.world.pool.graph.assert_consistent();
            // Every entry could be mined: each input is a coin or another entry's output.
            let pool = &history.world.pool;
            for entry in pool.entries() {
                for input in &entry.tx.input {
                    let outpoint = &input.previous_output;
                    prop_assert!(
                        history.world.coins.0.contains_key(outpoint) || pool.contains(&outpoint.txid),
                        "{} is spent by {} and not there", outpoint, entry.txid
                    );
                }
            }
            prop_assert!(pool.usage() <= room);
        }
    }
}
