//! What containers use: once, or a line each second for as long as the client reads.

use berth_api::version::ApiVersion;
use berth_engine::StatsStream;
use futures_util::stream::unfold;
use http::StatusCode;
use http::header::HeaderValue;

use super::Outcome;
use crate::answer;
use crate::body::Body;
use crate::call::{Call, Query};

/// How a client wants its figures.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// A line each second.
    Stream,
    /// One sample, with the one before it.
    Two,
    /// One sample, at once.
    One,
}

fn wanted(version: ApiVersion, query: &Query) -> Wanted {
    let once = version >= ApiVersion::new(1, 41) && query.flag("one-shot");
    match (query.flag_or("stream", true), once) {
        // As in Docker, `one-shot` says nothing about a stream.
        (true, _) => Wanted::Stream,
        (false, false) => Wanted::Two,
        (false, true) => Wanted::One,
    }
}

pub async fn container(call: Call, name: &str) -> Outcome {
    let mut figures = call.engine.stats(name)?;
    let sample = match wanted(call.version, &call.query) {
        Wanted::Stream => return Ok(answer::stream("application/json", lines(figures))),
        Wanted::Two => figures.with_previous().await?,
        Wanted::One => Some(figures.once().await?),
    };
    // One that was removed meanwhile has no figures, which is no error.
    let json = HeaderValue::from_static("application/json");
    Ok(sample.map_or_else(
        || answer::with(StatusCode::OK, Some(json), Body::empty()),
        |sample| answer::ok(&sample),
    ))
}

/// A sample is taken when the connection takes it: a client that does not read costs nothing.
fn lines(figures: StatsStream) -> Body {
    Body::stream(unfold(figures, |mut figures| async move {
        let sample = figures.next().await?;
        Some((answer::to_line(&sample).unwrap_or_default(), figures))
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_what_is_given_unless_refused() {
        for (query, expected) in [
            ("", Wanted::Stream),
            ("stream=1&one-shot=1", Wanted::Stream),
            ("stream=false", Wanted::Two),
            ("stream=0&one-shot=0", Wanted::Two),
            ("stream=0&one-shot=true", Wanted::One),
        ] {
            assert_eq!(wanted(ApiVersion::NEWEST, &Query::parse(query)), expected, "{query}");
        }
        let query = Query::parse("stream=0&one-shot=1");
        assert_eq!(wanted(ApiVersion::new(1, 40), &query), Wanted::Two);
        assert_eq!(wanted(ApiVersion::new(1, 41), &query), Wanted::One);
    }
}
