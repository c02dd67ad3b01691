//! Manifests, indexes, image configurations and names.
#![no_main]

use berth_oci::{Document, ImageConfig, Reference};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = Document::read(data, None);
    let _ = ImageConfig::read(data);
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(name) = text.parse::<Reference>()
    {
        assert_eq!(name.canonical().parse(), Ok(name));
    }
});
