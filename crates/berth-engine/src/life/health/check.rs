//! What a health check is: Docker's forms, and two that need no process in the container.

use std::net::IpAddr;
use std::time::Duration;

use berth_api::container::{Config, HealthConfig};

use super::address::{Address, Url};
use crate::Error;

/// The least length of time, but for zero, which means the default.
const MINIMUM: i64 = 1_000_000;
const INTERVAL: Duration = Duration::from_secs(30);
const TIMEOUT: Duration = Duration::from_secs(30);
const START_INTERVAL: Duration = Duration::from_secs(5);
const RETRIES: u32 = 3;

/// How a container is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Test {
    /// A program in the container, and its arguments; none at all is a check that fails.
    Command(Vec<String>),
    /// `["HTTP", URL]`: a request from inside the container's network.
    Http(Url),
    /// `["TCP", "HOST:PORT"]`: a connection from inside the container's network.
    Tcp(Address),
}

/// A health check with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is done.
    pub test: Test,
    /// From the end of one check to the next.
    pub interval: Duration,
    /// For one check.
    pub timeout: Duration,
    /// From the start, in which failures do not count.
    pub start_period: Duration,
    /// Instead of the interval until the first success within the start period.
    pub start_interval: Duration,
    /// Failures in a row that make the container unhealthy.
    pub retries: u32,
}

impl Check {
    /// The check of a container, if it has one.
    pub fn of(config: &Config) -> Option<Check> {
        let health = config.healthcheck.as_ref()?;
        let time = |nanoseconds: i64, default: Duration| match u64::try_from(nanoseconds) {
            Ok(0) | Err(_) => default,
            Ok(nanoseconds) => Duration::from_nanos(nanoseconds),
        };
        Some(Check {
            // What is malformed was refused when the container was created.
            test: test(health, config.shell.as_deref()).ok()??,
            interval: time(health.interval, INTERVAL),
            timeout: time(health.timeout, TIMEOUT),
            start_period: time(health.start_period, Duration::ZERO),
            start_interval: time(health.start_interval, START_INTERVAL),
            retries: u32::try_from(health.retries).ok().filter(|n| *n > 0).unwrap_or(RETRIES),
        })
    }
}

/// What is done; nothing for no check, `NONE` and, as in Docker, a kind that is unknown.
fn test(health: &HealthConfig, shell: Option<&[String]>) -> Result<Option<Test>, Error> {
    let Some((kind, rest)) = health.test.as_deref().and_then(<[String]>::split_first) else {
        return Ok(None);
    };
    let one = |form: &str| match rest {
        [one] => Ok(one.as_str()),
        _ => Err(Error::InvalidParameter(format!("Test in Healthcheck must be [\"{kind}\", \"{form}\"]"))),
    };
    Ok(Some(match kind.as_str() {
        "CMD" => Test::Command(rest.to_vec()),
        "CMD-SHELL" if rest.is_empty() => Test::Command(Vec::new()),
        "CMD-SHELL" => {
            let default = ["/bin/sh".to_owned(), "-c".to_owned()];
            let shell = shell.filter(|shell| !shell.is_empty()).unwrap_or(&default);
            Test::Command([shell, rest].concat())
        }
        "HTTP" => Test::Http(Url::parse(one("http://HOST:PORT/PATH")?)?),
        "TCP" => Test::Tcp(Address::parse(one("HOST:PORT")?)?),
        _ => return Ok(None),
    }))
}

