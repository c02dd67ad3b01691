//! What health checks found out about a container.

use std::collections::VecDeque;
use std::time::Duration;

use berth_api::container::{Health as ApiHealth, HealthLog};
use berth_api::time::Time;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Results that are kept.
const KEPT: usize = 5;

/// How well a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HealthStatus {
    /// Nothing is known yet.
    Starting,
    /// The last check succeeded, or too few have failed since.
    Healthy,
    /// Too many checks failed in a row, or nobody checks.
    Unhealthy,
}

impl HealthStatus {
    /// Docker's word.
    pub fn as_str(self) -> &'static str {
        match self {
            HealthStatus::Starting => "starting",
            HealthStatus::Healthy => "healthy",
            HealthStatus::Unhealthy => "unhealthy",
        }
    }

    /// As the status line of `ps` has it, in parentheses.
    pub fn describe(self) -> &'static str {
        match self {
            HealthStatus::Starting => "health: starting",
            known => known.as_str(),
        }
    }
}

/// The outcome of one check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// 0 for healthy, -1 for a check that took too long or could not be made.
    pub code: i32,
    /// The beginning of its output.
    pub output: String,
}

/// The health of a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// How well it is.
    pub status: HealthStatus,
    /// Failures in a row that count.
    pub failing_streak: u32,
    log: VecDeque<Probed>,
}

/// When failures count.
#[derive(Debug, Clone, Copy)]
pub struct Tolerance {
    /// Failures in a row that make a container unhealthy.
    pub retries: u32,
    /// Time from the start in which failures do not count, unless a check has succeeded.
    pub start_period: Duration,
    /// When the container started.
    pub started_at: Timestamp,
}

impl Health {
    /// The health of a container that has just started; results of earlier runs stay.
    pub fn anew(before: Option<&Health>) -> Health {
        let log = before.map(|health| health.log.clone()).unwrap_or_default();
        Health { status: HealthStatus::Starting, failing_streak: 0, log }
    }

    /// The same, but that nobody checks any more.
    pub fn unchecked(&self) -> Health {
        Health { status: HealthStatus::Unhealthy, ..self.clone() }
    }

    /// The health after one more result.
    #[must_use]
    pub fn after(&self, probed: Probed, tolerance: Tolerance) -> Health {
        let mut next = self.clone();
        if probed.code == 0 {
            next.failing_streak = 0;
            next.status = HealthStatus::Healthy;
        } else {
            let age = Duration::try_from(probed.start.duration_since(tolerance.started_at));
            let excused =
                self.status == HealthStatus::Starting && age.unwrap_or_default() < tolerance.start_period;
            if !excused {
                next.failing_streak = next.failing_streak.saturating_add(1);
                if next.failing_streak >= tolerance.retries {
                    next.status = HealthStatus::Unhealthy;
                }
            }
        }
        next.log.push_back(probed);
        while next.log.len() > KEPT {
            next.log.pop_front();
        }
        next
    }

    /// As `inspect` shows it.
    pub fn to_api(&self) -> ApiHealth {
        let entry = |probed: &Probed| HealthLog {
            start: Time(probed.start),
            end: Time(probed.end),
            exit_code: i64::from(probed.code),
            output: probed.output.clone(),
        };
        ApiHealth {
            status: self.status.as_str().into(),
            failing_streak: i64::from(self.failing_streak),
            log: Some(self.log.iter().map(entry).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn probed(second: i64, code: i32) -> Probed {
        Probed { start: at(second), end: at(second + 1), code, output: String::new() }
    }

    const fn tolerance(retries: u32, start_period: u64) -> Tolerance {
        Tolerance {
            retries,
            start_period: Duration::from_secs(start_period),
            started_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn so_many_failures_in_a_row_make_unhealthy_and_one_success_heals() {
        let mut health = Health::anew(None);
        let mut seen = Vec::new();
        for code in [1, 2, 0, 1, 1, -1, 1, 0] {
            health = health.after(probed(5, code), tolerance(3, 0));
            seen.push((health.status.as_str(), health.failing_streak));
        }
        let expected = [
            ("starting", 1),
            ("starting", 2),
            ("healthy", 0),
            ("healthy", 1),
            ("healthy", 2),
            ("unhealthy", 3),
            ("unhealthy", 4),
            ("healthy", 0),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn failures_of_the_start_period_do_not_count_until_a_success() {
        let health = Health::anew(None).after(probed(9, 1), tolerance(1, 10));
        assert_eq!((health.status, health.failing_streak), (HealthStatus::Starting, 0));
        let late = health.after(probed(10, 1), tolerance(1, 10));
        assert_eq!((late.status, late.failing_streak), (HealthStatus::Unhealthy, 1));
        let well = health.after(probed(3, 0), tolerance(1, 10)).after(probed(4, 1), tolerance(1, 10));
        assert_eq!(well.status, HealthStatus::Unhealthy, "after a success, the start is over");
    }

    #[test]
    fn the_last_five_results_are_kept_also_through_a_restart() {
        let mut health = Health::anew(None);
        for second in 0..8 {
            health = health.after(probed(second, 0), tolerance(3, 0));
        }
        let again = Health::anew(Some(&health)).to_api();
        assert_eq!((again.status.as_str(), again.failing_streak), ("starting", 0));
        let starts: Vec<_> = again.log.unwrap().iter().map(|entry| entry.start.0.as_second()).collect();
        assert_eq!(starts, [3, 4, 5, 6, 7]);
        assert_eq!(health.unchecked().status, HealthStatus::Unhealthy);
    }
}
