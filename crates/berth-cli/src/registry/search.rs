//! `search`.

use berth_api::image::SearchResult;
use berth_client::Query;
use clap::{ArgMatches, Command, value_parser};
use serde_json::{Map, Value, json};

use crate::context::Context;
use crate::credentials;
use crate::failure::{Failure, Outcome};
use crate::flags::{self, many, on, one, switch};
use crate::format::human::ellipsis;
use crate::format::template::{self, Column};
use crate::values::filter;

const COLUMNS: [Column; 4] =
    [("Name", "NAME"), ("Description", "DESCRIPTION"), ("StarCount", "STARS"), ("IsOfficial", "OFFICIAL")];
/// Longest description in a table, in characters.
const WIDTH: usize = 45;

/// The command.
pub fn command() -> Command {
    Command::new("search").about("Searches Docker Hub, or another registry, for images").defer(|command| {
        command
            .arg(
                many("filter", "NAME=VALUE")
                    .short('f')
                    .value_parser(filter::filter)
                    .help("Only some: is-official=BOOL, stars=NUMBER"),
            )
            .arg(one("format", "TEMPLATE").help("Show by a Go template, 'table TEMPLATE' or json"))
            .arg(
                one("limit", "NUMBER")
                    .value_parser(value_parser!(i64))
                    .help("Most results, up to 100; 25 if nothing is said"),
            )
            .arg(switch("no-trunc").help("Show descriptions in full"))
            .arg(flags::operand("term").value_name("[REGISTRY/]TERM"))
    })
}

/// Runs it.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let term = flags::text(matches, "term").unwrap_or_default();
    if term.contains("://") {
        return Err(Failure::new(format!(
            "invalid repository name: repository name ({term}) should not have a scheme"
        )));
    }
    // As with Docker's client, what is not above zero is as if nothing was said.
    let limit =
        Some(flags::number(matches, "limit")).filter(|limit| *limit > 0).map(|limit| limit.to_string());
    let path = Query::new()
        .set("term", term)
        .set_some("limit", limit.as_deref())
        .filters(&filter::filters(&filter::given(matches)))
        .on("/images/search");
    let auth = credentials::header_for(&context.config, server(term)).await?;
    let client = context.client().await?;
    let found: Vec<SearchResult> = match auth {
        Some(auth) => client.get_with(&path, "x-registry-auth", &auth).await?,
        None => client.get(&path).await?,
    };
    let format = flags::text(matches, "format").filter(|format| !format.is_empty()).unwrap_or("table");
    let whole = on(matches, "no-trunc");
    let rows = found.iter().map(|result| row(result, whole, format == "json"));
    out!("{}", template::rows(format, &COLUMNS, rows)?);
    Ok(())
}

/// Under which name the account of the registry that is searched is kept.
fn server(term: &str) -> &str {
    let host = term.split_once('/').map(|(host, _)| host);
    let host = host.filter(|host| host.contains(['.', ':']) || *host == "localhost");
    credentials::address(host.unwrap_or("docker.io"))
}

fn row(result: &SearchResult, whole: bool, json: bool) -> Map<String, Value> {
    // A terminal shows this: what strangers wrote may not steer it.
    let clean = |text: &str| -> String {
        let spaces =
            text.chars().map(|letter| if matches!(letter, '\n' | '\r' | '\t') { ' ' } else { letter });
        spaces.filter(|letter| !letter.is_control()).collect()
    };
    let description = clean(&result.description);
    let official = match (result.is_official, json) {
        (official, true) => official.to_string(),
        (true, false) => "[OK]".to_owned(),
        (false, false) => String::new(),
    };
    template::fields(json!({
        "Name": clean(&result.name),
        "Description": if whole { description } else { ellipsis(&description, WIDTH) },
        "StarCount": result.star_count.to_string(),
        "IsOfficial": official,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_for_terminals() {
        let result = SearchResult {
            name: "a\u{1b}[2J".into(),
            description: format!("one\ntwo {}", "x".repeat(60)),
            star_count: 7,
            is_official: true,
            ..SearchResult::default()
        };
        let short = row(&result, false, false);
        assert_eq!((&short["Name"], &short["IsOfficial"]), (&json!("a[2J"), &json!("[OK]")));
        assert_eq!(short["Description"].as_str().unwrap().chars().count(), WIDTH);
        assert!(short["Description"].as_str().unwrap().starts_with("one two xx"));
        assert_eq!(row(&result, true, true)["IsOfficial"], "true");
        assert_eq!(row(&result, true, true)["Description"].as_str().unwrap().len(), 68);
    }

    #[test]
    fn accounts_are_those_of_the_registry_that_is_searched() {
        assert_eq!(server("busybox"), credentials::HUB);
        assert_eq!(server("someone/busybox"), credentials::HUB);
        assert_eq!(server("r.example:5000/x"), "r.example:5000");
    }
}
