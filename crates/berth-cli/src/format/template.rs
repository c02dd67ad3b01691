//! Go templates: `--format`.

use std::sync::PoisonError;

use berth_api::StringMap;
use gotmpl::{MissingKey, Template, TemplateError};
use serde_json::{Map, Value as Json};

use super::functions::{self, Labels};
use crate::failure::{Failure, Outcome};
use crate::format::table;

/// Docker's exit code for the template of an object that it does not understand.
const MALFORMED: u8 = 64;

/// A column of a table: its name in templates, and its heading.
pub type Column = (&'static str, &'static str);

fn wrong(error: TemplateError) -> Failure {
    Failure::new(format!("template parsing error: {error}"))
}

fn parse(text: &str, labels: &Labels) -> Result<Template, TemplateError> {
    functions::of_values(Template::new(""), labels).parse(&functions::without_methods(text))
}

fn execute(template: &Template, data: &Json) -> Outcome<String> {
    let value = gotmpl::to_value(data).map_err(wrong)?;
    template.execute_to_string(&value).map_err(wrong)
}

/// A template for objects, read before there are any.
pub enum Format {
    /// The object as JSON, in one line.
    Json,
    /// A Go template.
    Template(Box<Template>),
}

impl Format {
    /// Reads one.
    ///
    /// # Errors
    /// The template makes no sense; the exit code is Docker's for that.
    pub fn read(text: &str) -> Outcome<Self> {
        if text == "json" {
            return Ok(Self::Json);
        }
        let parsed = parse(text, &Labels::default());
        parsed
            .map(|template| Self::Template(Box::new(template)))
            .map_err(|error| Failure { code: MALFORMED, ..wrong(error) })
    }

    /// Shows an object.
    pub fn show(&self, data: &Json) -> Outcome<String> {
        match self {
            Self::Json => Ok(data.to_string()),
            Self::Template(template) => execute(template, data),
        }
    }
}

/// One object by a template; `json` is the object itself.
pub fn object(format: &str, data: &Json) -> Outcome<String> {
    Format::read(format)?.show(data)
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
    labelled(format, columns, rows, &[])
}

/// As [`rows`], with the labels of each row for `.Label`.
pub fn labelled(
    format: &str,
    columns: &[Column],
    rows: impl IntoIterator<Item = Map<String, Json>>,
    labels: &[StringMap],
) -> Outcome<String> {
    if format == "json" {
        return Ok(rows.into_iter().map(|row| Json::Object(row).to_string() + "\n").collect());
    }
    let (body, headed) = match format.strip_prefix("table") {
        Some(rest) => (rest, true),
        None => (format, false),
    };
    let body = match body.trim_matches(' ') {
        "" if headed => {
            columns.iter().map(|(name, _)| format!("{{{{.{name}}}}}")).collect::<Vec<_>>().join("\t")
        }
        body => body.replace("\\t", "\t").replace("\\n", "\n"),
    };
    let of_row = Labels::default();
    let template = parse(&body, &of_row).map_err(wrong)?.missing_key(MissingKey::Error);
    let mut lines = Vec::new();
    if headed {
        let headings =
            columns.iter().map(|(name, heading)| ((*name).to_owned(), Json::from(*heading))).collect();
        let template = functions::of_headings(Template::new(""))
            .parse(&functions::without_methods(&body))
            .map_err(wrong)?;
        lines.push(execute(&template, &Json::Object(headings))?);
    }
    for (index, row) in rows.into_iter().enumerate() {
        *of_row.lock().unwrap_or_else(PoisonError::into_inner) =
            labels.get(index).cloned().unwrap_or_default();
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
            ("{{truncate .Name 1}}|{{pad .Name 1 2}}|{{pad \"\" 3 3}}|", "/| /c  ||"),
            ("{{with .None}}x{{else}}y{{end}}{{if and .State.Running (eq .State.ExitCode 0)}}z{{end}}", "yz"),
            ("{{range $i, $a := .Args}}{{if $i}}, {{end}}{{$i}}={{$a}}{{end}}", "0=x, 1=y z"),
            ("{{range $k, $v := .Config.Labels}}{{$k}}={{$v}} {{end}}", "a=1 b=2 "),
            ("{{- .Name -}}  x {{/* no */ -}} y", "/cx y"),
            (
                "{{$n := .Memory}}{{printf \"%d %s %q %v\" $n .Name .Name .Args}}",
                "33554432 /c \"/c\" [x y z]",
            ),
            ("{{println .Name 1}}", "/c 1\n"),
            (
                "{{if or (lt 1 2) (gt 1 2)}}{{not true}}{{ne 1 2}}{{le 1 1}}{{ge 1 2}}{{end}}",
                "falsetruetruefalse",
            ),
            ("{{.Name | upper | printf \"<%s>\"}}", "</C>"),
            ("{{index .Args 1}} {{index (split \"a,b\" \",\") 1}} {{slice .Name 1 2}}", "y z b c"),
            ("{{join .Config.Labels \"+\"}} {{title \"a b\"}} {{lower \"ÄB\"}}", "1+2 A B äb"),
            ("{{define \"t\"}}<{{.}}>{{end}}{{template \"t\" .Name}}", "</c>"),
            ("{{range .Args}}{{break}}{{end}}{{json .Args}}", "[\"x\",\"y z\"]"),
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

    #[test]
    fn functions_leave_headings_alone() {
        let columns: [Column; 1] = [("ID", "IMAGE ID")];
        let row = fields(json!({"ID": "abc"}));
        let label = StringMap::from([("com.example.the-team".to_owned(), "red".to_owned())]);
        let shown = |format: &str| {
            labelled(format, &columns, [row.clone(), row.clone()], std::slice::from_ref(&label))
        };
        assert_eq!(shown("table {{lower .ID | upper}}").unwrap(), "IMAGE ID\nABC\nABC\n");
        assert_eq!(shown("table {{truncate .ID 1}}").unwrap(), "IMAGE ID\na\na\n");
        assert_eq!(shown("{{.Label \"com.example.the-team\"}}!").unwrap(), "red!\n!\n");
        let team = shown("table {{.Label \"com.example.the-team\"}}\\t{{json .ID}}").unwrap();
        assert_eq!(team, "the team   IMAGE ID\nred        \"abc\"\n           \"abc\"\n");
        assert!(shown("{{.Nope}}").unwrap_err().message.starts_with("template parsing error: "));
        assert_eq!(shown("{{.ID").unwrap_err().code, 1);
        assert_eq!(shown("\\n{{.ID}}").unwrap(), "\nabc\n\nabc\n");
        assert_eq!(shown("table").unwrap(), "IMAGE ID\nabc\nabc\n");
    }
}
