//! The image `hello`, which needs no network: its only program is part of this one.

use berth_oci::{Digest, ImageConfig};
use berth_storage::{Source, Storage, Tag};
use serde_json::json;

use crate::assemble::{self, Plan};
use crate::unpack::unpack;
use crate::{Error, Result, made};

/// Its name.
const NAME: &str = "docker.io/library/hello:latest";
/// The time of everything in it, so that its ID depends on its content alone.
const CREATED: &str = "2026-01-01T00:00:00Z";
const CREATED_SECONDS: u64 = 1_767_225_600;

/// Whether `name` means this image.
pub(crate) fn is_meant(name: &str) -> bool {
    name.parse::<berth_oci::Reference>().is_ok_and(|name| name.with_default_tag().canonical() == NAME)
}

/// Stores the image. Blocks.
pub(crate) fn make(storage: &Storage) -> Result<()> {
    let layer = layer().map_err(|source| Error::io("making the image hello", source))?;
    let diff = Digest::of(&layer);
    let config = json!({
        "created": CREATED,
        "author": "Berth",
        "architecture": berth_oci::Platform::host().architecture,
        "os": "linux",
        "config": { "Cmd": ["/hello"], "Env": ["PATH=/"], "WorkingDir": "/" },
        "rootfs": { "type": "layers", "diff_ids": [diff] },
        "history": [{ "created": CREATED, "created_by": "berth", "comment": "embedded in Berth" }],
    })
    .to_string()
    .into_bytes();
    let id = Digest::of(&config);
    let parsed = ImageConfig::read(&config)?;
    let mut lease = storage.lease();
    let plan = Plan::new(storage, &parsed, &mut lease)?;
    if plan.present == 0 {
        let unpacked = unpack(storage, "hello", &diff, layer.as_slice())?;
        assemble::place(storage, &plan, vec![unpacked], &mut lease)?;
    }
    storage.blobs().put(&id, &config, &mut lease)?;
    let made = made::manifest(storage, &id, config.len() as u64, plan.diffs.iter().zip(&plan.chains))?;
    storage.blobs().put(&made.descriptor.digest, &made.bytes, &mut lease)?;
    let source = Source { manifest: made.descriptor.digest, index: None };
    let name = Tag { name: NAME.to_owned(), target: id.clone() };
    assemble::record(storage, &id, &parsed, &plan, &[source], &[name])
}

fn layer() -> std::io::Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(berth_sys::payload::HELLO.len() as u64);
    header.set_mode(0o755);
    header.set_mtime(CREATED_SECONDS);
    builder.append_data(&mut header, "hello", berth_sys::payload::HELLO)?;
    builder.into_inner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_its_own_name_means_it() {
        assert!(is_meant("hello") && is_meant("docker.io/library/hello:latest") && is_meant("hello:latest"));
        assert!(!is_meant("hello:other") && !is_meant("x/hello") && !is_meant("HELLO"));
    }
}
