//! What goes beside a container's lines: labels and variables that were asked for, and a tag.

use std::collections::BTreeMap;

use gotmpl::{Template, TemplateError, Value};
use serde_json::json;

use super::{Options, Subject};

/// Docker's default for a tag.
pub(super) const DEFAULT_TAG: &str = "{{.ID}}";

/// The attributes that were asked for, with `rename` over their names.
pub(super) fn extra(
    subject: &Subject<'_>,
    options: &Options,
    rename: fn(&str) -> String,
) -> BTreeMap<String, String> {
    let config = &subject.definition.config;
    let labels = config.labels.iter().flatten().map(|(name, value)| (name.as_str(), value.as_str()));
    let variables = config.env.iter().flatten().filter_map(|pair| pair.split_once('='));
    let mut attributes = select(labels, options.get("labels"), options.get("labels-regex"), rename);
    attributes.extend(select(variables, options.get("env"), options.get("env-regex"), rename));
    attributes
}

fn select<'a>(
    pairs: impl Iterator<Item = (&'a str, &'a str)>,
    names: Option<&String>,
    pattern: Option<&String>,
    rename: fn(&str) -> String,
) -> BTreeMap<String, String> {
    // Checked when the container was created.
    let pattern = pattern.filter(|text| !text.is_empty()).and_then(|text| regex::Regex::new(text).ok());
    let listed = |name: &str| names.is_some_and(|names| names.split(',').any(|listed| listed == name));
    pairs
        .filter(|(name, _)| listed(name) || pattern.as_ref().is_some_and(|pattern| pattern.is_match(name)))
        .map(|(name, value)| (rename(name), value.to_owned()))
        .collect()
}

/// The attributes of the drivers that write files: a tag only if there is a template for it.
pub(super) fn of_files(subject: &Subject<'_>, options: &Options) -> Result<BTreeMap<String, String>, String> {
    let mut attributes = extra(subject, options, str::to_owned);
    let tag = tag(subject, options, "")?;
    if !tag.is_empty() {
        attributes.insert("tag".into(), tag);
    }
    Ok(attributes)
}

/// The tag of a container, by its own template or this one.
pub(super) fn tag(subject: &Subject<'_>, options: &Options, default: &str) -> Result<String, String> {
    let template = options.get("tag").filter(|text| !text.is_empty()).map_or(default, String::as_str);
    match template {
        "" => return Ok(String::new()),
        DEFAULT_TAG => return Ok(subject.short_id().to_owned()),
        _ => {}
    }
    let failed = |error: TemplateError| format!("template: log-tag: {error}");
    let definition = subject.definition;
    let image = definition.image.strip_prefix("sha256:").unwrap_or(&definition.image);
    let data = json!({
        "ID": subject.short_id(),
        "FullID": definition.id,
        "Name": subject.name,
        "Command": subject.command(),
        "ImageID": image.get(..12).unwrap_or(image),
        "ImageFullID": definition.image,
        "ImageName": definition.config.image,
        "Hostname": super::plan::host_name(),
        "DaemonName": "docker",
        "ContainerID": definition.id,
        "ContainerName": format!("/{}", subject.name),
        "ContainerImageID": definition.image,
        "ContainerImageName": definition.config.image,
    });
    let value = gotmpl::to_value(&data).map_err(failed)?;
    functions(Template::new("log-tag"))
        .parse(template)
        .and_then(|parsed| parsed.execute_to_string(&value))
        .map_err(failed)
}

/// Those of Docker's functions that make sense for a tag.
fn functions(template: Template) -> Template {
    let text = |values: &[Value]| values.last().map(ToString::to_string).unwrap_or_default();
    template
        .func("lower", move |values| Ok(text(values).to_lowercase().into()))
        .func("upper", move |values| Ok(text(values).to_uppercase().into()))
        .func("json", move |values| Ok(serde_json::Value::from(text(values)).to_string().into()))
        .func("truncate", move |values| {
            let length =
                values.get(1).and_then(|length| length.to_string().parse().ok()).unwrap_or(usize::MAX);
            let text = values.first().map(ToString::to_string).unwrap_or_default();
            Ok(text.chars().take(length).collect::<String>().into())
        })
}

/// What `docker logs --details` puts before each line; ends with a space.
pub(crate) fn details(subject: &Subject<'_>) -> String {
    let empty = Options::new();
    let options = subject.definition.host.log_config.config.as_ref().unwrap_or(&empty);
    let attributes = of_files(subject, options).unwrap_or_default();
    let pairs: Vec<_> =
        attributes.iter().map(|(name, value)| format!("{}={}", query(name), query(value))).collect();
    pairs.join(",") + " "
}

/// Escapes as in the query of a URL, a space as `+`.
fn query(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(byte.into()),
            b' ' => out.push('+'),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject(pairs: &[(&str, &str)]) -> crate::create::Definition {
        let mut definition = crate::create::tests::definition();
        let strings =
            |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).into(), (*b).into())).collect();
        definition.config.labels = Some(strings(&[("foo", "bar"), ("other", "a b&c")]));
        definition.config.env = Some(vec!["baz=qux".into(), "PATH=/bin".into()]);
        definition.host.log_config.config = Some(strings(pairs));
        definition
    }

    fn shown(pairs: &[(&str, &str)]) -> String {
        details(&Subject { definition: &subject(pairs), name: "web" })
    }

    #[test]
    fn details_are_what_was_asked_for_in_order() {
        assert_eq!(shown(&[("labels", "foo,none"), ("env", "baz")]), "baz=qux,foo=bar ");
        assert_eq!(shown(&[("labels-regex", "^o"), ("env-regex", "ba.")]), "baz=qux,other=a+b%26c ");
        assert_eq!(shown(&[]), " ");
        assert_eq!(shown(&[("tag", "x/{{.Name}}/{{upper .Name}}")]), "tag=x%2Fweb%2FWEB ");
    }

    #[test]
    fn a_tag_is_the_short_id_unless_it_is_asked_for() {
        let definition = subject(&[]);
        let subject = Subject { definition: &definition, name: "web" };
        assert_eq!(tag(&subject, &Options::new(), DEFAULT_TAG).unwrap(), subject.short_id());
        let options = |text: &str| Options::from([("tag".to_owned(), text.to_owned())]);
        assert_eq!(tag(&subject, &options("{{.FullID}}"), DEFAULT_TAG).unwrap(), definition.id);
        assert!(tag(&subject, &options("{{.Name"), DEFAULT_TAG).is_err());
    }
}
