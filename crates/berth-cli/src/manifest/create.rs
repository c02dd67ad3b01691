//! `manifest create` and `manifest annotate`.

use clap::{Arg, ArgMatches, Command};

use super::store::Store;
use super::{reference, remote};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags::{self, many, on, one, switch};

/// What images in lists may be for: operating system, and its architectures.
const KNOWN: [(&str, &[&str]); 10] = [
    ("darwin", &["386", "amd64", "arm", "arm64"]),
    ("dragonfly", &["amd64"]),
    ("freebsd", &["386", "amd64", "arm"]),
    (
        "linux",
        &["386", "amd64", "arm", "arm64", "loong64", "mips64", "mips64le", "ppc64le", "riscv64", "s390x"],
    ),
    ("netbsd", &["386", "amd64", "arm"]),
    ("openbsd", &["386", "amd64", "arm"]),
    ("plan9", &["386", "amd64"]),
    ("solaris", &["amd64"]),
    ("wasip1", &["wasm"]),
    ("windows", &["386", "amd64", "arm64"]),
];

/// The command `create`.
pub fn command() -> Command {
    Command::new("create").about("Makes a manifest list of images, to be annotated and pushed").defer(
        |command| {
            command
                .arg(switch("amend").short('a').help("Add to a list that is there"))
                .arg(
                    switch("insecure")
                        .help("Allow a registry without TLS, or with a certificate that is not trusted"),
                )
                .arg(flags::operand("list").value_name("MANIFEST_LIST"))
                .arg(flags::operands("manifest"))
        },
    )
}

/// The command `annotate`.
pub fn annotate_command() -> Command {
    Command::new("annotate").about("Says what an image of a manifest list is for").defer(|command| {
        command
            .arg(one("arch", "ARCHITECTURE").help("Set the architecture"))
            .arg(one("os", "OS").help("Set the operating system"))
            .arg(many("os-features", "FEATURE").help("Add features of the operating system"))
            .arg(one("os-version", "VERSION").help("Set the version of the operating system"))
            .arg(one("variant", "VARIANT").help("Set the variant of the architecture"))
            .arg(flags::operand("list").value_name("MANIFEST_LIST"))
            .arg(Arg::new("manifest").required(true))
    })
}

/// Runs `create`.
pub async fn create(context: &Context, store: &Store, matches: &ArgMatches) -> Outcome {
    let given = flags::text(matches, "list").unwrap_or_default();
    let list = reference(given).map_err(|failure| {
        Failure::new(format!("error parsing name for manifest list {given}: {failure}"))
    })?;
    if store.list(&list)?.is_some() && !on(matches, "amend") {
        return Err(Failure::new("refusing to amend an existing manifest list with no --amend flag"));
    }
    let insecure = on(matches, "insecure");
    for name in flags::list(matches, "manifest") {
        let image = reference(&name)?;
        let kept = store.get(&list, &image)?.filter(super::entry::Entry::is_whole);
        let entry = match kept {
            Some(entry) => entry,
            None => remote::image(&remote::client(context, &image, insecure).await, &image).await?,
        };
        store.save(&list, &image, &entry)?;
    }
    outln!("Created manifest list {}", list.canonical());
    Ok(())
}

/// Runs `annotate`.
pub fn annotate(store: &Store, matches: &ArgMatches) -> Outcome {
    let text = |name| flags::text(matches, name).unwrap_or_default();
    let (of, name) = (text("list"), text("manifest"));
    let list = reference(of).map_err(|failure| {
        Failure::new(format!("annotate: error parsing name for manifest list {of}: {failure}"))
    })?;
    let image = reference(name).map_err(|failure| {
        Failure::new(format!("annotate: error parsing name for manifest {name}: {failure}"))
    })?;
    let mut entry = store
        .get(&list, &image)?
        .ok_or_else(|| Failure::new(format!("manifest for image {name} does not exist in {of}")))?;
    let mut platform = entry.descriptor.platform.take().unwrap_or_default();
    for (flag, field) in [
        ("os", &mut platform.os),
        ("arch", &mut platform.architecture),
        ("variant", &mut platform.variant),
        ("os-version", &mut platform.os_version),
    ] {
        if !text(flag).is_empty() {
            text(flag).clone_into(field);
        }
    }
    let features = flags::list(matches, "os-features");
    for feature in features.iter().flat_map(|text| text.split(',')).filter(|text| !text.is_empty()) {
        if !platform.os_features.iter().any(|known| known == feature) {
            platform.os_features.push(feature.to_owned());
        }
    }
    let (os, architecture) = (platform.os.as_str(), platform.architecture.as_str());
    if !KNOWN.iter().any(|(known, all)| *known == os && all.contains(&architecture)) {
        return Err(Failure::new(format!(
            "manifest entry for image has unsupported os/arch combination: {}/{}",
            text("os"),
            text("arch")
        )));
    }
    entry.descriptor.platform = Some(platform);
    store.save(&list, &image, &entry)
}
