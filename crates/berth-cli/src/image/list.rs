//! `images`.

use berth_api::image::Summary;
use berth_client::Query;
use berth_oci::Reference;
use clap::{Arg, ArgMatches, Command};
use serde_json::{Map, Value};

use super::tree;
use crate::context::Context;
use crate::failure::Outcome;
use crate::flags::{self, many, on, one, switch};
use crate::format::human::{ago, moment, short_id, size};
use crate::format::template::{self, Column};
use crate::values::filter;

const COLUMNS: [Column; 5] = [
    ("Repository", "REPOSITORY"),
    ("Tag", "TAG"),
    ("ID", "IMAGE ID"),
    ("CreatedSince", "CREATED"),
    ("Size", "SIZE"),
];
const FURTHER: [Column; 5] = [
    ("Digest", "DIGEST"),
    ("CreatedAt", "CREATED AT"),
    ("Containers", "CONTAINERS"),
    ("SharedSize", "SHARED SIZE"),
    ("UniqueSize", "UNIQUE SIZE"),
];
/// Each image in lines of its own.
const RAW: &str = "\
repository: {{ .Repository }}
tag: {{.Tag}}
{digest}image_id: {{.ID}}
created_at: {{.CreatedAt}}
virtual_size: {{.Size}}
";
const NONE: &str = "<none>";

