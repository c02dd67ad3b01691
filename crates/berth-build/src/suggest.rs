//! What a misspelt word may have meant.

/// Words further away than this are not meant.
const FURTHEST: usize = 2;

/// The option nearest to `word`, if one is near. None if `word` is an option itself: then the spelling is not the problem.
pub fn nearest<'a>(word: &str, options: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let (mut found, mut best) = (None, FURTHEST + 1);
    for option in options {
        if option == word {
            return None;
        }
        let distance = distance(word, option);
        if distance < best {
            (found, best) = (Some(option), distance);
        }
    }
    found
}

/// As [`nearest`] for options in upper case and a word of any case; the answer has the word's.
pub fn nearest_keyword(word: &str, options: &[&str]) -> Option<String> {
    let found = nearest(&word.to_uppercase(), options.iter().copied())?;
    Some(if word == word.to_uppercase() { found.to_owned() } else { found.to_lowercase() })
}

/// How many characters must be inserted, removed, replaced or swapped with their neighbour to make `right` of `left`;
/// anything over the furthest distance that counts if that is certain from their lengths.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let left: Vec<char> = left.chars().take(right.len() + FURTHEST + 1).collect();
    if left.len().abs_diff(right.len()) > FURTHEST {
        return FURTHEST + 1;
    }
    let mut older: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (index, one) in left.iter().enumerate() {
        let mut next = vec![index + 1];
        let mut before = index + 1;
        for (place, (pair, other)) in row.windows(2).zip(&right).enumerate() {
            let &[diagonal, above] = pair else { continue };
            before = (above + 1).min(before + 1).min(diagonal + usize::from(one != other));
            let swapped = index > 0
                && place > 0
                && left.get(index - 1) == Some(other)
                && right.get(place - 1) == Some(one);
            if let (true, Some(earlier)) = (swapped, place.checked_sub(1).and_then(|place| older.get(place)))
            {
                before = before.min(earlier + 1);
            }
            next.push(before);
        }
        older = std::mem::replace(&mut row, next);
    }
    row.last().copied().unwrap_or(FURTHEST + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found() {
        let options = ["FROM", "RUN", "COPY", "ENTRYPOINT"];
        for (word, expected) in
            [("FRMO", Some("FROM")), ("rnu", Some("run")), ("Copi", Some("copy")), ("NOINSTRUCTION", None)]
        {
            assert_eq!(nearest_keyword(word, &options).as_deref(), expected, "{word}");
        }
        assert_eq!(nearest("build", ["builder", "build"]), None);
        assert_eq!(nearest("buid", ["base", "build"]), Some("build"));
        assert_eq!(distance("", ""), 0);
    }
}
