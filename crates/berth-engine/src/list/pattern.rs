//! The small regular expressions that name filters are in practice.
//!
//! Docker takes any regular expression; people write a part of a name, `^name$`, or `web.*`. Those are understood
//! here (`^`, `$`, `.`, a `*` after one character, and `\` before one), without an engine that a client could keep busy.

/// Longest pattern and longest text that are looked at; names are shorter.
const LIMIT: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    Any,
    Is(char),
}

/// Whether `pattern` matches anywhere in `text`.
pub fn matches(pattern: &str, text: &str) -> bool {
    if pattern.len() > LIMIT || text.len() > LIMIT {
        return false;
    }
    let (pattern, from_start) = match pattern.strip_prefix('^') {
        Some(rest) => (rest, true),
        None => (pattern, false),
    };
    let (pieces, to_end) = parse(pattern);
    let text: Vec<char> = text.chars().collect();
    // Positions in the pattern that are reached; one step for each character bounds the work.
    let mut states = vec![false; pieces.len() + 1];
    for position in 0..=text.len() {
        if position == 0 || !from_start {
            states[0] = true;
        }
        pass_stars(&pieces, &mut states);
        if states[pieces.len()] && (!to_end || position == text.len()) {
            return true;
        }
        let Some(character) = text.get(position) else { break };
        states = step(&pieces, &states, *character);
    }
    false
}

/// The pieces, each with whether it may repeat; and whether the pattern ends with the text.
fn parse(pattern: &str) -> (Vec<(Piece, bool)>, bool) {
    let mut pieces: Vec<(Piece, bool)> = Vec::new();
    let mut characters = pattern.chars().peekable();
    while let Some(character) = characters.next() {
        let piece = match character {
            '$' if characters.peek().is_none() => return (pieces, true),
            '\\' => Piece::Is(characters.next().unwrap_or('\\')),
            '.' => Piece::Any,
            other => Piece::Is(other),
        };
        let repeats = characters.next_if_eq(&'*').is_some();
        pieces.push((piece, repeats));
    }
    (pieces, false)
}

fn pass_stars(pieces: &[(Piece, bool)], states: &mut [bool]) {
    for (index, (_, repeats)) in pieces.iter().enumerate() {
        if states[index] && *repeats {
            states[index + 1] = true;
        }
    }
}

fn step(pieces: &[(Piece, bool)], states: &[bool], character: char) -> Vec<bool> {
    let mut next = vec![false; states.len()];
    for (index, (piece, repeats)) in pieces.iter().enumerate() {
        let fits = *piece == Piece::Any || *piece == Piece::Is(character);
        if states[index] && fits {
            next[if *repeats { index } else { index + 1 }] = true;
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn patterns_mean_what_people_expect() {
        for (pattern, text, expected) in [
            ("", "web", true),
            ("eb", "web", true),
            ("^eb", "web", false),
            ("^/web$", "/web", true),
            ("^web$", "web2", false),
            ("web$", "my-web", true),
            ("^w.*2$", "web-12", true),
            ("w.b", "web", true),
            ("a*b", "aaab", true),
            ("^a*b$", "b", true),
            ("a\\.b", "a.b", true),
            ("a\\.b", "axb", false),
            ("a$b", "a$b", true),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn hard_patterns_take_no_time() {
        let pattern = ".*".repeat(200) + "x";
        assert!(!matches(&pattern, &"a".repeat(500)));
    }

    proptest! {
        #[test]
        fn a_part_of_a_name_is_found(before in "[a-z0-9_-]{0,8}", part in "[a-z0-9_-]{1,8}", after in "[a-z0-9_-]{0,8}") {
            let text = format!("{before}{part}{after}");
            prop_assert!(matches(&part, &text));
            let whole = format!("^{text}$");
            prop_assert!(matches(&whole, &text));
        }

        #[test]
        fn nothing_panics(pattern in ".{0,40}", text in ".{0,40}") {
            matches(&pattern, &text);
        }
    }
}
