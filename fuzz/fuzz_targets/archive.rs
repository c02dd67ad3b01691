//! The files of an image archive are read one after the other.
#![no_main]

use berth_archive::decompress;
use berth_archive::extract::Limits;
use berth_archive::files::Files;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(reader) = decompress::reader(data) else { return };
    let Ok(mut files) = Files::new(reader, Limits::default()) else { return };
    while let Ok(Some(_)) = files.advance() {
        while files.data(usize::MAX).is_ok_and(|part| !part.is_empty()) {}
    }
});
