//! OCI image layouts (OCI image specification, image-layout.md): read, and written as a directory.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use berth_oci::digest::Hasher;
use berth_oci::{Descriptor, Digest};
use serde_json::{Value, json};

use super::document::Document;
use super::files::Files;
use super::source::{LONGEST, verified};
use crate::failure::{Failure, Outcome};

/// The annotation with the name of an entry.
const NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation with the whole name of an image, for daemons that load the layout.
const IMAGE: &str = "io.containerd.image.name";

/// Where a blob is, below the layout.
pub fn place(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// The document that a name of the index means; without a name, the only one.
pub fn root(files: &Files, tag: Option<&str>) -> Outcome<Document> {
    let index = files.read("index.json", LONGEST)?;
    let index: Value = serde_json::from_slice(&index)
        .map_err(|error| Failure::new(format!("index.json makes no sense: {error}")))?;
    let entries = index["manifests"].as_array().map(Vec::as_slice).unwrap_or_default();
    let names = |entry: &Value| -> Vec<String> {
        let named = [NAME, IMAGE].iter().filter_map(|key| entry["annotations"][*key].as_str());
        named.map(str::to_owned).collect()
    };
    let found: Vec<&Value> = match tag {
        Some(tag) => {
            entries.iter().filter(|entry| names(entry).iter().any(|name| is_named(name, tag))).collect()
        }
        None => entries.iter().collect(),
    };
    let entry = match found.as_slice() {
        [entry] => *entry,
        [first, rest @ ..] if rest.iter().all(|entry| entry["digest"] == first["digest"]) => *first,
        _ => {
            let all: Vec<String> = entries.iter().flat_map(names).collect();
            let wanted = tag.map_or_else(|| "an image without a name".to_owned(), |tag| format!("{tag:?}"));
            return Err(Failure::new(format!(
                "the layout does not have exactly one {wanted}; it has {all:?}"
            )));
        }
    };
    let listed: Descriptor = serde_json::from_value(entry.clone())
        .map_err(|error| Failure::new(format!("index.json makes no sense: {error}")))?;
    document(files, &listed)
}

/// Whether a name of an index is the one wanted, which may be without what is usual.
fn is_named(name: &str, wanted: &str) -> bool {
    let whole =
        |text: &str| text.parse::<berth_oci::Reference>().map(|found| found.with_default_tag().canonical());
    name == wanted || matches!((whole(name), whole(wanted)), (Ok(name), Ok(wanted)) if name == wanted)
}

/// A document of the layout.
pub fn document(files: &Files, listed: &Descriptor) -> Outcome<Document> {
    verified(files.read(&place(&listed.digest), LONGEST)?, listed)
}

/// A layout that is written.
#[derive(Debug, Clone)]
pub struct Layout {
    path: PathBuf,
}

fn failed(path: &Path) -> impl Fn(io::Error) -> Failure {
    let path = path.display().to_string();
    move |error| Failure::new(format!("{path}: {error}"))
}

impl Layout {
    /// Opens or begins one.
    pub fn create(path: &Path) -> Outcome<Self> {
        fs::create_dir_all(path).map_err(failed(path))?;
        let marker = path.join("oci-layout");
        if !marker.exists() {
            let is_empty = fs::read_dir(path).map_err(failed(path))?.next().is_none();
            if !is_empty {
                return Err(Failure::new(format!("{} is neither empty nor an image layout", path.display())));
            }
            put(&marker, br#"{"imageLayoutVersion":"1.0.0"}"#).map_err(failed(&marker))?;
        }
        Ok(Self { path: path.to_owned() })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a blob is there.
    pub fn has(&self, blob: &Descriptor) -> bool {
        let path = self.path.join(place(&blob.digest));
        fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.len() == blob.size)
    }

    /// A writer for a blob, which goes on where an earlier one stopped.
    ///
    /// # Errors
    /// File errors.
    pub fn writer(&self, blob: &Descriptor) -> io::Result<Writer> {
        let place = self.path.join(place(&blob.digest));
        if let Some(directory) = place.parent() {
            fs::create_dir_all(directory)?;
        }
        let partial = place.with_file_name(format!(".{}.part", blob.digest.hex()));
        let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).clone();
        let mut file = options.open(&partial)?;
        let mut hasher = Hasher::new(blob.digest.algorithm());
        let (mut offset, mut buffer) = (0, vec![0; 256 << 10]);
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => {
                    hasher.update(&buffer[..count]);
                    offset += count as u64;
                }
            }
        }
        if offset > blob.size {
            file.set_len(0)?;
            file = options.open(&partial)?;
            (hasher, offset) = (Hasher::new(blob.digest.algorithm()), 0);
        }
        Ok(Writer { file, hasher, offset, partial, place, blob: blob.clone() })
    }

    /// Stores a document.
    pub fn put(&self, document: &Document) -> Outcome {
        let path = self.path.join(place(&document.digest));
        if let Some(directory) = path.parent() {
            fs::create_dir_all(directory).map_err(failed(directory))?;
        }
        put(&path, &document.bytes).map_err(failed(&path))
    }

    /// Lists a document in the index, in place of what had its name.
    pub fn list(&self, document: &Document, tag: Option<&str>, image: Option<&str>) -> Outcome {
        let path = self.path.join("index.json");
        let mut index: Value = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|error| Failure::new(format!("{}: {error}", path.display())))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                json!({"schemaVersion": 2, "manifests": []})
            }
            Err(error) => return Err(failed(&path)(error)),
        };
        let mut entry =
            serde_json::to_value(document.descriptor()).map_err(|error| Failure::new(error.to_string()))?;
        for (name, value) in [(NAME, tag), (IMAGE, image)] {
            if let Some(value) = value {
                entry["annotations"][name] = json!(value);
            }
        }
        let Some(entries) = index["manifests"].as_array_mut() else {
            return Err(Failure::new(format!("{} makes no sense", path.display())));
        };
        let replaced = |old: &Value| match tag {
            Some(tag) => old["annotations"][NAME] == tag,
            None => old["digest"] == entry["digest"] && old["annotations"][NAME].is_null(),
        };
        entries.retain(|old| !replaced(old));
        entries.push(entry);
        put(&path, index.to_string().as_bytes()).map_err(failed(&path))
    }
}

