//! Sizes and times as people read them.

use jiff::Timestamp;

/// A size in decimal units with three digits: `1.24MB`.
pub fn size(bytes: i64) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value.abs() >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{}{}", three_digits(value), UNITS[unit])
}

/// A size in binary units with four digits: `1.944GiB`.
pub fn binary_size(bytes: i64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value.abs() >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = if value >= 1000.0 {
        0
    } else if value >= 100.0 {
        1
    } else if value >= 10.0 {
        2
    } else {
        3
    };
    format!("{}{}", trimmed(format!("{value:.decimals$}")), UNITS[unit])
}

/// As C's `%.3g` for what is below 1000.
fn three_digits(value: f64) -> String {
    let decimals = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    trimmed(format!("{value:.decimals$}"))
}

fn trimmed(text: String) -> String {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A length of time in words: `3 hours`.
pub fn duration(seconds: i64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match seconds {
        ..1 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        _ if minutes == 1 => "About a minute".to_owned(),
        _ if minutes < 60 => format!("{minutes} minutes"),
        _ if hours == 1 => "About an hour".to_owned(),
        _ if hours < 48 => format!("{hours} hours"),
        _ if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        _ if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        _ if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// How long ago a moment (seconds since 1970) was.
pub fn ago(created: i64) -> String {
    format!("{} ago", duration(Timestamp::now().as_second() - created))
}

/// A moment as Go prints it: `2026-01-02 03:04:05 +0000 UTC`.
pub fn moment(created: i64) -> String {
    Timestamp::from_second(created)
        .map_or_else(|_| created.to_string(), |time| time.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string())
}

/// A text of at most `length` characters.
pub fn ellipsis(text: &str, length: usize) -> String {
    if text.chars().count() <= length {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(length.saturating_sub(1)).collect();
    short.push('…');
    short
}

/// The first twelve digits of an ID or digest.
pub fn short_id(id: &str) -> &str {
    let hex = id.split_once(':').map_or(id, |(_, hex)| hex);
    hex.get(..12).unwrap_or(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_dockers() {
        for (bytes, text) in
            [(0, "0B"), (999, "999B"), (1000, "1kB"), (1_240_000, "1.24MB"), (74_800_000, "74.8MB")]
        {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(binary_size(2_087_000_000), "1.944GiB");
        assert_eq!(binary_size(512), "512B");
    }

    #[test]
    fn durations_are_dockers() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (150, "2 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (86_400 * 3, "3 days"),
            (86_400 * 21, "3 weeks"),
            (86_400 * 100, "3 months"),
            (86_400 * 800, "2 years"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(ellipsis("\"sleep 1000\"", 20), "\"sleep 1000\"");
        assert_eq!(ellipsis("ééééé", 3), "éé…");
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
    }
}
