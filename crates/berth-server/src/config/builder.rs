//! `builder` in `daemon.json`: what of the cache of builds stays without anyone's doing.

use berth_api::filter::Filters;
use berth_engine::BuildCacheSettings;
use berth_engine::op::{CacheBounds, CachePrune};
use serde_json::Value;

use super::values::size;

/// A value makes no sense.
#[derive(Debug, thiserror::Error)]
#[error("invalid value of {key} in the builder's settings: {found}: it is {expected}")]
pub struct BuilderError {
    key: String,
    found: String,
    expected: &'static str,
}

/// The only part of the builder's settings that means something here.
const GC: &str = "gc";

/// Whether there is nothing else in the builder's settings.
pub fn is_understood(builder: &Value) -> bool {
    builder.as_object().is_some_and(|object| object.keys().all(|key| key.eq_ignore_ascii_case(GC)))
}

/// How the cache is kept small; `builder` is null if nothing is said.
pub fn cache(builder: &Value) -> Result<BuildCacheSettings, BuilderError> {
    let gc = of(builder, &[GC]);
    let mut settings = BuildCacheSettings {
        bounded: switch(gc, "enabled")?.unwrap_or(true),
        bounds: bounds(gc, ["defaultReservedSpace", "defaultMaxUsedSpace", "defaultMinFreeSpace"])?,
        policy: Vec::new(),
    };
    if settings.bounds.reserved == 0 {
        settings.bounds.reserved = bytes(gc, "defaultKeepStorage")?;
    }
    match of(gc, &["policy"]) {
        Value::Null => {}
        Value::Array(rules) => {
            settings.policy = rules.iter().map(rule).collect::<Result<_, _>>()?;
        }
        other => return Err(wrong("policy", other, "a list")),
    }
    Ok(settings)
}

fn rule(rule: &Value) -> Result<CachePrune, BuilderError> {
    let mut bounds = bounds(rule, ["reservedSpace", "maxUsedSpace", "minFreeSpace"])?;
    if bounds.reserved == 0 {
        bounds.reserved = bytes(rule, "keepStorage")?;
    }
    let mut filters = Filters::default();
    match of(rule, &["filter"]) {
        Value::Null => {}
        Value::Array(list) => {
            for item in list {
                let text = item.as_str().ok_or_else(|| wrong("filter", item, "a list of strings"))?;
                let (name, value) = text.split_once('=').unwrap_or((text, ""));
                // Both `type=x` and BuildKit's `type==x` are in use.
                let value = value.trim_start_matches('=').trim();
                filters.add(name.trim().to_ascii_lowercase(), value);
            }
        }
        other => return Err(wrong("filter", other, "a list of strings")),
    }
    Ok(CachePrune { all: switch(rule, "all")?.unwrap_or(false), bounds, filters })
}

fn bounds(object: &Value, [reserved, max_used, min_free]: [&str; 3]) -> Result<CacheBounds, BuilderError> {
    Ok(CacheBounds {
        reserved: bytes(object, reserved)?,
        max_used: bytes(object, max_used)?,
        min_free: bytes(object, min_free)?,
    })
}

/// What an object has at a path; as in Go, whatever the case of its keys.
fn of<'a>(object: &'a Value, path: &[&str]) -> &'a Value {
    path.iter().fold(object, |object, key| {
        let mut pairs = object.as_object().into_iter().flatten();
        pairs.rfind(|(own, _)| own.eq_ignore_ascii_case(key)).map(|(_, value)| value).unwrap_or(&Value::Null)
    })
}

fn bytes(object: &Value, key: &str) -> Result<u64, BuilderError> {
    let found = of(object, &[key]);
    match found {
        Value::Null => Ok(0),
        Value::String(text) if text.is_empty() => Ok(0),
        Value::String(text) => size(text).ok_or_else(|| wrong(key, found, "a size, such as \"10GB\"")),
        other => Err(wrong(key, other, "a size, such as \"10GB\"")),
    }
}

fn switch(object: &Value, key: &str) -> Result<Option<bool>, BuilderError> {
    match of(object, &[key]) {
        Value::Null => Ok(None),
        Value::Bool(on) => Ok(Some(*on)),
        other => Err(wrong(key, other, "true or false")),
    }
}

fn wrong(key: &str, found: &Value, expected: &'static str) -> BuilderError {
    BuilderError { key: key.to_owned(), found: found.to_string(), expected }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_cache_is_bounded_unless_it_is_said() {
        let plain = cache(&Value::Null).unwrap();
        assert!(plain.bounded && plain.bounds == CacheBounds::default() && plain.policy.is_empty());
        assert!(!cache(&json!({"gc": {"enabled": false}})).unwrap().bounded);
        let old = cache(&json!({"GC": {"Enabled": true, "defaultKeepStorage": "10GB"}})).unwrap();
        assert_eq!((old.bounded, old.bounds.reserved), (true, 10 << 30));
        let new = json!({"gc": {"defaultReservedSpace": "1k", "defaultMaxUsedSpace": "2k", "defaultMinFreeSpace": "3k"}});
        assert_eq!(
            cache(&new).unwrap().bounds,
            CacheBounds { reserved: 1024, max_used: 2048, min_free: 3072 }
        );
    }

    #[test]
    fn rules_are_those_of_docker() {
        let policy = json!({"gc": {"policy": [
            {"keepStorage": "512MB", "filter": ["unused-for=48h", "Type==source.local"]},
            {"maxUsedSpace": "50GB", "all": true},
        ]}});
        let rules = cache(&policy).unwrap().policy;
        assert_eq!((rules.len(), rules[0].all, rules[1].all), (2, false, true));
        assert_eq!((rules[0].bounds.reserved, rules[1].bounds.max_used), (512 << 20, 50 << 30));
        assert_eq!(rules[0].filters.get("unused-for").collect::<Vec<_>>(), ["48h"]);
        assert_eq!(rules[0].filters.get("type").collect::<Vec<_>>(), ["source.local"]);
    }

    #[test]
    fn what_makes_no_sense_is_named() {
        for (builder, words) in [
            (json!({"gc": {"enabled": "yes"}}), "enabled"),
            (json!({"gc": {"defaultKeepStorage": "much"}}), "defaultKeepStorage"),
            (json!({"gc": {"defaultKeepStorage": 5}}), "defaultKeepStorage"),
            (json!({"gc": {"policy": {}}}), "policy"),
            (json!({"gc": {"policy": [{"filter": [1]}]}}), "filter"),
            (json!({"gc": {"policy": [{"minFreeSpace": "-1"}]}}), "minFreeSpace"),
        ] {
            let error = cache(&builder).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("invalid value of {words} in the builder's settings")),
                "{error}"
            );
        }
        assert!(is_understood(&json!({"GC": {}})));
        assert!(!is_understood(&json!({"gc": {}, "entitlements": {}})) && !is_understood(&Value::Null));
    }
}
