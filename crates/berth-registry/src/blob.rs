//! Blobs: layers and configurations.

use berth_oci::{Descriptor, Reference};
use bytes::{Buf as _, Bytes};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use http::StatusCode;
use http::header::CONTENT_RANGE;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::client::{Wanted, refusal};
use crate::connection::SILENCE;
use crate::mirrors::blob_path;
use crate::{Client, Error, Result};

/// The bytes of a blob as they come; it ends after the first error.
pub type BlobStream = BoxStream<'static, Result<Bytes>>;

/// What is left of an answer.
struct Rest {
    body: Incoming,
    /// Bytes to drop, from a registry that begins where it likes.
    skip: u64,
    operation: String,
}

/// The whole body of an answer, as it comes.
pub(crate) fn parts(body: Incoming, operation: String) -> BlobStream {
    stream::unfold(Some(Rest { body, skip: 0, operation }), next).boxed()
}

impl Client {
    /// The bytes of a blob from `from` on. Nothing of them is checked here: whoever stores them does.
    ///
    /// # Errors
    /// Refusals, and failures to connect; later failures come in the stream.
    pub async fn blob(&self, reference: &Reference, blob: &Descriptor, from: u64) -> Result<BlobStream> {
        let wanted = Wanted { from, ..Wanted::default() };
        let (answer, operation) = self.get(reference, &blob_path(&blob.digest), &wanted).await?;
        let skip = match answer.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = answer.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
                let first = range.and_then(first_byte);
                let skip = first.and_then(|first| from.checked_sub(first));
                skip.ok_or_else(|| Error::Malformed {
                    operation: operation.clone(),
                    reason: format!("asked for bytes from {from}, got {}", range.unwrap_or("some")),
                })?
            }
            status if status.is_success() => from,
            _ => {
                let unknown = |message| Error::BlobUnknown {
                    digest: blob.digest.clone(),
                    repository: reference.familiar_repository(),
                    message,
                };
                return Err(refusal(answer, operation, reference, unknown).await);
            }
        };
        let rest = Rest { body: answer.into_body(), skip, operation };
        Ok(stream::unfold(Some(rest), next).boxed())
    }
}

async fn next(rest: Option<Rest>) -> Option<(Result<Bytes>, Option<Rest>)> {
    let mut rest = rest?;
    loop {
        let frame = match timeout(SILENCE, rest.body.frame()).await {
            Err(_) => {
                let error = Error::Timeout { operation: rest.operation, seconds: SILENCE.as_secs() };
                return Some((Err(error), None));
            }
            Ok(None) => return None,
            Ok(Some(Err(source))) => {
                return Some((Err(Error::Http { operation: rest.operation, source }), None));
            }
            Ok(Some(Ok(frame))) => frame,
        };
        let Ok(mut data) = frame.into_data() else { continue };
        let drop = rest.skip.min(data.len() as u64);
        rest.skip -= drop;
        data.advance(usize::try_from(drop).unwrap_or(usize::MAX));
        if !data.is_empty() {
            return Some((Ok(data), Some(rest)));
        }
    }
}

/// The first byte of a `Content-Range` such as `bytes 5-9/10`.
fn first_byte(range: &str) -> Option<u64> {
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read() {
        assert_eq!(first_byte("bytes 5-9/10"), Some(5));
        assert_eq!(first_byte("bytes */10"), None);
        assert_eq!(first_byte("lines 5-9/10"), None);
    }
}
