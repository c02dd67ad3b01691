//! Restart policies: whether a container is started again, and when.

use std::time::Duration;

use berth_api::container::RestartPolicy;

/// The first delay, which doubles with each restart.
const FIRST_DELAY: Duration = Duration::from_millis(100);
/// The longest delay.
const LAST_DELAY: Duration = Duration::from_secs(60);
/// A run that lasted this long starts the delays anew.
const SETTLED: Duration = Duration::from_secs(10);

/// How a run ended, as far as policies look at it.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// The exit code.
    pub code: i32,
    /// A client stopped it.
    pub by_client: bool,
    /// Restarts by the policy since a client started it.
    pub restarts: u32,
}

/// Whether a container that has just ended is started again.
pub fn restarts(policy: &RestartPolicy, ended: Ended) -> bool {
    if ended.by_client {
        return false;
    }
    match policy.name.as_str() {
        "always" | "unless-stopped" => true,
        "on-failure" => ended.code != 0 && below_maximum(policy, ended.restarts),
        _ => false,
    }
}

/// Whether a container that does not run is started when the engine opens.
pub fn starts_with_engine(policy: &RestartPolicy, ended: Ended) -> bool {
    policy.name == "always" || restarts(policy, ended)
}

fn below_maximum(policy: &RestartPolicy, restarts: u32) -> bool {
    policy.maximum_retry_count == 0 || i64::from(restarts) < policy.maximum_retry_count
}

/// The growing delays between restarts.
#[derive(Debug, Default)]
pub struct BackOff(Option<Duration>);

impl BackOff {
    /// The delay after a run of that length.
    pub fn next(&mut self, ran: Duration) -> Duration {
        let delay = match self.0 {
            Some(last) if ran < SETTLED => (last * 2).min(LAST_DELAY),
            _ => FIRST_DELAY,
        };
        self.0 = Some(delay);
        delay
    }

    /// A client started the container: delays begin anew.
    pub fn reset(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, maximum: i64) -> RestartPolicy {
        RestartPolicy { name: name.into(), maximum_retry_count: maximum }
    }

    fn ended(code: i32, by_client: bool, restarts: u32) -> Ended {
        Ended { code, by_client, restarts }
    }

    #[test]
    fn policies_are_dockers() {
        for (name, maximum, end, again, at_open) in [
            ("no", 0, ended(1, false, 0), false, false),
            ("", 0, ended(1, false, 0), false, false),
            ("always", 0, ended(0, false, 0), true, true),
            ("always", 0, ended(0, true, 0), false, true),
            ("unless-stopped", 0, ended(0, false, 9), true, true),
            ("unless-stopped", 0, ended(0, true, 0), false, false),
            ("on-failure", 0, ended(0, false, 0), false, false),
            ("on-failure", 0, ended(1, false, 99), true, true),
            ("on-failure", 3, ended(1, false, 2), true, true),
            ("on-failure", 3, ended(1, false, 3), false, false),
            ("on-failure", 3, ended(1, true, 0), false, false),
        ] {
            assert_eq!(restarts(&policy(name, maximum), end), again, "{name} {end:?}");
            assert_eq!(starts_with_engine(&policy(name, maximum), end), at_open, "{name} {end:?}");
        }
    }

    #[test]
    fn delays_double_up_to_a_minute_and_begin_anew_after_a_long_run() {
        let mut back_off = BackOff::default();
        let short = Duration::from_secs(1);
        let delays: Vec<_> = (0..12).map(|_| back_off.next(short).as_millis()).collect();
        assert_eq!(delays, [100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000]);
        assert_eq!(back_off.next(SETTLED), FIRST_DELAY);
        assert_eq!(back_off.next(short), FIRST_DELAY * 2);
        back_off.reset();
        assert_eq!(back_off.next(short), FIRST_DELAY);
    }
}
