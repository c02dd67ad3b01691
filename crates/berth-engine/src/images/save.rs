//! Images as an archive.

use std::io;
use std::sync::Arc;

use berth_image::Saving;
use berth_oci::Platform;

use crate::blocking::blocking;
use crate::engine::Parts;
use crate::event::ImageEvent;
use crate::pieces::{self, ArchiveStream, Pieces};
use crate::{Engine, Error};

impl Engine {
    /// The images that `names` stand for as an archive, which holds Docker's documents and is an OCI layout; in all
    /// platforms that are kept, or in `platforms` if any are given.
    ///
    /// # Errors
    /// A name that stands for no image; a platform that is not kept. Later ones end the stream.
    pub async fn image_save(
        &self,
        names: Vec<String>,
        platforms: Vec<Platform>,
    ) -> Result<ArchiveStream, Error> {
        let parts = Arc::clone(&self.parts);
        let place = parts.paced.place().await?;
        blocking(move || {
            let saving = parts.images.save(&names, &platforms)?;
            let (out, stream) = pieces::channel();
            place.start(move || save(&parts, &saving, out))?;
            Ok(stream)
        })
        .await
    }
}

fn save(parts: &Parts, saving: &Saving, mut out: Pieces) {
    let written = saving.write(&mut out).map_err(io::Error::other);
    match written.and_then(|()| out.send()) {
        Ok(()) => {
            for id in saving.ids() {
                parts.image_event(id, &id.to_string(), ImageEvent::Save);
            }
        }
        Err(error) => {
            // Mostly a client that has gone; a damaged layer says so in the text.
            tracing::warn!(%error, "saving images ended early");
            out.carrier().fail(error);
        }
    }
}
