//! Lists of tags.

use berth_oci::{MANIFEST_LIMIT, Reference};
use http::header::{HeaderMap, LINK};
use serde::Deserialize;

use crate::client::{Wanted, read_all, refusal};
use crate::{Client, Error, Result};

/// Tags that one repository may have.
const MOST: usize = 100_000;

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

impl Client {
    /// All tags of the repository of `reference`, in the order in which the registry has them.
    ///
    /// # Errors
    /// Refusals; a list that makes no sense, or has no end.
    pub async fn tags(&self, reference: &Reference) -> Result<Vec<String>> {
        let mut tags = Vec::new();
        let mut query = String::new();
        loop {
            let (answer, operation) =
                self.get(reference, &format!("tags/list{query}"), &Wanted::default()).await?;
            if !answer.status().is_success() {
                let reference = reference.clone();
                let unknown =
                    |message| Error::ManifestUnknown { reference: reference.familiar_repository(), message };
                return Err(refusal(answer, operation, &reference, unknown).await);
            }
            let next = next_page(answer.headers());
            let bytes = read_all(answer, MANIFEST_LIMIT, &operation).await?;
            let page: Page =
                serde_json::from_slice(&bytes).map_err(|error| Error::malformed(&operation, error))?;
            let found = page.tags.unwrap_or_default();
            let is_empty = found.is_empty();
            tags.extend(found);
            match next {
                // A page without tags that promises more would go on for ever.
                Some(next) if !is_empty && tags.len() <= MOST => query = next,
                Some(_) => return Err(Error::malformed(&operation, "the list of tags has no end")),
                None => return Ok(tags),
            }
        }
    }
}

/// What to ask for the next page with, `?` included (distribution specification, "Listing Tags"). Only the query of the
/// address is followed: the rest is the registry's and the repository's own.
fn next_page(headers: &HeaderMap) -> Option<String> {
    let link = headers.get(LINK)?.to_str().ok()?;
    let (address, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
    let is_next = rest.split(';').any(|part| matches!(part.trim(), "rel=next" | "rel=\"next\""));
    let (_, query) = address.split_once('?')?;
    is_next.then(|| format!("?{query}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_is_a_link() {
        let next = |text: &str| next_page(&[(LINK, text.parse().unwrap())].into_iter().collect());
        assert_eq!(next("</v2/a/b/tags/list?last=c&n=2>; rel=\"next\"").as_deref(), Some("?last=c&n=2"));
        assert_eq!(next("<https://other/x?last=c>;rel=next").as_deref(), Some("?last=c"));
        for none in
            ["", "<x>; rel=\"next\"", "<x?a=b>; rel=\"prev\"", "x?a=b; rel=\"next\"", "<x?a=b; rel=next"]
        {
            assert_eq!(next(none), None, "{none}");
        }
        assert_eq!(next_page(&HeaderMap::new()), None);
    }
}
