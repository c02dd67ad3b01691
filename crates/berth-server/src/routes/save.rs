//! Images as an archive.

use berth_api::version::ApiVersion;
use berth_oci::Platform;

use super::Outcome;
use super::streams::archive;
use crate::call::{Call, Query};
use crate::failure::Failure;

pub async fn images(call: Call) -> Outcome {
    let names: Vec<String> =
        call.query.all("names").filter(|name| !name.is_empty()).map(str::to_owned).collect();
    if names.is_empty() {
        return Err(Failure::invalid("no image is named"));
    }
    save(call, names).await
}

pub async fn image(call: Call, name: &str) -> Outcome {
    save(call, vec![name.to_owned()]).await
}

async fn save(call: Call, names: Vec<String>) -> Outcome {
    let platform = platform(call.version, &call.query)?;
    let stream = call.engine.image_save(names, platform).await?;
    Ok(archive("application/x-tar", stream))
}

/// The parameter `platform`, a JSON object, which came with API 1.48.
fn platform(version: ApiVersion, query: &Query) -> Result<Option<Platform>, Failure> {
    if version < ApiVersion::new(1, 48) {
        return Ok(None);
    }
    let mut given = query.all("platform");
    let Some(text) = given.next() else { return Ok(None) };
    if given.next().is_some() {
        return Err(Failure::invalid(if version < ApiVersion::new(1, 52) {
            "multiple platform parameters are not supported in this API version; use API version 1.52 or later"
        } else {
            "multiple platforms not supported for this image store; use a multi-platform image store such as \
             containerd-snapshotter"
        }));
    }
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
    Ok(Some(platform))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(minor: u16, values: &[&str]) -> Result<Option<Platform>, String> {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for value in values {
            query.append_pair("platform", value);
        }
        platform(ApiVersion::new(1, minor), &Query::parse(&query.finish())).map_err(|failure| failure.message)
    }

    #[test]
    fn a_platform_is_an_object_with_both_names() {
        let arm = r#"{"os":"linux","architecture":"arm64","variant":"v8"}"#;
        assert_eq!(parse(55, &[arm]).unwrap().unwrap().to_string(), "linux/arm64/v8");
        assert_eq!(parse(47, &[arm]), Ok(None), "older clients have no such parameter");
        assert_eq!(parse(55, &[]), Ok(None));
        assert!(parse(55, &["linux/arm64"]).unwrap_err().starts_with("failed to parse platform"));
        assert!(parse(55, &[r#"{"os":"linux"}"#]).unwrap_err().starts_with("both OS and Architecture"));
        assert!(parse(55, &[r#"{"variant":"v8"}"#]).unwrap_err().starts_with("optional platform fields"));
        assert!(parse(51, &[arm, arm]).unwrap_err().contains("use API version 1.52"));
        assert!(parse(52, &[arm, arm]).unwrap_err().contains("multi-platform image store"));
    }
}
