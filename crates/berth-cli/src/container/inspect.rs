//! `inspect`, of objects of all kinds.

use berth_client::{Client, Query, segment};
use clap::{ArgMatches, Command};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::context::Context;
use crate::failure::{Failure, Failures, Outcome};
use crate::flags::{self, one, switch};
use crate::format::template::Format;
use crate::image::platform;

/// All kinds of objects, in the order in which a name is looked for.
pub const KINDS: [&str; 10] =
    ["container", "image", "network", "volume", "service", "task", "node", "plugin", "secret", "config"];
/// Those of them that a name without a kind can be: no swarm's.
const ANY: [&str; 5] = ["container", "image", "network", "volume", "plugin"];

/// The command, for containers.
pub fn command() -> Command {
    Command::new("inspect").about("Shows all there is to know about containers").defer(|command| {
        command
            .arg(format())
            .arg(switch("size").short('s').help("Also show sizes"))
            .arg(flags::operands("name").value_name("CONTAINER"))
    })
}

/// The command, for objects of all kinds.
pub fn command_of_all() -> Command {
    Command::new("inspect").about("Shows all there is to know about objects").defer(|command| {
        command
            .arg(format())
            .arg(switch("size").short('s').help("Also show sizes of containers"))
            .arg(one("type", "KIND").help("Only objects of a kind, such as container or image"))
            .arg(flags::operands("name").value_name("NAME|ID"))
    })
}

/// The command, for images.
pub fn command_of_images() -> Command {
    Command::new("inspect").about("Shows all there is to know about images").defer(|command| {
        command
            .arg(format())
            .arg(one("platform", "OS/ARCH").help("Of this platform of the images"))
            .arg(flags::operands("name").value_name("IMAGE"))
    })
}

/// The command, for networks.
pub fn command_of_networks() -> Command {
    Command::new("inspect").about("Shows all there is to know about networks").defer(|command| {
        command
            .arg(format())
            .arg(switch("verbose").short('v').help("Also what helps to find faults"))
            .arg(flags::operands("name").value_name("NETWORK"))
    })
}

/// The command, for volumes.
pub fn command_of_volumes() -> Command {
    Command::new("inspect")
        .about("Shows all there is to know about volumes")
        .defer(|command| command.arg(format()).arg(flags::operands("name").value_name("VOLUME")))
}

fn format() -> clap::Arg {
    one("format", "TEMPLATE").short('f').help("Show by a Go template, or json")
}

/// Runs it, for objects of all kinds.
pub async fn run(context: &Context, matches: &ArgMatches) -> Outcome {
    let known = || {
        format!("\"{}\"", {
            let mut kinds = KINDS;
            kinds.sort_unstable();
            kinds.join("\", \"")
        })
    };
    match flags::text(matches, "type") {
        None => of(context, matches, &ANY).await,
        Some("") => Err(Failure::new(format!("type is empty: must be one of {}", known()))),
        Some(kind) => match KINDS.iter().find(|name| **name == kind) {
            Some(kind) => of(context, matches, &[kind]).await,
            None => Err(Failure::new(format!("unknown type: {kind:?}: must be one of {}", known()))),
        },
    }
}

/// Inspects what is of one of some kinds.
pub async fn of(context: &Context, matches: &ArgMatches, kinds: &[&str]) -> Outcome {
    let format = flags::text(matches, "format").filter(|format| !format.is_empty());
    let format = format.map(Format::read).transpose()?;
    let client = context.client().await?;
    let is_on = |name: &str| matches.try_get_one::<bool>(name).ok().flatten().is_some_and(|on| *on);
    let platform = match matches.try_get_one::<String>("platform") {
        Ok(Some(_)) => platform::one(matches)?,
        _ => None,
    };
    let details = Details { size: is_on("size"), verbose: is_on("verbose"), platform };
    let (mut found, mut failures) = (Vec::new(), Failures::default());
    for name in flags::list(matches, "name") {
        match look_up(&client, &name, kinds, &details).await {
            Ok(object) => found.push(object),
            Err(failure) => failures.push(failure),
        }
    }
    match &format {
        Some(format @ Format::Template(_)) => {
            // As Docker, an empty line if there is nothing to show.
            let mut text = String::new();
            for object in &found {
                match value(object).and_then(|object| format.show(&object)) {
                    Ok(shown) => text.extend([&shown, "\n"]),
                    Err(failure) => failures.push(failure),
                }
            }
            out!("{}", if text.is_empty() { "\n" } else { &text });
        }
        Some(Format::Json) => outln!("{}", layout(&found, None)),
        None => outln!("{}", layout(&found, Some("    "))),
    }
    failures.finish()
}

fn value(object: &RawValue) -> Outcome<Value> {
    serde_json::from_str(object.get())
        .map_err(|error| Failure::new(format!("unable to read inspect data: {error}")))
}

/// What is wanted of those kinds of objects that have it.
struct Details {
    size: bool,
    verbose: bool,
    platform: Option<String>,
}

