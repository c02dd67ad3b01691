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
