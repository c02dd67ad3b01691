//! Signals by name and number, as Docker reads them.

use crate::Error;

/// SIGKILL (signal(7)).
pub const KILL: i32 = 9;
/// SIGTERM (signal(7)).
pub const TERM: i32 = 15;
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// Names without `SIG`, at the index of their numbers on x86 and ARM (signal(7)).
const NAMES: [&str; 32] = [
    "", "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The number of a signal given as `9`, `KILL`, `SIGKILL` or `sigkill`, `RTMIN+3`, `RTMAX-2`.
pub fn parse(text: &str) -> Result<i32, Error> {
    let invalid = || Error::InvalidParameter(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=RTMAX).contains(&number) { Ok(number) } else { Err(invalid()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let alias = match name {
        "IOT" => "ABRT",
        "CLD" => "CHLD",
        "POLL" => "IO",
        other => other,
    };
    if let Some(number) = NAMES.iter().skip(1).position(|known| *known == alias) {
        return i32::try_from(number + 1).map_err(|_| invalid());
    }
    real_time(name).ok_or_else(invalid)
}

fn real_time(name: &str) -> Option<i32> {
    let number = if let Some(rest) = name.strip_prefix("RTMIN") {
        RTMIN + offset(rest, '+')?
    } else {
        RTMAX - offset(name.strip_prefix("RTMAX")?, '-')?
    };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

fn offset(rest: &str, sign: char) -> Option<i32> {
    if rest.is_empty() {
        Some(0)
    } else {
        rest.strip_prefix(sign)?.parse().ok().filter(|n| (0..=30).contains(n))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_numbers_and_real_time_signals() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGKILL", 9),
            ("sigkill", 9),
            ("term", 15),
            ("SIGHUP", 1),
            ("SYS", 31),
            ("WINCH", 28),
            ("IOT", 6),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX", 64),
            ("rtmax-2", 62),
            ("64", 64),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused_in_dockers_words() {
        for text in ["", "0", "-1", "65", "SIG", "FOO", "SIGSIGKILL", "RTMIN+31", "RTMIN-1", "RTMAX+1", "9x"]
        {
            assert_eq!(parse(text).unwrap_err().to_string(), format!("invalid signal: {text}"));
        }
    }
}
