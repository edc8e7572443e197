//! The data of a job that is shown to people.

use std::time::Instant;

use iop_stratum::client::Job;
use iop_stratum::difficulty::Target;

use super::board::JobView;

/// Offset of the coinbase script with its length: after the version, the number of inputs, and the outpoint.
const SCRIPT: usize = 4 + 1 + 36;

/// The view of a job.
pub(super) fn view(job: &Job) -> JobView {
    let nbits = job.notify.nbits.0;
    JobView {
        id: job.notify.job_id.as_str().to_owned(),
        height: height(&job.notify.coinbase1),
        // With invalid nBits no block can be found at all.
        network_difficulty: Target::from_compact(nbits).map_or(f64::MAX, |target| target.difficulty().get()),
        since: Instant::now(),
    }
}

/// The height of a block, with which its coinbase begins (BIP34); `None` if it does not, or this is no coinbase.
fn height(coinbase1: &[u8]) -> Option<u32> {
    if coinbase1.get(4) != Some(&1) || coinbase1.get(SCRIPT - 4..SCRIPT)? != [0xff; 4] {
        return None;
    }
    let length = usize::from(*coinbase1.get(SCRIPT)?);
    let script = &coinbase1[SCRIPT + 1..];
    let script = &script[..length.min(script.len())];
    match *script.first()? {
        0 => Some(0),
        small @ 0x51..=0x60 => Some(u32::from(small - 0x50)),
        size @ 1..=4 => {
            let bytes = script.get(1..=usize::from(size))?;
            // The highest bit is the sign.
            let positive = bytes.last().is_some_and(|byte| byte & 0x80 == 0);
            positive.then(|| bytes.iter().rev().fold(0, |height, byte| height << 8 | u32::from(*byte)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn coinbase(script: &[u8]) -> Vec<u8> {
        let length = u8::try_from(script.len()).unwrap() + 8;
        [&[1, 0, 0, 0, 1][..], &[0; 32], &[0xff; 4], &[length], script].concat()
    }

    #[test]
    fn heights_are_read_as_bip34_writes_them() {
        for (script, expected) in [
            (&[0x00][..], Some(0)),
            (&[0x51], Some(1)),
            (&[0x60], Some(16)),
            (&[1, 17], Some(17)),
            (&[2, 0xff, 0x00], Some(255)),
            (&[3, 0x40, 0x0d, 0x03], Some(200_000)),
            (&[4, 0xff, 0xff, 0xff, 0x7f], Some(i32::MAX as u32)),
            (&[1, 0x80], None),
            (&[5, 1, 2, 3, 4, 5], None),
            (&[4, 1, 2], None),
            (&[0x61], None),
            (&[], None),
        ] {
            assert_eq!(height(&coinbase(script)), expected, "{script:?}");
        }
    }

    #[test]
    fn what_is_no_coinbase_has_no_height() {
        let whole = coinbase(&[0x51]);
        assert!((0..whole.len()).all(|length| height(&whole[..length]).is_none()));
        assert_eq!(height(&[1; 100]), None);
        let mut short = coinbase(&[3, 1, 2, 3]);
        short[SCRIPT] = 2; // the script ends within the push
        assert_eq!(height(&short), None);
    }
}
