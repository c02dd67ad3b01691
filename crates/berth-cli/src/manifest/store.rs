//! Manifest lists that are kept here: a directory for each, in it a file for each image.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use berth_oci::Reference;

use super::entry::Entry;
use crate::config;
use crate::failure::{Failure, Outcome};

/// Name of the directory beside `config.json`.
const NAME: &str = "manifests";
/// Largest file that is read, in bytes: a manifest twice, once of it in base64.
const LIMIT: u64 = 16 << 20;

/// The lists of a user.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
}

impl Store {
    /// The lists of the user whose settings are in `directory`.
    pub fn new(directory: &Path) -> Self {
        Self { root: directory.join(NAME) }
    }

    fn directory(&self, list: &Reference) -> PathBuf {
        self.root.join(file_name(list))
    }

    /// One image of a list; none if the list, or the image in it, is not there.
    ///
    /// # Errors
    /// A file that cannot be read, or makes no sense.
    pub fn get(&self, list: &Reference, image: &Reference) -> Outcome<Option<Entry>> {
        read(&self.directory(list).join(file_name(image)))
    }

    /// The images of a list, in the order of their names; none if there is no such list.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn list(&self, list: &Reference) -> Outcome<Option<Vec<Entry>>> {
        let directory = self.directory(list);
        let failed = |error: io::Error| Failure::io(format!("open {}", directory.display()), &error);
        let found = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            found => found.map_err(failed)?,
        };
        let mut names = Vec::new();
        for file in found {
            let name = file.map_err(failed)?.file_name();
            // A draft that a client left which was killed.
            if !name.to_string_lossy().starts_with('.') {
                names.push(name);
            }
        }
        names.sort();
        let entries = names.iter().map(|name| read(&directory.join(name)));
        let entries: Vec<Option<Entry>> = entries.collect::<Outcome<_>>()?;
        Ok(Some(entries.into_iter().flatten().collect()))
    }

    /// Keeps an image as one of a list.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn save(&self, list: &Reference, image: &Reference, entry: &Entry) -> Outcome {
        let directory = self.directory(list);
        let failed = |error: io::Error| Failure::io(format!("write {}", directory.display()), &error);
        config::make_directories(&directory, 0o755).map_err(failed)?;
        let bytes = serde_json::to_vec(entry).map_err(|error| Failure::new(error.to_string()))?;
        config::replace(&directory.join(file_name(image)), &bytes, 0o644).map_err(failed)
    }

    /// Removes a list.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, list: &Reference) -> Outcome {
        let directory = self.directory(list);
        match fs::remove_dir_all(&directory) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(Failure::io(format!("remove {}", directory.display()), &error))
            }
            _ => Ok(()),
        }
    }
}

/// That there is no such list or image in it, in Docker's words.
pub fn none(name: &Reference) -> Failure {
    Failure::new(format!("No such manifest: {}", name.canonical()))
}

/// The grammar of names leaves nothing that leads elsewhere.
fn file_name(name: &Reference) -> String {
    name.canonical().replace(':', "-").replace('/', "_")
}

fn read(path: &Path) -> Outcome<Option<Entry>> {
    use std::io::Read as _;
    let failed = |error: io::Error| Failure::io(format!("open {}", path.display()), &error);
    let file = match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(failed)?,
    };
    let mut bytes = Vec::new();
    file.take(LIMIT).read_to_end(&mut bytes).map_err(failed)?;
    let entry = serde_json::from_slice(&bytes);
    entry.map(Some).map_err(|error| Failure::new(format!("{}: {error}", path.display())))
}
