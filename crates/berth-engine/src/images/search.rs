//! Searching registries.

use berth_api::filter::Filters;
use berth_api::image;
use berth_registry::Found;

use super::Caller;
use super::list::truth;
use crate::list::filter::check_known;
use crate::{Engine, Error};

/// Results that are asked for if nobody says how many.
const LIMIT: u32 = 25;
/// Most results that may be asked for.
const MOST: u32 = 100;
/// Known filters.
const KNOWN: [&str; 3] = ["is-automated", "is-official", "stars"];

/// Which results are wanted.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wanted {
    official: Option<bool>,
    stars: Option<i64>,
    /// Nothing is automated any more.
    nothing: bool,
}

impl Wanted {
    fn read(filters: &Filters) -> Result<Self, Error> {
        check_known(filters, &KNOWN)?;
        let nothing = truth(filters, "is-automated")?.unwrap_or(false);
        let official = truth(filters, "is-official")?;
        let mut stars = None;
        for value in filters.get("stars") {
            let number: i64 = value.parse().map_err(|_| {
                Error::InvalidParameter(format!(
                    "invalid filter 'stars={value}': strconv.Atoi: parsing \"{value}\": invalid syntax"
                ))
            })?;
            // The strictest counts.
            stars = Some(stars.unwrap_or(0).max(number));
        }
        Ok(Self { official, stars, nothing })
    }

    fn has(&self, found: &Found) -> bool {
        self.official.is_none_or(|official| found.is_official == official)
            && self.stars.is_none_or(|stars| found.star_count >= stars)
    }
}

impl Engine {
    /// Searches Docker Hub, or the registry that `term` begins with, for repositories. A `limit` of 0 is Docker's usual
    /// one.
    ///
    /// # Errors
    /// Filters, limits and terms that make no sense; what the registry says.
    pub async fn image_search(
        &self,
        term: &str,
        limit: u32,
        filters: &Filters,
        caller: Caller,
    ) -> Result<Vec<image::SearchResult>, Error> {
        let wanted = Wanted::read(filters)?;
        if wanted.nothing {
            return Ok(Vec::new());
        }
        let (domain, term) = berth_registry::split_term(term).map_err(Error::InvalidParameter)?;
        let limit = if limit == 0 { LIMIT } else { limit };
        if limit > MOST {
            return Err(Error::InvalidParameter(format!(
                "limit {limit} is outside the range of [1, {MOST}]"
            )));
        }
        let found = self.parts.images.search(domain, term, limit, caller.into()).await;
        let found = found.map_err(super::push::refused)?;
        let results = found.into_iter().filter(|found| wanted.has(found)).map(|found| image::SearchResult {
            star_count: found.star_count,
            is_official: found.is_official,
            name: found.name,
            is_automated: false,
            description: found.description,
        });
        Ok(results.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(text: &str) -> Result<Wanted, String> {
        Wanted::read(&Filters::parse(text).unwrap()).map_err(|error| error.to_string())
    }

    #[test]
    fn filters_are_dockers() {
        let strict = wanted(r#"{"stars":["3","10","-1"],"is-official":["true"]}"#).unwrap();
        let found = |star_count, is_official| Found { star_count, is_official, ..Found::default() };
        assert!(strict.has(&found(10, true)));
        assert!(!strict.has(&found(9, true)) && !strict.has(&found(10, false)));
        assert!(wanted(r#"{"is-automated":["1"]}"#).unwrap().nothing);
        assert_eq!(wanted(r#"{"is-automated":["false"]}"#), Ok(Wanted::default()));
        for (text, words) in [
            (r#"{"name":["x"]}"#, "invalid filter 'name'"),
            (r#"{"is-official":["a"]}"#, "invalid filter 'is-official=a'"),
            (r#"{"is-automated":["a"]}"#, "invalid filter 'is-automated=a'"),
            (r#"{"stars":["a"]}"#, "invalid filter 'stars=a': strconv.Atoi: parsing \"a\": invalid syntax"),
        ] {
            assert_eq!(wanted(text).unwrap_err(), words);
        }
    }
}
