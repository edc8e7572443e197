//! Small random changes of an input, for the simple fuzzer.

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next_u64() % limit as u64) as usize
    }
}

/// Longest input, bytes.
const LONGEST: usize = 100_000;
/// Bytes that are likely as lengths, opcodes and counts.
const LIKELY: [u8; 16] =
    [0, 1, 2, 0x20, 0x21, 0x47, 0x4b, 0x4c, 0x4d, 0x4e, 0x6a, 0xac, 0xfc, 0xfd, 0xfe, 0xff];

/// Mutates an input several times; `other` provides parts to copy.
pub fn mutate(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    for _ in 0..=random.below(4) {
        let at = random.below(input.len() + 1);
        match random.below(8) {
            0 => input.insert(at, random.next_u64() as u8),
            1 if at < input.len() => drop(input.remove(at)),
            2 if at < input.len() => input[at] ^= 1 << random.below(8),
            3 if at < input.len() => input[at] = LIKELY[random.below(LIKELY.len())],
            4 => input.truncate(at),
            5 => {
                let from = random.below(other.len() + 1);
                let to = from + random.below(other.len() - from + 1);
                input.splice(at..at, other[from..to].iter().copied());
            }
            6 if at < input.len() => {
                // A count or length of four bytes.
                let value = [u32::MAX, 0x7fff_ffff, 0x8000_0000, 0xffff][random.below(4)];
                let bytes = value.to_le_bytes().into_iter();
                input.iter_mut().skip(at).zip(bytes).for_each(|(old, new)| *old = new);
            }
            7 => {
                let from = random.below(at + 1);
                let part = input[from..at].to_vec();
                input.splice(at..at, part);
            }
            _ => input.push(LIKELY[random.below(LIKELY.len())]),
        }
    }
    input.truncate(LONGEST);
}
