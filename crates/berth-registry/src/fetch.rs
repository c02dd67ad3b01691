//! Files of web servers, which are no registries: what images are imported from.

use http::StatusCode;
use http::header::{CONTENT_LENGTH, LAST_MODIFIED};
use url::Url;

use crate::blob::{self, BlobStream};
use crate::client::Wanted;
use crate::{Client, Error, Result};

/// A file that is on its way.
pub struct Fetched {
    /// Its bytes, as they come.
    pub parts: BlobStream,
    /// How many they will be, if the server says.
    pub length: Option<u64>,
    /// When it was changed last, in the server's words (RFC 9110, 5.6.7).
    pub modified: Option<String>,
}

impl std::fmt::Debug for Fetched {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Fetched").field("length", &self.length).finish_non_exhaustive()
    }
}

impl Client {
    /// Fetches a file by its address (`http` or `https`), with the proxies and certificates of this client and without
    /// credentials.
    ///
    /// # Errors
    /// Refusals, and failures to connect; later failures come in the stream.
    pub async fn fetch(&self, url: &Url) -> Result<Fetched> {
        let (answer, operation) = self.follow(url.clone(), &Wanted::default(), None).await?;
        if !answer.status().is_success() {
            let (status, message) = (answer.status(), "the file cannot be fetched".to_owned());
            if status == StatusCode::NOT_FOUND {
                return Err(Error::NotFound { operation });
            }
            return Err(Error::Status { operation, status, message });
        }
        let length = answer.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let modified =
            answer.headers().get(LAST_MODIFIED).and_then(|value| Some(value.to_str().ok()?.to_owned()));
        Ok(Fetched { parts: blob::parts(answer.into_body(), operation), length, modified })
    }
}
