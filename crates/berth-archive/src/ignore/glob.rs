//! One pattern: Go's `filepath.Match` with `**`.

use std::iter::Peekable;
use std::str::Chars;

/// A pattern, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Glob {
    parts: Vec<Part>,
    /// The characters before the first wildcard.
    fixed: String,
    /// Docker takes `**` before plain text for "ends with", without a look at slashes.
    suffix: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// This character.
    Character(char),
    /// `?`: one that is no slash.
    One,
    /// `*`: any number that are no slashes.
    Many,
    /// `**`, and a slash after it: any number of directories, none at all among them.
    Directories,
    /// Comes after `Directories`: within their names.
    Inside,
    /// `**` at the end: anything.
    Anything,
    /// `[…]`: one of them, or with `^` none of them.
    Class { negated: bool, ranges: Vec<(char, char)> },
}

impl Glob {
    /// None if it breaks the syntax.
    pub(super) fn parse(text: &str) -> Option<Glob> {
        let mut parts = Vec::new();
        let mut rest = text.chars().peekable();
        while let Some(character) = rest.next() {
            let part = match character {
                '*' if rest.next_if_eq(&'*').is_some() => {
                    let _ = rest.next_if_eq(&'/');
                    if rest.peek().is_none() {
                        Part::Anything
                    } else {
                        parts.push(Part::Directories);
                        Part::Inside
                    }
                }
                '*' => Part::Many,
                '?' => Part::One,
                '\\' => Part::Character(rest.next()?),
                '[' => class(&mut rest)?,
                other => Part::Character(other),
            };
            parts.push(part);
        }
        let plain = |part: &Part| match part {
            Part::Character(character) => Some(*character),
            _ => None,
        };
        let fixed = parts.iter().map_while(plain).collect();
        let suffix = text.strip_prefix("**").filter(|rest| !rest.contains(['*', '?', '[', ']', '\\']));
        Some(Glob { parts, fixed, suffix: suffix.map(str::to_owned) })
    }

    /// The characters before the first wildcard.
    pub(super) fn fixed_prefix(&self) -> &str {
        &self.fixed
    }

    /// Whether the whole of `path` matches. Takes time proportional to the product of both lengths.
    pub(super) fn matches(&self, path: &str) -> bool {
        if let Some(suffix) = &self.suffix {
            return path.ends_with(suffix.as_str()) || suffix.strip_prefix('/') == Some(path);
        }
        if !path.starts_with(&self.fixed) {
            return false;
        }
        // `reached[n]`: the first n parts match what has been read.
        let mut reached = vec![false; self.parts.len() + 1];
        mark(&mut reached, 0);
        self.pass_empty(&mut reached);
        for character in path.chars() {
            let mut next = vec![false; reached.len()];
            let active =
                self.parts.iter().enumerate().filter(|(index, _)| reached.get(*index) == Some(&true));
            for (index, part) in active {
                part.step(index, character, &mut next);
            }
            self.pass_empty(&mut next);
            reached = next;
        }
        reached.last() == Some(&true)
    }

    /// Parts that may stand for nothing are passed over.
    fn pass_empty(&self, reached: &mut [bool]) {
        for (index, part) in self.parts.iter().enumerate() {
            if reached.get(index) == Some(&true) {
                match part {
                    Part::Many | Part::Anything => mark(reached, index + 1),
                    Part::Directories => mark(reached, index + 2),
                    _ => {}
                }
            }
        }
    }
}

fn mark(reached: &mut [bool], index: usize) {
    if let Some(slot) = reached.get_mut(index) {
        *slot = true;
    }
}

impl Part {
    /// Marks where the pattern is after this part, the one at `index`, has met `character`.
    fn step(&self, index: usize, character: char, next: &mut [bool]) {
        match self {
            Part::Character(own) if *own == character => mark(next, index + 1),
            Part::One if character != '/' => mark(next, index + 1),
            Part::Many if character != '/' => mark(next, index),
            Part::Directories => {
                mark(next, index + 1);
                if character == '/' {
                    mark(next, index + 2);
                }
            }
            Part::Inside => {
                mark(next, index);
                if character == '/' {
                    mark(next, index + 1);
                }
            }
            Part::Anything => mark(next, index),
            Part::Class { negated, ranges } => {
                let within = ranges.iter().any(|(first, last)| (*first..=*last).contains(&character));
                if within != *negated {
                    mark(next, index + 1);
                }
            }
            _ => {}
        }
    }
}

/// What follows `[`. None if it breaks the syntax.
fn class(rest: &mut Peekable<Chars<'_>>) -> Option<Part> {
    let negated = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && rest.next_if_eq(&']').is_some() {
            return Some(Part::Class { negated, ranges });
        }
        let first = member(rest)?;
        let last = if rest.next_if_eq(&'-').is_some() { member(rest)? } else { first };
        ranges.push((first, last));
    }
}

/// One end of a range.
fn member(rest: &mut Peekable<Chars<'_>>) -> Option<char> {
    match rest.next()? {
        '-' | ']' => None,
        '\\' => rest.next(),
        other => Some(other),
    }
}
