//! The functions that Docker's templates have beside Go's.

use std::sync::{Arc, Mutex, PoisonError};

use berth_api::StringMap;
use gotmpl::{Template, TemplateError, Value};
use serde_json::Value as Json;

/// The labels of the row that is shown, for `.Label`.
pub type Labels = Arc<Mutex<StringMap>>;

/// Longest padding; nobody reads more.
const WIDEST: i64 = 1024;

/// Adds the functions for rows and objects.
pub fn of_values(template: Template, labels: &Labels) -> Template {
    let labels = Arc::clone(labels);
    template
        .func("json", |values| Ok(values.first().map(to_json).unwrap_or_default().to_string().into()))
        .func("join", join)
        .func("split", split)
        .func("upper", |values| Ok(first(values).to_uppercase().into()))
        .func("lower", |values| Ok(first(values).to_lowercase().into()))
        .func("title", |values| Ok(title(&first(values)).into()))
        .func("truncate", truncate)
        .func("pad", pad)
        .func(LABEL, move |values| {
            let labels = labels.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(labels.get(&first(values)).cloned().unwrap_or_default().into())
        })
}

/// Adds the same for headings, which they leave as they are, but for padding.
pub fn of_headings(template: Template) -> Template {
    let mut template = template.func("pad", pad).func(LABEL, |values| {
        let name = first(values);
        let last = name.rsplit('.').next().unwrap_or_default();
        Ok(last.replace(['-', '_'], " ").into())
    });
    for name in ["json", "join", "split", "upper", "lower", "title", "truncate"] {
        template = template.func(name, |values| Ok(first(values).into()));
    }
    template
}

/// What `.Label "name"`, a method of Docker's rows, is here.
const LABEL: &str = "berthLabel";

/// Makes calls of the method `.Label` calls of a function.
pub fn without_methods(text: &str) -> String {
    const METHOD: &str = ".Label ";
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(METHOD) {
        let (before, after) = rest.split_at(at);
        out.push_str(before);
        if before.ends_with([' ', '{', '(', '|', '\t']) {
            out.extend([LABEL, " "]);
        } else {
            out.push_str(METHOD);
        }
        rest = &after[METHOD.len()..];
    }
    out + rest
}

fn first(values: &[Value]) -> String {
    values.first().map(ToString::to_string).unwrap_or_default()
}

fn wrong(text: &str) -> TemplateError {
    TemplateError::Exec(text.to_owned())
}

fn join(values: &[Value]) -> Result<Value, TemplateError> {
    let [elements, separator] = values else { return Err(wrong("join needs a list and a separator")) };
    let mut items: Vec<String> = match elements {
        Value::Nil => Vec::new(),
        Value::List(items) => items.iter().map(ToString::to_string).collect(),
        Value::Map(items) => items.values().map(ToString::to_string).collect(),
        _ => return Err(wrong("error calling join: expected slice")),
    };
    if matches!(elements, Value::Map(_)) {
        items.sort();
    }
    Ok(items.join(&separator.to_string()).into())
}

fn split(values: &[Value]) -> Result<Value, TemplateError> {
    let [text, separator] = values else { return Err(wrong("split needs a text and a separator")) };
    let (text, separator) = (text.to_string(), separator.to_string());
    Ok(Value::List(match separator.as_str() {
        "" => text.chars().map(|letter| Value::from(letter.to_string())).collect(),
        separator => text.split(separator).map(Value::from).collect(),
    }))
}

/// The text with a capital at the beginning of each word.
fn title(text: &str) -> String {
    let mut inside = false;
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if inside {
            out.push(letter)
        } else {
            out.extend(letter.to_uppercase())
        }
        inside = letter.is_alphanumeric() || matches!(letter, '_' | '\'');
    }
    out
}

fn truncate(values: &[Value]) -> Result<Value, TemplateError> {
    let [text, Value::Int(length)] = values else { return Err(wrong("truncate needs a text and a length")) };
    let length = usize::try_from(*length).unwrap_or_default();
    Ok(text.to_string().chars().take(length).collect::<String>().into())
}

fn pad(values: &[Value]) -> Result<Value, TemplateError> {
    let [text, Value::Int(before), Value::Int(after)] = values else {
        return Err(wrong("pad needs a text and two widths"));
    };
    let text = text.to_string();
    if text.is_empty() {
        return Ok(text.into());
    }
    let spaces = |count: i64| " ".repeat(usize::try_from(count.min(WIDEST)).unwrap_or_default());
    Ok(format!("{}{text}{}", spaces(*before), spaces(*after)).into())
}

fn to_json(value: &Value) -> Json {
    match value {
        Value::Bool(value) => (*value).into(),
        Value::Int(value) => (*value).into(),
        Value::Uint(value) => (*value).into(),
        Value::Float(value) => (*value).into(),
        Value::String(value) => value.to_string().into(),
        Value::List(values) => values.iter().map(to_json).collect(),
        Value::Map(values) => {
            Json::Object(values.iter().map(|(name, value)| (name.to_string(), to_json(value))).collect())
        }
        _ => Json::Null,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_capitalised_as_in_go() {
        assert_eq!(title("up 2 hours"), "Up 2 Hours");
        assert_eq!(title("bob's a_b c-d"), "Bob's A_b C-D");
    }

    #[test]
    fn methods_become_functions() {
        assert_eq!(without_methods("{{.Label \"a\"}} .Labels"), "{{berthLabel \"a\"}} .Labels");
        assert_eq!(without_methods("{{if (.Label \"a\")}}"), "{{if (berthLabel \"a\")}}");
        assert_eq!(without_methods("{{$x.Label \"a\"}}"), "{{$x.Label \"a\"}}");
    }
}
