//! Reading JSON as Go's `encoding/json` does.
//!
//! Docker's clients rely on what Go's decoder accepts: field names in any case, `null` for every type (it means
//! "leave the default"), unknown fields, missing fields. [`from_slice`] gives all types of this crate (which carry
//! `#[serde(default)]`) that tolerance. One layer does it: the parsed value is handed to serde through a
//! deserializer that renames an object's keys to the struct's own and drops nulls.

use serde::de::value::{MapDeserializer, SeqDeserializer};
use serde::de::{self, DeserializeOwned, IntoDeserializer, Visitor};
use serde_json::{Map, Value};

/// Parses `bytes` into `T` with Go's tolerance.
///
/// Errors carry serde's description of the first problem, with its position where the text is not JSON at all.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, serde_json::Error> {
    from_value(serde_json::from_slice(bytes)?)
}

/// Converts a parsed `value` into `T` with Go's tolerance.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, serde_json::Error> {
    T::deserialize(Lenient(value))
}

/// A value that deserializes as Go would.
struct Lenient(Value);

impl<'de> IntoDeserializer<'de, serde_json::Error> for Lenient {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

/// Renames keys to those in `fields` that differ only in case, and drops nulls. An exact name wins over a folded one.
fn fold(object: Map<String, Value>, fields: &'static [&'static str]) -> Vec<(String, Lenient)> {
    let mut exact = Vec::with_capacity(object.len());
    let mut folded: Vec<(String, Lenient)> = Vec::new();
    for (key, value) in object {
        if value.is_null() {
            continue;
        }
        if fields.contains(&key.as_str()) {
            exact.push((key, Lenient(value)));
        } else if let Some(field) = fields.iter().find(|field| field.eq_ignore_ascii_case(&key)) {
            folded.retain(|(known, _)| known != field);
            folded.push(((*field).to_owned(), Lenient(value)));
        }
    }
    folded.retain(|(key, _)| exact.iter().all(|(known, _)| known != key));
    exact.append(&mut folded);
    exact
}

fn object<'de, V: Visitor<'de>>(
    entries: impl Iterator<Item = (String, Lenient)>,
    visitor: V,
) -> Result<V::Value, serde_json::Error> {
    visitor.visit_map(MapDeserializer::new(entries))
}

fn array<'de, V: Visitor<'de>>(items: Vec<Value>, visitor: V) -> Result<V::Value, serde_json::Error> {
    visitor.visit_seq(SeqDeserializer::new(items.into_iter().map(Lenient)))
}

/// Methods that read `null` as a zero value and leave everything else to `serde_json`.
macro_rules! zero_for_null {
    ($($method:ident => $visit:ident($zero:expr)),* $(,)?) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
            match self.0 {
                Value::Null => visitor.$visit($zero),
                value => value.$method(visitor),
            }
        }
    )*};
}

impl<'de> de::Deserializer<'de> for Lenient {
    type Error = serde_json::Error;

