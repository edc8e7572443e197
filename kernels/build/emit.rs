//! Register allocation, and the text of the assembly.
//!
//! What lives here: which register holds which value, and how each instruction is written. What does not: the order of
//! instructions. Register names are the CPU's own: rdi points to the middle of the memory, rsi into the constants, rdx
//! to the version's words, r8 to where the next mask goes.

use std::collections::HashMap;
use std::fmt::Display;
use std::ops::Range;

use crate::flow::{Flow, Instruction, Operation, Source, Unpack, Value};
use crate::page::{CONSTANTS_MIDDLE, Constant, SLOT, Slot, VERSIONS_SLOT};

/// The target that code is written for.
pub(crate) struct Machine {
    /// The name of its registers, and which of them the code may use.
    pub(crate) name: &'static str,
    pub(crate) registers: Range<usize>,
    /// Words in a register.
    pub(crate) lanes: usize,
    /// The address of a slot.
    pub(crate) slot: fn(Slot) -> String,
}

/// All of AVX-512's registers, and the page.
pub(crate) const AVX512: Machine = Machine { name: "zmm", registers: 0..32, lanes: 16, slot: in_page };

struct Registers<'a> {
    machine: &'a Machine,
    free: Vec<usize>,
    of: HashMap<Value, usize>,
    /// The position in the order at which each value is used for the last time.
    last_use: HashMap<Value, usize>,
}

impl<'a> Registers<'a> {
    fn new(flow: &Flow, order: &[usize], machine: &'a Machine) -> Self {
        let uses = order.iter().enumerate();
        let last_use =
            uses.flat_map(|(at, i)| flow.instructions[*i].values().into_iter().map(move |value| (value, at)));
        let free = machine.registers.clone().rev().collect();
        Self { machine, free, of: HashMap::new(), last_use: last_use.collect() }
    }

    fn take(&mut self, value: Value) -> usize {
        let register = self.free.pop().expect("the schedule keeps to the registers there are");
        self.of.insert(value, register);
        register
    }

    fn ends(&self, value: Value, at: usize) -> bool {
        self.last_use[&value] == at
    }

    fn name(&self, register: usize) -> String {
        format!("{}{register}", self.machine.name)
    }

    fn text(&self, source: Source) -> String {
        let Machine { name, lanes, slot: in_memory, .. } = self.machine;
        match source {
            Source::Value(value) => self.name(self.of[&value]),
            Source::Slot(slot) => format!("{name}word ptr {}", in_memory(slot)),
            Source::Constant(constant) => in_all_lanes(constant, *lanes),
        }
    }
}

fn in_page(slot: Slot) -> String {
    format!("[rdi + {}]", (slot.number() as i64 - VERSIONS_SLOT as i64) * SLOT as i64)
}

/// The address of a constant.
pub(crate) fn address(constant: Constant) -> String {
    if let Constant::Behind(pointer, words) = constant {
        return format!("[{pointer} + {}]", 4 * words);
    }
    let number = constant.number() as i64;
    if constant.is_of_version() {
        format!("[rdx + {}]", 4 * number)
    } else {
        format!("[rsi + {}]", 4 * (number - CONSTANTS_MIDDLE as i64))
    }
}

pub(crate) fn word(constant: Constant) -> String {
    format!("dword ptr {}", address(constant))
}

pub(crate) fn in_all_lanes(constant: Constant, lanes: usize) -> String {
    format!("{}{{1to{lanes}}}", word(constant))
}

/// Writes the mask of the lanes that have no bit in common with `source` to where `pointer` points.
pub(crate) fn test(register: &str, source: &str, pointer: &str) -> [String; 2] {
    [format!("vptestnmd k1, {register}, {source}"), format!("kmovw word ptr [{pointer}], k1")]
}

/// Joins the lines, each with its line end.
pub(crate) fn joined(lines: impl IntoIterator<Item = String>) -> String {
    lines.into_iter().map(|line| line + "\n").collect()
}

/// Emits the instructions in the order in which they were written, for code whose dependency chains are short.
pub(crate) fn emit_as_written(flow: &Flow, machine: &Machine) -> Vec<String> {
    let order: Vec<usize> = (0..flow.instructions.len()).collect();
    emit(flow, &order, machine)
}

