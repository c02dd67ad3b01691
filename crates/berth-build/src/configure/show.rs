//! How Go prints values: the words of an image's history.

use berth_oci::config::Healthcheck;

use crate::dockerfile::Pair;

/// `["a" "b c"]`.
pub fn arguments(words: &[String]) -> String {
    let texts: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", texts.join(" "))
}

pub(super) fn pairs(keyword: &str, pairs: &[Pair]) -> String {
    let texts: Vec<String> = pairs.iter().map(|pair| format!("{}={}", pair.name, pair.value)).collect();
    format!("{keyword} {}", texts.join(" "))
}

pub(super) fn health(check: &Healthcheck) -> String {
    format!(
        "&{{Test:[{}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        check.test.join(" "),
        duration(check.interval),
        duration(check.timeout),
        duration(check.start_period),
        duration(check.start_interval),
        check.retries.unwrap_or(0)
    )
}

/// Nanoseconds as `1h2m3.5s`, `1.5ms`.
fn duration(time: Option<i64>) -> String {
    let time = time.unwrap_or(0).unsigned_abs();
    let fraction = |whole: u64, part: u64, digits: usize| match part {
        0 => whole.to_string(),
        part => format!("{whole}.{}", format!("{part:0digits$}").trim_end_matches('0')),
    };
    match time {
        0 => "0s".to_owned(),
        1..1_000 => format!("{time}ns"),
        1_000..1_000_000 => format!("{}µs", fraction(time / 1_000, time % 1_000, 3)),
        1_000_000..1_000_000_000 => format!("{}ms", fraction(time / 1_000_000, time % 1_000_000, 6)),
        _ => {
            let (seconds, rest) = (time / 1_000_000_000, time % 1_000_000_000);
            let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
            let seconds = fraction(seconds % 60, rest, 9);
            match (hours, minutes) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_gos() {
        for (time, text) in [
            (0, "0s"),
            (1_500, "1.5µs"),
            (1_000_000, "1ms"),
            (2_500_000_000, "2.5s"),
            (60_000_000_000, "1m0s"),
            (3_723_000_000_000, "1h2m3s"),
        ] {
            assert_eq!(duration(Some(time)), text);
        }
    }
}
