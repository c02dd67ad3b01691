//! `GET /system/df`, whose form depends on the version more than that of any other answer.

use berth_api::system::{DiskUsage, LegacyDiskUsage};
use berth_api::version::ApiVersion;
use berth_engine::op;
use serde_json::Value;

use super::Outcome;
use crate::answer;
use crate::call::{Call, Query};
use crate::failure::Failure;

/// The version with the new form.
const NEW: ApiVersion = ApiVersion::new(1, 52);

fn wanted(version: ApiVersion, query: &Query) -> Result<op::DiskUsage, Failure> {
    let mut wanted = op::DiskUsage::default();
    // Before 1.42 there was no choice.
    let given: Vec<&str> = query.all("type").collect();
    if given.is_empty() || version < ApiVersion::new(1, 42) {
        return Ok(op::DiskUsage { containers: true, images: true, volumes: true, build_cache: true });
    }
    for kind in given {
        match kind {
            "container" => wanted.containers = true,
            "image" => wanted.images = true,
            "volume" => wanted.volumes = true,
            "build-cache" => wanted.build_cache = true,
            other => return Err(Failure::invalid(format!("unknown object type: {other}"))),
        }
    }
    Ok(wanted)
}

pub async fn disk_usage(call: Call) -> Outcome {
    let usage = call.engine.disk_usage(wanted(call.version, &call.query)?).await?;
    let document = form(call.version, call.query.flag("verbose"), &usage);
    document.map(|document| answer::ok(&document)).map_err(|error| {
        Failure::new(http::StatusCode::INTERNAL_SERVER_ERROR, format!("writing the answer: {error}"))
    })
}

/// `POST /build/prune`.
pub async fn prune_cache(call: Call) -> Outcome {
    let rule = op::CachePrune {
        all: call.query.flag("all"),
        bounds: bounds(&call.query)?,
        filters: call.query.filters()?,
    };
    Ok(answer::ok(&call.engine.cache_prune(rule).await?))
}

/// How much of the cache is to stay.
fn bounds(query: &Query) -> Result<op::CacheBounds, Failure> {
    let bytes = |name: &str| -> Result<Option<u64>, Failure> {
        let Some(text) = query.given(name) else { return Ok(None) };
        let wrong = |_| Failure::invalid(format!("{name} is in bytes and expects an integer, got {text}"));
        // As in Docker, a negative number is as good as none.
        Ok(Some(u64::try_from(text.parse::<i64>().map_err(wrong)?).unwrap_or(0)))
    };
    // The name before there were several.
    let reserved = match bytes("reserved-space")? {
        None => bytes("keep-storage")?,
        given => given,
    };
    Ok(op::CacheBounds {
        reserved: reserved.unwrap_or(0),
        max_used: bytes("max-used-space")?.unwrap_or(0),
        min_free: bytes("min-free-space")?.unwrap_or(0),
    })
}

/// Both forms from 1.52 on, unless the client says that it knows the new one.
fn form(version: ApiVersion, verbose: bool, usage: &DiskUsage) -> Result<Value, serde_json::Error> {
    let with_new = version >= NEW;
    let mut document = if with_new { serde_json::to_value(usage)? } else { serde_json::json!({}) };
    if with_new && verbose {
        return Ok(document);
    }
    let legacy = serde_json::to_value(LegacyDiskUsage::from(usage))?;
    if let (Value::Object(document), Value::Object(legacy)) = (&mut document, legacy) {
        document.extend(legacy);
    }
    if version < ApiVersion::new(1, 44) {
        for image in document.get_mut("Images").and_then(Value::as_array_mut).into_iter().flatten() {
            let size = image.get("Size").cloned().unwrap_or_default();
            image["VirtualSize"] = size;
        }
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use berth_api::image::Summary;
    use berth_api::system::Usage;

    use super::*;

    fn usage() -> DiskUsage {
        let images = Usage {
            items: vec![Summary { size: 7, ..Summary::default() }],
            total_count: 1,
            total_size: 7,
            ..Usage::default()
        };
        DiskUsage { image_usage: Some(images), ..DiskUsage::default() }
    }

    fn names(version: (u16, u16), verbose: bool) -> Vec<String> {
        let document = form(ApiVersion::new(version.0, version.1), verbose, &usage()).unwrap();
        document.as_object().unwrap().keys().cloned().collect()
    }

    #[test]
    fn the_form_depends_on_the_version() {
        assert_eq!(names((1, 51), true), ["Images", "LayersSize"]);
        assert_eq!(names((1, 52), false), ["ImageUsage", "Images", "LayersSize"]);
        assert_eq!(names((1, 52), true), ["ImageUsage"]);
        let old = form(ApiVersion::new(1, 43), false, &usage()).unwrap();
        assert_eq!(old["Images"][0]["VirtualSize"], 7);
        let newer = form(ApiVersion::new(1, 44), false, &usage()).unwrap();
        assert!(newer["Images"][0].get("VirtualSize").is_none());
    }

    #[test]
    fn every_bound_of_the_cache_counts() {
        let all =
            |query: &str| bounds(&Query::parse(query)).map(|all| (all.reserved, all.max_used, all.min_free));
        assert_eq!(all("").unwrap(), (0, 0, 0));
        assert_eq!(all("reserved-space=1&max-used-space=2&min-free-space=3").unwrap(), (1, 2, 3));
        assert_eq!(all("keep-storage=4").unwrap(), (4, 0, 0));
        assert_eq!(all("keep-storage=4&reserved-space=5&max-used-space=-1").unwrap(), (5, 0, 0));
        let words = "max-used-space is in bytes and expects an integer, got 1g";
        assert_eq!(all("max-used-space=1g").unwrap_err().message, words);
    }

    #[test]
    fn kinds_are_chosen() {
        let query = Query::parse("type=image&type=volume");
        let chosen = wanted(ApiVersion::NEWEST, &query).unwrap();
        assert!(chosen.images && chosen.volumes && !chosen.containers && !chosen.build_cache);
        assert!(wanted(ApiVersion::new(1, 41), &query).unwrap().containers);
        let error = wanted(ApiVersion::NEWEST, &Query::parse("type=moon")).unwrap_err();
        assert_eq!(error.message, "unknown object type: moon");
    }
}