async fn look_up(client: &Client, name: &str, kinds: &[&str], details: &Details) -> Outcome<Box<RawValue>> {
    let mut last = None;
    for kind in kinds {
        match client.get_bytes(&path(kind, name, details)).await {
            Ok(bytes) => {
                let object = serde_json::from_slice(&bytes)
                    .map_err(|error| Failure::new(format!("unable to read inspect data: {error}")))?;
                if details.size && *kind != "container" {
                    errln!("WARNING: --size ignored for {kind}");
                }
                return Ok(object);
            }
            Err(error) if kinds.len() > 1 && may_be_another(&error) => last = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    drop(last);
    Err(Failure::new(format!("error: no such object: {name}")))
}

fn path(kind: &str, name: &str, details: &Details) -> String {
    let name = segment(name);
    let Details { size, verbose, platform } = details;
    match kind {
        "container" => Query::new().flag("size", *size).on(&format!("/containers/{name}/json")),
        "image" => Query::new().set_some("platform", platform.as_deref()).on(&format!("/images/{name}/json")),
        "plugin" => format!("/{kind}s/{name}/json"),
        "network" => Query::new().flag("verbose", *verbose).on(&format!("/networks/{name}")),
        kind => format!("/{kind}s/{name}"),
    }
}

/// Whether an object of another kind may have the name: names of containers need not be names of images.
fn may_be_another(error: &berth_client::Error) -> bool {
    let text = error.to_string();
    error.is_not_found() || text.contains("not supported") || text.contains("invalid reference format")
}

/// A list of documents, in lines with an indent or without any space. The order of their fields is the daemon's.
fn layout(objects: &[Box<RawValue>], indent: Option<&str>) -> String {
    let mut writer = Layout { text: String::new(), indent, depth: 0 };
    writer.open('[');
    for (index, object) in objects.iter().enumerate() {
        if index > 0 {
            writer.comma();
        }
        writer.document(object.get());
    }
    writer.close(']', objects.is_empty());
    writer.text
}

/// One document, in lines with an indent or without any space; the order of its fields stays.
pub fn laid_out(json: &str, indent: Option<&str>) -> String {
    let mut writer = Layout { text: String::new(), indent, depth: 0 };
    writer.document(json);
    writer.text
}

struct Layout<'a> {
    text: String,
    indent: Option<&'a str>,
    depth: usize,
}

impl Layout<'_> {
    fn line(&mut self) {
        if let Some(indent) = self.indent {
            self.text.push('\n');
            self.text.extend(std::iter::repeat_n(indent, self.depth));
        }
    }

    fn open(&mut self, bracket: char) {
        self.text.push(bracket);
        self.depth += 1;
    }

    fn close(&mut self, bracket: char, empty: bool) {
        self.depth -= 1;
        if !empty {
            self.line();
        }
        self.text.push(bracket);
    }

    fn comma(&mut self) {
        self.text.push(',');
        self.line();
    }

    /// Copies a document that is known to be well formed.
    fn document(&mut self, json: &str) {
        let mut letters = json.chars();
        let mut last = '[';
        if self.depth == 1 && self.text.ends_with('[') {
            self.line();
        }
        while let Some(letter) = letters.next() {
            if letter.is_ascii_whitespace() {
                continue;
            }
            if matches!(last, '{' | '[') && !matches!(letter, '}' | ']') && self.text.ends_with(last) {
                self.line();
            }
            match letter {
                '{' | '[' => self.open(letter),
                '}' | ']' => self.close(letter, matches!(last, '{' | '[')),
                ',' => self.comma(),
                ':' if self.indent.is_some() => self.text.push_str(": "),
                '"' => self.string(&mut letters),
                letter => self.text.push(letter),
            }
            last = letter;
        }
    }

    fn string(&mut self, letters: &mut std::str::Chars<'_>) {
        self.text.push('"');
        while let Some(letter) = letters.next() {
            self.text.push(letter);
            match letter {
                '\\' => self.text.extend(letters.next()),
                '"' => return,
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn documents_keep_their_order() {
        let object = raw(r#"{"b": [1, {}], "a":"x, {\"y\": [", "n":null, "e": [ ]}"#);
        let text = layout(&[object.clone(), raw("{}")], Some("    "));
        let expected = "[\n    {\n        \"b\": [\n            1,\n            {}\n        ],\n        \
                        \"a\": \"x, {\\\"y\\\": [\",\n        \"n\": null,\n        \"e\": []\n    },\n    {}\n]";
        assert_eq!(text, expected);
        assert_eq!(layout(&[object], None), r#"[{"b":[1,{}],"a":"x, {\"y\": [","n":null,"e":[]}]"#);
        assert_eq!(layout(&[], Some("    ")), "[]");
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a\\[{\\]},:\"\\\\ ]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map("[a-c\"{:]{0,3}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_document_is_laid_out_as_the_library_does(value in any_json()) {
            let list = [value];
            let mut pretty = Vec::new();
            let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
            serde::Serialize::serialize(&list, &mut serde_json::Serializer::with_formatter(&mut pretty, formatter))
                .unwrap();
            let object = raw(&list[0].to_string());
            prop_assert_eq!(layout(std::slice::from_ref(&object), Some("    ")), String::from_utf8(pretty).unwrap());
            prop_assert_eq!(layout(&[object], None), serde_json::to_string(&list).unwrap());
        }
    }
}
