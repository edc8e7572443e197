#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| iop_fuzz_targets::find("mercury_envelope").expect("the target is listed")(data));
