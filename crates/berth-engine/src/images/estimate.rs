//! What a pull would bring.

use berth_api::image;
use berth_image::Presence;
use berth_oci::{Platform, Reference};

use super::Caller;
use crate::{Engine, Error};

impl Engine {
    /// What a pull of an image would bring, and whether it can fit.
    ///
    /// # Errors
    /// A malformed name or platform; what the registry says.
    pub async fn image_estimate(
        &self,
        name: &str,
        platform: Option<&str>,
        caller: Caller,
    ) -> Result<image::PullEstimate, Error> {
        let invalid = |error: &dyn std::fmt::Display| Error::InvalidParameter(error.to_string());
        let reference: Reference = name.parse().map_err(|error| invalid(&error))?;
        let platform = platform.map(str::parse::<Platform>).transpose().map_err(|error| invalid(&error))?;
        let images = &self.parts.images;
        let found = images.estimate(&reference, platform, caller.into()).await?;
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        let layers = found.layers.iter().map(|layer| image::LayerEstimate {
            digest: layer.digest.to_string(),
            size: number(layer.size),
            download: number(layer.download()),
            exists: layer.presence == Presence::Stored,
        });
        Ok(image::PullEstimate {
            digest: found.digest.to_string(),
            platform: found.platform.to_string(),
            layers: layers.collect(),
            total: number(found.total()),
            download: number(found.download()),
            unpacked: number(found.unpacked()),
            unpacked_is_exact: found.is_exact(),
            needed: number(found.needed()),
            free: number(found.free),
            keep_free: number(found.keep),
            fits: found.fits(),
        })
    }
}
