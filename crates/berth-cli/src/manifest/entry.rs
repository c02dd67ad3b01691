//! The files of a manifest list, as Docker's client reads and writes them, and the list that they make.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use berth_oci::media_type::{DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST};
use berth_oci::{Digest, Document, Manifest, Reference};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::container::laid_out;
use crate::failure::{Failure, Outcome};

/// What an image of a list is made for.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListedPlatform {
    pub architecture: String,
    pub os: String,
    #[serde(rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    #[serde(rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

/// What stands for a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    #[serde(default)]
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<ListedPlatform>,
}

/// One image of a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Entry {
    /// The image, in full.
    #[serde(rename = "Ref")]
    pub name: String,
    /// What stands for its manifest.
    pub descriptor: Listed,
    /// The manifest's bytes, in base64.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    raw: String,
    #[serde(default, rename = "SchemaV2Manifest", skip_serializing_if = "Option::is_none")]
    docker: Option<Box<RawValue>>,
    #[serde(default, rename = "OCIManifest", skip_serializing_if = "Option::is_none")]
    oci: Option<Box<RawValue>>,
}

impl Entry {
    /// An entry for a manifest that a registry gave.
    ///
    /// # Errors
    /// The manifest is no JSON.
    pub fn new(name: &Reference, descriptor: Listed, bytes: &[u8]) -> Outcome<Self> {
        let text = std::str::from_utf8(bytes).map_err(|error| Failure::new(error.to_string()))?;
        let value = RawValue::from_string(laid_out(text, None));
        let value = Some(value.map_err(|error| Failure::new(format!("malformed manifest: {error}")))?);
        let is_docker = descriptor.media_type == DOCKER_MANIFEST;
        let (docker, oci) = if is_docker { (value, None) } else { (None, value) };
        Ok(Self { name: name.canonical(), descriptor, raw: STANDARD.encode(bytes), docker, oci })
    }

    /// Whether the manifest's bytes are there. Older clients did not keep them.
    pub fn is_whole(&self) -> bool {
        !self.raw.is_empty()
    }

    /// The manifest as JSON.
    ///
    /// # Errors
    /// The file holds none.
    pub fn json(&self) -> Outcome<&str> {
        let value = self.docker.as_ref().or(self.oci.as_ref());
        value.map(|value| value.get()).ok_or_else(|| Failure::new(format!("{} has no payload", self.name)))
    }

    /// The manifest's bytes, which have the digest that the entry says.
    ///
    /// # Errors
    /// They have not; the file holds none.
    pub fn bytes(&self) -> Outcome<Vec<u8>> {
        let json = self.json()?;
        let bytes = match STANDARD.decode(&self.raw) {
            Ok(bytes) if self.is_whole() => bytes,
            Err(error) => return Err(Failure::new(format!("{}: {error}", self.name))),
            // As the clients did that kept no bytes.
            Ok(_) => laid_out(json, Some(if self.docker.is_some() { "   " } else { "  " })).into_bytes(),
        };
        let expected = &self.descriptor.digest;
        expected.verify(&bytes).map_err(|actual| {
            Failure::new(format!(
                "internal digest mismatch for {}: expected {expected}, got {actual}",
                self.name
            ))
        })?;
        Ok(bytes)
    }

    /// The manifest.
    ///
    /// # Errors
    /// It makes no sense.
    pub fn manifest(&self) -> Outcome<Manifest> {
        match Document::read(self.json()?.as_bytes(), Some(&self.descriptor.media_type)) {
            Ok(Document::Manifest(manifest)) => Ok(manifest),
            Ok(Document::Index(_)) => Err(Failure::new(format!("{} is a manifest list", self.name))),
            Err(error) => Err(Failure::new(error.to_string())),
        }
    }
}

/// A manifest list as it is written; its digest depends on the order of fields.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct List<'a> {
    schema_version: u32,
    media_type: &'a str,
    manifests: Vec<Member<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Member<'a> {
    media_type: &'a str,
    size: u64,
    digest: &'a Digest,
    platform: ListedPlatform,
}

/// Media type and text of the list of some manifests, byte for byte as Docker's client makes it: of the OCI's kind if
/// the first manifest is.
///
/// # Errors
/// None that input can cause.
pub fn list(entries: &[Listed]) -> Outcome<(&'static str, String)> {
    let is_oci = entries.first().is_some_and(|first| first.media_type == OCI_MANIFEST);
    let media_type = if is_oci { OCI_INDEX } else { DOCKER_LIST };
    let members = entries.iter().map(|entry| Member {
        media_type: &entry.media_type,
        size: entry.size,
        digest: &entry.digest,
        platform: entry.platform.clone().unwrap_or_default(),
    });
    let list = List { schema_version: 2, media_type, manifests: members.collect() };
    let text = serde_json::to_string(&list).map_err(|error| Failure::new(error.to_string()))?;
    Ok((media_type, laid_out(&text, Some("   "))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(bytes: &[u8]) -> Entry {
        let platform =
            ListedPlatform { architecture: "arm".into(), os: "linux".into(), ..Default::default() };
        let listed = Listed {
            media_type: DOCKER_MANIFEST.into(),
            digest: Digest::of(bytes),
            size: bytes.len() as u64,
            platform: Some(platform),
        };
        Entry::new(&"r.example/a:1".parse().unwrap(), listed, bytes).unwrap()
    }

    #[test]
    fn bytes_survive_the_file() {
        let bytes = b"{\n   \"schemaVersion\": 2\n}";
        let kept = serde_json::to_vec(&entry(bytes)).unwrap();
        let back: Entry = serde_json::from_slice(&kept).unwrap();
        assert_eq!(back.bytes().unwrap(), bytes);
        assert_eq!(back.json().unwrap(), r#"{"schemaVersion":2}"#);
        // Without the bytes they are made as older clients made them, and otherwise refused.
        let without = |json: &str| {
            let mut value: serde_json::Value = serde_json::from_slice(&kept).unwrap();
            value.as_object_mut().unwrap().remove("Raw");
            value["SchemaV2Manifest"] = serde_json::from_str(json).unwrap();
            serde_json::from_value::<Entry>(value).unwrap()
        };
        assert_eq!(without(r#"{"schemaVersion":2}"#).bytes().unwrap(), bytes);
        let refused = without(r#"{"schemaVersion":3}"#).bytes().unwrap_err();
        assert!(refused.message.starts_with("internal digest mismatch for r.example/a:1"), "{refused}");
    }

    #[test]
    fn a_list_is_written_as_docker_writes_it() {
        let entry = entry(b"{}");
        let (media_type, text) = list(&[entry.descriptor]).unwrap();
        assert_eq!(media_type, DOCKER_LIST);
        let expected = format!(
            "{{\n   \"schemaVersion\": 2,\n   \"mediaType\": \"{DOCKER_LIST}\",\n   \"manifests\": [\n      {{\n         \
             \"mediaType\": \"{DOCKER_MANIFEST}\",\n         \"size\": 2,\n         \"digest\": \"{}\",\n         \
             \"platform\": {{\n            \"architecture\": \"arm\",\n            \"os\": \"linux\"\n         }}\n      }}\n   ]\n}}",
            Digest::of(b"{}")
        );
        assert_eq!(text, expected);
    }
}
