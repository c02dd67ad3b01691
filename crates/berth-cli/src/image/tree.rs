//! `images --tree`: images with their platforms below them.

use berth_api::descriptor::Platform;
use berth_api::image::Summary;
use clap::ArgMatches;
use unicode_width::UnicodeWidthStr as _;

use crate::failure::{Failure, Outcome};
use crate::flags::{self, on};
use crate::format::human::{short_id, size};

/// Space between columns.
const SPACE: &str = "   ";
/// What stands for an image without a name.
const UNNAMED: &str = "<untagged>";

/// One line: a first column, and what stands beside it if anything does.
struct Line {
    first: String,
    rest: Option<[String; 4]>,
}

/// Whether images are to be shown as a tree.
///
/// # Errors
/// Flags that a tree has no use for.
pub fn wanted(matches: &ArgMatches) -> Outcome<bool> {
    if !on(matches, "tree") {
        return Ok(false);
    }
    let format = flags::text(matches, "format").is_some_and(|format| !format.is_empty());
    let refused = [
        (on(matches, "quiet"), "--quiet"),
        (on(matches, "no-trunc"), "--no-trunc"),
        (on(matches, "digests"), "--show-digest"),
        (format, "--format"),
    ];
    match refused.iter().find(|(given, _)| *given) {
        Some((_, flag)) => Err(Failure::new(format!("{flag} is not yet supported with --tree"))),
        None => Ok(true),
    }
}

/// The tree of images, in the order of their names, those without any at the end.
pub fn show(images: &[Summary]) -> String {
    let mut sorted: Vec<&Summary> = images.iter().collect();
    let name = |image: &&Summary| image.repo_tags.iter().min().cloned();
    sorted.sort_by_key(|image| (name(image).is_none(), name(image)));
    let spaced = images.iter().any(|image| platforms(image).next().is_some());
    let mut lines = Vec::new();
    for image in sorted {
        add(image, &mut lines);
        if spaced {
            lines.push(Line { first: String::new(), rest: None });
        }
    }
    text(&lines)
}

/// The manifests of an image that are images: platform, whether it is kept, ID, sizes, whether it is used.
fn platforms(image: &Summary) -> impl Iterator<Item = (String, &berth_api::image::ManifestSummary, bool)> {
    image.manifests.iter().flatten().filter_map(|manifest| {
        let data = manifest.image_data.as_ref()?;
        Some((shown(&data.platform), manifest, !data.containers.is_empty()))
    })
}

fn add(image: &Summary, lines: &mut Vec<Line>) {
    let content: i64 = image.manifests.iter().flatten().map(|manifest| manifest.size.content).sum();
    let used = image.containers > 0 || platforms(image).any(|(_, _, used)| used);
    let mut names = image.repo_tags.clone();
    names.sort();
    let last = names.pop().unwrap_or_else(|| UNNAMED.to_owned());
    lines.extend(names.into_iter().map(|first| Line { first, rest: None }));
    lines.push(Line { first: last, rest: Some(details(&image.id, image.size, content, used)) });
    let count = platforms(image).count();
    for (index, (platform, manifest, used)) in platforms(image).enumerate() {
        let branch = if index + 1 == count { "└─" } else { "├─" };
        let rest = details(&manifest.id, manifest.size.total, manifest.size.content, used);
        lines.push(Line { first: format!("{branch} {platform}"), rest: Some(rest) });
    }
}

fn details(id: &str, total: i64, content: i64, used: bool) -> [String; 4] {
    [short_id(id).to_owned(), size(total), size(content), if used { "U" } else { "" }.to_owned()]
}

fn shown(platform: &Platform) -> String {
    let mut text = format!("{}/{}", platform.os, platform.architecture);
    if !platform.variant.is_empty() {
        text = format!("{text}/{}", platform.variant);
    }
    text
}

fn text(lines: &[Line]) -> String {
    let width = lines.iter().map(|line| line.first.width()).chain(["IMAGE".len()]).max().unwrap_or_default();
    let row = |first: &str, [id, total, content, extra]: [&str; 4]| {
        let pad = " ".repeat(width - first.width());
        let line = format!("{first}{pad}{SPACE}{id:<12}{SPACE}{total:>10}{SPACE}{content:>12}{SPACE}{extra}");
        format!("{}\n", line.trim_end())
    };
    let mut out = row("IMAGE", ["ID", "DISK USAGE", "CONTENT SIZE", "EXTRA"]);
    for line in lines {
        match &line.rest {
            Some(rest) => out.push_str(&row(&line.first, rest.each_ref().map(String::as_str))),
            None => out.extend([line.first.as_str(), "\n"]),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_api::image::{ImageData, ManifestSize, ManifestSummary};

    #[test]
    fn platforms_stand_below_their_image() {
        let manifest = |architecture: &str, content, containers: &[&str]| ManifestSummary {
            id: format!("sha256:{}", "cd".repeat(32)),
            kind: "image".into(),
            size: ManifestSize { content, total: content * 2 },
            image_data: Some(ImageData {
                platform: Platform {
                    os: "linux".into(),
                    architecture: architecture.into(),
                    ..Platform::default()
                },
                containers: containers.iter().map(|id| (*id).to_owned()).collect(),
                ..ImageData::default()
            }),
            ..ManifestSummary::default()
        };
        let image = Summary {
            id: format!("sha256:{}", "ab".repeat(32)),
            repo_tags: vec!["two:latest".into(), "one:latest".into()],
            size: 4_300_000,
            manifests: Some(vec![manifest("amd64", 1_000_000, &["x"]), manifest("arm64", 0, &[])]),
            ..Summary::default()
        };
        let unnamed = Summary { id: image.id.clone(), size: 1, ..Summary::default() };
        let expected = [
            "IMAGE            ID             DISK USAGE   CONTENT SIZE   EXTRA",
            "one:latest",
            "two:latest       abababababab        4.3MB            1MB   U",
            "├─ linux/amd64   cdcdcdcdcdcd          2MB            1MB   U",
            "└─ linux/arm64   cdcdcdcdcdcd           0B             0B",
            "",
            "<untagged>       abababababab           1B             0B",
            "",
        ];
        assert_eq!(show(&[unnamed, image]).lines().collect::<Vec<_>>(), expected);
    }
}
