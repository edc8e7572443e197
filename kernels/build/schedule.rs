//! The order of the instructions: list scheduling for a CPU with four vector units.
//!
//! What lives here: the dependencies, and which of the ready instructions goes next. What does not: what they compute,
//! and which registers they get. CPUs reorder instructions themselves, but look only some hundred ahead and take the
//! oldest first, so the order should be close to the one in which they ought to run.

use std::collections::HashMap;

use crate::flow::{Flow, Instruction, Operation, Source, Stream, Value};
use crate::page::Slot;

// These numbers gave the best code of those tried (docs/kernels.md). They are close to the CPU's, but not equal: it has
// four vector units, two of which rotate, and what it can start a cycle late it starts a cycle late.

const LATENCIES: Latencies = Latencies { arithmetic: 2, load: 4, forwarded: 8 };
/// How many instructions may start in a cycle: arithmetic, rotations, loads, and in total.
const UNITS: usize = 5;
const ROTATING_UNITS: usize = 3;
const LOADS: usize = 2;
const WIDTH: usize = 8;
/// Most values alive at once; one register is left for a copy.
const MOST: usize = 31;
/// An iteration goes from 0 to 1. No instruction may be scheduled further ahead of the one furthest behind.
const WINDOW: f64 = 0.05;
/// An instruction's place in time depends on its position in its stream and, with this weight, on the length of the
/// dependency chain that waits for it.
const CHAIN_WEIGHT: f64 = 0.7;

/// For each instruction, those that wait for it, and for how many cycles.
type Waiting = Vec<Vec<(usize, u32)>>;

/// Cycles until a result can be used.
pub(crate) struct Latencies {
    pub(crate) arithmetic: u32,
    pub(crate) load: u32,
    /// From a store to a load of the same slot.
    pub(crate) forwarded: u32,
}

impl Latencies {
    fn of(&self, operation: Operation) -> u32 {
        if operation == Operation::Load { self.load } else { self.arithmetic }
    }
}

/// What each instruction must wait for: values, and the order of writes and reads of each slot.
pub(crate) fn dependencies(flow: &Flow, latencies: &Latencies) -> Vec<Vec<(usize, u32)>> {
    let mut makers: HashMap<Value, usize> = HashMap::new();
    let mut writers: HashMap<Slot, usize> = HashMap::new();
    let mut readers: HashMap<Slot, Vec<usize>> = HashMap::new();
    let mut all = Vec::new();
    for (at, instruction) in flow.instructions.iter().enumerate() {
        let mut waits_for = Vec::new();
        for value in instruction.values() {
            let maker = makers[&value];
            waits_for.push((maker, latencies.of(flow.instructions[maker].operation)));
        }
        for slot in instruction.sources.iter().filter_map(|source| slot_of(*source)) {
            waits_for.extend(writers.get(&slot).map(|writer| (*writer, latencies.forwarded)));
            readers.entry(slot).or_default().push(at);
        }
        if let Operation::Store(slot) = instruction.operation {
            let slot = slot.in_turn();
            let before =
                readers.remove(&slot).unwrap_or_default().into_iter().chain(writers.get(&slot).copied());
            waits_for.extend(before.map(|before| (before, 0)));
            writers.insert(slot, at);
        }
        if let Some(value) = instruction.result {
            makers.insert(value, at);
        }
        all.push(waits_for);
    }
    all
}

fn slot_of(source: Source) -> Option<Slot> {
    if let Source::Slot(slot) = source { Some(slot.in_turn()) } else { None }
}

/// The place of each instruction in the iteration, from 0 to 1: by its stream alone, and mixed with its chain.
fn places(flow: &Flow, waiting: &Waiting) -> (Vec<f64>, Vec<f64>) {
    let stream = |at: usize| flow.instructions[at].stream as usize;
    let mut lengths = [0; 3];
    (0..flow.instructions.len()).for_each(|at| lengths[stream(at)] += 1);
    // The two parts of the second hash follow each other.
    let later = Stream::SecondLater as usize;
    let both = lengths[later] + lengths[Stream::SecondEarlier as usize];
    let middle = f64::from(lengths[later]) / f64::from(both);
    let spans = [(0.0, 1.0), (0.0, middle), (middle, 1.0)];
    // The longest chain in the same stream that waits for each.
    let mut chains = vec![0; flow.instructions.len()];
    let mut longest = [0; 3];
    for at in (0..chains.len()).rev() {
        let same = waiting[at].iter().filter(|(next, _)| stream(*next) == stream(at));
        chains[at] = same.map(|(next, cycles)| chains[*next] + cycles).max().unwrap_or(0);
        longest[stream(at)] = longest[stream(at)].max(chains[at]);
    }
    let mut seen = [0; 3];
    let place = |at: usize| {
        let stream = stream(at);
        let (from, to) = spans[stream];
        let in_stream = f64::from(seen[stream]) / f64::from(lengths[stream]);
        seen[stream] += 1;
        let in_chain = 1.0 - f64::from(chains[at]) / f64::from(longest[stream]);
        let mixed = in_stream * (1.0 - CHAIN_WEIGHT) + in_chain * CHAIN_WEIGHT;
        (from + (to - from) * in_stream, from + (to - from) * mixed)
    };
    (0..chains.len()).map(place).unzip()
}

