//! Manifests.

use berth_oci::{Digest, MANIFEST_LIMIT, Reference};
use http::header::CONTENT_TYPE;

use crate::client::{Wanted, read_all, refusal};
use crate::{Client, Error, Result};

/// A manifest or index as the registry gave it, its digest checked.
#[derive(Debug, Clone)]
pub struct ManifestAnswer {
    /// The document.
    pub bytes: Vec<u8>,
    /// What the registry says that it is.
    pub media_type: Option<String>,
    /// Its digest.
    pub digest: Digest,
}

impl Client {
    /// The manifest or index that `reference` names, as one of the media types `accept`.
    ///
    /// # Errors
    /// Refusals; a document larger than [`MANIFEST_LIMIT`] or other than its digest says.
    pub async fn manifest(&self, reference: &Reference, accept: &[&str]) -> Result<ManifestAnswer> {
        let wanted_digest = reference.digest();
        let name = match wanted_digest {
            Some(digest) => digest.to_string(),
            None => reference.tag().unwrap_or("latest").to_owned(),
        };
        let wanted = Wanted { accept, ..Wanted::default() };
        let (answer, operation) = self.get(reference, &format!("manifests/{name}"), &wanted).await?;
        if !answer.status().is_success() {
            let unknown = |message| Error::ManifestUnknown { reference: reference.familiar(), message };
            return Err(refusal(answer, operation, reference, unknown).await);
        }
        let text =
            |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let media_type = text(CONTENT_TYPE.as_str());
        let announced = text("docker-content-digest");
        let bytes = read_all(answer, MANIFEST_LIMIT, &operation).await?;
        let digest = match wanted_digest {
            Some(expected) => checked(&bytes, expected, reference)?,
            None => match announced.map(|text| text.parse::<Digest>()) {
                None => Digest::of(&bytes),
                Some(Ok(expected)) => checked(&bytes, &expected, reference)?,
                Some(Err(error)) => {
                    return Err(Error::Malformed {
                        operation,
                        reason: format!("Docker-Content-Digest: {error}"),
                    });
                }
            },
        };
        Ok(ManifestAnswer { bytes, media_type, digest })
    }
}

fn checked(bytes: &[u8], expected: &Digest, reference: &Reference) -> Result<Digest> {
    expected.verify(bytes).map(|()| expected.clone()).map_err(|actual| Error::WrongDigest {
        reference: reference.familiar(),
        actual,
        expected: expected.to_string(),
    })
}
