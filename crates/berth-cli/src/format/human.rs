//! Sizes and times as people read them.

use jiff::Timestamp;

/// A size in decimal units with three digits: `1.24MB`.
pub fn size(bytes: i64) -> String {
    decimal(bytes, 3)
}

/// A size in decimal units with four digits, as totals are shown: `1.235MB`.
pub fn long_size(bytes: i64) -> String {
    decimal(bytes, 4)
}

fn decimal(bytes: i64, digits: usize) -> String {
    const UNITS: [&str; 6] = ["B", "kB", "MB", "GB", "TB", "PB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value.abs() >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{}{}", significant(value, digits), UNITS[unit])
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

/// As C's `%.3g` and `%.4g` for what is below 1000.
fn significant(value: f64, digits: usize) -> String {
    let whole = if value >= 100.0 {
        3
    } else if value >= 10.0 {
        2
    } else {
        1
    };
    let decimals = digits - whole;
    trimmed(format!("{value:.decimals$}"))
}

fn trimmed(text: String) -> String {
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// How long ago a moment (seconds since 1970) was.
pub fn ago(created: i64) -> String {
    format!("{} ago", berth_api::time::words(Timestamp::now().as_second() - created))
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

/// A command in quotes, of at most twenty characters between them.
pub fn quoted(line: &str) -> String {
    format!("\"{}\"", ellipsis(line, 20))
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
        for (bytes, text) in
            [(0, "0B"), (123_456, "123.5kB"), (12_345_678, "12.35MB"), (1_234_567, "1.235MB")]
        {
            assert_eq!(long_size(bytes), text);
        }
        assert_eq!(binary_size(2_087_000_000), "1.944GiB");
        assert_eq!(binary_size(512), "512B");
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(ellipsis("\"sleep 1000\"", 20), "\"sleep 1000\"");
        assert_eq!(quoted("sh -c 'head -c 70000'"), "\"sh -c 'head -c 7000…\"");
        assert_eq!(ellipsis("ééééé", 3), "éé…");
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789ab");
    }
}
