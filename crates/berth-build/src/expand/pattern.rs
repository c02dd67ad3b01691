//! Patterns of `${name#pattern}` and the like: `*` for anything, `?` for one character, a backslash before both.

/// Longest pattern, in characters: matching takes time proportional to its length and to the value's.
const LIMIT: usize = 1024;

/// A pattern, split at its stars.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern {
    segments: Vec<Vec<One>>,
}

/// One character of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum One {
    Any,
    This(char),
}

/// Which of several matches with one beginning is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Longest {
    Yes,
    No,
}

impl Pattern {
    pub(super) fn parse(text: &str) -> Result<Pattern, String> {
        let wrong = |problem: &str| Err(format!("invalid pattern ({text}) in substitution: {problem}"));
        if text.chars().nth(LIMIT).is_some() {
            return wrong(&format!("longer than {LIMIT} characters"));
        }
        let mut segments = vec![Vec::new()];
        let mut rest = text.chars();
        while let Some(character) = rest.next() {
            let one = match character {
                '*' => {
                    segments.push(Vec::new());
                    continue;
                }
                '?' => One::Any,
                '\\' => match rest.next() {
                    Some(escaped @ ('*' | '?' | '\\' | '}' | '/')) => One::This(escaped),
                    Some(other) => return wrong(&format!("invalid escape '\\{other}'")),
                    None => return wrong("it ends with an escape"),
                },
                other => One::This(other),
            };
            if let Some(last) = segments.last_mut() {
                last.push(one);
            }
        }
        Ok(Pattern { segments })
    }

    fn reversed(&self) -> Pattern {
        let turned = |segment: &Vec<One>| segment.iter().rev().copied().collect();
        Pattern { segments: self.segments.iter().rev().map(turned).collect() }
    }

    pub(super) fn without_prefix(&self, value: &str, longest: Longest) -> String {
        let value: Vec<char> = value.chars().collect();
        let end = self.end_of_match(&value, 0, longest).unwrap_or(0);
        value.iter().skip(end).collect()
    }

    pub(super) fn without_suffix(&self, value: &str, longest: Longest) -> String {
        let value: Vec<char> = value.chars().rev().collect();
        let end = self.reversed().end_of_match(&value, 0, longest).unwrap_or(0);
        value.iter().skip(end).rev().collect()
    }

    /// Replaces the first longest match, or all of them. None if the result is longer than `limit` bytes.
    pub(super) fn replace(&self, value: &str, text: &str, all: bool, limit: usize) -> Option<String> {
        let value: Vec<char> = value.chars().collect();
        let (mut out, mut copied, mut from) = (String::new(), 0, 0);
        while from <= value.len() {
            let Some((start, end)) = self.find(&value, from) else { break };
            out.extend(value.get(copied..start).unwrap_or_default());
            // Nothing right after a match is not another match.
            if end > copied || start == 0 {
                out.push_str(text);
            }
            if out.len() > limit {
                return None;
            }
            copied = end;
            from = end.max(from + 1);
            if !all {
                break;
            }
        }
        out.extend(value.get(copied..).unwrap_or_default());
        (out.len() <= limit).then_some(out)
    }

    /// Beginning and end of the longest of the first matches at or after `from`.
    fn find(&self, value: &[char], from: usize) -> Option<(usize, usize)> {
        let start = find_segment(self.segments.first()?, value, from)?;
        // If what follows the first star is not there, it is not after any later beginning either.
        let end = self.end_of_match(value, start, Longest::Yes)?;
        Some((start, end))
    }

    /// The end of the match that begins at `start`.
    fn end_of_match(&self, value: &[char], start: usize, longest: Longest) -> Option<usize> {
        let (first, later) = self.segments.split_first()?;
        if !fits(first, value, start) {
            return None;
        }
        let mut at = start + first.len();
        let Some((last, middle)) = later.split_last() else { return Some(at) };
        // Each as early as possible, which leaves most for the next.
        for segment in middle {
            at = find_segment(segment, value, at)? + segment.len();
        }
        let earliest = find_segment(last, value, at)?;
        let begin = match longest {
            Longest::No => earliest,
            Longest::Yes => {
                let latest = value.len().saturating_sub(last.len());
                (earliest..=latest).rev().find(|place| fits(last, value, *place))?
            }
        };
        Some(begin + last.len())
    }
}

fn fits(segment: &[One], value: &[char], at: usize) -> bool {
    let part = value.get(at..at + segment.len());
    let same = |(one, character): (&One, &char)| match one {
        One::Any => true,
        One::This(own) => own == character,
    };
    part.is_some_and(|part| segment.iter().zip(part).all(same))
}

fn find_segment(segment: &[One], value: &[char], from: usize) -> Option<usize> {
    let latest = value.len().checked_sub(segment.len())?;
    (from..=latest).find(|place| fits(segment, value, *place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_pattern_is_between_all_characters() {
        let pattern = Pattern::parse("").unwrap();
        assert_eq!(pattern.replace("abc", "-", true, 99).as_deref(), Some("-a-b-c-"));
        assert_eq!(pattern.replace("abc", "-", false, 99).as_deref(), Some("-abc"));
        assert_eq!(Pattern::parse("*").unwrap().replace("abc", "x", true, 99).as_deref(), Some("x"));
        assert_eq!(Pattern::parse("a").unwrap().replace("aaaa", "xxxx", true, 15), None);
    }

    proptest::proptest! {
        #[test]
        fn trimming_agrees_with_trying_every_length(
            pattern in "[ab*?]{0,5}", value in "[abc]{0,8}", suffix: bool, longest: bool,
        ) {
            let parsed = Pattern::parse(&pattern).unwrap();
            let which = if longest { Longest::Yes } else { Longest::No };
            let made = if suffix { parsed.without_suffix(&value, which) } else { parsed.without_prefix(&value, which) };
            let whole = |text: &str| slow(&pattern.chars().collect::<Vec<_>>(), &text.chars().collect::<Vec<_>>());
            let mut cuts: Vec<usize> = (0..=value.len()).collect();
            if longest != suffix { cuts.reverse(); }
            let cut = cuts.into_iter().find(|cut| {
                let (left, right) = value.split_at(*cut);
                whole(if suffix { right } else { left })
            });
            let expected = match cut {
                Some(cut) if suffix => &value[..cut],
                Some(cut) => &value[cut..],
                None => &value,
            };
            proptest::prop_assert_eq!(made, expected);
        }
    }

    fn slow(pattern: &[char], text: &[char]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((&'*', rest)), None) => slow(rest, text),
            (Some((&'*', rest)), Some((_, tail))) => slow(rest, text) || slow(pattern, tail),
            (Some((one, rest)), Some((character, tail))) => {
                (*one == '?' || one == character) && slow(rest, tail)
            }
            _ => false,
        }
    }
}
