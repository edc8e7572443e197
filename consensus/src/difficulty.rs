//! Targets, compact encoding and retargeting (`pow.cpp`, `arith_uint256.cpp`).
//!
//! The compact form (`nBits`) has an exponent byte and a 23-bit mantissa with a sign. The target is
//! mantissa * 256^(exponent - 3), a 256-bit number.

use std::ops::RangeInclusive;

use bitcoin::pow::{CompactTarget, Work};
use bitcoin::{BlockHash, Target};

use crate::ancestors::{Ancestors, HeaderInfo};
use crate::params::Params;

/// Decodes a compact target. Returns `None` if the reference rejects it in any header: negative, zero, or larger than
/// 256 bits.
pub fn target_from_compact(bits: CompactTarget) -> Option<Target> {
    let bits = bits.to_consensus();
    let exponent = (bits >> 24) as usize;
    let mantissa = bits & 0x007f_ffff;
    let value = if exponent <= 3 { mantissa >> (8 * (3 - exponent)) } else { mantissa };
    let negative = bits & 0x0080_0000 != 0;
    let overflow = exponent > 34 || (value > 0xff && exponent > 33) || (value > 0xffff && exponent > 32);
    if value == 0 || negative || overflow {
        return None;
    }
    let mut bytes = [0u8; 32];
    let shift = exponent.saturating_sub(3);
    for (i, byte) in value.to_le_bytes().into_iter().enumerate() {
        if byte != 0 {
            bytes[shift + i] = byte;
        }
    }
    Some(Target::from_le_bytes(bytes))
}

/// Whether a header's hash meets the target of its bits, and the target is within the network's limit
/// (`CheckProofOfWork`).
pub fn has_proof_of_work(hash: &BlockHash, bits: CompactTarget, limit: Target) -> bool {
    target_from_compact(bits).is_some_and(|target| target <= limit && target.is_met_by(*hash))
}

/// The work of a block with these bits: 2^256 / (target + 1) (`GetBlockProof`). Zero for bits that no header may have.
pub fn work(bits: CompactTarget) -> Work {
    target_from_compact(bits).map_or(Work::from_be_bytes([0; 32]), |target| target.to_work())
}

/// The compact target that the block after `chain`'s tip must carry if it has this time (`GetNextWorkRequired`).
pub fn next_work_required(chain: &dyn Ancestors, block_time: u32, params: &Params) -> CompactTarget {
    let limit = params.pow.limit.to_compact_lossy();
    let interval = params.pow.retarget_interval();
    let height = chain.tip_height();
    let tip = chain.header(height);
    // The chain's one-time reset of the difficulty.
    if height + 1 == params.halving_interval {
        return limit;
    }
    if !(height + 1).is_multiple_of(interval) {
        return if params.pow.min_difficulty_blocks {
            min_difficulty_work(chain, block_time, params, limit)
        } else {
            tip.bits
        };
    }
    if params.pow.no_retarget {
        return tip.bits;
    }
    let first = chain.header(height + 1 - interval);
    retarget(tip.bits, i64::from(tip.time) - i64::from(first.time), params)
}

/// The times that the block after `chain`'s tip may be given in place of `block_time` and still carry the same bits. All
/// of them, unless a block of a test network may use the limit for its time alone: then those up to, or those after,
/// that moment.
pub fn times_of_same_work(chain: &dyn Ancestors, block_time: u32, params: &Params) -> RangeInclusive<u32> {
    let bits = |time| next_work_required(chain, time, params);
    if bits(u32::MIN) == bits(u32::MAX) {
        return u32::MIN..=u32::MAX;
    }
    let last = u32::try_from(last_of_usual_work(chain.header(chain.tip_height()), params))
        .expect("a later time, which has other bits, fits 32 bits");
    if block_time <= last { u32::MIN..=last } else { last + 1..=u32::MAX }
}

