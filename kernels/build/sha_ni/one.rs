//! The code for the CPU's SHA-256 instructions.
//!
//! What lives here: the order of the instructions and their registers, arranged by hand. What does not: the constants'
//! values and the caller of the loop (`src/simd/sha_ni/one.rs`), which also determines where everything is in memory:
//! names in braces are offsets that it fills in.
//!
//! `sha256rnds2` can start every other cycle (Zen 5) and takes four, and everything else fits beside it. What matters
//! is that one can always start. So four streams take turns, four rounds each: the first hashes of two nonces, and the
//! second hashes of the two nonces before.

use std::fmt::Write;

/// Nonces in an iteration.
const NONCES: usize = 2;

/// One stream.
struct Stream {
    second_hash: bool,
    /// Index of its nonce.
    number: usize,
    /// The state's registers, in the order that the instructions expect: a, b, e, f and c, d, g, h.
    abef: usize,
    cdgh: usize,
    /// The register of the latest four message words.
    newest: usize,
}

struct Code {
    text: String,
    /// Registers that hold nothing.
    free: Vec<usize>,
}

impl Code {
    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        writeln!(self.text, "{line}").expect("a string takes all");
    }
}

macro_rules! line {
    ($code:expr, $($text:tt)*) => { $code.line(format_args!($($text)*)) };
}

impl Stream {
    fn new(number: usize, second_hash: bool) -> Self {
        let at = 1 + 2 * (2 * number + usize::from(second_hash));
        Self { second_hash, number, abef: at, cdgh: at + 1, newest: 9 + at / 2 }
    }

    /// The address of message words 4 * group to 4 * group + 3.
    fn words(&self, group: usize) -> String {
        let number = self.number;
        match (self.second_hash, group) {
            (true, 0 | 1) => format!("[rdi + {{hashes}} + {}]", 32 * number + 16 * group),
            (true, 2 | 3) => format!("[rdi + {{padding}} + {}]", 16 * (group - 2)),
            (true, _) => format!("[rdi + {{second_words}} + {}]", 64 * number + 16 * (group % 4)),
            (false, _) => format!("[rdi + {{first_words}} + {}]", 64 * number + 16 * (group % 4)),
        }
    }

    /// The address of the group's round constants, to which constant message words have been added.
    fn constants(&self, group: usize) -> String {
        let rounds = if self.second_hash { "second_rounds" } else { "first_rounds" };
        format!("[rdi + {{{rounds}}} + {}]", 16 * group)
    }

    fn begin(&mut self, code: &mut Code) {
        let Self { number, abef, cdgh, newest, .. } = *self;
        if self.second_hash {
            line!(code, "movdqa xmm{abef}, [rdi + {{initial}}]");
            line!(code, "movdqa xmm{cdgh}, [rdi + {{initial}} + 16]");
            return;
        }
        // The nonce as a word of the header: it is added to a and e, and to message words 18 and 19.
        line!(code, "lea eax, [rdx + {number}]");
        line!(code, "bswap eax");
        line!(code, "movd xmm{newest}, eax");
        line!(code, "pshufd xmm{abef}, xmm{newest}, 0x11");
        line!(code, "paddd xmm{abef}, [rdi + {{start}}]");
        line!(code, "movdqa xmm{cdgh}, [rdi + {{start}} + 16]");
        line!(code, "pshufd xmm{newest}, xmm{newest}, 0x15");
        line!(code, "pxor xmm0, xmm0");
        line!(code, "sha256msg1 xmm{newest}, xmm0");
        line!(code, "paddd xmm{newest}, [rdi + {{words_16}}]");
        line!(code, "movdqa {}, xmm{newest}", self.words(4));
    }

