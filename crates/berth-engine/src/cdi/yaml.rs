//! YAML as far as it says what JSON can: one document of mappings, sequences and scalars, without references.

use saphyr_parser::{Event, Parser, ScalarStyle};
use serde_json::{Map, Number, Value};

/// Deepest nesting that is read.
const MAX_DEPTH: usize = 32;

/// Reads a document; the error is a sentence about what is wrong.
pub fn parse(text: &str) -> Result<Value, String> {
    let mut reader = Reader { parser: Parser::new_from_str(text) };
    loop {
        match reader.next()? {
            Event::StreamEnd => return Ok(Value::Null),
            Event::DocumentStart(_) => break,
            _ => {}
        }
    }
    let first = reader.next()?;
    let value = reader.value(first, MAX_DEPTH)?;
    loop {
        match reader.next()? {
            Event::StreamEnd => return Ok(value),
            Event::DocumentStart(_) => return Err("more than one document".into()),
            _ => {}
        }
    }
}

struct Reader<'a> {
    parser: Parser<'a, saphyr_parser::StrInput<'a>>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Event<'a>, String> {
        let (event, _) = self.parser.next().ok_or("it ends early")?.map_err(|error| error.to_string())?;
        Ok(event)
    }

    fn value(&mut self, event: Event<'a>, depth: usize) -> Result<Value, String> {
        let depth = depth.checked_sub(1).ok_or("it is nested too deeply")?;
        match event {
            Event::Scalar(text, style, _, None) => Ok(scalar(&text, style)),
            Event::SequenceStart(_, None) => {
                let mut list = Vec::new();
                loop {
                    match self.next()? {
                        Event::SequenceEnd => return Ok(Value::Array(list)),
                        event => list.push(self.value(event, depth)?),
                    }
                }
            }
            Event::MappingStart(_, None) => {
                let mut map = Map::new();
                loop {
                    let key = match self.next()? {
                        Event::MappingEnd => return Ok(Value::Object(map)),
                        Event::Scalar(text, _, _, None) => text.into_owned(),
                        _ => return Err("a key is no plain text".into()),
                    };
                    let event = self.next()?;
                    let value = self.value(event, depth)?;
                    if map.insert(key.clone(), value).is_some() {
                        return Err(format!("{key} is there twice"));
                    }
                }
            }
            Event::Alias(_) => Err("references (*name) are not supported".into()),
            Event::Scalar(..) | Event::SequenceStart(..) | Event::MappingStart(..) => {
                Err("tags (!name) are not supported".into())
            }
            other => Err(format!("{other:?} is unexpected")),
        }
    }
}

/// A plain scalar is what it looks like (YAML 1.2, core schema); any other is text.
fn scalar(text: &str, style: ScalarStyle) -> Value {
    if style != ScalarStyle::Plain {
        return Value::String(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let based = |prefix: &str, base| {
        text.strip_prefix(prefix).and_then(|digits| i64::from_str_radix(digits, base).ok())
    };
    if let Some(number) = text.parse().ok().or_else(|| based("0o", 8)).or_else(|| based("0x", 16)) {
        return Value::Number(Number::from(number));
    }
    let numeric = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    let float = text.parse::<f64>().ok().filter(|_| numeric).and_then(Number::from_f64);
    float.map_or_else(|| Value::String(text.to_owned()), Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn mappings_sequences_and_scalars() {
        let text = "# comment\n---\na: 1\nb:\n- x\n- \"2\"\n- 'true'\nc: {d: [], e: true, f: ~, g: 0o17, h: 1.5}\ni: |\n  two\n  lines\n";
        assert_eq!(
            parse(text).unwrap(),
            json!({"a": 1, "b": ["x", "2", "true"], "c": {"d": [], "e": true, "f": null, "g": 15, "h": 1.5},
                   "i": "two\nlines\n"})
        );
        assert_eq!(parse("").unwrap(), Value::Null);
        assert_eq!(parse("0.5.0").unwrap(), json!("0.5.0"));
        assert_eq!(parse("nvidia.com/gpu").unwrap(), json!("nvidia.com/gpu"));
    }

    #[test]
    fn what_json_cannot_say_is_refused() {
        let deep = "[".repeat(200) + &"]".repeat(200);
        for (bad, words) in [
            ("a: &x 1\nb: *x\n", "references"),
            ("a: !!binary x\n", "tags"),
            ("--- 1\n--- 2\n", "more than one document"),
            ("a: 1\na: 2\n", "twice"),
            ("[a]: 1\n", "no plain text"),
            (deep.as_str(), "nested"),
            ("a: [\n", ""),
        ] {
            let error = parse(bad).unwrap_err();
            assert!(error.contains(words), "{bad}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[-:{}\\[\\]'\"|>!&*#%@a\\n \\t0-9.,?]{0,60}") {
            let _ = parse(&text);
        }

        #[test]
        fn json_is_yaml(list in prop::collection::vec(("[a-z]{1,5}", any::<i32>(), ".{0,10}"), 0..5)) {
            let value = Value::Array(list.into_iter().map(|(k, n, s)| json!({k: [n, s]})).collect());
            prop_assert_eq!(parse(&value.to_string()), Ok(value));
        }
    }
}