/// The resources left in a cycle.
struct Cycle {
    units: usize,
    rotating_units: usize,
    loads: usize,
    width: usize,
    stores: usize,
}

impl Cycle {
    const fn new() -> Self {
        Self { units: UNITS, rotating_units: ROTATING_UNITS, loads: LOADS, width: WIDTH, stores: 1 }
    }

    /// Takes what the instruction needs, if available. Returns whether it was.
    fn take(&mut self, instruction: &Instruction) -> bool {
        let operation = instruction.operation;
        let share = |wanted: bool| usize::from(wanted);
        let units = share(operation.is_arithmetic());
        let rotating = share(matches!(operation, Operation::RotateRight(_)));
        let (loads, stores) = (share(instruction.loads()), share(matches!(operation, Operation::Store(_))));
        let there = self.units >= units
            && self.rotating_units >= rotating
            && self.loads >= loads
            && self.stores >= stores
            && self.width > 0;
        if there {
            self.units -= units;
            self.rotating_units -= rotating;
            self.loads -= loads;
            self.stores -= stores;
            self.width -= 1;
        }
        there
    }
}

/// The values that are alive: produced, and not yet used for the last time.
pub(crate) struct Alive {
    uses_left: HashMap<Value, usize>,
    count: usize,
}

impl Alive {
    pub(crate) fn new(flow: &Flow) -> Self {
        let mut uses_left = HashMap::new();
        let values = flow.instructions.iter().flat_map(Instruction::values);
        values.for_each(|value| *uses_left.entry(value).or_default() += 1);
        Self { uses_left, count: 0 }
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    /// How many there would be after this instruction.
    pub(crate) fn after(&self, instruction: &Instruction) -> usize {
        let ended = instruction.values().iter().filter(|value| self.uses_left[value] == 1).count();
        self.count + usize::from(instruction.result.is_some()) - ended
    }

    pub(crate) fn run(&mut self, instruction: &Instruction) {
        self.count = self.after(instruction);
        for value in instruction.values() {
            *self.uses_left.get_mut(&value).expect("it was counted") -= 1;
        }
    }
}

/// The order in which the instructions should run.
///
/// # Panics
/// There are not enough registers.
pub(crate) fn schedule(flow: &Flow) -> Vec<usize> {
    let waits_for = dependencies(flow, &LATENCIES);
    let mut waiting: Waiting = vec![Vec::new(); waits_for.len()];
    for (at, before) in waits_for.iter().enumerate() {
        before.iter().for_each(|(maker, cycles)| waiting[*maker].push((at, *cycles)));
    }
    let (in_stream, place) = places(flow, &waiting);
    let mut missing: Vec<usize> = waits_for.iter().map(Vec::len).collect();
    let mut ready_at = vec![0; missing.len()];
    let mut ready: Vec<usize> = (0..missing.len()).filter(|at| missing[*at] == 0).collect();
    let mut left: Vec<usize> = (0..missing.len()).collect();
    let mut done = vec![false; missing.len()];
    let (mut order, mut alive) = (Vec::new(), Alive::new(flow));
    for now in 0.. {
        let Some(behind) = left.iter().map(|at| in_stream[*at]).min_by(f64::total_cmp) else { break };
        assert!(now < 100_000, "no order with so few registers");
        let mut cycle = Cycle::new();
        loop {
            let fits = |at: usize| {
                let after = alive.after(&flow.instructions[at]);
                let has_registers = after <= MOST || after <= alive.count;
                ready_at[at] <= now && in_stream[at] <= behind + WINDOW && has_registers
            };
            // When registers run short, an instruction that frees one is moved ahead by a twentieth of the iteration.
            let crowded = alive.count > MOST - 3;
            let urgency = |at: usize| {
                let grows = alive.after(&flow.instructions[at]) as f64 - alive.count as f64;
                place[at] + if crowded { grows * 0.05 } else { 0.0 }
            };
            let mut candidates: Vec<usize> = ready.iter().copied().filter(|at| fits(*at)).collect();
            candidates.sort_by(|a, b| urgency(*a).total_cmp(&urgency(*b)).then(a.cmp(b)));
            let next = candidates.into_iter().find(|at| cycle.take(&flow.instructions[*at]));
            let Some(next) = next else { break };
            ready.retain(|at| *at != next);
            alive.run(&flow.instructions[next]);
            order.push(next);
            done[next] = true;
            for (after, cycles) in &waiting[next] {
                ready_at[*after] = ready_at[*after].max(now + cycles);
                missing[*after] -= 1;
                if missing[*after] == 0 {
                    ready.push(*after);
                }
            }
        }
        left.retain(|at| !done[*at]);
    }
    order
}
