//! DNS messages of clients and upstreams.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| berth_network::names::read_any(data));
