//! The ledger against a plain list of shares and blocks: the books balance, in whatever order events come.

use proptest::prelude::*;

use super::*;

/// A step of the property test.
#[derive(Debug, Clone)]
enum Step {
    Shares(Vec<(u8, u16)>),
    /// A block by a member, this many blocks below the newest one.
    Block {
        back: usize,
        finder: u8,
        reward: u32,
    },
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => proptest::collection::vec((0u8..12, 1u16..2000), 1..60).prop_map(Step::Shares),
        3 => (0usize..4, 0u8..12, any::<u32>()).prop_map(|(back, finder, reward)| Step::Block { back, finder, reward }),
        1 => Just(Step::Restart),
    ]
}

/// Windows and balances computed from a plain list of shares and blocks.
#[derive(Default)]
struct Model {
    shares: Vec<(Address, u64)>,
    carried: BTreeMap<Option<BlockId>, BTreeMap<Address, u64>>,
}

impl Model {
    fn block(&mut self, base: Option<BlockId>, finder: u8, reward: u64, rules: &Rules) -> Split {
        let mut work: BTreeMap<Address, u128> = BTreeMap::new();
        match rules.scheme {
            Scheme::Solo => drop(work.insert(member(finder), 1)),
            Scheme::Chapter => {}
            Scheme::Pplns => {
                let wanted = wanted_work(difficulty(8.0), rules.window);
                let mut total = 0;
                for (member, share) in self.shares.iter().rev() {
                    if total >= wanted {
                        break;
                    }
                    total += u128::from(*share);
                    *work.entry(*member).or_default() += u128::from(*share);
                }
            }
        }
        let carried = self.carried.entry(base).or_default();
        Split::new(Input { reward, work: &work, carried }, rules)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn the_books_balance_at_any_moment(
        steps in proptest::collection::vec(step(), 1..25),
        scheme in prop_oneof![Just(Scheme::Pplns), Just(Scheme::Solo), Just(Scheme::Chapter)],
        min_payout in 546u64..2_000_000_000, fee in 0u32..100_000, max_outputs in 1usize..12,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let rules = Rules { scheme, fee, min_payout, max_outputs, window: 2.0 };
        let (mut pool, mut model, mut blocks) = (Pool::open(folder.path(), rules), Model::default(), Vec::new());
        for step in steps {
            match step {
                Step::Shares(shares) => for (number, work) in shares {
                    let work = f64::from(work) / 256.0;
                    pool.share(number, work, blocks.len() as u32, None);
                    model.shares.push((member(number), share::work_of(difficulty(work))));
                },
                Step::Block { back, finder, reward } => {
                    let base = blocks.iter().rev().nth(back).copied();
                    let plain = Rules { max_outputs: max_outputs.min(10), ..rules };
                    let expected = model.block(base, finder, u64::from(reward), &plain);
                    let block = pool.block(base, finder, u64::from(reward));
                    model.shares.push((member(finder), share::work_of(difficulty(1.0))));
                    model.carried.insert(Some(block), (*expected.carried).clone());
                    blocks.push(block);
                    pool.stand_on(Some(block));
                    let carried = pool.ledger.read(|_, book| book.carried());
                    prop_assert_eq!(&carried, &expected.carried);
                    let found: BTreeMap<Address, u64> = pool.ledger.store().credits(&block).unwrap()
                        .into_iter().filter(|(_, credit)| credit.earned > 0)
                        .map(|(member, credit)| (member, credit.earned)).collect();
                    prop_assert_eq!(found, expected.earned);
                }
                Step::Restart => {
                    pool.wait();
                    pool.close();
                    let report = audited(folder.path());
                    prop_assert!(report.is_clean(), "{:?}", report);
                    pool = Pool::open(folder.path(), rules);
                }
            }
        }
        pool.wait();
        pool.close();
        let report = audited(folder.path());
        prop_assert!(report.is_clean(), "{:?}", report);
        prop_assert_eq!(report.shares, model.shares.len() as u64);
        prop_assert_eq!(report.chapter, report.fees + report.carried);
    }
}
