//! Words: quotes and escapes taken away, variables replaced by their values, with the modifiers of a shell.
//!
//! No command substitution, no arithmetic, no file names: nothing but text goes in and comes out. What comes out is
//! bounded, however often variables repeat each other.

mod pattern;

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

use pattern::{Longest, Pattern};

use crate::error::{Error, Fault};

/// Longest text that an expansion makes, in bytes.
const LIMIT: usize = 1 << 20;
/// Deepest `${a:-${b:-…}}`.
const DEPTH: usize = 64;

/// Where values of variables come from.
pub trait Variables {
    /// The value of `name`; none if it is not set.
    fn value(&self, name: &str) -> Option<&str>;
}

/// No variables.
impl Variables for () {
    fn value(&self, _: &str) -> Option<&str> {
        None
    }
}

/// `NAME=value`, as an image's environment; the last of several with one name counts.
impl Variables for Vec<String> {
    fn value(&self, name: &str) -> Option<&str> {
        let mut pairs = self.iter().rev().map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        pairs.find(|(own, _)| *own == name).map(|(_, value)| value)
    }
}

/// How words are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Words {
    /// What takes a character's meaning: a backslash, or a backtick by the directive `escape`.
    pub escape: char,
    /// Quotes are no quotes, but text: for the content of here-documents.
    pub plain_quotes: bool,
    /// Quotes stay.
    pub keep_quotes: bool,
    /// Escape characters stay.
    pub keep_escapes: bool,
    /// Variables that are not set stay as they are written.
    pub keep_unset: bool,
}

/// What a word became.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expanded {
    /// The whole text.
    pub text: String,
    /// The text, split at spaces that were not quoted.
    pub words: Vec<String>,
    /// Variables that were used and are set.
    pub found: BTreeSet<String>,
    /// Variables that were used and are not set.
    pub missing: BTreeSet<String>,
}

impl Words {
    /// Words of an instruction.
    pub fn new(escape: char) -> Words {
        Words { escape, plain_quotes: false, keep_quotes: false, keep_escapes: false, keep_unset: false }
    }

    /// The content of a here-document.
    pub fn document() -> Words {
        Words { plain_quotes: true, ..Words::new('\\') }
    }

    /// Replaces the variables of `word`, and takes quotes and escapes away.
    ///
    /// # Errors
    /// A quote or a brace that is not closed, a modifier that is none, a value that must be set and is not, a result that
    /// is too long.
    pub fn expand(&self, word: &str, variables: &dyn Variables) -> Result<Expanded, Error> {
        let mut run = Run {
            words: *self,
            rest: word.chars().peekable(),
            variables,
            depth: 0,
            found: BTreeSet::new(),
            missing: BTreeSet::new(),
        };
        match run.until(None, self.keep_escapes) {
            Ok(pieces) => {
                let Pieces { text, words, .. } = pieces.finished();
                Ok(Expanded { text, words, found: run.found, missing: run.missing })
            }
            Err(problem) => Err(Error::new(Fault::Expansion { word: word.to_owned(), problem })),
        }
    }
}

/// What has been made so far, as one text and as words.
#[derive(Default)]
struct Pieces {
    text: String,
    words: Vec<String>,
    word: String,
}

impl Pieces {
    /// Text in which spaces end words.
    fn add(&mut self, text: &str) {
        self.text.push_str(text);
        for character in text.chars() {
            if !character.is_whitespace() {
                self.word.push(character);
            } else if !self.word.is_empty() {
                self.words.push(std::mem::take(&mut self.word));
            }
        }
    }

    /// Text that is part of its word, spaces and all.
    fn add_quoted(&mut self, text: &str) {
        self.text.push_str(text);
        self.word.push_str(text);
    }

    fn finished(mut self) -> Pieces {
        if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
        self
    }
}

struct Run<'a> {
    words: Words,
    rest: Peekable<Chars<'a>>,
    variables: &'a dyn Variables,
    depth: usize,
    found: BTreeSet<String>,
    missing: BTreeSet<String>,
}

