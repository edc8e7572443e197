//! A program as a flow of values, before registers and timing are assigned.
//!
//! What lives here: the kinds of instructions, and what each takes and produces. What does not: what a program computes
//! (`message.rs`, `scan.rs`), in which order (`schedule.rs`), in which registers (`emit.rs`).

use std::ops::Range;

use crate::page::{Constant, Slot};

/// The result of one instruction. Produced once, never changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Value(usize);

/// An operand of an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    Value(Value),
    /// A word from memory, the same in every lane.
    Constant(Constant),
    /// A register's worth of memory.
    Slot(Slot),
}

impl From<Value> for Source {
    fn from(value: Value) -> Self {
        Self::Value(value)
    }
}

impl From<Constant> for Source {
    fn from(constant: Constant) -> Self {
        Self::Constant(constant)
    }
}

impl From<Slot> for Source {
    fn from(slot: Slot) -> Self {
        Self::Slot(slot)
    }
}

impl Source {
    pub(crate) fn value(self) -> Option<Value> {
        if let Self::Value(value) = self { Some(value) } else { None }
    }

    pub(crate) fn is_memory(self) -> bool {
        self.value().is_none()
    }
}

/// Interleaves words, or pairs of words, from the low or high half of each group of four in two registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Unpack(pub(crate) &'static str);

impl Unpack {
    pub(crate) const LOW_WORDS: Self = Self("vpunpckldq");
    pub(crate) const HIGH_WORDS: Self = Self("vpunpckhdq");
    pub(crate) const LOW_PAIRS: Self = Self("vpunpcklqdq");
    pub(crate) const HIGH_PAIRS: Self = Self("vpunpckhqdq");
}

/// What an instruction does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Add,
    RotateRight(u32),
    ShiftRight(u32),
    Xor,
    And,
    Unpack(Unpack),
    /// Any function of three bits: bit `4a + 2b + c` of the table is the result for a, b, c.
    Ternary(u8),
    Load,
    Store(Slot),
    /// Writes a mask of the lanes that have no bit in common with the second source.
    Test,
}

impl Operation {
    /// Whether the operation needs a vector unit.
    pub(crate) fn is_arithmetic(self) -> bool {
        !matches!(self, Self::Load | Self::Store(_))
    }
}

/// The streams that run side by side: the first hash, and the second hash of an earlier item in two parts, the later of
/// which comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stream {
    First,
    SecondLater,
    SecondEarlier,
}

#[derive(Clone, Debug)]
pub(crate) struct Instruction {
    pub(crate) operation: Operation,
    pub(crate) result: Option<Value>,
    pub(crate) sources: Vec<Source>,
    pub(crate) stream: Stream,
}

impl Instruction {
    /// The values that it uses, each once.
    pub(crate) fn values(&self) -> Vec<Value> {
        let mut values: Vec<Value> = self.sources.iter().filter_map(|source| source.value()).collect();
        values.sort_unstable();
        values.dedup();
        values
    }

    /// The same instruction with its value numbers shifted.
    fn moved(mut self, by: usize) -> Self {
        let moved = |Value(number)| Value(number + by);
        self.result = self.result.map(moved);
        for source in &mut self.sources {
            if let Source::Value(value) = source {
                *value = moved(*value);
            }
        }
        self
    }

    pub(crate) fn loads(&self) -> bool {
        self.sources.iter().any(|source| source.is_memory())
    }
}

/// Instructions in a valid order of execution.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) instructions: Vec<Instruction>,
    values: usize,
    stream: Stream,
    /// Whether the code runs beside the SHA instructions, which occupy a load port and one of the units for ternary
    /// operations each cycle. Then an exclusive or takes two values, not three, and an operand used several times
    /// should be loaded once.
    beside_rounds: bool,
}

impl Flow {
    pub(crate) fn new() -> Self {
        Self { instructions: Vec::new(), values: 0, stream: Stream::First, beside_rounds: false }
    }

    pub(crate) fn beside_rounds() -> Self {
        Self { beside_rounds: true, ..Self::new() }
    }

