//! Images that are made here: of a container's changes, or of an archive of files.

use std::io::{self, Read};
use std::os::fd::OwnedFd;

use berth_archive::passage::passage;
use berth_oci::{Digest, ImageConfig, LAYER_LIMIT, Reference};
use berth_storage::{Lease, Source, Tag};

use crate::assemble::{self, Plan};
use crate::unpack::{Unpacked, unpack_unknown};
use crate::{Error, Images, Result, made};

/// A layer that is unpacked, but belongs to no image yet. Dropped, it is thrown away.
#[derive(Debug)]
pub struct NewLayer(Unpacked);

impl NewLayer {
    /// Whether it is the tar without any entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.diff == Digest::of(&[0; 1024])
    }
}

/// Holds the layers of an image that another is to stand on, until it is dropped.
#[derive(Debug)]
pub struct Held {
    _lease: Lease,
}

/// An image that was recorded.
#[derive(Debug)]
pub struct Composed {
    /// Its ID.
    pub id: Digest,
    /// Its configuration, with all its layers.
    pub config: ImageConfig,
    /// Holds its layers, whoever removes it meanwhile.
    pub held: Held,
}

impl Images {
    /// Keeps the layers of `base` from removal.
    ///
    /// # Errors
    /// [`Error::NotFound`] if they are gone already; database errors.
    pub fn hold(&self, id: &Digest, base: &ImageConfig) -> Result<Held> {
        let mut lease = self.storage().lease();
        let plan = Plan::new(self.storage(), base, &mut lease)?;
        if plan.present < plan.chains.len() {
            return Err(Error::NotFound(id.to_string()));
        }
        Ok(Held { _lease: lease })
    }

    /// Unpacks the layer that `write` writes as a tar, while it is written. Blocks.
    ///
    /// # Errors
    /// What `write` fails with; a full disk.
    pub fn layer_from(
        &self,
        name: &str,
        write: impl FnOnce(&mut dyn io::Write) -> berth_archive::Result<()> + Send,
    ) -> Result<NewLayer> {
        self.layer_taking(name, None, write)
    }

    /// As [`Images::layer_from`], of the tree `origin`, which nobody uses any more: files are taken over from it where that can
    /// be, and not written again. No process may have had it as its root: another one could still have a file open. Blocks.
    ///
    /// # Errors
    /// As [`Images::layer_from`].
    pub fn layer_of_tree(
        &self,
        name: &str,
        origin: OwnedFd,
        write: impl FnOnce(&mut dyn io::Write) -> berth_archive::Result<()> + Send,
    ) -> Result<NewLayer> {
        self.layer_taking(name, Some(origin), write)
    }

    fn layer_taking(
        &self,
        name: &str,
        origin: Option<OwnedFd>,
        write: impl FnOnce(&mut dyn io::Write) -> berth_archive::Result<()> + Send,
    ) -> Result<NewLayer> {
        let (mut writer, reader) = passage();
        std::thread::scope(|scope| {
            // The end of the thread's closure is that of the stream.
            let writing = scope.spawn(move || write(&mut writer));
            let unpacked = unpack_unknown(self.storage(), name, reader, origin);
            let written = writing.join().unwrap_or_else(|_| {
                Err(berth_archive::Error::Read(io::Error::other("the thread that packs it ended")))
            });
            match (written, unpacked) {
                // A reader that gave up is why the writer failed.
                (Err(error), Err(reason)) if is_broken_pipe(&error) => Err(reason),
                (Err(source), _) => Err(Error::Pack { layer: name.to_owned(), source }),
                (Ok(()), unpacked) => unpacked.map(NewLayer),
            }
        })
    }

    /// Fetches a file from a web server, with the proxies and certificates that registries are reached with.
    ///
    /// # Errors
    /// Refusals, and failures to connect.
    pub async fn fetch(&self, url: &url::Url) -> Result<berth_registry::Fetched> {
        Ok(self.inner.registry.fetch(url).await?)
    }

    /// Unpacks the layer that `archive` is, compressed or not. Blocks.
    ///
    /// # Errors
    /// What is wrong with the archive; a full disk.
    pub fn layer_of(&self, name: &str, archive: impl Read + Send) -> Result<NewLayer> {
        unpack_unknown(self.storage(), name, archive, None).map(NewLayer)
    }

    /// Records the image that `config`, which does not name the new layer yet, describes: the layers it has, and `layer`,
    /// if there is one, on top of them. `parent` is the image that it was made from. Blocks.
    ///
    /// # Errors
    /// A layer too many; a layer below that is gone; database and file errors.
    pub fn compose(
        &self,
        mut config: ImageConfig,
        layer: Option<NewLayer>,
        name: Option<&Reference>,
        parent: Option<&Digest>,
    ) -> Result<Composed> {
        let storage = self.storage();
        "layers".clone_into(&mut config.rootfs.kind);
        config.rootfs.diff_ids.extend(layer.iter().map(|layer| layer.0.diff.clone()));
        let count = config.rootfs.diff_ids.len();
        if count > LAYER_LIMIT {
            return Err(berth_oci::config::ConfigError::TooManyLayers(count).into());
        }
        let bytes = made::json(&config)?;
        let id = Digest::of(&bytes);
        let mut lease = storage.lease();
        let mut plan = Plan::new(storage, &config, &mut lease)?;
        plan.parent = parent.cloned();
        match (count - plan.present, layer) {
            (0, _) => {}
            (1, Some(layer)) => assemble::place(storage, &plan, vec![layer.0], &mut lease)?,
            (missing, _) => return Err(Error::NotFound(plan.chains[count - missing].to_string())),
        }
        let made = made::manifest(storage, &id, bytes.len() as u64, plan.diffs.iter().zip(&plan.chains))?;
        for (digest, bytes) in [(&made.descriptor.digest, &made.bytes), (&id, &bytes)] {
            storage.blobs().put(digest, bytes, &mut lease)?;
        }
        let names: Vec<Tag> =
            name.map(|name| Tag { name: name.canonical(), target: id.clone() }).into_iter().collect();
        let source = Source { manifest: made.descriptor.digest, index: None };
        assemble::record(storage, &id, &config, &plan, &[source], &names)?;
        Ok(Composed { id, config, held: Held { _lease: lease } })
    }
}

fn is_broken_pipe(error: &berth_archive::Error) -> bool {
    matches!(error, berth_archive::Error::File { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
}
