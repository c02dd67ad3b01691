//! Marks that administrators put on packets which containers' networks are to let in.

use std::fmt;
use std::str::FromStr;

/// A mark, and the bits of it that count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// The value.
    pub value: u32,
    /// The bits.
    pub mask: u32,
}

/// The text is no mark.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid bridge-accept-fwmark: invalid firewall {what} \"{text}\"")]
pub struct InvalidMark {
    what: &'static str,
    text: String,
}

impl FromStr for Mark {
    type Err = InvalidMark;

    /// Reads `VALUE` or `VALUE/MASK`, each decimal, octal after `0` or hexadecimal after `0x`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = |what| move || InvalidMark { what, text: text.to_owned() };
        let (mark, mask) = text.split_once('/').map_or((text, None), |(mark, mask)| (mark, Some(mask)));
        Ok(Mark {
            value: number(mark).ok_or_else(invalid("mark"))?,
            mask: mask.map_or(Some(u32::MAX), number).ok_or_else(invalid("mask"))?,
        })
    }
}

fn number(text: &str) -> Option<u32> {
    let lower = text.to_ascii_lowercase();
    let digits = |digits: &str, radix| {
        // Rust would take a sign, too.
        let plain = digits.starts_with(|first: char| first.is_ascii_alphanumeric());
        plain.then(|| u32::from_str_radix(digits, radix).ok()).flatten()
    };
    match lower.strip_prefix("0x") {
        Some(hexadecimal) => digits(hexadecimal, 16),
        None if lower.len() > 1 && lower.starts_with('0') => digits(&lower[1..], 8),
        None => digits(&lower, 10),
    }
}

impl fmt::Display for Mark {
    /// As `iptables` lists it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.mask {
            u32::MAX => write!(f, "{:#x}", self.value),
            mask => write!(f, "{:#x}/{mask:#x}", self.value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn marks_are_read_as_go_reads_numbers() {
        for (text, shown) in [("2/3", "0x2/0x3"), ("0x10", "0x10"), ("010", "0x8"), ("0", "0x0")] {
            assert_eq!(text.parse::<Mark>().unwrap().to_string(), shown, "{text}");
        }
        for (text, what) in
            [("", "mark"), ("a", "mark"), ("-1", "mark"), ("0x+1", "mark"), ("1/b", "mask"), ("1/", "mask")]
        {
            let error = text.parse::<Mark>().unwrap_err().to_string();
            assert_eq!(error, format!("invalid bridge-accept-fwmark: invalid firewall {what} \"{text}\""));
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_again(value: u32, mask: u32) {
            let mark = Mark { value, mask };
            prop_assert_eq!(mark.to_string().parse::<Mark>(), Ok(mark));
        }

        #[test]
        fn any_text_is_read_without_harm(text in ".{0,12}") {
            let _ = text.parse::<Mark>();
        }
    }
}