/// The command.
pub fn command() -> Command {
    Command::new("list").about("Lists images").defer(|command| {
        command
            .arg(switch("all").short('a').help("Also intermediate images"))
            .arg(switch("digests").help("Show digests"))
            .arg(switch("disk").help("Show what each image takes alone, and together with others"))
            .arg(many("filter", "NAME=VALUE").short('f').value_parser(filter::filter).help("Only some"))
            .arg(one("format", "TEMPLATE").help("Show by a Go template, 'table TEMPLATE' or json"))
            .arg(switch("no-trunc").help("Show everything in full"))
            .arg(switch("tree").help("Show the platforms of each image as a tree"))
            .arg(switch("quiet").short('q').help("Show IDs only"))
            .arg(
                Arg::new("repository")
                    .value_name("REPOSITORY[:TAG]")
                    .help("Only of a repository, or with a tag; * and ? stand for anything"),
            )
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let mut pairs = filter::given(matches);
    if let Some(repository) = flags::text(matches, "repository") {
        pairs.push(("reference".to_owned(), repository.to_owned()));
    }
    let tree = tree::wanted(matches)?;
    let format = flags::format(matches, &context.config.settings.images_format);
    let disk = on(matches, "disk");
    let path = Query::new()
        .flag("all", on(matches, "all"))
        .flag("manifests", tree)
        .flag("shared-size", disk || format.is_some_and(shows_sharing))
        .filters(&filter::filters(&pairs))
        .on("/images/json");
    let client = context.client().await?;
    let found: Vec<Summary> = client.get(&path).await?;
    if tree {
        out!("{}", tree::show(&found));
        return Ok(());
    }
    let (whole, digests) = (on(matches, "no-trunc"), on(matches, "digests"));
    if on(matches, "quiet") && matches!(format, None | Some("raw" | "table")) {
        for image in &found {
            for _ in rows(image, &Shown { whole, digests, fields: "" }) {
                let raw = if format == Some("raw") { "image_id: " } else { "" };
                outln!("{raw}{}", if whole { &image.id } else { short_id(&image.id) });
            }
        }
        return Ok(());
    }
    let format = match format.unwrap_or("table") {
        "raw" => &RAW.replace("{digest}", if digests { "digest: {{.Digest}}\n" } else { "" }),
        format => format,
    };
    let mut columns = COLUMNS.to_vec();
    if digests {
        columns.insert(2, FURTHER[0]);
    }
    if disk {
        columns.extend([FURTHER[4], FURTHER[3], FURTHER[2]]);
    }
    if format != "table" {
        let further = FURTHER.iter().filter(|further| columns.iter().all(|column| column.0 != further.0));
        let further: Vec<Column> = further.copied().collect();
        columns.extend(further);
    }
    // A template can name a field by other means than its name; a table without one names its columns.
    let named = columns.iter().map(|column| column.0).collect::<Vec<_>>().join(" ");
    let fields = if format == "table" { named.as_str() } else { "json" };
    let shown = Shown { whole, digests: digests || format.contains(".Digest"), fields };
    out!("{}", template::rows(format, &columns, found.iter().flat_map(|image| rows(image, &shown)))?);
    Ok(())
}

/// Whether a template shows what has to be asked for.
fn shows_sharing(format: &str) -> bool {
    format.contains(".SharedSize") || format.contains(".UniqueSize")
}

/// How rows are shown.
struct Shown<'a> {
    /// IDs in full.
    whole: bool,
    digests: bool,
    /// The columns or the template: only fields that it names are made.
    fields: &'a str,
}

/// One row for each name, and one for an image without any.
fn rows(image: &Summary, shown: &Shown<'_>) -> Vec<Map<String, Value>> {
    let parse =
        |names: &[String]| -> Vec<Reference> { names.iter().filter_map(|name| name.parse().ok()).collect() };
    let (tags, by_digest) = (parse(&image.repo_tags), parse(&image.repo_digests));
    let digest_of = |repository: &str| {
        by_digest
            .iter()
            .find(|reference| reference.familiar_repository() == repository)
            .and_then(|reference| reference.digest().map(ToString::to_string))
    };
    if !tags.is_empty() {
        let named = tags.iter().map(|tag| {
            let repository = tag.familiar_repository();
            let digest = if shown.digests { digest_of(&repository) } else { None };
            row(image, shown, repository, tag.tag().unwrap_or(NONE), digest)
        });
        return named.collect();
    }
    match by_digest.first() {
        Some(reference) => {
            let digest = reference.digest().map(ToString::to_string);
            vec![row(image, shown, reference.familiar_repository(), NONE, digest)]
        }
        None => vec![row(image, shown, NONE.to_owned(), NONE, None)],
    }
}

fn row(
    image: &Summary,
    shown: &Shown<'_>,
    repository: String,
    tag: &str,
    digest: Option<String>,
) -> Map<String, Value> {
    let known = |bytes: i64| if image.shared_size < 0 { "N/A".to_owned() } else { size(bytes) };
    let mut row = Map::new();
    // A list may be long: what nobody sees is not written.
    let mut field = |name: &str, value: &dyn Fn() -> String| {
        if shown.fields == "json" || shown.fields.contains(name) {
            row.insert(name.to_owned(), Value::String(value()));
        }
    };
    field("Repository", &|| repository.clone());
    field("Tag", &|| tag.to_owned());
    field("ID", &|| if shown.whole { image.id.clone() } else { short_id(&image.id).to_owned() });
    field("Digest", &|| digest.clone().unwrap_or_else(|| NONE.to_owned()));
    field("CreatedSince", &|| if image.created > 0 { ago(image.created) } else { "N/A".to_owned() });
    field("CreatedAt", &|| moment(image.created));
    field("Size", &|| size(image.size));
    field("Containers", &|| match image.containers {
        ..0 => "N/A".to_owned(),
        count => count.to_string(),
    });
    field("UniqueSize", &|| known(image.size - image.shared_size));
    field("SharedSize", &|| known(image.shared_size));
    row
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn images_have_a_row_for_each_name() {
        let image = Summary {
            id: format!("sha256:{}", "ab".repeat(32)),
            repo_tags: vec!["busybox:latest".into(), "127.0.0.1:5000/b:v1".into()],
            size: 4_300_000,
            ..Summary::default()
        };
        let shown = Shown { whole: false, digests: false, fields: "json" };
        let found = rows(&image, &shown);
        assert_eq!((&found[0]["Repository"], &found[0]["Tag"]), (&json!("busybox"), &json!("latest")));
        assert_eq!(found[1]["Repository"], "127.0.0.1:5000/b");
        assert_eq!((&found[0]["ID"], &found[0]["Size"]), (&json!("abababababab"), &json!("4.3MB")));
        let image = Summary { repo_tags: vec![], ..image };
        assert_eq!(rows(&image, &shown)[0]["Repository"], NONE);
        let few = rows(&image, &Shown { fields: "Tag Size", ..shown });
        assert_eq!(few[0].keys().collect::<Vec<_>>(), ["Size", "Tag"]);
    }
}
