//! Objects in full: what `inspect` shows.

use serde::Serialize;

use super::template;
use crate::failure::{Failure, Outcome};

/// The objects as one list in JSON, or each by a Go template in a line of its own.
pub fn show<T: Serialize>(objects: &[T], format: Option<&str>) -> Outcome<String> {
    let failed = |error: serde_json::Error| Failure::new(format!("showing the result: {error}"));
    if let Some(format) = format.filter(|format| !format.is_empty()) {
        let mut text = String::new();
        for object in objects {
            let value = serde_json::to_value(object).map_err(failed)?;
            text.push_str(&template::object(format, &value)?);
            text.push('\n');
        }
        return Ok(text);
    }
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"    ");
    objects.serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter)).map_err(failed)?;
    // As Go writes them; they occur in texts only.
    let text = String::from_utf8_lossy(&text);
    Ok(text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026") + "\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_lists_or_lines() {
        let all = [json!({"A": "<x>"}), json!({"A": "y"})];
        assert_eq!(show(&all, Some("{{.A}}")).unwrap(), "<x>\ny\n");
        assert_eq!(
            show(&all[..1], None).unwrap(),
            "[\n    {\n        \"A\": \"\\u003cx\\u003e\"\n    }\n]\n"
        );
        assert_eq!(show::<()>(&[], None).unwrap(), "[]\n");
    }
}
