//! `POST /session`: a client offers what its builds need, over the connection that the request came by.

use berth_engine::Offer;
use http::header::{CONNECTION, HeaderValue, UPGRADE};
use http::{HeaderMap, StatusCode};

use super::Outcome;
use crate::answer;
use crate::body::Body;
use crate::call::Call;
use crate::failure::Failure;

/// The only protocol that is spoken: HTTP/2 without TLS of its own.
const PROTOCOL: &str = "h2c";

pub async fn open(call: Call) -> Outcome {
    let offer = offer(call.headers());
    if call.engine.has_session(&offer.id) {
        return Err(Failure::invalid(format!("session {} already exists", offer.id)));
    }
    match call.headers().get(UPGRADE).map(|protocol| String::from_utf8_lossy(protocol.as_bytes())) {
        None => return Err(Failure::invalid("no upgrade proto in request")),
        Some(protocol) if protocol != PROTOCOL => {
            return Err(Failure::invalid(format!("protocol {protocol} not supported")));
        }
        Some(_) => {}
    }
    let claim = call.engine.session(offer)?;
    let request = call.request;
    tokio::spawn(async move {
        let outcome = match hyper::upgrade::on(request).await {
            Ok(upgraded) => claim.serve(upgraded).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        if let Err(error) = outcome {
            tracing::debug!(error, "a client went away before its session began");
        }
    });
    let mut response = answer::with(StatusCode::SWITCHING_PROTOCOLS, None, Body::empty());
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    response.headers_mut().insert(UPGRADE, HeaderValue::from_static(PROTOCOL));
    Ok(response)
}

fn offer(headers: &HeaderMap) -> Offer {
    let all = |name: &str| {
        let values = headers.get_all(format!("x-docker-expose-session-{name}")).into_iter();
        values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect::<Vec<_>>()
    };
    let one = |name: &str| all(name).into_iter().next().unwrap_or_default();
    Offer { id: one("uuid"), name: one("name"), shared_key: one("sharedkey"), methods: all("grpc-method") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_say_what_is_offered() {
        let mut headers = HeaderMap::new();
        for (name, value) in
            [("Uuid", "u"), ("Sharedkey", "k"), ("Grpc-Method", "/a/B"), ("Grpc-Method", "/c/D")]
        {
            let name = format!("X-Docker-Expose-Session-{name}");
            headers.append(http::HeaderName::try_from(name).unwrap(), HeaderValue::from_static(value));
        }
        let offer = offer(&headers);
        assert_eq!((offer.id.as_str(), offer.name.as_str(), offer.shared_key.as_str()), ("u", "", "k"));
        assert_eq!(offer.methods, ["/a/B", "/c/D"]);
    }
}
