//! An order for instructions that are placed one by one between others, evenly in time.
//!
//! What lives here: which instruction comes next. What does not: the dependencies (`schedule.rs`), and what the
//! instructions are placed between.
//!
//! Each instruction has a place in time by its position, and its result can be used some time later. Of the
//! instructions that could come next, the first as written is chosen, unless it would have to wait and another would
//! not.

use crate::flow::Flow;
use crate::schedule::{Alive, Latencies, dependencies};

/// The parameters of the order.
pub(crate) struct Pace<'a> {
    /// How many instructions come in a cycle.
    pub(crate) in_a_cycle: f64,
    pub(crate) latencies: &'a Latencies,
    /// How far an instruction may be ahead of the first one left.
    pub(crate) window: usize,
    /// Most values alive at once.
    pub(crate) registers: usize,
}

/// The order in which the instructions should come.
///
/// # Panics
/// No remaining instruction has a register left. Other parameters may avoid this; more registers alone may not.
pub(crate) fn order(flow: &Flow, pace: &Pace<'_>) -> Vec<usize> {
    let waits_for = dependencies(flow, pace.latencies);
    let mut order: Vec<usize> = Vec::new();
    let mut come_at = vec![None; waits_for.len()];
    let mut alive = Alive::new(flow);
    let mut first = 0;
    while order.len() < waits_for.len() {
        first += come_at[first..].iter().take_while(|at| at.is_some()).count();
        let now = order.len() as f64 / pace.in_a_cycle;
        // How long it would wait; `None` if something it waits for has not come yet.
        let waits = |i: usize| {
            let mut ready = waits_for[i].iter().map(|(on, cycles)| Some(come_at[*on]? + f64::from(*cycles)));
            ready.try_fold(0.0, |most, at| Some(f64::max(most, at? - now)))
        };
        let fits = |i: usize| {
            let after = alive.after(&flow.instructions[i]);
            after <= pace.registers || after <= alive.count()
        };
        // When registers run short, an instruction that frees one comes earlier.
        let crowded = alive.count() + 2 > pace.registers;
        let place = |i: usize| {
            let grows = alive.after(&flow.instructions[i]) as i64 - alive.count() as i64;
            i as i64 + if crowded { 20 * grows } else { 0 }
        };
        let last = waits_for.len().min(first + pace.window + 1);
        let left = (first..last).filter(|i| come_at[*i].is_none());
        let could = left.filter_map(|i| Some((waits(i)?, i))).filter(|(_, i)| fits(*i));
        let could = could.map(|(waits, i)| (waits, place(i), i));
        let next = could.min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let (_, _, next) = next.expect("with other numbers, an order may need fewer registers");
        come_at[next] = Some(now);
        alive.run(&flow.instructions[next]);
        order.push(next);
    }
    order
}
