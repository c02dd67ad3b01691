//! One layer: from a stream of its blob to a staged directory.

use std::io::{self, Read};
use std::os::fd::OwnedFd;

use berth_archive::decompress;
use berth_archive::extract::{Extractor, Fixups, Options};
use berth_oci::Digest;
use berth_storage::{LayerStaging, Storage};

use crate::{Error, Result};

/// A layer that is unpacked and verified, but not in its place.
#[derive(Debug)]
pub(crate) struct Unpacked {
    pub staging: LayerStaging,
    pub diff: Digest,
    pub size: u64,
    pub fixups: Fixups,
}

impl Unpacked {
    /// The layer, called `name`, if its content is `diff`.
    pub fn verified(self, name: &str, diff: &Digest) -> Result<Self> {
        if self.diff == *diff {
            return Ok(self);
        }
        Err(Error::WrongLayer { layer: name.to_owned(), actual: self.diff, expected: diff.clone() })
    }
}

/// Unpacks the blob that `input` gives, to its very end, and checks that its content is `diff`. Blocks.
pub(crate) fn unpack(
    storage: &Storage,
    name: &str,
    diff: &Digest,
    mut input: impl Read + Send,
) -> Result<Unpacked> {
    let unpacked = unpack_unknown(storage, name, &mut input, None)?;
    // What follows the compressed stream belongs to the blob's digest all the same.
    io::copy(&mut input, &mut io::sink()).map_err(|source| Error::Unpack {
        layer: name.to_owned(),
        source: berth_archive::Error::Read(source),
    })?;
    unpacked.verified(name, diff)
}

/// Unpacks a layer whose digest nobody has told. Files are taken over from `origin`, if it is made of that. Blocks.
pub(crate) fn unpack_unknown(
    storage: &Storage,
    name: &str,
    input: impl Read + Send,
    origin: Option<OwnedFd>,
) -> Result<Unpacked> {
    storage.check_space()?;
    let staging = storage.layers().stage()?;
    let failed = |source| Error::Unpack { layer: name.to_owned(), source };
    let options = Options {
        keep_free_bytes: storage.keep_free_bytes(),
        marks: storage.layers().marks(),
        ..Options::default()
    };
    let mut extractor = Extractor::new(staging.open()?, options).record(staging.meta()?);
    if let Some(origin) = origin {
        extractor = extractor.take_over(origin);
    }
    let reader = decompress::reader(input).map_err(failed)?;
    let extracted = extractor.layer(reader).map_err(failed)?;
    Ok(Unpacked { staging, diff: extracted.diff_id, size: extracted.content, fixups: extracted.fixups })
}
