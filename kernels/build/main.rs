//! Generates the assembly of the kernels for AVX-512 and for the SHA instructions.
//!
//! What lives here: the loops around the code for AVX-512 alone, and writing the files. What does not: what it computes
//! (`message.rs`, `scan.rs`), and how that becomes instructions: a flow of values (`flow.rs`) → an order
//! (`schedule.rs`) → registers and text (`emit.rs`); the code for both (`sha_avx512/`), where the instructions beside
//! the rounds have an order of their own; and the code for the SHA instructions alone, which is arranged by hand
//! (`sha_ni/`). The files go to the build's output folder; `src/simd/` includes them. Compilers do not interleave the
//! rounds of the two hashes, spill registers and stall, which costs 40 % of the speed.

mod chains;
mod emit;
mod flow;
mod message;
#[path = "../src/simd/page.rs"]
#[allow(dead_code)] // The crate uses the rest.
mod page;
mod scan;
mod schedule;
mod sha_avx512;
mod sha_ni;
#[path = "../src/simd/sha_ni/layout.rs"]
mod sha_ni_layout;
#[path = "../src/simd/sha_page.rs"]
#[allow(dead_code)] // The crate uses the rest.
mod sha_page;

use std::path::Path;
use std::{env, fs};

use emit::AVX512;
use page::VERSION_WORDS;

fn main() {
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=src/simd/page.rs");
    println!("cargo::rerun-if-changed=src/simd/sha_page.rs");
    println!("cargo::rerun-if-changed=src/simd/sha_ni/layout.rs");
    if env::var("CARGO_CFG_TARGET_ARCH").as_deref() != Ok("x86_64") {
        return;
    }
    let folder = env::var_os("OUT_DIR").expect("cargo names a folder for what is built");
    for (file, text) in [
        ("avx512_one.s", one_version()),
        ("avx512_versions.s", several_versions()),
        ("sha_avx512_one.s", sha_avx512::one_version()),
        ("sha_avx512_versions.s", sha_avx512::several_versions()),
        ("sha_ni_one.s", sha_ni::one::code()),
        ("sha_ni_versions.s", sha_ni::several::code()),
    ] {
        fs::write(Path::new(&folder).join(file), text).expect("cargo's folder can be written to");
    }
}

fn iteration(several_versions: bool) -> String {
    let flow = scan::iteration(several_versions);
    emit::emit(&flow, &schedule::schedule(&flow), &AVX512).join("\n")
}

/// rcx: iterations.
fn one_version() -> String {
    let body = iteration(false);
    format!(".p2align 6\n2:\n{body}\nadd r8, 2\ndec rcx\njnz 2b\nvzeroupper\nret\n")
}

/// rcx: iterations, r9: versions. The versions of a batch of nonces follow each other.
fn several_versions() -> String {
    let expansion = emit::emit_as_written(&message::expansion(), &AVX512).join("\n");
    let (body, stride) = (iteration(true), 4 * VERSION_WORDS);
    format!(
        "mov r10, rdx\n3:\n{expansion}\nmov rdx, r10\nmov rax, r9\n.p2align 6\n2:\n{body}\nadd r8, 2\nadd rdx, {stride}\n\
         dec rcx\njz 4f\ndec rax\njnz 2b\njmp 3b\n4:\nvzeroupper\nret\n"
    )
}