/// Emits the instructions in this order as assembly, a line each.
pub(crate) fn emit(flow: &Flow, order: &[usize], machine: &Machine) -> Vec<String> {
    let mut registers = Registers::new(flow, order, machine);
    let mut lines = Vec::new();
    for (at, i) in order.iter().enumerate() {
        let instruction = &flow.instructions[*i];
        if let Operation::Ternary(table) = instruction.operation {
            emit_ternary(instruction, table, at, &mut registers, &mut lines);
            continue;
        }
        let sources: Vec<String> = instruction.sources.iter().map(|source| registers.text(*source)).collect();
        release(instruction, at, &mut registers);
        let result = instruction.result.map(|value| {
            let register = registers.take(value);
            registers.name(register)
        });
        let result = result.as_deref().unwrap_or_default();
        let [first, ..] = &sources[..] else { unreachable!("every instruction takes something") };
        let by = |name: &str, with: &dyn Display| format!("{name} {result}, {first}, {with}");
        match instruction.operation {
            Operation::Add => lines.push(by("vpaddd", &sources[1])),
            Operation::Xor => lines.push(by("vpxord", &sources[1])),
            Operation::And => lines.push(by("vpandd", &sources[1])),
            Operation::Unpack(Unpack(name)) => lines.push(by(name, &sources[1])),
            Operation::RotateRight(bits) => lines.push(by("vprord", &bits)),
            Operation::ShiftRight(bits) => lines.push(by("vpsrld", &bits)),
            Operation::Load => lines.push(load(instruction.sources[0], result, first)),
            Operation::Store(slot) => {
                lines.push(format!("vmovdqa32 {}, {first}", registers.text(slot.into())));
            }
            Operation::Test => {
                lines.extend(test(first, &sources[1], "r8"));
            }
            Operation::Ternary(_) => unreachable!("handled above"),
        }
    }
    lines
}

fn load(source: Source, result: &str, text: &str) -> String {
    match source {
        Source::Constant(constant) => format!("vpbroadcastd {result}, {}", word(constant)),
        _ => format!("vmovdqa32 {result}, {text}"),
    }
}

/// Frees the registers of values whose last use is here.
fn release(instruction: &Instruction, at: usize, registers: &mut Registers<'_>) {
    for value in instruction.values().into_iter().filter(|value| registers.last_use[value] == at) {
        registers.free.push(registers.of[&value]);
    }
}

/// `vpternlogd` overwrites its first source: a value that is no longer needed if there is one, otherwise a copy.
fn emit_ternary(
    instruction: &Instruction,
    table: u8,
    at: usize,
    registers: &mut Registers<'_>,
    lines: &mut Vec<String>,
) {
    let sources = [instruction.sources[0], instruction.sources[1], instruction.sources[2]];
    let result = instruction.result.expect("it makes a value");
    let constants = sources.iter().filter(|source| source.is_memory()).count();
    let ends = |i: &usize| sources[*i].value().is_some_and(|value| registers.ends(value, at));
    let over = (0..3).find(ends).filter(|_| constants < 2);
    // Only the last source may be in memory, so of two constants one is copied.
    let copied = |i: &usize| sources[*i].is_memory() == (constants == 2);
    let first = over.or_else(|| (0..3).find(copied)).expect("at most two of three are constants");
    let (order, table) = with_first(first, sources, table);
    let [first, second, third] = order.map(|i| registers.text(sources[i]));
    if over.is_some() {
        let value = sources[order[0]].value().expect("it is one that ends");
        lines.push(format!("vpternlogd {first}, {second}, {third}, {table:#x}"));
        let register = registers.of[&value];
        release(instruction, at, registers);
        registers.free.retain(|free| *free != register);
        registers.of.insert(result, register);
    } else {
        let register = registers.take(result);
        let register = registers.name(register);
        lines.push(load(sources[order[0]], &register, &first));
        lines.push(format!("vpternlogd {register}, {second}, {third}, {table:#x}"));
        release(instruction, at, registers);
    }
}

/// Reorders the sources with `first` first and memory last. Returns the order and the matching table.
fn with_first(first: usize, sources: [Source; 3], table: u8) -> ([usize; 3], u8) {
    let mut order = [0, 1, 2];
    order.swap(0, first);
    if sources[order[1]].is_memory() {
        order.swap(1, 2);
    }
    let answer = |bits: [u8; 3]| {
        let mut original = [0; 3];
        (0..3).for_each(|i| original[order[i]] = bits[i]);
        table >> (original[0] << 2 | original[1] << 1 | original[2]) & 1
    };
    (order, (0..8).map(|i| answer([i >> 2 & 1, i >> 1 & 1, i & 1]) << i).sum())
}
