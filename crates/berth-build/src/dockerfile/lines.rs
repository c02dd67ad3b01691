//! From lines to statements: comments, directives, continuations and here-documents.

use std::borrow::Cow;

use super::directive::{Directives, Reader};
use super::document::{self, Document};
use super::words;
use super::{FILE_LIMIT, LINE_LIMIT};
use crate::error::{Error, Fault, Lines, Result};

/// The whole file, each statement still text.
#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) directives: Directives,
    pub(super) statements: Vec<Raw>,
    pub(super) empty_continuations: Vec<usize>,
}

/// A statement that is split into keyword, flags and the rest.
#[derive(Debug, Clone)]
pub(super) struct Raw {
    pub(super) keyword: String,
    pub(super) flags: Vec<String>,
    pub(super) rest: String,
    pub(super) documents: Vec<Document>,
    pub(super) text: String,
    pub(super) lines: Lines,
    pub(super) comments: Vec<String>,
    pub(super) escape: char,
}

/// The file as text, without a byte order mark.
pub(super) fn text(content: &[u8]) -> Result<Cow<'_, str>> {
    if content.len() > FILE_LIMIT {
        let text = format!("dockerfile greater than max allowed size of {FILE_LIMIT}");
        return Err(Error::new(Fault::TooLarge(text)));
    }
    Ok(String::from_utf8_lossy(content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content)))
}

/// Lines with their ends, counted.
struct Cursor<'a> {
    rest: std::str::SplitInclusive<'a, char>,
    number: usize,
}

impl<'a> Cursor<'a> {
    fn next(&mut self) -> Result<Option<&'a str>> {
        let Some(line) = self.rest.next() else { return Ok(None) };
        self.number += 1;
        if line.strip_suffix('\n').unwrap_or(line).len() > LINE_LIMIT {
            let text = format!("dockerfile line greater than max allowed size of {LINE_LIMIT}");
            return Err(Error::new(Fault::TooLarge(text)).at(Lines::one(self.number)));
        }
        Ok(Some(line))
    }
}

pub(super) fn read(text: &str) -> Result<Source> {
    let mut cursor = Cursor { rest: text.split_inclusive('\n'), number: 0 };
    let mut directives = Reader::default();
    let mut source = Source::default();
    let mut comments: Vec<String> = Vec::new();
    while let Some(line) = cursor.next()? {
        let line = line.trim_end_matches(['\r', '\n']).trim_start();
        if directives.take(line, cursor.number)? {
            continue;
        }
        if let Some(comment) = line.strip_prefix('#') {
            match comment.trim() {
                "" => comments.clear(),
                comment => comments.push(comment.to_owned()),
            }
            continue;
        }
        let escape = directives.found.escape;
        let first = cursor.number;
        let (begun, goes_on) = continuation(line, escape);
        if begun.is_empty() && !goes_on {
            comments.clear();
            continue;
        }
        let mut statement = begun.to_owned();
        if goes_on && gather(&mut cursor, &mut statement, escape)? {
            source.empty_continuations.push(cursor.number);
        }
        let mut raw = split(&statement, escape, Lines { first, last: cursor.number });
        raw.comments = std::mem::take(&mut comments);
        take_documents(&mut raw, &mut cursor)?;
        source.statements.push(raw);
    }
    source.directives = directives.found;
    match source.statements.is_empty() {
        true => Err(Error::new(Fault::NoInstructions)),
        false => Ok(source),
    }
}

/// Adds the lines that continue a statement; tells whether there were empty ones.
fn gather(cursor: &mut Cursor<'_>, statement: &mut String, escape: char) -> Result<bool> {
    let mut empty = false;
    while let Some(line) = cursor.next()? {
        let line = line.trim_end_matches(['\r', '\n']);
        let bare = line.trim_start();
        if bare.starts_with('#') {
            continue;
        }
        if bare.is_empty() {
            empty = true;
            continue;
        }
        let (part, goes_on) = continuation(line, escape);
        statement.push_str(part);
        if !goes_on {
            break;
        }
    }
    Ok(empty)
}

/// The line without its continuation character, and whether it had one: a single escape character at its end.
fn continuation(line: &str, escape: char) -> (&str, bool) {
    match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(part) if !part.ends_with(escape) => (part, true),
        _ => (line, false),
    }
}

fn split(statement: &str, escape: char, lines: Lines) -> Raw {
    let (keyword, rest) = words::first(statement.trim());
    let (flags, rest) = words::flags(rest, escape);
    Raw {
        keyword: keyword.to_owned(),
        flags,
        rest: rest.trim().to_owned(),
        documents: Vec::new(),
        text: statement.trim().to_owned(),
        lines,
        comments: Vec::new(),
        escape,
    }
}

/// Reads the here-documents that the statement begins.
fn take_documents(raw: &mut Raw, cursor: &mut Cursor<'_>) -> Result<()> {
    if !raw.text.contains("<<") || !may_have_documents(raw) {
        return Ok(());
    }
    for mut document in document::openings(&raw.text) {
        loop {
            match cursor.next()? {
                None => {
                    let error = Error::new(Fault::Instruction("unterminated heredoc".to_owned()));
                    return Err(error.numbered(Lines { last: cursor.number, ..raw.lines }));
                }
                Some(line) if document.ends_at(line) => break,
                Some(line) => document.add(line),
            }
        }
        raw.documents.push(document);
    }
    raw.lines.last = cursor.number;
    Ok(())
}

fn may_have_documents(raw: &Raw) -> bool {
    let keyword = raw.keyword.to_ascii_uppercase();
    if keyword == "ONBUILD" {
        let inner = split(&raw.rest, raw.escape, raw.lines);
        return !inner.keyword.eq_ignore_ascii_case("ONBUILD") && may_have_documents(&inner);
    }
    matches!(keyword.as_str(), "RUN" | "COPY" | "ADD") && !matches!(words::json(&raw.rest), Ok(Some(_)))
}