    zero_for_null! {
        deserialize_bool => visit_bool(false),
        deserialize_i8 => visit_i8(0),
        deserialize_i16 => visit_i16(0),
        deserialize_i32 => visit_i32(0),
        deserialize_i64 => visit_i64(0),
        deserialize_i128 => visit_i128(0),
        deserialize_u8 => visit_u8(0),
        deserialize_u16 => visit_u16(0),
        deserialize_u32 => visit_u32(0),
        deserialize_u64 => visit_u64(0),
        deserialize_u128 => visit_u128(0),
        deserialize_f32 => visit_f32(0.0),
        deserialize_f64 => visit_f64(0.0),
        deserialize_str => visit_str(""),
        deserialize_string => visit_str(""),
        deserialize_bytes => visit_bytes(b""),
        deserialize_byte_buf => visit_bytes(b""),
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Array(items) => array(items, visitor),
            Value::Object(map) => object(map.into_iter().map(|(key, value)| (key, Lenient(value))), visitor),
            value => value.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Null => visitor.visit_none(),
            value => visitor.visit_some(Lenient(value)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Null => array(Vec::new(), visitor),
            Value::Array(items) => array(items, visitor),
            value => value.deserialize_seq(visitor),
        }
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Self::Error> {
        match self.0 {
            // Go fills a fixed array from what is there, and ignores the rest.
            Value::Array(mut items) => {
                items.resize(len, Value::Null);
                array(items, visitor)
            }
            Value::Null => array(vec![Value::Null; len], visitor),
            value => value.deserialize_tuple(len, visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Null => object(std::iter::empty(), visitor),
            Value::Object(map) => object(map.into_iter().map(|(key, value)| (key, Lenient(value))), visitor),
            value => value.deserialize_map(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        match self.0 {
            Value::Null => object(std::iter::empty(), visitor),
            Value::Object(map) => object(fold(map, fields).into_iter(), visitor),
            // serde would also read a struct from an array; Go does not.
            Value::Array(_) => Err(de::Error::invalid_type(de::Unexpected::Seq, &name)),
            value => value.deserialize_struct(name, fields, visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Self::Error> {
        self.0.deserialize_enum(name, variants, visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Self::Error> {
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! { char unit unit_struct tuple_struct identifier }
}

/// Reads a list of strings that may also be written as one string, as Docker's `StrSlice` is.
///
/// For fields of type `Option<Vec<String>>`: `#[serde(deserialize_with = "json::string_or_list")]`.
pub fn string_or_list<'de, D: de::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    struct StringOrList;

    impl<'de> Visitor<'de> for StringOrList {
        type Value = Option<Vec<String>>;

        fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            formatter.write_str("a string or a list of strings")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(Some(vec![text.to_owned()]))
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut list = Vec::with_capacity(items.size_hint().unwrap_or(0).min(1024));
            while let Some(item) = items.next_element()? {
                list.push(item);
            }
            Ok(Some(list))
        }
    }

    deserializer.deserialize_any(StringOrList)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::container::{Config, CreateRequest, HostConfig};

    #[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
    #[serde(default, rename_all = "PascalCase")]
    struct Sample {
        number: i64,
        text: String,
        on: bool,
        list: Vec<String>,
        pair: [u32; 2],
        inner: Option<Box<Sample>>,
        map: std::collections::BTreeMap<String, String>,
    }

    #[test]
    fn keys_match_in_any_case_and_exact_ones_win() {
        let sample: Sample =
            from_slice(br#"{"nUMBER":1,"TEXT":"t","inner":{"ON":true,"list":["a"]}}"#).unwrap();
        assert_eq!((sample.number, sample.text.as_str()), (1, "t"));
        let inner = sample.inner.unwrap();
        assert!(inner.on);
        assert_eq!(inner.list, ["a"]);
        for text in [r#"{"number":1,"Number":2}"#, r#"{"Number":2,"number":1}"#, r#"{"NUMBER":0,"Number":2}"#]
        {
            assert_eq!(from_slice::<Sample>(text.as_bytes()).unwrap().number, 2, "{text}");
        }
    }

    #[test]
    fn keys_of_maps_keep_their_case() {
        let sample: Sample = from_slice(br#"{"map":{"Key":"a","KEY":"b"}}"#).unwrap();
        assert_eq!(sample.map.len(), 2);
    }

    #[test]
    fn null_is_a_default_everywhere() {
        let all = br#"{"Number":null,"Text":null,"On":null,"List":null,"Pair":null,"Inner":null,"Map":null}"#;
        assert_eq!(from_slice::<Sample>(all).unwrap(), Sample::default());
        assert_eq!(from_slice::<Sample>(b"null").unwrap(), Sample::default());
        assert_eq!(from_slice::<Sample>(br#"{"List":["a",null]}"#).unwrap().list, ["a", ""]);
        assert_eq!(from_slice::<Sample>(br#"{"Map":{"a":null}}"#).unwrap().map["a"], "");
    }

    #[test]
    fn unknown_fields_are_ignored_and_arrays_are_fitted() {
        let sample: Sample = from_slice(br#"{"Colour":{"a":[1]},"Pair":[7]}"#).unwrap();
        assert_eq!(sample.pair, [7, 0]);
        assert_eq!(from_slice::<Sample>(br#"{"Pair":[7,8,9]}"#).unwrap().pair, [7, 8]);
    }

    #[test]
    fn wrong_types_are_errors() {
        for text in [
            "[]",
            "3",
            "\"x\"",
            r#"{"Number":"1"}"#,
            r#"{"Number":1.5}"#,
            r#"{"On":1}"#,
            r#"{"List":{}}"#,
            r#"{"Inner":[]}"#,
            r#"{"Pair":"x"}"#,
            r#"{"Text":5}"#,
            "{",
            "{} {}",
            "",
        ] {
            assert!(from_slice::<Sample>(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn commands_are_strings_lists_or_null() {
        let cmd = |text: &str| from_slice::<Config>(text.as_bytes()).map(|config| config.cmd);
        assert_eq!(cmd(r#"{"Cmd":"true"}"#).unwrap().unwrap(), ["true"]);
        assert_eq!(cmd(r#"{"cmd":["a","b"]}"#).unwrap().unwrap(), ["a", "b"]);
        assert_eq!(cmd(r#"{"Cmd":[]}"#).unwrap().unwrap().len(), 0);
        assert_eq!(cmd(r#"{"Cmd":null}"#).unwrap(), None);
        assert_eq!(cmd("{}").unwrap(), None);
        assert!(cmd(r#"{"Cmd":5}"#).is_err());
        assert!(cmd(r#"{"Cmd":[5]}"#).is_err());
    }

    #[test]
    fn create_requests_are_read_with_the_same_tolerance() {
        let text = br#"{"image":"busybox","CMD":"true","hostconfig":{"MEMORY":5,"binds":null,"capadd":"ALL"},
            "networkingConfig":{"endpointsconfig":{"Net":null}},"unknown":1}"#;
        let request: CreateRequest = from_slice(text).unwrap();
        assert_eq!(request.config.image, "busybox");
        let host = request.host_config.unwrap();
        assert_eq!((host.memory, host.binds, host.cap_add), (5, None, Some(vec!["ALL".to_owned()])));
        assert_eq!(request.networking_config.unwrap().endpoints_config.unwrap()["Net"], None);
        assert_eq!(from_slice::<CreateRequest>(b"{}").unwrap(), CreateRequest::default());
        assert!(from_slice::<CreateRequest>(br#"{"HostConfig":7}"#).is_err());
    }

    #[test]
    fn depth_is_bounded() {
        let deep = format!("{{\"Inner\":{}", "{\"Inner\":".repeat(100_000));
        assert!(from_slice::<Sample>(deep.as_bytes()).is_err());
    }

    /// Changes the case of letters by the bits of `mask`.
    fn shuffle(text: &str, mask: u64) -> String {
        let flip = |(index, letter): (usize, char)| {
            if mask >> (index % 64) & 1 == 1 {
                letter.to_ascii_lowercase()
            } else {
                letter.to_ascii_uppercase()
            }
        };
        text.chars().enumerate().map(flip).collect()
    }

    proptest! {
        #[test]
        fn names_in_any_case_give_the_same(number: i64, text in ".*", on: bool, mask: u64) {
            let sample = Sample { number, text, on, ..Sample::default() };
            let Value::Object(object) = serde_json::to_value(&sample).unwrap() else { unreachable!() };
            let shuffled: Map<String, Value> =
                object.into_iter().map(|(key, value)| (shuffle(&key, mask), value)).collect();
            prop_assert_eq!(from_value::<Sample>(shuffled.into()).unwrap(), sample);
        }

        #[test]
        fn any_json_gives_a_request_or_an_error(text in r#"[{}\[\]",:a-zA-Z0-9 ]{0,60}"#) {
            let _ = from_slice::<CreateRequest>(text.as_bytes());
            let _ = from_slice::<HostConfig>(text.as_bytes());
        }
    }
}
