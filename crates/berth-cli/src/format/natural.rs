//! The order in which people expect names: numbers in them by their value.

use std::cmp::Ordering;

/// Compares two texts; `a2` comes before `a10`.
pub fn compare(one: &str, other: &str) -> Ordering {
    let (mut left, mut right) = (one.as_bytes(), other.as_bytes());
    loop {
        let (a, b) = match (left, right) {
            ([a, ..], [b, ..]) => (*a, *b),
            _ => return left.len().cmp(&right.len()),
        };
        if a.is_ascii_digit() && b.is_ascii_digit() {
            let (first, rest) = digits(left);
            let (second, other_rest) = digits(right);
            let value =
                |digits: &[u8]| digits.iter().position(|digit| *digit != b'0').unwrap_or(digits.len());
            let (short, long) = (&first[value(first)..], &second[value(second)..]);
            let order = short.len().cmp(&long.len()).then_with(|| short.cmp(long));
            if order.is_ne() {
                return order;
            }
            if first.len() != second.len() {
                return first.len().cmp(&second.len());
            }
            (left, right) = (rest, other_rest);
            continue;
        }
        if a != b {
            return a.cmp(&b);
        }
        (left, right) = (&left[1..], &right[1..]);
    }
}

fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().position(|byte| !byte.is_ascii_digit()).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_count_by_their_value() {
        let mut names = ["web10", "web2", "Web", "web", "web02", "a", "web2b"];
        names.sort_by(|a, b| compare(a, b));
        assert_eq!(names, ["Web", "a", "web", "web2", "web2b", "web02", "web10"]);
    }

    proptest! {
        #[test]
        fn it_is_an_order(a in "[a-b0-2]{0,5}", b in "[a-b0-2]{0,5}", c in "[a-b0-2]{0,5}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            prop_assert_eq!(compare(&a, &b).is_eq(), a == b);
            if compare(&a, &b).is_le() && compare(&b, &c).is_le() {
                prop_assert!(compare(&a, &c).is_le());
            }
        }
    }
}