/// The last time at which a test network's block on this parent may not use the limit.
fn last_of_usual_work(parent: HeaderInfo, params: &Params) -> i64 {
    i64::from(parent.time) + 2 * i64::from(params.pow.target_spacing)
}

/// Test network rule: a block more than twice the spacing after its parent may use the limit; other blocks use the bits
/// of the last block that did not make use of this.
fn min_difficulty_work(
    chain: &dyn Ancestors,
    block_time: u32,
    params: &Params,
    limit: CompactTarget,
) -> CompactTarget {
    let mut height = chain.tip_height();
    let mut header = chain.header(height);
    if i64::from(block_time) > last_of_usual_work(header, params) {
        return limit;
    }
    while height > 0
        && !height.is_multiple_of(params.pow.retarget_interval())
        && height != params.halving_interval
        && header.bits == limit
    {
        height -= 1;
        header = chain.header(height);
    }
    header.bits
}

/// `CalculateNextWorkRequired`: old target * actual time / intended time, with the time clamped to a factor of four and
/// the result to the limit. The product wraps at 256 bits, as in the reference.
fn retarget(bits: CompactTarget, actual_seconds: i64, params: &Params) -> CompactTarget {
    let intended = i64::from(params.pow.target_timespan);
    let actual = actual_seconds.clamp(intended / 4, intended * 4);
    let old = target_from_compact(bits).expect("the header of this target passed its proof of work");
    let actual = u64::try_from(actual).expect("clamped to a positive span");
    let new = div_small(mul_small(old, actual), u64::from(params.pow.target_timespan));
    new.min(params.pow.limit).to_compact_lossy()
}

/// Product modulo 2^256; `factor` is below 2^35.
fn mul_small(target: Target, factor: u64) -> Target {
    let mut bytes = target.to_le_bytes();
    let mut carry = 0u64;
    for byte in &mut bytes {
        let product = u64::from(*byte) * factor + carry;
        *byte = product as u8;
        carry = product >> 8;
    }
    Target::from_le_bytes(bytes)
}

