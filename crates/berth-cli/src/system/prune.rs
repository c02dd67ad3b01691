//! `system prune`.

use berth_client::{Client, Query};
use clap::{ArgMatches, Command};
use serde_json::Value;

use crate::confirm::{flags, is_wanted};
use crate::context::Context;
use crate::failure::{Failure, Outcome};
use crate::flags::{on, switch};
use crate::format::human::long_size;
use crate::format::natural;
use crate::values::filter;

/// The command.
pub fn command() -> Command {
    Command::new("prune").about("Removes all that is not used").defer(|command| {
        command
            .arg(switch("all").short('a').help("All images that are not used, not only those without names"))
            .args(flags())
            .arg(switch("volumes").help("Also anonymous volumes"))
    })
}

/// One kind of objects.
struct Kind {
    path: &'static str,
    /// What the warning says of it.
    warning: &'static str,
    /// Above the list of what is gone.
    heading: &'static str,
    /// The list in the answer.
    list: &'static str,
    query: Query,
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let given = filter::given(matches);
    if on(matches, "volumes") && given.iter().any(|(name, _)| name == "until") {
        return Err(Failure::new("ERROR: The \"until\" filter is not supported with \"--volumes\""));
    }
    let kinds = kinds(on(matches, "all"), on(matches, "volumes"), &given);
    if !is_wanted(matches, &warning(&kinds, &given))? {
        return Ok(());
    }
    let client = context.client().await?;
    let mut reclaimed = 0;
    for kind in &kinds {
        let Some(report) = prune(&client, kind).await? else { continue };
        reclaimed += report["SpaceReclaimed"].as_i64().unwrap_or_default();
        out!("{}", shown(kind, &report));
    }
    outln!("Total reclaimed space: {}", long_size(reclaimed));
    Ok(())
}

fn kinds(all: bool, volumes: bool, given: &[(String, String)]) -> Vec<Kind> {
    let query = || Query::new().filters(&filter::filters(given));
    let mut images = filter::filters(given);
    images.add("dangling", if all { "false" } else { "true" });
    let mut kinds = vec![
        Kind {
            path: "/containers/prune",
            warning: "all stopped containers",
            heading: "Deleted Containers",
            list: "ContainersDeleted",
            query: query(),
        },
        Kind {
            path: "/networks/prune",
            warning: "all networks not used by at least one container",
            heading: "Deleted Networks",
            list: "NetworksDeleted",
            query: query(),
        },
        Kind {
            path: "/images/prune",
            warning: match all {
                true => "all images without at least one container associated to them",
                false => "all dangling images",
            },
            heading: "Deleted Images",
            list: "ImagesDeleted",
            query: Query::new().filters(&images),
        },
        Kind {
            path: "/build/prune",
            warning: if all { "all build cache" } else { "unused build cache" },
            heading: "Deleted build cache objects",
            list: "CachesDeleted",
            query: query().flag("all", all),
        },
    ];
    if volumes {
        let volumes = Kind {
            path: "/volumes/prune",
            warning: "all anonymous volumes not used by at least one container",
            heading: "Deleted Volumes",
            list: "VolumesDeleted",
            query: query(),
        };
        kinds.insert(2, volumes);
    }
    kinds
}

fn warning(kinds: &[Kind], given: &[(String, String)]) -> String {
    let mut text = "WARNING! This will remove:\n".to_owned();
    for kind in kinds {
        text.push_str(&format!("  - {}\n", kind.warning));
    }
    let mut filters: Vec<String> = given
        .iter()
        .filter(|(name, _)| matches!(name.as_str(), "label" | "label!" | "until"))
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    filters.sort_by(|a, b| natural::compare(a, b));
    if !filters.is_empty() {
        text.push_str("\n  Items to be pruned will be filtered with:\n");
        filters.iter().for_each(|filter| text.push_str(&format!("  - {filter}\n")));
    }
    text
}

/// Removes what is of a kind; none if the daemon does not have the kind.
async fn prune(client: &Client, kind: &Kind) -> Outcome<Option<Value>> {
    match client.post_for_stream(&kind.query.on(kind.path)).await {
        Ok(body) => Ok(Some(body.json().await?)),
        Err(error) if error.status().is_some_and(|status| matches!(status.as_u16(), 404 | 501)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn shown(kind: &Kind, report: &Value) -> String {
    let line = |item: &Value| match item {
        Value::Object(image) => {
            let named = |name: &str| image.get(name).and_then(Value::as_str);
            match named("Untagged").filter(|name| !name.is_empty()) {
                Some(name) => format!("untagged: {name}"),
                None => format!("deleted: {}", named("Deleted").unwrap_or_default()),
            }
        }
        item => item.as_str().unwrap_or_default().to_owned(),
    };
    let lines: Vec<String> = report[kind.list].as_array().into_iter().flatten().map(line).collect();
    match lines.is_empty() {
        true => String::new(),
        false => format!("{}:\n{}\n\n", kind.heading, lines.join("\n")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_warning_names_what_would_go() {
        let given = [("until".to_owned(), "10h".to_owned()), ("label".to_owned(), "a=b".to_owned())];
        assert_eq!(
            warning(&kinds(false, false, &[]), &[]),
            "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one \
             container\n  - all dangling images\n  - unused build cache\n"
        );
        let text = warning(&kinds(true, true, &given), &given);
        assert!(
            text.contains("  - all anonymous volumes not used by at least one container\n  - all images"),
            "{text}"
        );
        assert!(
            text.ends_with("\n\n  Items to be pruned will be filtered with:\n  - label=a=b\n  - until=10h\n"),
            "{text}"
        );
    }

    #[test]
    fn reports_read_as_dockers() {
        let kinds = kinds(false, true, &[]);
        let report =
            json!({"ImagesDeleted": [{"Untagged": "a:1"}, {"Deleted": "sha256:b"}], "SpaceReclaimed": 5});
        let images = kinds.iter().find(|kind| kind.list == "ImagesDeleted").unwrap();
        assert_eq!(shown(images, &report), "Deleted Images:\nuntagged: a:1\ndeleted: sha256:b\n\n");
        assert_eq!(shown(&kinds[0], &json!({"ContainersDeleted": null})), "");
        assert_eq!(shown(&kinds[1], &json!({"NetworksDeleted": ["n"]})), "Deleted Networks:\nn\n\n");
    }
}
