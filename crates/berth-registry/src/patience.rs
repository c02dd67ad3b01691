//! Servers that want to be asked later: `429 Too Many Requests` and `503 Service Unavailable`.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{DATE, HeaderMap, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use jiff::Timestamp;
use jiff::fmt::rfc2822;
use url::Url;

use crate::client::authority_of;
use crate::connection::{CONNECT, Outgoing};
use crate::{Client, Error, Result};

/// Time to open a connection to a server that can be done without.
const CONNECT_HASTY: Duration = Duration::from_secs(5);

/// How long one request is tried with a server that wants to be asked later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// The first pause where the server names none; each further one is twice as long.
    pub first: Duration,
    /// Most pauses.
    pub pauses: u32,
    /// Longest that all pauses may last together. A server that names a longer one is not waited for at all.
    pub longest: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { first: Duration::from_millis(500), pauses: 5, longest: Duration::from_secs(120) }
    }
}

/// A pause that a server asked for, as it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// Host and perhaps port of the server.
    pub authority: String,
    /// Its status.
    pub status: StatusCode,
    /// How long the pause is.
    pub wait: Duration,
}

impl fmt::Display for Pause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { authority, status, wait } = self;
        write!(formatter, "Waiting for {authority} ({status}): asking again in {}", Span(*wait))
    }
}

/// Who is told of pauses.
#[derive(Clone)]
pub(crate) struct Teller(Arc<dyn Fn(Pause) + Send + Sync>);

impl fmt::Debug for Teller {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Teller(..)")
    }
}

impl Teller {
    pub fn new(tell: impl Fn(Pause) + Send + Sync + 'static) -> Self {
        Self(Arc::new(tell))
    }

    pub fn tell(&self, pause: Pause) {
        (self.0)(pause);
    }
}

/// A length of time for people.
pub(crate) struct Span(pub Duration);

impl fmt::Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A part of a second counts as a whole one: nobody is to come too early.
        let seconds = self.0.as_secs() + u64::from(self.0.subsec_nanos() > 0);
        match seconds {
            0..120 => write!(formatter, "{seconds} s"),
            120..7200 => write!(formatter, "{} min", seconds.div_ceil(60)),
            _ => write!(formatter, "{} h", seconds.div_ceil(3600)),
        }
    }
}

/// What is left of the patience with one request.
#[derive(Debug)]
pub(crate) struct Waiting {
    patience: Patience,
    pauses: u32,
    spent: Duration,
    /// How long a connection may take.
    connect: Duration,
}

impl Waiting {
    pub fn new(patience: Patience) -> Self {
        Self { patience, pauses: 0, spent: Duration::ZERO, connect: CONNECT }
    }

    /// For a server that can be done without.
    pub fn hasty() -> Self {
        let patience = Patience { pauses: 0, ..Patience::default() };
        Self { connect: CONNECT_HASTY, ..Self::new(patience) }
    }

    /// How long to wait before the same is asked again; none if the answer stands.
    pub fn next(&mut self, status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
        if is_overload(status) { self.pause(asked(headers)) } else { None }
    }

    /// The same for a server that named a pause, or none.
    pub fn pause(&mut self, named: Option<Duration>) -> Option<Duration> {
        if self.pauses >= self.patience.pauses {
            return None;
        }
        let own = self.patience.first.saturating_mul(1 << self.pauses.min(16));
        // A server that says "now" and refuses again is not asked faster and faster.
        let wait = named.map_or(own, |named| named.max(own.min(Duration::from_secs(1))));
        let spent = self.spent.saturating_add(wait);
        if spent > self.patience.longest {
            return None;
        }
        self.pauses += 1;
        self.spent = spent;
        Some(wait)
    }
}

/// Whether a server has too much to do.
pub(crate) fn is_overload(status: StatusCode) -> bool {
    matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
}

/// The pause that a server names (RFC 9110, 10.2.3): seconds, or a moment, which is taken by the server's own clock.
pub(crate) fn asked(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let value = text(RETRY_AFTER)?;
    if let Ok(seconds) = value.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let moment = |text: &str| rfc2822::DateTimeParser::new().parse_timestamp(text).ok();
    let now = text(DATE).and_then(moment).unwrap_or_else(Timestamp::now);
    Some(moment(value)?.duration_since(now).try_into().unwrap_or(Duration::ZERO))
}

/// The error for a server whose overload outlasted the patience.
pub(crate) fn overload(authority: String, status: StatusCode, headers: &HeaderMap, message: String) -> Error {
    Error::Overload {
        authority,
        is_limit: status == StatusCode::TOO_MANY_REQUESTS,
        message,
        wait: asked(headers),
    }
}

