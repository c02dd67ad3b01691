//! Words of an instruction: split at spaces outside of quotes, and later rid of quotes with variables replaced.

use super::{Result, wrong};

/// Splits at spaces that are neither quoted nor escaped; quotes and backslashes stay.
pub(super) fn split(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (None, space) if space.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
                continue;
            }
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), close) if open == close => quote = None,
            (None | Some('"'), '\\') => {
                // One at the very end is nothing.
                let Some(next) = characters.next() else { break };
                word.push('\\');
                word.push(next);
                continue;
            }
            _ => {}
        }
        word.push(character);
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Takes quotes and escapes away, and replaces variables by their values in `environment` (`NAME=value`).
pub(super) fn expand(text: &str, environment: &[String]) -> Result<String> {
    let mut expansion = Expansion { text, rest: text.chars().peekable(), environment, out: String::new() };
    expansion.run()?;
    Ok(expansion.out)
}

struct Expansion<'a> {
    text: &'a str,
    rest: std::iter::Peekable<std::str::Chars<'a>>,
    environment: &'a [String],
    out: String,
}

impl Expansion<'_> {
    fn run(&mut self) -> Result<()> {
        while let Some(character) = self.rest.next() {
            match character {
                '\'' => self.single()?,
                '"' => self.double()?,
                '$' => self.variable()?,
                '\\' => self.out.extend(self.rest.next()),
                other => self.out.push(other),
            }
        }
        Ok(())
    }

    fn single(&mut self) -> Result<()> {
        for character in self.rest.by_ref() {
            if character == '\'' {
                return Ok(());
            }
            self.out.push(character);
        }
        self.unterminated("single-quote")
    }

    fn double(&mut self) -> Result<()> {
        while let Some(character) = self.rest.next() {
            match character {
                '"' => return Ok(()),
                '$' => self.variable()?,
                '\\' => match self.rest.next() {
                    None => break,
                    Some(escaped @ ('"' | '$' | '\\')) => self.out.push(escaped),
                    Some(other) => self.out.extend(['\\', other]),
                },
                other => self.out.push(other),
            }
        }
        self.unterminated("double-quote")
    }

    fn unterminated<T>(&self, what: &str) -> Result<T> {
        wrong(format!(
            "failed to process {:?}: unexpected end of statement while looking for matching {what}",
            self.text
        ))
    }

    fn variable(&mut self) -> Result<()> {
        if self.rest.next_if_eq(&'{').is_none() {
            let name = self.name();
            if name.is_empty() {
                self.out.push('$');
            } else {
                let value = self.value(&name).unwrap_or_default().to_owned();
                self.out.push_str(&value);
            }
            return Ok(());
        }
        let name = self.name();
        let mut inside = String::new();
        let mut closed = false;
        for character in self.rest.by_ref() {
            if character == '}' {
                closed = true;
                break;
            }
            inside.push(character);
        }
        if !closed {
            return wrong(format!("failed to process {:?}: syntax error: missing '}}'", self.text));
        }
        let value = self.value(&name).map(str::to_owned);
        let filled = value.clone().filter(|value| !value.is_empty());
        let word = |from: usize| expand(inside.get(from..).unwrap_or_default(), self.environment);
        let text = if name.is_empty() {
            return wrong(format!("failed to process {:?}: bad substitution", self.text));
        } else if inside.is_empty() {
            value.unwrap_or_default()
        } else if inside.starts_with(":-") {
            filled.map_or_else(|| word(2), Ok)?
        } else if inside.starts_with(":+") {
            filled.map_or_else(|| Ok(String::new()), |_| word(2))?
        } else if inside.starts_with('-') {
            value.map_or_else(|| word(1), Ok)?
        } else if inside.starts_with('+') {
            value.map_or_else(|| Ok(String::new()), |_| word(1))?
        } else {
            return wrong(format!("failed to process {:?}: unsupported modifier in substitution", self.text));
        };
        self.out.push_str(&text);
        Ok(())
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        while let Some(character) = self
            .rest
            .next_if(|c| c.is_ascii_alphabetic() || *c == '_' || (c.is_ascii_digit() && !name.is_empty()))
        {
            name.push(character);
        }
        name
    }

    fn value(&self, name: &str) -> Option<&str> {
        let mut variables = self.environment.iter().filter_map(|variable| variable.split_once('='));
        variables.find(|(own, _)| *own == name).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_end_at_bare_spaces() {
        assert_eq!(split(r#"a=1  b="x y" c='p q' d=r\ s "#), [r"a=1", r#"b="x y""#, r"c='p q'", r"d=r\ s"]);
    }

    #[test]
    fn variables_are_replaced_outside_of_single_quotes() {
        let environment = ["A=one".to_owned(), "E=".to_owned()];
        let expand = |text: &str| expand(text, &environment).map_err(|error| error.to_string());
        for (text, value) in [
            ("plain", "plain"),
            ("$A/x ${A}y", "one/x oney"),
            (r#""q $A" '$A' \$A"#, "q one $A $A"),
            ("${E:-d}${E-d}${N:-$A}${N-n}", "donen"),
            ("${A:+p}${E:+p}${E+p}${N+p}", "pp"),
            ("$", "$"),
            (r#""a\"b\n""#, r#"a"b\n"#),
            ("$N", ""),
        ] {
            assert_eq!(expand(text).as_deref(), Ok(value), "{text}");
        }
        for text in ["'open", "\"open", "${A", "${}", "${A%x}"] {
            assert!(expand(text).unwrap_err().starts_with("failed to process"), "{text}");
        }
    }
}
