//! A layer of unknown origin is unpacked into a fresh directory: nothing may appear beside it.
#![no_main]

use std::fs::File;

use berth_archive::decompress;
use berth_archive::extract::{Extractor, Options};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(work) = tempfile::tempdir() else { return };
    let root = work.path().join("root");
    if std::fs::create_dir(&root).is_err() {
        return;
    }
    if let (Ok(directory), Ok(reader)) = (File::open(&root), decompress::reader(data)) {
        // Refused or not: what counts is where it wrote.
        let _ = Extractor::new(directory.into(), Options::default()).layer(reader);
    }
    let beside = std::fs::read_dir(work.path()).map_or(0, |entries| entries.count());
    assert_eq!(beside, 1);
});
