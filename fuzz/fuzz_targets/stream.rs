//! The framing of output streams, in pieces.
#![no_main]

use berth_api::stream::Decoder;
use bytes::Bytes;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut decoder = Decoder::new();
    for piece in data.chunks(7) {
        let mut input = Bytes::copy_from_slice(piece);
        while let Ok(Some(chunk)) = decoder.next(&mut input) {
            assert!(!chunk.data.is_empty());
        }
    }
});