    /// Merges the flows: the instructions of each are spread evenly over its part of the order, which goes from 0 to 1.
    pub(crate) fn side_by_side<const FLOWS: usize>(flows: [(Self, Range<f64>); FLOWS]) -> Self {
        let mut all = Self::beside_rounds();
        let mut timed = Vec::new();
        for (flow, Range { start, end }) in flows {
            let step = (end - start) / flow.instructions.len() as f64;
            let numbered = flow.instructions.into_iter().enumerate();
            timed.extend(
                numbered.map(|(at, instruction)| (start + step * at as f64, instruction.moved(all.values))),
            );
            all.values += flow.values;
        }
        timed.sort_by(|(one, _), (other, _)| one.total_cmp(other));
        all.instructions = timed.into_iter().map(|(_, instruction)| instruction).collect();
        all
    }

    /// Instructions added from now on belong to this stream.
    pub(crate) fn on(&mut self, stream: Stream) {
        self.stream = stream;
    }

    fn push(&mut self, operation: Operation, sources: Vec<Source>, result: Option<Value>) {
        self.instructions.push(Instruction { operation, result, sources, stream: self.stream });
    }

    fn make(&mut self, operation: Operation, sources: Vec<Source>) -> Value {
        let value = Value(self.values);
        self.values += 1;
        self.push(operation, sources, Some(value));
        value
    }

    pub(crate) fn add(&mut self, a: Value, b: impl Into<Source>) -> Value {
        self.make(Operation::Add, vec![a.into(), b.into()])
    }

    pub(crate) fn load(&mut self, from: impl Into<Source>) -> Value {
        self.make(Operation::Load, vec![from.into()])
    }

    pub(crate) fn store(&mut self, value: Value, to: Slot) {
        self.push(Operation::Store(to), vec![value.into()], None);
    }

    pub(crate) fn test(&mut self, value: Value, mask: Constant) {
        self.push(Operation::Test, vec![value.into(), mask.into()], None);
    }

    pub(crate) fn rotate_right(&mut self, x: impl Into<Source>, bits: u32) -> Value {
        self.make(Operation::RotateRight(bits), vec![x.into()])
    }

    pub(crate) fn unpack(&mut self, unpack: Unpack, a: Value, b: impl Into<Source>) -> Value {
        self.make(Operation::Unpack(unpack), vec![a.into(), b.into()])
    }

    /// Applies a function of three bits to every bit. At most two of the three sources may be constants.
    pub(crate) fn ternary(&mut self, sources: [Source; 3], function: impl Fn(u8, u8, u8) -> u8) -> Value {
        let table = (0..8).map(|i| function(i >> 2 & 1, i >> 1 & 1, i & 1) << i).sum();
        self.make(Operation::Ternary(table), sources.to_vec())
    }

    /// Σ0 or Σ1: rotations by three distances, joined by exclusive or.
    pub(crate) fn big_sigma(&mut self, x: Source, [a, b, c]: [u32; 3]) -> Value {
        self.sigma(x, [a, b, c].map(Operation::RotateRight))
    }

    pub(crate) fn xor(&mut self, a: Value, b: Value) -> Value {
        self.make(Operation::Xor, vec![a.into(), b.into()])
    }

    pub(crate) fn and(&mut self, a: Value, b: Value) -> Value {
        self.make(Operation::And, vec![a.into(), b.into()])
    }

    /// Prepares a source for use by several instructions.
    pub(crate) fn for_several(&mut self, x: impl Into<Source>) -> Source {
        let x = x.into();
        if self.beside_rounds && x.is_memory() { self.load(x).into() } else { x }
    }

    /// σ0 or σ1: two rotations and a shift.
    pub(crate) fn small_sigma(&mut self, x: Source, [a, b]: [u32; 2], shift: u32) -> Value {
        self.sigma(x, [Operation::RotateRight(a), Operation::RotateRight(b), Operation::ShiftRight(shift)])
    }

    fn sigma(&mut self, x: Source, [a, b, c]: [Operation; 3]) -> Value {
        if self.beside_rounds {
            // Rotations and shifts need different units, so the shift, always last, is paired with the first.
            let [a, c] = [a, c].map(|part| self.make(part, vec![x]));
            let two = self.xor(a, c);
            let b = self.make(b, vec![x]);
            return self.xor(two, b);
        }
        let parts = [a, b, c].map(|part| self.make(part, vec![x]));
        self.ternary(parts.map(Source::from), |a, b, c| a ^ b ^ c)
    }
}