type Step<T> = Result<T, String>;

const UNCLOSED: &str = "syntax error: missing '}'";

fn bounded(length: usize) -> Step<()> {
    if length > LIMIT { Err(format!("the result is longer than {LIMIT} bytes")) } else { Ok(()) }
}

impl Run<'_> {
    /// Reads up to `end`, which is taken, or to the end of the word.
    fn until(&mut self, end: Option<char>, keep_escapes: bool) -> Step<Pieces> {
        let mut made = Pieces::default();
        while let Some(character) = self.rest.next() {
            match character {
                _ if Some(character) == end => return Ok(made),
                '\'' if !self.words.plain_quotes => made.add_quoted(&self.single()?),
                '"' if !self.words.plain_quotes => made.add_quoted(&self.double(keep_escapes)?),
                '$' => made.add(&self.variable()?),
                '<' => made.add_quoted(&self.arrow()),
                escape if escape == self.words.escape => {
                    let next = self.rest.next();
                    if keep_escapes {
                        made.add_quoted(escape.encode_utf8(&mut [0; 4]));
                    }
                    // One at the very end is nothing.
                    let Some(next) = next else { break };
                    made.add_quoted(next.encode_utf8(&mut [0; 4]));
                }
                other => made.add(other.encode_utf8(&mut [0; 4])),
            }
            bounded(made.text.len())?;
        }
        if end.is_some() { Err(UNCLOSED.to_owned()) } else { Ok(made) }
    }

    /// `<<` and the spaces after it belong to the word that follows: the name of a here-document.
    fn arrow(&mut self) -> String {
        let mut text = String::from("<");
        if self.rest.next_if_eq(&'<').is_some() {
            text.push('<');
            while let Some(space) = self.rest.next_if(|next| matches!(next, ' ' | '\t' | '\r')) {
                text.push(space);
            }
        }
        text
    }

    fn single(&mut self) -> Step<String> {
        let mut text = String::new();
        for character in self.rest.by_ref() {
            if character == '\'' {
                return Ok(if self.words.keep_quotes { format!("'{text}'") } else { text });
            }
            text.push(character);
        }
        Err("unexpected end of statement while looking for matching single-quote".to_owned())
    }

    fn double(&mut self, keep_escapes: bool) -> Step<String> {
        let mut text = String::new();
        while let Some(character) = self.rest.next() {
            match character {
                '"' => return Ok(if self.words.keep_quotes { format!("\"{text}\"") } else { text }),
                '$' => text.push_str(&self.variable()?),
                escape if escape == self.words.escape => {
                    if keep_escapes {
                        text.push(escape);
                    }
                    let special = |next: &char| matches!(next, '"' | '$') || *next == escape;
                    match self.rest.next_if(special) {
                        Some(next) => text.push(next),
                        None if self.rest.peek().is_none() => break,
                        // Any other character leaves the escape what it is.
                        None if keep_escapes => {}
                        None => text.push(escape),
                    }
                }
                other => text.push(other),
            }
            bounded(text.len())?;
        }
        Err("unexpected end of statement while looking for matching double-quote".to_owned())
    }

    /// What follows `$`.
    fn variable(&mut self) -> Step<String> {
        if self.rest.next_if_eq(&'{').is_none() {
            let name = self.name();
            return Ok(match self.value(&name) {
                _ if name.is_empty() => "$".to_owned(),
                None if self.words.keep_unset => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        self.depth += 1;
        if self.depth > DEPTH {
            return Err("substitutions are nested too deeply".to_owned());
        }
        let text = self.braces();
        self.depth -= 1;
        text
    }

    /// What follows `${`.
    fn braces(&mut self) -> Step<String> {
        match self.rest.peek() {
            None => return Err(UNCLOSED.to_owned()),
            Some('{' | '}' | ':') => return Err("syntax error: bad substitution".to_owned()),
            Some(_) => {}
        }
        let name = self.name();
        match self.rest.next() {
            None => Err(UNCLOSED.to_owned()),
            Some('}') => Ok(match self.value(&name) {
                None if self.words.keep_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            Some(':') => match self.rest.next() {
                None => Err(UNCLOSED.to_owned()),
                Some(kind @ ('-' | '+' | '?')) => self.choice(&name, kind, true),
                Some(other) => Err(format!("unsupported modifier (:{other}) in substitution")),
            },
            Some(kind @ ('-' | '+' | '?')) => self.choice(&name, kind, false),
            Some(kind @ ('#' | '%')) => self.trimmed(&name, kind),
            Some('/') => self.replaced(&name),
            Some(other) => Err(format!("unsupported modifier ({other}) in substitution")),
        }
    }

    /// `${name-word}`, `${name+word}`, `${name?word}`, with a colon if an empty value counts as none.
    fn choice(&mut self, name: &str, kind: char, colon: bool) -> Step<String> {
        let word = self.until(Some('}'), false)?.text;
        let value = self.value(name);
        if value.is_none() && self.words.keep_unset {
            let colon = if colon { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{kind}{word}}}"));
        }
        let set = value.is_some();
        let usable = value.filter(|value| !(colon && value.is_empty()));
        match (kind, usable) {
            ('-', None) => Ok(word),
            ('-' | '?', Some(value)) => Ok(value),
            ('+', usable) => Ok(if usable.is_some() { word } else { String::new() }),
            (_, _) => {
                let problem = if set { "is not allowed to be empty" } else { "is not allowed to be unset" };
                Err(format!("{name}: {}", if word.is_empty() { problem } else { &word }))
            }
        }
    }

    /// `${name#pattern}` and its kin: without a beginning or an end.
    fn trimmed(&mut self, name: &str, kind: char) -> Step<String> {
        let word = self.until(Some('}'), true)?.text;
        let Some(value) = self.value(name) else {
            return Ok(if self.words.keep_unset {
                format!("${{{name}{kind}{word}}}")
            } else {
                String::new()
            });
        };
        let (longest, text) = match word.strip_prefix(kind) {
            Some(rest) => (Longest::Yes, rest),
            None => (Longest::No, word.as_str()),
        };
        let pattern = Pattern::parse(text)?;
        Ok(match kind {
            '#' => pattern.without_prefix(&value, longest),
            _ => pattern.without_suffix(&value, longest),
        })
    }

    /// `${name/pattern/text}`, with two slashes for all places.
    fn replaced(&mut self, name: &str) -> Step<String> {
        let all = self.rest.next_if_eq(&'/').is_some();
        let pattern = match self.until(Some('/'), true) {
            Err(problem) if problem == UNCLOSED => Err("syntax error: missing '/' in ${}".to_owned()),
            other => other,
        }?;
        let replacement = self.until(Some('}'), true)?.text;
        let Some(value) = self.value(name) else {
            let kept = format!("${{{name}/{}/{replacement}}}", pattern.text);
            return Ok(if self.words.keep_unset { kept } else { String::new() });
        };
        let text = Pattern::parse(&pattern.text)?.replace(&value, &replacement, all, LIMIT);
        text.ok_or_else(|| format!("the result is longer than {LIMIT} bytes"))
    }

    /// A name; that of a positional or special parameter, which is never set, is one too.
    fn name(&mut self) -> String {
        let mut name = String::new();
        if let Some(special) =
            self.rest.next_if(|next| matches!(next, '@' | '*' | '#' | '?' | '-' | '$' | '!'))
        {
            return special.to_string();
        }
        let number = self.rest.peek().is_some_and(|first| first.is_numeric());
        let belongs = |next: &char| next.is_numeric() || (!number && (next.is_alphabetic() || *next == '_'));
        while let Some(character) = self.rest.next_if(belongs) {
            name.push(character);
        }
        name
    }

    fn value(&mut self, name: &str) -> Option<String> {
        if name.is_empty() {
            return None;
        }
        let value = self.variables.value(name).map(str::to_owned);
        let used = if value.is_some() { &mut self.found } else { &mut self.missing };
        used.insert(name.to_owned());
        value
    }
}

#[cfg(test)]
mod tests;