/// Writes a file whole or not at all.
fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let partial = path.with_extension("partial");
    let mut file = File::create(&partial)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&partial, path)
}

/// A blob that is being written.
#[derive(Debug)]
pub struct Writer {
    file: File,
    hasher: Hasher,
    offset: u64,
    partial: PathBuf,
    place: PathBuf,
    blob: Descriptor,
}

impl Writer {
    /// Bytes that are there, from earlier writers too.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// File errors.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.hasher.update(bytes);
        self.offset += bytes.len() as u64;
        Ok(())
    }

    /// Puts the blob in its place, if it is what its digest says; otherwise it is thrown away.
    pub fn commit(self) -> Outcome {
        let Self { file, hasher, offset, partial, place, blob } = self;
        if offset < blob.size {
            return Err(Failure::new(format!("{} ends {} bytes early", blob.digest, blob.size - offset)));
        }
        let actual = hasher.finish();
        if actual != blob.digest {
            let _ = fs::remove_file(&partial);
            return Err(Failure::new(format!("a blob has digest {actual}, expected {}", blob.digest)));
        }
        file.sync_all().and_then(|()| fs::rename(&partial, &place)).map_err(failed(&place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_gone_on_with_and_checked() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::create(folder.path()).unwrap();
        let blob = Descriptor::new("x", Digest::of(b"abcdef"), 6);
        let mut writer = layout.writer(&blob).unwrap();
        writer.write(b"abc").unwrap();
        assert!(writer.commit().unwrap_err().message.contains("3 bytes early"));
        let mut writer = layout.writer(&blob).unwrap();
        assert_eq!(writer.offset(), 3);
        writer.write(b"xyz").unwrap();
        assert!(writer.commit().unwrap_err().message.contains("expected sha256:"));
        let mut writer = layout.writer(&blob).unwrap();
        assert_eq!(writer.offset(), 0, "what was wrong is gone");
        writer.write(b"abcdef").unwrap();
        assert!(!layout.has(&blob));
        writer.commit().unwrap();
        assert!(layout.has(&blob));
    }

    #[test]
    fn names_of_an_index_are_replaced_and_found() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::create(folder.path()).unwrap();
        let document = |text: &str| {
            let bytes = json!({"schemaVersion": 2, "manifests": [], "annotations": {"x": text}}).to_string();
            let digest = Digest::of(bytes.as_bytes());
            let document = Document::read(bytes.into_bytes(), digest, None).unwrap();
            layout.put(&document).unwrap();
            document
        };
        let (one, two) = (document("1"), document("2"));
        let files = Files::Directory(folder.path().to_owned());
        layout.list(&one, Some("v1"), None).unwrap();
        assert_eq!(root(&files, None).unwrap().digest, one.digest);
        layout.list(&two, Some("v1"), Some("docker.io/library/x:v1")).unwrap();
        assert_eq!(root(&files, Some("v1")).unwrap().digest, two.digest);
        layout.list(&one, Some("v2"), None).unwrap();
        for name in ["v1", "x:v1", "docker.io/library/x:v1"] {
            assert_eq!(root(&files, Some(name)).unwrap().digest, two.digest, "{name}");
        }
        assert!(root(&files, None).unwrap_err().message.contains("\"v2\""));
        assert!(root(&files, Some("v3")).is_err());
        fs::write(folder.path().join(place(&one.digest)), "{}").unwrap();
        assert!(root(&files, Some("v2")).unwrap_err().message.contains("expected sha256:"));
        let other = tempfile::tempdir().unwrap();
        fs::write(other.path().join("precious"), "").unwrap();
        assert!(Layout::create(other.path()).is_err());
    }
}
