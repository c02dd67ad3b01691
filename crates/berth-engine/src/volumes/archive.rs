//! The content of a volume as a tar, out and in. Beyond Docker.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use berth_archive::copy::{self, Options as Unpacking};
use berth_archive::decompress;
use berth_sys::ids::Mappings;
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt as _};
use rustix::fs::{Mode, OFlags};
use tokio_util::io::{StreamReader, SyncIoBridge};

use crate::blocking::blocking;
use crate::engine::Parts;
use crate::pieces::{self, ArchiveStream};
use crate::{Engine, Error, name};

/// A volume's content while it is read or written: it is mounted, and cannot be removed.
struct Access {
    parts: Arc<Parts>,
    content: OwnedFd,
    /// Set where the owners on the disk are those outside of a user namespace.
    owners: Option<Mappings>,
    user: String,
}

impl Access {
    fn open(parts: Arc<Parts>, volume: &str) -> Result<Self, Error> {
        let _held = parts.volumes.hold(volume);
        let record =
            parts.storage.volumes().get(volume)?.ok_or_else(|| Error::NoSuchVolume(volume.to_owned()))?;
        let random = |source| Error::Io { operation: "read random bytes".into(), source };
        let user = format!("copy-{}", name::new_id().map_err(random)?);
        let owners = parts.storage.volumes().owners(volume)?;
        let place = parts.volumes.acquire(&record, &user)?;
        parts.volumes.keep(volume, &user);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match rustix::fs::open(&place, flags, Mode::empty()) {
            Ok(content) => Ok(Self { content, owners, user, parts: Arc::clone(&parts) }),
            Err(error) => {
                parts.volumes.release(&user);
                Err(Error::Io { operation: format!("open {}", place.display()), source: error.into() })
            }
        }
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        self.parts.volumes.release(&self.user);
    }
}

impl Engine {
    /// All that a volume holds, as a tar whose names begin at its top.
    pub async fn volume_export(&self, volume: &str) -> Result<ArchiveStream, Error> {
        let (parts, volume) = (Arc::clone(&self.parts), volume.to_owned());
        let place = parts.paced.place().await?;
        blocking(move || {
            let access = Access::open(parts, &volume)?;
            let (mut out, stream) = pieces::channel();
            place.start(move || {
                let (content, owners) = (access.content.as_fd(), access.owners.as_ref());
                let packed = copy::pack_with_attributes(content, b"/", b".", &mut out, owners);
                if let Err(error) = packed.map_err(io::Error::other).and_then(|()| out.send()) {
                    tracing::debug!(volume, %error, "a volume's export ended early");
                    out.carrier().fail(error);
                }
                drop(access);
            })?;
            Ok(stream)
        })
        .await
    }

    /// Unpacks a tar, compressed or not, into a volume. What is there and has another name stays.
    pub async fn volume_import(
        &self,
        volume: &str,
        archive: impl Stream<Item = io::Result<Bytes>> + Send + Unpin + 'static,
    ) -> Result<(), Error> {
        let (parts, volume) = (Arc::clone(&self.parts), volume.to_owned());
        let reader = StreamReader::new(archive.map_err(io::Error::other));
        let reader = SyncIoBridge::new(reader);
        self.parts
            .paced
            .run(move || {
                let access = Access::open(parts, &volume)?;
                let reader = decompress::reader(reader)?;
                let ids = access.owners.clone();
                let options = Unpacking { replace: true, atomic: true, ids, ..Unpacking::default() };
                Ok(copy::unpack(access.content.as_fd(), b"/", &options, reader)?)
            })
            .await
    }
}
