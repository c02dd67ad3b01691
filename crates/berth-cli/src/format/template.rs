//! Go templates: `--format`.

use gotmpl::{Template, TemplateError, Value};
use serde_json::{Map, Value as Json};

use crate::failure::{Failure, Outcome};
use crate::format::table;

/// Docker's exit code for a template that it does not understand.
const MALFORMED: u8 = 64;

/// A column of a table: its name in templates, and its heading.
pub type Column = (&'static str, &'static str);

/// Reads a template with Docker's functions.
fn parse(text: &str) -> Outcome<Template> {
    let text = text.replace("\\t", "\t").replace("\\n", "\n");
    functions(Template::new(""))
        .parse(&text)
        .map_err(|error| Failure::with_code(MALFORMED, format!("template parsing error: {error}")))
}

fn functions(template: Template) -> Template {
    template
        .func("json", |values| Ok(values.first().map(to_json).unwrap_or_default().to_string().into()))
        .func("join", |values| match values {
            [Value::List(items), separator] => {
                let items: Vec<String> = items.iter().map(ToString::to_string).collect();
                Ok(items.join(&separator.to_string()).into())
            }
            _ => Err(wrong("join needs a list and a separator")),
        })
        .func("split", |values| match values {
            [text, separator] => {
                let (text, separator) = (text.to_string(), separator.to_string());
                Ok(Value::List(text.split(separator.as_str()).map(Value::from).collect()))
            }
            _ => Err(wrong("split needs a text and a separator")),
        })
        .func("upper", |values| Ok(first(values).to_uppercase().into()))
        .func("lower", |values| Ok(first(values).to_lowercase().into()))
        .func("title", |values| {
            let text = first(values);
            let mut letters = text.chars();
            let title: String = letters
                .next()
                .map(|letter| letter.to_uppercase().chain(letters).collect())
                .unwrap_or_default();
            Ok(title.into())
        })
        .func("truncate", |values| match values {
            [text, Value::Int(length)] => {
                let length = usize::try_from(*length).unwrap_or_default();
                Ok(text.to_string().chars().take(length).collect::<String>().into())
            }
            _ => Err(wrong("truncate needs a text and a length")),
        })
        .func("pad", |values| match values {
            [text, Value::Int(before), Value::Int(after)] => {
                let spaces = |count: i64| " ".repeat(usize::try_from(count).unwrap_or_default().min(1024));
                Ok(format!("{}{text}{}", spaces(*before), spaces(*after)).into())
            }
            _ => Err(wrong("pad needs a text and two widths")),
        })
}

fn first(values: &[Value]) -> String {
    values.first().map(ToString::to_string).unwrap_or_default()
}

fn wrong(text: &str) -> TemplateError {
    TemplateError::Exec(text.to_owned())
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

fn execute(template: &Template, data: &Json) -> Outcome<String> {
    let failed =
        |error: TemplateError| Failure::with_code(MALFORMED, format!("template parsing error: {error}"));
    let value = gotmpl::to_value(data).map_err(failed)?;
    template.execute_to_string(&value).map_err(failed)
}

/// One object by a template; `json` is the object itself.
pub fn object(format: &str, data: &Json) -> Outcome<String> {
    match format {
        "json" => Ok(data.to_string()),
        format => execute(&parse(format)?, data),
    }
}

/// The fields of a row made by `json!`.
pub fn fields(row: Json) -> Map<String, Json> {
    match row {
        Json::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// Rows by a template: each by itself, or with `table ` before it, under headings. Each row is dropped once it is text.
pub fn rows(
    format: &str,
    columns: &[Column],
    rows: impl IntoIterator<Item = Map<String, Json>>,
) -> Outcome<String> {
    if format == "json" {
        return Ok(rows.into_iter().map(|row| Json::Object(row).to_string() + "\n").collect());
    }
    let (body, headed) = match format.strip_prefix("table") {
        Some(rest) if rest.is_empty() || rest.starts_with([' ', '\t', '{']) => (rest.trim_start(), true),
        _ => (format, false),
    };
    let body = if body.is_empty() {
        columns.iter().map(|(name, _)| format!("{{{{.{name}}}}}")).collect::<Vec<_>>().join("\t")
    } else {
        body.to_owned()
    };
    let template = parse(&body)?;
    let mut lines = Vec::new();
    if headed {
        let headings =
            columns.iter().map(|(name, heading)| ((*name).to_owned(), Json::from(*heading))).collect();
        lines.push(execute(&template, &Json::Object(headings))?);
    }
    for row in rows {
        lines.push(execute(&template, &Json::Object(row))?);
    }
    if headed { Ok(table::align(&lines)) } else { Ok(lines.iter().map(|line| format!("{line}\n")).collect()) }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_shown_as_go_shows_them() {
        let data = json!({
            "Name": "/c", "State": {"Running": true, "ExitCode": 0}, "Args": ["x", "y z"], "None": null,
            "Config": {"Labels": {"b": "2", "a": "1"}, "Cmd": ["echo", "x"]}, "Memory": 33_554_432
        });
        for (template, text) in [
            ("{{.Name}} {{.State.Running}} {{.State.ExitCode}}", "/c true 0"),
            ("{{.Config.Cmd}} {{.Memory}}", "[echo x] 33554432"),
            ("{{json .Config.Labels}}", r#"{"a":"1","b":"2"}"#),
            ("{{join .Args \",\"}}|{{upper .Name}}", "x,y z|/C"),
            ("{{range .Args}}<{{.}}>{{end}}", "<x><y z>"),
            ("{{index .Config.Labels \"a\"}}{{len .Args}}", "12"),
            ("{{.Name}}\\t{{truncate .Name 1}}", "/c\t/"),
        ] {
            assert_eq!(object(template, &data).unwrap(), text, "{template}");
        }
        assert_eq!(object("{{", &data).unwrap_err().code, MALFORMED);
    }

    #[test]
    fn rows_have_headings_if_asked() {
        let columns: [Column; 2] = [("ID", "IMAGE ID"), ("Size", "SIZE")];
        let row = json!({"ID": "abc", "Size": "5MB", "Other": 1});
        let list = [row.as_object().unwrap().clone()];
        assert_eq!(rows("{{.ID}}", &columns, list.clone()).unwrap(), "abc\n");
        assert_eq!(
            rows("table {{.Size}}\\t{{.ID}}", &columns, list.clone()).unwrap(),
            "SIZE      IMAGE ID\n5MB       abc\n"
        );
        assert_eq!(rows("table", &columns, list.clone()).unwrap(), "IMAGE ID   SIZE\nabc        5MB\n");
        assert!(rows("json", &columns, list).unwrap().starts_with("{\"ID\":\"abc\""));
    }
}
