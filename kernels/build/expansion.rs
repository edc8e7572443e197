//! Message words by code that is the same for all of them, so that it need not be there for each.
//!
//! What lives here: the next words, where pointers say. What does not: who moves the pointers. Constants are words like
//! others, in all lanes alike. (`message.rs` has a message's words one by one, without what is constant.)

use crate::emit::address;
use crate::page::{Constant, Slot};
use crate::places::read;
use crate::sha_page::REGISTER;

/// The registers that this takes; what is in them means nothing afterwards. The last is the one of the lower sixteen that the
/// rounds leave.
pub(crate) const ONE: &str = "ymm30";
pub(crate) const TWO: &str = "ymm31";
const THREE: &str = "ymm15";

/// The register so many behind the pointer.
pub(crate) fn behind(pointer: &str, registers: i64) -> String {
    format!("ymmword ptr [{pointer} + {}]", registers * REGISTER as i64)
}

fn add(what: &str) -> String {
    format!("vpaddd {ONE}, {ONE}, {what}")
}

fn store(to: &str) -> String {
    format!("vmovdqa32 {to}, {ONE}")
}

/// σ of what is in memory, in [`ONE`]. No ternary operations: they would need the units of the SHA instructions.
fn small_sigma(source: &str, [a, b]: [u32; 2], shift: u32) -> [String; 6] {
    [
        format!("vmovdqa32 {ONE}, {source}"),
        format!("vprord {TWO}, {ONE}, {a}"),
        format!("vpsrld {THREE}, {ONE}, {shift}"),
        format!("vprord {ONE}, {ONE}, {b}"),
        format!("vpxord {TWO}, {TWO}, {THREE}"),
        format!("vpxord {ONE}, {ONE}, {TWO}"),
    ]
}

/// The i-th of the next words, in [`ONE`] and where it belongs.
fn word(words: &str, i: i64) -> Vec<String> {
    let at = |before: i64| behind(words, i - before);
    let mut lines = Vec::new();
    lines.extend(small_sigma(&at(15), [7, 18], 3));
    lines.extend([add(&at(16)), add(&at(7)), store(&at(0))]);
    lines.extend(small_sigma(&at(2), [17, 19], 10));
    lines.extend([add(&at(0)), store(&at(0))]);
    lines
}

/// The i-th of the next words, and what its round adds in [`ONE`].
pub(crate) fn sum(words: &str, constants: &str, i: usize) -> Vec<String> {
    let mut lines = word(words, i as i64);
    lines.push(add(&format!("dword ptr [{constants} + {}]{{1to8}}", 4 * i)));
    lines
}

/// The same with what its round adds so many registers behind the word.
pub(crate) fn sum_behind(words: &str, constants: &str, i: usize, registers: usize) -> Vec<String> {
    let mut lines = sum(words, constants, i);
    lines.push(store(&behind(words, (i + registers) as i64)));
    lines
}

/// What the rounds of the i-th of the next words, an even one, and of the one behind it add, the one beside the other.
pub(crate) fn pair(words: &str, constants: &str, pairs: &str, i: usize) -> Vec<String> {
    let [even, odd] = [0, 1].map(|word| format!("ymmword ptr {}", read(Slot::PairOf(word), 0)));
    let mut lines = sum(words, constants, i);
    lines.push(store(&even));
    lines.extend(sum(words, constants, i + 1));
    lines.extend([
        store(&odd),
        format!("vmovdqa32 {TWO}, {even}"),
        format!("vpunpckldq {ONE}, {TWO}, {odd}"),
        format!("vpunpckhdq {TWO}, {TWO}, {odd}"),
        store(&behind(pairs, i as i64)),
        format!("vmovdqa32 {}, {TWO}", behind(pairs, i as i64 + 1)),
    ]);
    lines
}

/// Lets the pointer stand at the constant.
pub(crate) fn point_to(pointer: &str, constant: Constant) -> String {
    format!("lea {pointer}, {}\n", address(constant))
}
