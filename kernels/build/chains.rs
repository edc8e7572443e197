//! The rounds by the SHA instructions: seven hashes that take turns, without a break.
//!
//! What lives here: which round of which hash comes when, and in which registers. What does not: how a hash begins and
//! ends and where it finds what its rounds add (the implementors of [`Ends`]), what comes between the rounds, and the
//! messages.
//!
//! One instruction does two rounds of one hash: a step. Each step has its own slot in the iteration, and the hash's
//! next step is seven slots later. After its last step the chain begins another hash; a hash begun in one iteration
//! may end in the next. Seven and the number of slots have no common divisor, so a path of such strides visits all
//! slots, and the hashes lie along it one after another. First hashes begin and end in the first half of the
//! iteration, second hashes begin in the second half.
//!
//! Registers 1 to 14 hold the states. Register 0 holds what the next step adds, since the instruction can take it from
//! nowhere else. Register 15 is free within an iteration; its contents do not survive the end of it.

/// Number of hashes that take turns.
const CHAINS: usize = 7;
/// Nonces hashed in an iteration.
pub(crate) const NONCES: usize = 8;
/// Steps of a first hash, from round 4 on: round 3 only adds a word to a known state.
const FIRST_STEPS: usize = 30;
/// The register needed at the end of an iteration.
const SPARE: usize = 15;

/// An instruction that does nothing and needs no vector unit. (A proper no-operation is fused with the instruction
/// before it and does not count: see `sha_avx512/weave.rs`.)
pub(crate) const FILLER: &str = "test eax, eax";

/// How hashes begin and end, and what their steps add.
pub(crate) trait Ends {
    /// Steps of a second hash.
    const SECOND_STEPS: usize;

    /// Sets up the state that the hash starts with.
    fn begin(hash: Hash, state: State) -> Vec<String>;

    /// Loads what the step adds into register 0.
    fn sums(step: Step) -> String;

    /// Takes the result of the hash after its last step. This frees the state's registers and register 0.
    fn end(step: Step, state: State) -> Vec<String>;
}

/// The rounds of an iteration.
pub(crate) struct Rounds {
    /// One step each, with the instruction that loads what it adds, and those that begin and end its hash.
    pub(crate) slots: Vec<Vec<String>>,
    /// Moves the chains' states to the registers where the next iteration's first slots expect them.
    pub(crate) moves: Vec<String>,
    /// How many of the second hashes end in the next iteration.
    pub(crate) late: usize,
}

/// A hash that begins in an iteration.
#[derive(Clone, Copy)]
pub(crate) struct Hash {
    pub(crate) nonce: usize,
    pub(crate) is_second: bool,
    /// The slot of its first step.
    first: usize,
}

/// A step of a hash.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    pub(crate) hash: Hash,
    pub(crate) number: usize,
    /// Whether the hash began in the previous iteration.
    pub(crate) is_late: bool,
}

/// A chain's state. The two registers swap roles with every step.
#[derive(Clone, Copy)]
pub(crate) struct State {
    pub(crate) abef: usize,
    pub(crate) cdgh: usize,
}

impl State {
    /// The state, at the start of an iteration, of the chain whose turn is in slot `chain`.
    fn of_chain(chain: usize) -> Self {
        Self { abef: 2 * chain + 1, cdgh: 2 * chain + 2 }
    }
}

/// The number of steps of a hash.
const fn steps_of<E: Ends>(is_second: bool) -> usize {
    if is_second { E::SECOND_STEPS } else { FIRST_STEPS }
}

/// The number of slots in an iteration.
pub(crate) const fn slots<E: Ends>() -> usize {
    NONCES * (FIRST_STEPS + E::SECOND_STEPS)
}

/// All hashes, placed so that each kind begins in its half of the iteration. Later nonces come first.
fn hashes<E: Ends>() -> Vec<Hash> {
    let along = |path: usize| {
        let mut begin = path;
        let mut firsts = [const { Vec::new() }; 2];
        while begin < path + slots::<E>() {
            let first = begin * CHAINS % slots::<E>();
            let is_second = first >= slots::<E>() / 2;
            firsts[usize::from(is_second)].push(first);
            begin += steps_of::<E>(is_second);
        }
        firsts.iter().all(|firsts| firsts.len() == NONCES).then_some(firsts)
    };
    let mut firsts = (0..slots::<E>()).find_map(along).expect("there is such a place to begin");
    let mut hashes = Vec::new();
    for (is_second, firsts) in [false, true].into_iter().zip(&mut firsts) {
        firsts.sort_unstable();
        let nonces = (0..NONCES).rev().zip(firsts);
        hashes.extend(nonces.map(|(nonce, first)| Hash { nonce, is_second, first: *first }));
    }
    hashes
}

/// The step in each slot.
fn steps<E: Ends>() -> Vec<Step> {
    let mut slots = vec![None; slots::<E>()];
    let count = slots.len();
    for hash in hashes::<E>() {
        for number in 0..steps_of::<E>(hash.is_second) {
            let slot = hash.first + number * CHAINS;
            let step = Step { hash, number, is_late: slot >= count };
            assert!(hash.is_second || !step.is_late, "a first hash ends in its iteration");
            assert!(slots[slot % count].replace(step).is_none(), "a slot has one step");
        }
    }
    slots.into_iter().map(|step| step.expect("the path comes through all slots")).collect()
}

/// Generates all rounds of an iteration.
pub(crate) fn rounds<E: Ends>() -> Rounds {
    let mut states: Vec<State> = (0..CHAINS).map(State::of_chain).collect();
    let mut slots = Vec::new();
    let mut late = 0;
    for (slot, step) in steps::<E>().into_iter().enumerate() {
        let state = &mut states[slot % CHAINS];
        let mut lines = Vec::new();
        if step.number == 0 {
            assert!(!step.is_late, "a hash begins in its own iteration");
            lines.extend(E::begin(step.hash, *state));
        }
        lines.push(E::sums(step));
        lines.push(format!("sha256rnds2 xmm{}, xmm{}", state.cdgh, state.abef));
        std::mem::swap(&mut state.abef, &mut state.cdgh);
        if step.number + 1 == steps_of::<E>(step.hash.is_second) {
            lines.extend(E::end(step, *state));
            late += usize::from(step.is_late);
        }
        slots.push(lines);
    }
    Rounds { moves: moves(&states, slots.len()), slots, late }
}

/// The moves needed because the chain that comes first in the next iteration is not the one that does in this.
fn moves(states: &[State], slots: usize) -> Vec<String> {
    let moves = (0..CHAINS).flat_map(|chain| {
        let (from, to) = (states[(slots + chain) % CHAINS], State::of_chain(chain));
        [(from.abef, to.abef), (from.cdgh, to.cdgh)]
    });
    let mut left: Vec<(usize, usize)> = moves.filter(|(from, to)| from != to).collect();
    let mut lines = Vec::new();
    let mut from_to = |from, to| lines.push(format!("vmovdqa xmm{to}, xmm{from}"));
    // The moves form cycles; one value of each cycle waits in the spare register.
    while let Some((_, first)) = left.first().copied() {
        from_to(first, SPARE);
        let mut to = first;
        while let Some(at) = left.iter().position(|(_, moved)| *moved == to) {
            let (from, _) = left.swap_remove(at);
            from_to(if from == first { SPARE } else { from }, to);
            to = from;
        }
    }
    lines
}
