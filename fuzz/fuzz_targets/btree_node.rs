#![no_main]

use eratrack_fuzz::Structure;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| Structure::Node.try_out(data));