/// Quotient, rounded down; `divisor` is below 2^33.
fn div_small(target: Target, divisor: u64) -> Target {
    let mut bytes = target.to_be_bytes();
    let mut remainder = 0u64;
    for byte in &mut bytes {
        let dividend = (remainder << 8) | u64::from(*byte);
        *byte = (dividend / divisor) as u8;
        remainder = dividend % divisor;
    }
    Target::from_be_bytes(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::ancestors::TestChain;
    use proptest::prelude::*;

    fn compact(bits: u32) -> CompactTarget {
        CompactTarget::from_consensus(bits)
    }

    #[test]
    fn compact_targets_the_reference_refuses_have_no_target() {
        for bits in
            [0x0000_0000, 0x0100_0000, 0x0080_0001, 0x0492_3456, 0xff12_3456, 0x2300_0100, 0x2180_0000]
        {
            assert_eq!(target_from_compact(compact(bits)), None, "{bits:08x}");
        }
        let one = target_from_compact(compact(0x0100_0001 | 0x01_0000)).unwrap();
        assert_eq!(one.to_le_bytes()[0], 1);
        assert!(target_from_compact(compact(0x2200_00ff)).is_some());
        assert!(target_from_compact(compact(0x2300_00ff)).is_none());
    }

    proptest! {
        #[test]
        fn compact_decoding_agrees_with_the_bitcoin_crate(exponent in 1u32..=32, mantissa in 0x8000u32..0x80_0000) {
            let bits = compact(exponent << 24 | mantissa);
            let ours = target_from_compact(bits).unwrap_or(Target::ZERO);
            prop_assert_eq!(ours, Target::from_compact(bits));
        }

        #[test]
        fn retargeting_agrees_with_the_bitcoin_crate(mantissa in 0x8000u32..0x80_0000, seconds in 1i64..10_000_000) {
            let main = Params::main();
            let bits = compact(0x1b00_0000 | mantissa);
            let clamped = seconds.clamp(302_400, 4_838_400) as u64;
            let oracle = CompactTarget::from_next_work_required(bits, clamped, &bitcoin::params::MAINNET);
            prop_assert_eq!(retarget(bits, seconds, &main), oracle);
        }
    }

    #[test]
    fn the_block_at_the_first_halving_gets_the_limit() {
        let main = Params::main();
        let hard = HeaderInfo { version: 0x2000_0000, time: 0, bits: compact(0x1b01_0000) };
        let chain = TestChain::repeat(hard, main.halving_interval as usize);
        assert_eq!(next_work_required(&chain, 0, &main), main.pow.limit.to_compact_lossy());
        let chain = TestChain::repeat(hard, main.halving_interval as usize - 1);
        assert_eq!(next_work_required(&chain, 0, &main), hard.bits);
    }

    #[test]
    fn the_walk_back_of_a_test_network_ends_at_the_halving_height() {
        let test = Params::test();
        let limit = test.pow.limit.to_compact_lossy();
        let easy = HeaderInfo { version: 0x2000_0000, time: 1000, bits: limit };
        let hard = HeaderInfo { bits: compact(0x1b01_0000), ..easy };
        let mut headers = vec![hard; test.halving_interval as usize];
        headers.extend([easy; 5]);
        // Without the special height the walk would continue to the hard block below it.
        assert_eq!(next_work_required(&TestChain(headers), 1000, &test), limit);
        let chain = TestChain(vec![hard, hard, easy, easy]);
        assert_eq!(next_work_required(&chain, 1000, &test), hard.bits);
        assert_eq!(next_work_required(&chain, 1000 + 1200, &test), hard.bits);
        assert_eq!(next_work_required(&chain, 1000 + 1201, &test), limit);
    }

    proptest! {
        #[test]
        fn at_all_times_of_the_same_work_the_bits_are_the_same_and_at_others_they_are_not(
            is_hard in prop::collection::vec(any::<bool>(), 1..6),
            parent_time in any::<u32>(),
            block_time in any::<u32>(),
            near in 0u32..3000,
            other in any::<u32>(),
        ) {
            let test = Params::test();
            let limit = test.pow.limit.to_compact_lossy();
            let header = |&hard: &bool| HeaderInfo {
                version: 0x2000_0000,
                time: parent_time,
                bits: if hard { compact(0x1b01_0000) } else { limit },
            };
            let chain = TestChain(is_hard.iter().map(header).collect());
            for block_time in [block_time, parent_time.saturating_add(near)] {
                let times = times_of_same_work(&chain, block_time, &test);
                prop_assert!(times.contains(&block_time));
                let bits = |time| next_work_required(&chain, time, &test);
                let before = times.start().saturating_sub(1);
                let after = times.end().saturating_add(1);
                for time in [other, *times.start(), *times.end(), before, after] {
                    prop_assert_eq!(bits(time) == bits(block_time), times.contains(&time), "{}", time);
                }
            }
        }
    }

    #[test]
    fn where_no_block_may_use_the_limit_for_its_time_all_times_are_of_the_same_work() {
        let hard = HeaderInfo { version: 0x2000_0000, time: 1000, bits: compact(0x1b01_0000) };
        let chain = TestChain(vec![hard, hard]);
        assert_eq!(times_of_same_work(&chain, 1000, &Params::main()), 0..=u32::MAX);
        assert_eq!(times_of_same_work(&chain, 2200, &Params::test()), 0..=2200);
        assert_eq!(times_of_same_work(&chain, 2201, &Params::test()), 2201..=u32::MAX);
        let interval = TestChain::repeat(hard, Params::test().pow.retarget_interval() as usize);
        assert_eq!(times_of_same_work(&interval, 1000, &Params::test()), 0..=u32::MAX, "a retarget");
    }
}