/// What whoever meets an overload can do.
pub(crate) fn advice(authority: &str, is_limit: bool, wait: Option<Duration>) -> String {
    let when = match wait {
        Some(wait) => format!("{authority} wants no more requests for {}: try again then", Span(wait)),
        None => format!("{authority} goes on refusing: try again later"),
    };
    let account = if is_limit { ", or log in first, since accounts often have a higher limit" } else { "" };
    format!("{when}{account}")
}

impl Client {
    /// Sends a request, and again while the server wants to be asked later and the patience lasts. Nothing that is sent so
    /// does harm when it is done twice: what begins an upload begins another, of which nobody knows.
    pub(crate) async fn insist(
        &self,
        url: &Url,
        operation: &str,
        waiting: &mut Waiting,
        request: impl Fn() -> Result<Request<Outgoing>>,
    ) -> Result<Response<Incoming>> {
        loop {
            let endpoint = self.endpoint(url, operation)?;
            let answer = self.shared.pool.send(&endpoint, &request, operation, waiting.connect).await?;
            let Some(wait) = waiting.next(answer.status(), answer.headers()) else { return Ok(answer) };
            let status = answer.status();
            drop(answer);
            self.wait(authority_of(url), status, wait).await;
        }
    }

    /// Waits, and tells so.
    pub(crate) async fn wait(&self, authority: String, status: StatusCode, wait: Duration) {
        tracing::info!(authority, %status, ?wait, "a registry wants to be asked later");
        if let Some(teller) = &self.teller {
            teller.tell(Pause { authority, status, wait });
        }
        tokio::time::sleep(wait).await;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(retry: &str, date: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, retry.parse().unwrap());
        if !date.is_empty() {
            headers.insert(DATE, date.parse().unwrap());
        }
        headers
    }

    #[test]
    fn pauses_are_seconds_or_moments() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(asked(&headers("30", "")), seconds(30));
        let date = "Wed, 21 Oct 2015 07:28:00 GMT";
        assert_eq!(asked(&headers("Wed, 21 Oct 2015 07:29:30 GMT", date)), seconds(90));
        assert_eq!(asked(&headers("Wed, 21 Oct 2015 07:00:00 GMT", date)), seconds(0));
        assert_eq!(asked(&headers("Wed, 21 Oct 2015 07:00:00 GMT", "")), seconds(0), "that was long ago");
        assert!(
            asked(&headers("Wed, 21 Oct 2122 07:00:00 GMT", "")).is_some_and(|wait| wait.as_secs() > 1 << 30)
        );
        assert_eq!(asked(&headers("soon", date)), None);
        assert_eq!(asked(&headers("-3", date)), None);
        assert_eq!(asked(&HeaderMap::new()), None);
    }

    #[test]
    fn pauses_grow_and_end() {
        let busy = StatusCode::SERVICE_UNAVAILABLE;
        let nothing = HeaderMap::new();
        let mut waiting = Waiting::new(Patience::default());
        let waits: Vec<_> =
            std::iter::from_fn(|| waiting.next(busy, &nothing)).map(|wait| wait.as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000, 8000]);
        let mut waiting = Waiting::new(Patience::default());
        assert_eq!(waiting.next(StatusCode::OK, &nothing), None);
        assert_eq!(waiting.next(busy, &headers("100", "")), Some(Duration::from_secs(100)));
        assert_eq!(waiting.next(busy, &headers("100", "")), None, "that is too long in all");
        assert_eq!(Waiting::new(Patience::default()).next(busy, &headers("21600", "")), None);
    }

    #[test]
    fn lengths_of_time_are_for_people() {
        for (seconds, text) in [(0, "0 s"), (119, "119 s"), (121, "3 min"), (21_600, "6 h")] {
            assert_eq!(Span(Duration::from_secs(seconds)).to_string(), text);
        }
        assert_eq!(Span(Duration::from_millis(500)).to_string(), "1 s");
    }

    proptest! {
        #[test]
        fn no_server_makes_it_wait_for_longer_than_it_may(named in proptest::collection::vec("[0-9]{1,20}|\\PC{0,40}", 0..12)) {
            let patience = Patience::default();
            let mut waiting = Waiting::new(patience);
            let mut all = Duration::ZERO;
            for text in named {
                let Ok(value) = http::HeaderValue::from_str(&text) else { continue };
                let mut headers = HeaderMap::new();
                headers.insert(RETRY_AFTER, value);
                all += waiting.next(StatusCode::TOO_MANY_REQUESTS, &headers).unwrap_or_default();
            }
            prop_assert!(all <= patience.longest);
        }
    }
}
