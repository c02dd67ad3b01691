//! Answers: as a whole, bit by bit, line by line; and refusals.

use berth_api::error::ErrorResponse;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use crate::error::Error;

/// Longest answer that is gathered in memory.
const LONGEST_ANSWER: usize = 256 << 20;
/// Longest line of an answer that is read by lines.
const LONGEST_LINE: usize = 16 << 20;

/// An answer that arrives bit by bit.
#[derive(Debug)]
pub struct ResponseBody {
    pub(crate) operation: String,
    pub(crate) response: Response<Incoming>,
}

impl ResponseBody {
    /// The answer's content type; empty if the server gave none.
    pub fn content_type(&self) -> &str {
        self.response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// A header of the answer; empty if it has none.
    pub fn header(&self, name: &str) -> String {
        text(self.response.headers(), name)
    }

    /// The next bytes; none at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            match self.response.body_mut().frame().await {
                None => return Ok(None),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data()
                        && !data.is_empty()
                    {
                        return Ok(Some(data));
                    }
                }
                Some(Err(source)) => return Err(Error::Http { operation: self.operation.clone(), source }),
            }
        }
    }

    /// From here on, line by line.
    pub fn lines(self) -> Lines {
        Lines { body: self, pending: BytesMut::new() }
    }

    /// All that is left, as JSON.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, Error> {
        let operation = self.operation.clone();
        decode(&self.all().await?, || operation.clone())
    }

    /// All that is left.
    pub async fn all(self) -> Result<Bytes, Error> {
        gather(self.response, &self.operation).await
    }
}

/// The lines of an answer, such as messages in JSON.
#[derive(Debug)]
pub struct Lines {
    body: ResponseBody,
    pending: BytesMut,
}

impl Lines {
    /// The next line that is not empty, the last one also without its end; none at the end. A line of more than 16 MiB
    /// is an error.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line = self.pending.split_to(end + 1).freeze();
                if line.trim_ascii().is_empty() {
                    continue;
                }
                return Ok(Some(line));
            }
            if self.pending.len() > LONGEST_LINE {
                return Err(Error::TooLong { operation: self.body.operation.clone(), limit: LONGEST_LINE });
            }
            match self.body.chunk().await? {
                Some(chunk) => self.pending.extend_from_slice(&chunk),
                None => {
                    let rest = std::mem::take(&mut self.pending).freeze();
                    return Ok((!rest.trim_ascii().is_empty()).then_some(rest));
                }
            }
        }
    }
}

pub(crate) fn text(headers: &HeaderMap, name: &str) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// Reads an answer. Servers write names as they are documented; only what does not read so (a `null` for an empty list)
/// takes the longer way that a request takes.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8], operation: impl Fn() -> String) -> Result<T, Error> {
    serde_json::from_slice(bytes)
        .or_else(|_| berth_api::json::from_slice(bytes))
        .map_err(|source| Error::Decode { operation: operation(), source })
}

pub(crate) async fn checked(
    response: Response<Incoming>,
    operation: &str,
) -> Result<Response<Incoming>, Error> {
    let status = response.status();
    if status.as_u16() < 400 {
        return Ok(response);
    }
    let body = gather(response, operation).await?;
    Err(refusal(status, &body))
}

/// The error that a refused request's answer describes.
pub(crate) fn refusal(status: StatusCode, body: &[u8]) -> Error {
    let message = match berth_api::json::from_slice::<ErrorResponse>(body) {
        Ok(error) if !error.message.is_empty() => error.message.trim().to_owned(),
        _ => {
            let text = String::from_utf8_lossy(body).trim().to_owned();
            if text.is_empty() {
                format!(
                    "request returned {status} for API route, check if the server supports the requested API version"
                )
            } else {
                text
            }
        }
    };
    Error::Server { status, message }
}

pub(crate) async fn gather(response: Response<Incoming>, operation: &str) -> Result<Bytes, Error> {
    match http_body_util::Limited::new(response.into_body(), LONGEST_ANSWER).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => match error.downcast::<hyper::Error>() {
            Ok(source) => Err(Error::Http { operation: operation.to_owned(), source: *source }),
            Err(_) => Err(Error::TooLong { operation: operation.to_owned(), limit: LONGEST_ANSWER }),
        },
    }
}
