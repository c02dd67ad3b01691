//! Images, as clients list, fetch, name and remove them.

use berth_api::{auth, filter::Filters, image, progress};
use tokio::sync::mpsc;

use crate::{Engine, Error};

#[expect(clippy::unused_async, reason = "bodies follow")]
impl Engine {
    /// Images; with `all` also those without a name that others need.
    pub async fn image_list(&self, all: bool, filters: Filters) -> Result<Vec<image::Summary>, Error> {
        let _ = (all, filters);
        unimplemented!()
    }

    /// Everything about an image.
    pub async fn image_inspect(&self, name: &str) -> Result<image::Inspect, Error> {
        let _ = name;
        unimplemented!()
    }

    /// The steps an image was built in, the newest first.
    pub async fn image_history(&self, name: &str) -> Result<Vec<image::HistoryItem>, Error> {
        let _ = name;
        unimplemented!()
    }

    /// Pulls an image by its reference, such as `debian:12`; errors after the first message are also returned.
    pub async fn image_pull(
        &self,
        reference: &str,
        platform: Option<&str>,
        auth: Option<auth::AuthConfig>,
        progress: mpsc::Sender<progress::JsonMessage>,
    ) -> Result<(), Error> {
        let _ = (reference, platform, auth, progress);
        unimplemented!()
    }

    /// Loads the images of an archive, which is read by a blocking thread.
    pub async fn image_load(
        &self,
        archive: Box<dyn std::io::Read + Send>,
        progress: mpsc::Sender<progress::JsonMessage>,
    ) -> Result<(), Error> {
        let _ = (archive, progress);
        unimplemented!()
    }

    /// Removes a name of an image, and the image with its last one.
    pub async fn image_remove(&self, name: &str, force: bool) -> Result<Vec<image::DeleteItem>, Error> {
        let _ = (name, force);
        unimplemented!()
    }

    /// Gives an image one more name.
    pub async fn image_tag(&self, name: &str, repository: &str, tag: &str) -> Result<(), Error> {
        let _ = (name, repository, tag);
        unimplemented!()
    }
}