    /// Computes the group's message words from the previous sixteen, unless they are constants.
    fn make_words(&mut self, group: usize, code: &mut Code) {
        if group < 4 || group == 4 && !self.second_hash {
            return;
        }
        let made = code.free.pop().expect("a register is free between two groups");
        let new = format!("xmm{made}");
        match (self.second_hash, group) {
            (false, 5) => line!(code, "movdqa {new}, [rdi + {{into_20}}]"),
            (false, 6 | 7) => {
                // Words 8 to 15 except the last are 0, and so is their contribution.
                line!(code, "movdqa {new}, xmm{}", self.newest);
                line!(code, "palignr {new}, {}, 4", self.words(group - 2));
                if group == 7 {
                    line!(code, "paddd {new}, [rdi + {{into_28}}]");
                }
            }
            _ => {
                let other = code.free.pop().expect("a second register is free between two groups");
                line!(code, "movdqa {new}, {}", self.words(group - 4));
                line!(code, "sha256msg1 {new}, {}", self.words(group - 3));
                if self.second_hash && group == 4 {
                    line!(code, "movdqa xmm{other}, {}", self.words(group - 1));
                } else {
                    line!(code, "movdqa xmm{other}, xmm{}", self.newest);
                }
                line!(code, "palignr xmm{other}, {}, 4", self.words(group - 2));
                line!(code, "paddd {new}, xmm{other}");
                code.free.push(other);
            }
        }
        if self.second_hash && group == 4 {
            line!(code, "sha256msg2 {new}, {}", self.words(3));
        } else {
            line!(code, "sha256msg2 {new}, xmm{}", self.newest);
        }
        if group < 15 {
            line!(code, "movdqa {}, {new}", self.words(group));
        }
        code.free.push(std::mem::replace(&mut self.newest, made));
    }

    /// The group's four rounds; of the second hash's last group, only the two that lead to its last word.
    fn rounds(&self, group: usize, code: &mut Code) {
        let Self { abef, cdgh, newest, second_hash, .. } = *self;
        match (second_hash, group) {
            (true, 0 | 1) => {
                line!(code, "movdqa xmm0, {}", self.constants(group));
                line!(code, "paddd xmm0, {}", self.words(group));
            }
            (_, ..4) => line!(code, "movdqa xmm0, {}", self.constants(group)),
            _ => {
                line!(code, "movdqa xmm0, {}", self.constants(group));
                line!(code, "paddd xmm0, xmm{newest}");
            }
        }
        line!(code, "sha256rnds2 xmm{cdgh}, xmm{abef}");
        if second_hash && group == 15 {
            return;
        }
        line!(code, "pshufd xmm0, xmm0, 0x0e");
        line!(code, "sha256rnds2 xmm{abef}, xmm{cdgh}");
    }

    fn end(&self, code: &mut Code) {
        let Self { number, abef, cdgh, .. } = *self;
        if self.second_hash {
            line!(code, "movd [rsi + {}], xmm{cdgh}", 4 * number);
            return;
        }
        let both = self.newest;
        line!(code, "paddd xmm{abef}, [rdi + {{midstate}}]");
        line!(code, "paddd xmm{cdgh}, [rdi + {{midstate}} + 16]");
        line!(code, "pshufd xmm{abef}, xmm{abef}, 0x1b");
        line!(code, "pshufd xmm{cdgh}, xmm{cdgh}, 0x1b");
        line!(code, "movdqa xmm{both}, xmm{abef}");
        line!(code, "punpcklqdq xmm{both}, xmm{cdgh}");
        line!(code, "punpckhqdq xmm{abef}, xmm{cdgh}");
        line!(code, "movdqa [rdi + {{hashes}} + {}], xmm{both}", 32 * number);
        line!(code, "movdqa [rdi + {{hashes}} + {}], xmm{abef}", 32 * number + 16);
    }
}

/// rdi: memory, rsi: last words, edx: the first nonce, rcx: iterations.
pub(crate) fn code() -> String {
    let mut code = Code { text: String::from(".p2align 6\n2:\n"), free: vec![13, 14, 15] };
    // Second hashes come first: they read what the first hashes overwrite.
    let mut streams: Vec<Stream> =
        (0..NONCES).flat_map(|number| [Stream::new(number, true), Stream::new(number, false)]).collect();
    for stream in &mut streams {
        stream.begin(&mut code);
    }
    for group in 0..16 {
        for stream in &mut streams {
            if group > 0 || stream.second_hash {
                stream.rounds(group, &mut code);
            }
            if group < 15 {
                stream.make_words(group + 1, &mut code);
            }
        }
    }
    for stream in &streams {
        stream.end(&mut code);
    }
    // The registers of a first iteration's latest words are those of the next.
    line!(code, "add rsi, {}", 4 * NONCES);
    line!(code, "add edx, {NONCES}");
    line!(code, "dec rcx");
    line!(code, "jnz 2b");
    line!(code, "ret");
    code.text
}
