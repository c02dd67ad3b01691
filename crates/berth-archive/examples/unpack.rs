//! Unpacks a tar, compressed or not, into an empty directory: for timing. `unpack TARFILE DIR`.
#![allow(missing_docs)]

use std::error::Error;
use std::fs::File;

use berth_archive::decompress;
use berth_archive::extract::{Extractor, Options};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let (Some(tar), Some(dir), None) = (arguments.next(), arguments.next(), arguments.next()) else {
        return Err("usage: unpack TARFILE DIR".into());
    };
    let reader = decompress::reader(File::open(tar)?)?;
    let made = Extractor::new(File::open(dir)?.into(), Options::default()).layer(reader)?;
    println!("{} entries, {} bytes, {:?}", made.entries, made.size, made.diff_id);
    Ok(())
}
