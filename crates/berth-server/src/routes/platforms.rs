//! Platforms in queries: JSON objects, each in a parameter of its own.

use berth_api::version::ApiVersion;
use berth_oci::Platform;

use crate::call::Query;
use crate::failure::Failure;

/// The version that knows more than one platform in a request to save or load.
const SEVERAL: ApiVersion = ApiVersion::new(1, 52);

/// The platforms that the parameters `name` give.
pub fn all(query: &Query, name: &str) -> Result<Vec<Platform>, Failure> {
    let mut platforms: Vec<Platform> = Vec::new();
    for text in query.all(name) {
        let platform = one(text)?;
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    Ok(platforms)
}

/// The platform that the parameter `platform` gives, which is looked at since `since`.
pub fn single(query: &Query, version: ApiVersion, since: ApiVersion) -> Result<Option<Platform>, Failure> {
    query.given("platform").filter(|_| version >= since).map(one).transpose()
}

/// The platforms of a request to save or load images. The parameter came with API 1.48.
pub fn of_archive(version: ApiVersion, query: &Query) -> Result<Vec<Platform>, Failure> {
    if version < ApiVersion::new(1, 48) {
        return Ok(Vec::new());
    }
    if version < SEVERAL && query.all("platform").nth(1).is_some() {
        return Err(Failure::invalid(
            "multiple platform parameters are not supported in this API version; use API version 1.52 or later",
        ));
    }
    all(query, "platform")
}

fn one(text: &str) -> Result<Platform, Failure> {
    let platform: Platform = serde_json::from_str(text)
        .map_err(|error| Failure::invalid(format!("failed to parse platform: {error}")))?;
    if platform.os.is_empty() || platform.architecture.is_empty() {
        let no_more = platform.variant.is_none() && platform.os_version.is_none();
        let neither = platform.os.is_empty() && platform.architecture.is_empty();
        return Err(Failure::invalid(if neither && !no_more {
            "optional platform fields provided, but OS and Architecture are missing"
        } else {
            "both OS and Architecture must be provided"
        }));
    }
    Ok(platform)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(minor: u16, values: &[&str]) -> Result<Vec<String>, String> {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for value in values {
            query.append_pair("platform", value);
        }
        of_archive(ApiVersion::new(1, minor), &Query::parse(&query.finish()))
            .map(|all| all.iter().map(ToString::to_string).collect())
            .map_err(|failure| failure.message)
    }

    #[test]
    fn a_platform_is_an_object_with_both_names() {
        let arm = r#"{"os":"linux","architecture":"arm64","variant":"v8"}"#;
        let amd = r#"{"os":"linux","architecture":"amd64"}"#;
        assert_eq!(parse(55, &[arm]).unwrap(), ["linux/arm64/v8"]);
        assert_eq!(parse(47, &[arm]).unwrap(), [""; 0], "older clients have no such parameter");
        assert_eq!(parse(55, &[]).unwrap(), [""; 0]);
        assert!(parse(55, &["linux/arm64"]).unwrap_err().starts_with("failed to parse platform"));
        assert!(parse(55, &[r#"{"os":"linux"}"#]).unwrap_err().starts_with("both OS and Architecture"));
        assert!(parse(55, &[r#"{"variant":"v8"}"#]).unwrap_err().starts_with("optional platform fields"));
        assert!(parse(51, &[arm, arm]).unwrap_err().contains("use API version 1.52"));
        assert_eq!(parse(52, &[arm, amd, arm]).unwrap(), ["linux/arm64/v8", "linux/amd64"]);
    }

    #[test]
    fn a_single_platform_is_looked_at_from_its_version_on() {
        let query = Query::parse("platform=%7B%22os%22%3A%22linux%22%2C%22architecture%22%3A%22arm64%22%7D");
        let since = ApiVersion::new(1, 49);
        assert_eq!(single(&query, ApiVersion::new(1, 48), since).ok().flatten(), None);
        assert_eq!(single(&query, since, since).ok().flatten().unwrap().to_string(), "linux/arm64");
    }
}
