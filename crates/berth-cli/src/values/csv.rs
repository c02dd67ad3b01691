//! One line of comma-separated values.

/// Reads a record as Go's `encoding/csv` does: fields may be in quotes, which are doubled inside. None if the quotes
/// make no sense.
pub fn record(text: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let field;
        (field, rest) = match rest.strip_prefix('"') {
            Some(inner) => quoted(inner)?,
            None => {
                let (field, rest) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
                (!field.contains('"')).then(|| (field.to_owned(), rest))?
            }
        };
        fields.push(field);
        match rest.strip_prefix(',') {
            Some(more) => rest = more,
            None if rest.is_empty() => return Some(fields),
            None => return None,
        }
    }
}

/// A field up to its closing quote, and what follows.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"')?;
        field.push_str(part);
        match after.strip_prefix('"') {
            Some(more) => {
                field.push('"');
                rest = more;
            }
            None => return Some((field, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_may_be_quoted() {
        for (text, fields) in [
            ("a=b,c", Some(vec!["a=b", "c"])),
            ("\"a,b\",c", Some(vec!["a,b", "c"])),
            ("\"a\"\"b\"", Some(vec!["a\"b"])),
            ("", Some(vec![""])),
            ("a,", Some(vec!["a", ""])),
            ("a,\"c", None),
            ("a\"b", None),
            ("\"a\"b", None),
        ] {
            let fields = fields.map(|all| all.into_iter().map(str::to_owned).collect());
            assert_eq!(record(text), fields, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_quoted_comes_back(fields in prop::collection::vec("[a\",=]{0,5}", 1..5)) {
            let text: Vec<_> = fields.iter().map(|field| format!("\"{}\"", field.replace('"', "\"\""))).collect();
            prop_assert_eq!(record(&text.join(",")), Some(fields));
        }
    }
}
