//! Patterns of references, as Go's `path.Match` reads them: `*` and `?` stay within one part of a path.

/// A pattern that has been read.
#[derive(Debug)]
pub(crate) struct Pattern(Vec<Token>);

#[derive(Debug, PartialEq, Eq)]
enum Token {
    /// Any characters but slashes.
    Star,
    /// One character but a slash.
    Any,
    Char(char),
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Token {
    fn takes(&self, character: char) -> bool {
        match self {
            Self::Star => false,
            Self::Any => character != '/',
            Self::Char(own) => *own == character,
            Self::Class { negated, ranges } => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&character)) != *negated
            }
        }
    }
}

impl Pattern {
    /// Reads a pattern; none if it is malformed.
    pub fn read(text: &str) -> Option<Self> {
        let mut tokens = Vec::new();
        let mut rest = text.chars();
        while let Some(character) = rest.next() {
            tokens.push(match character {
                '*' => Token::Star,
                '?' => Token::Any,
                '\\' => Token::Char(rest.next()?),
                '[' => class(&mut rest)?,
                other => Token::Char(other),
            });
        }
        Some(Self(tokens))
    }

    /// Whether the whole of a text is like the pattern.
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        // Where to go on after the last star, should what follows it not match. What an earlier star could take more, the
        // last one can.
        let (mut at, mut position, mut star) = (0, 0, None);
        while position < text.len() {
            match self.0.get(at) {
                Some(Token::Star) => {
                    at += 1;
                    star = Some((at, position));
                }
                Some(token) if token.takes(text[position]) => (at, position) = (at + 1, position + 1),
                _ => match star {
                    Some((after, taken)) if text[taken] != '/' => {
                        star = Some((after, taken + 1));
                        (at, position) = (after, taken + 1);
                    }
                    _ => return false,
                },
            }
        }
        self.0[at..].iter().all(|token| *token == Token::Star)
    }
}

/// What follows a bracket.
fn class(rest: &mut std::str::Chars<'_>) -> Option<Token> {
    let mut ranges = Vec::new();
    let negated = rest.as_str().starts_with('^');
    if negated {
        rest.next();
    }
    while !rest.as_str().starts_with(']') || ranges.is_empty() {
        let from = member(rest)?;
        let mut to = from;
        if rest.as_str().starts_with('-') {
            rest.next();
            to = member(rest)?;
        }
        ranges.push((from, to));
    }
    rest.next();
    Some(Token::Class { negated, ranges })
}

fn member(rest: &mut std::str::Chars<'_>) -> Option<char> {
    match rest.next()? {
        '-' | ']' => None,
        '\\' => rest.next(),
        other => Some(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_gos() {
        for (pattern, text, matches) in [
            ("busy*", "busybox:latest", true),
            ("*", "team/app:v1", false),
            ("*/*", "team/app:v1", true),
            ("*a*b", "xaab", true),
            ("*a*b", "xa/b", false),
            ("v[0-9].?", "v1.x", true),
            ("v[^0-9]", "v1", false),
            ("v[^0-9]", "vx", true),
            ("[a\\-c]", "-", true),
            ("[a\\-c]", "b", false),
            ("\\*", "*", true),
            ("\\*", "x", false),
            ("", "", true),
            ("a**", "a", true),
            ("?", "/", false),
        ] {
            assert_eq!(Pattern::read(pattern).unwrap().matches(text), matches, "{pattern} {text}");
        }
        for wrong in ["[", "[]", "[a", "[-]", "[a-]", "\\", "[^", "[\\"] {
            assert!(Pattern::read(wrong).is_none(), "{wrong}");
        }
    }
}