/// Refuses what makes no sense, in Docker's words.
pub fn validate(health: &HealthConfig) -> Result<(), Error> {
    let too_short = |time: i64| time != 0 && time < MINIMUM;
    for (name, time) in [("Interval", health.interval), ("Timeout", health.timeout)] {
        if too_short(time) {
            return Err(Error::InvalidParameter(format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    if health.retries < 0 {
        return Err(Error::InvalidParameter("Retries in Healthcheck cannot be negative".into()));
    }
    for (name, time) in [("StartPeriod", health.start_period), ("StartInterval", health.start_interval)] {
        if too_short(time) {
            return Err(Error::InvalidParameter(format!("{name} in Healthcheck cannot be less than 1ms")));
        }
    }
    test(health, None).map(|_| ())
}

/// Where `localhost` is, in the order in which it is tried.
pub const LOCALHOST: [IpAddr; 2] =
    [IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)];

/// A length of time as Go writes it: `1m30s`, `50ms`, `1.5s`.
pub fn go(duration: Duration) -> String {
    let nanoseconds = duration.as_nanos();
    let fraction = |value: u128, unit: u128, name: &str| {
        let digits = unit.ilog10() as usize;
        let text = format!("{}.{:0digits$}", value / unit, value % unit);
        let text = if unit == 1 { value.to_string() } else { text };
        let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
        format!("{text}{name}")
    };
    match nanoseconds {
        0 => "0s".into(),
        1..1_000 => fraction(nanoseconds, 1, "ns"),
        1_000..1_000_000 => fraction(nanoseconds, 1_000, "µs"),
        1_000_000..1_000_000_000 => fraction(nanoseconds, 1_000_000, "ms"),
        _ => {
            let minutes = nanoseconds / 60_000_000_000;
            let seconds = fraction(nanoseconds % 60_000_000_000, 1_000_000_000, "s");
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(words: &[&str]) -> Config {
        let test = Some(words.iter().map(|word| (*word).to_owned()).collect());
        Config { healthcheck: Some(HealthConfig { test, ..HealthConfig::default() }), ..Config::default() }
    }

    fn command(words: &[&str]) -> Test {
        Test::Command(words.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn dockers_forms_are_read_with_their_defaults() {
        let check = Check::of(&config(&["CMD", "a", "b"])).unwrap();
        assert_eq!(check.test, command(&["a", "b"]));
        assert_eq!((check.interval, check.timeout), (INTERVAL, TIMEOUT));
        assert_eq!((check.start_period, check.start_interval), (Duration::ZERO, START_INTERVAL));
        assert_eq!(check.retries, 3);
        assert_eq!(Check::of(&config(&["CMD-SHELL", "x"])).unwrap().test, command(&["/bin/sh", "-c", "x"]));
        let bash = Some(vec!["/bin/bash".to_owned(), "-ec".to_owned()]);
        let own = Config { shell: bash, ..config(&["CMD-SHELL", "x"]) };
        assert_eq!(Check::of(&own).unwrap().test, command(&["/bin/bash", "-ec", "x"]));
        for none in [&[][..], &["NONE"], &["SMTP", "x"]] {
            assert_eq!(Check::of(&config(none)), None, "{none:?}");
        }
        assert_eq!(Check::of(&Config::default()), None);
    }

    #[test]
    fn forms_without_a_process_are_read() {
        assert!(matches!(
            Check::of(&config(&["HTTP", "http://localhost:80/x"])).unwrap().test,
            Test::Http(_)
        ));
        assert!(matches!(Check::of(&config(&["TCP", "localhost:80"])).unwrap().test, Test::Tcp(_)));
        for bad in [&["HTTP"][..], &["HTTP", "ftp://x"], &["TCP", "localhost"], &["TCP", "a:1", "b:2"]] {
            let health = config(bad).healthcheck.unwrap();
            assert!(matches!(validate(&health), Err(Error::InvalidParameter(_))), "{bad:?}");
        }
    }

    #[test]
    fn times_are_checked_in_dockers_words() {
        let ok = HealthConfig { interval: MINIMUM, timeout: MINIMUM, retries: 1, ..Default::default() };
        validate(&ok).unwrap();
        for (health, message) in [
            (HealthConfig { interval: 1, ..ok.clone() }, "Interval in Healthcheck cannot be less than 1ms"),
            (HealthConfig { timeout: -1, ..ok.clone() }, "Timeout in Healthcheck cannot be less than 1ms"),
            (HealthConfig { retries: -1, ..ok.clone() }, "Retries in Healthcheck cannot be negative"),
            (
                HealthConfig { start_period: 999_999, ..ok.clone() },
                "StartPeriod in Healthcheck cannot be less than 1ms",
            ),
            (
                HealthConfig { start_interval: 7, ..ok },
                "StartInterval in Healthcheck cannot be less than 1ms",
            ),
        ] {
            assert_eq!(validate(&health).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn durations_are_written_as_in_go() {
        for (nanoseconds, text) in [
            (0, "0s"),
            (7, "7ns"),
            (1_500, "1.5µs"),
            (50_000_000, "50ms"),
            (1_000_000_000, "1s"),
            (1_050_000_000, "1.05s"),
            (90_000_000_000, "1m30s"),
            (60_000_000_000, "1m0s"),
            (3_600_000_000_000, "1h0m0s"),
        ] {
            assert_eq!(go(Duration::from_nanos(nanoseconds)), text);
        }
    }
}
