//! `--build-context`: names that mean an image, a directory of the client, an OCI layout there, or an address.
//!
//! A directory becomes an image with one layer, so that everything can be made of it that can be made of images: a base, and
//! a source of files. The same files are the same image.

use std::collections::HashMap;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};

use berth_archive::ignore::Ignore;
use berth_build::solve::Image;
use berth_build::stages::normal;
use berth_oci::config::History;
use berth_oci::{Digest, ImageConfig, Platform};

use super::cancel::Cancelling;
use super::context::{self, Context};
use super::executor::Worker;
use super::{cache, tree};
use crate::Error;

/// Images that contexts became, by the contexts' names.
pub(super) type Made = Arc<Mutex<HashMap<String, Image>>>;

/// Where a context is.
enum Place<'a> {
    Image(&'a str),
    Directory(&'a str),
    Layout(&'a str),
    Address(&'a str),
}

impl<'a> Place<'a> {
    fn read(text: &'a str) -> Result<Self, Error> {
        let unknown = || Error::InvalidParameter(format!("unsupported build context {text:?}"));
        let place = match text.split_once(':') {
            Some(("docker-image", rest)) => Self::Image(rest.trim_start_matches("//")),
            Some(("local", name)) => Self::Directory(name),
            Some(("oci-layout", name)) => Self::Layout(name),
            Some(_) => Self::Address(text),
            None => return Err(unknown()),
        };
        Ok(place)
    }
}

impl Worker {
    /// What a context holds, as an image; none if there is no context of this name. Blocks.
    pub(super) fn context_image(
        &mut self,
        name: &str,
        platform: Option<&Platform>,
    ) -> Result<Option<Image>, Error> {
        let wanted = normal(name);
        let found = self.request.contexts.iter().find(|(own, _)| normal(own) == wanted);
        let Some((name, text)) = found.map(|(name, text)| (name.clone(), text.clone())) else {
            return Ok(None);
        };
        let place = Place::read(&text)?;
        if let Place::Image(image) = place {
            return self.find_image(image, platform).map(Some);
        }
        // Stages that are built at once wait here for the one that brings it.
        let made = Arc::clone(&self.made);
        let mut made = made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(image) = made.get(&name) {
            return Ok(Some(image.clone()));
        }
        let image = match place {
            Place::Layout(rest) => cache::from_layout(self, rest)?,
            Place::Directory(directory) => {
                let files = Context::from_client(self, directory)?;
                self.image_of(files.root())?
            }
            Place::Address(address) => {
                let files = context::fetch(self, address)?;
                if !files.has_files() {
                    let text = format!("the build context {name} is neither an archive nor a Git repository");
                    return Err(Error::InvalidParameter(text));
                }
                self.image_of(files.root())?
            }
            Place::Image(_) => return Ok(None),
        };
        self.hold(&image)?;
        made.insert(name, image.clone());
        Ok(Some(image))
    }

    /// The image whose files are those beneath a directory. Blocks.
    fn image_of(&self, root: BorrowedFd<'_>) -> Result<Image, Error> {
        let failed = |error| tree::failed("read", b"/", &error);
        let digest = tree::digest(root, b"/", &self.cancelled).map_err(|error| self.reason(failed(error)))?;
        let platform = self.request.platform.clone().unwrap_or_else(Platform::host);
        let key = Digest::of(format!("context\n{platform}\n{digest}").as_bytes());
        let parts = self.parts();
        if let Some(id) = parts.storage.build_steps().get(&key)?
            && let Ok(config) = parts.images.config(&id)
        {
            return Ok(Image { id, config });
        }
        let write = |out: &mut dyn std::io::Write| {
            let out = Cancelling::new(out, &self.cancelled);
            berth_archive::context::pack(root.as_fd(), &Ignore::default(), Vec::new(), out)
        };
        let layer = parts.images.layer_from("build", write);
        let layer = layer.map_err(|error| self.reason(error.into()))?;
        let epoch = Some("1970-01-01T00:00:00Z".to_owned());
        let config = ImageConfig {
            architecture: platform.architecture,
            variant: platform.variant,
            os: platform.os,
            created: epoch.clone(),
            history: vec![History {
                created: epoch,
                created_by: format!("COPY {digest} in / "),
                ..History::default()
            }],
            ..ImageConfig::default()
        };
        let image = self.compose(config, Some(layer), None)?;
        parts.storage.build_steps().put(&key, &image.id)?;
        Ok(image)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_written_as_with_buildkit() {
        assert!(matches!(Place::read("docker-image://a:b"), Ok(Place::Image("a:b"))));
        assert!(matches!(Place::read("local:a"), Ok(Place::Directory("a"))));
        assert!(matches!(Place::read("oci-layout:a@sha256:b"), Ok(Place::Layout("a@sha256:b"))));
        assert!(matches!(Place::read("https://a/b.git"), Ok(Place::Address("https://a/b.git"))));
        assert!(Place::read("nothing").is_err());
    }
}
