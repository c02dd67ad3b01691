//! The `filters` parameter of lists and events.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Filters by name; a name's values are alternatives (an OR), names add up (an AND).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters(pub BTreeMap<String, BTreeSet<String>>);

/// The parameter is not what a filter looks like.
#[derive(Debug, thiserror::Error)]
#[error("invalid filter")]
pub struct FilterError(#[source] Option<serde_json::Error>);

impl Filters {
    /// Reads the parameter's value: `{"name":{"value":true}}`, or, as older clients write, `{"name":["value"]}`.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        if text.is_empty() {
            return Ok(Self::default());
        }
        let value: Option<BTreeMap<String, Value>> =
            serde_json::from_str(text).map_err(|error| FilterError(Some(error)))?;
        let mut filters = Self::default();
        for (name, values) in value.unwrap_or_default() {
            let entry = filters.0.entry(name).or_default();
            match values {
                Value::Null => {}
                Value::Object(map) => {
                    for (value, wanted) in map {
                        match wanted {
                            Value::Bool(true) => {
                                entry.insert(value);
                            }
                            Value::Bool(false) | Value::Null => {}
                            _ => return Err(FilterError(None)),
                        }
                    }
                }
                Value::Array(list) => {
                    for value in list {
                        match value {
                            Value::String(value) => entry.insert(value),
                            _ => return Err(FilterError(None)),
                        };
                    }
                }
                _ => return Err(FilterError(None)),
            }
        }
        Ok(filters)
    }

    /// The parameter's value in today's form.
    pub fn to_json(&self) -> String {
        let map: BTreeMap<&str, BTreeMap<&str, bool>> = self
            .0
            .iter()
            .map(|(name, values)| {
                (name.as_str(), values.iter().map(|value| (value.as_str(), true)).collect())
            })
            .collect();
        serde_json::to_string(&map).unwrap_or_default()
    }

    /// True if nothing is filtered.
    pub fn is_empty(&self) -> bool {
        self.0.values().all(BTreeSet::is_empty)
    }

    /// The alternatives given for `name`; empty if it was not given.
    pub fn get(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.get(name).into_iter().flatten().map(String::as_str)
    }

    /// True if `name` was given with at least one value.
    pub fn has(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|values| !values.is_empty())
    }

    /// Adds an alternative for `name`.
    pub fn add(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.0.entry(name.into()).or_default().insert(value.into());
    }

    /// The names that were given.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }
}

impl Serialize for Filters {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_json())
    }
}

impl<'de> Deserialize<'de> for Filters {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let map =
            Filters::parse(r#"{"label":{"a=1":true,"b":true,"c":false},"status":{"exited":true}}"#).unwrap();
        let list = Filters::parse(r#"{"label":["a=1","b"],"status":["exited"]}"#).unwrap();
        assert_eq!(map, list);
        assert_eq!(map.get("label").collect::<Vec<_>>(), ["a=1", "b"]);
        assert!(map.has("status") && !map.has("name"));
        assert_eq!(map.names().collect::<Vec<_>>(), ["label", "status"]);
    }

    #[test]
    fn nothing_filters_nothing() {
        for text in ["", "null", "{}", r#"{"label":null}"#, r#"{"label":{"a":false}}"#, r#"{"label":[]}"#] {
            assert!(Filters::parse(text).unwrap().is_empty(), "{text}");
        }
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["x", "[]", "3", r#"{"a":3}"#, r#"{"a":[3]}"#, r#"{"a":{"b":1}}"#, r#"{"a":"b"}"#] {
            assert_eq!(Filters::parse(text).unwrap_err().to_string(), "invalid filter", "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut filters = Filters::default();
        filters.add("name", "a \"quoted\" one");
        filters.add("name", "b");
        assert_eq!(Filters::parse(&filters.to_json()).unwrap(), filters);
        assert_eq!(Filters::default().to_json(), "{}");
    }
}
