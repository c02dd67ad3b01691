//! Descriptors and platforms as the API shows them.

use berth_api::descriptor::{Descriptor, Platform};

/// A descriptor as the API shows it.
pub(crate) fn described(descriptor: berth_oci::Descriptor) -> Descriptor {
    Descriptor {
        media_type: descriptor.media_type,
        digest: descriptor.digest.to_string(),
        size: i64::try_from(descriptor.size).unwrap_or(i64::MAX),
        platform: descriptor.platform.map(platform),
    }
}

/// A platform as the API shows it.
pub(crate) fn platform(platform: berth_oci::Platform) -> Platform {
    Platform {
        architecture: platform.architecture,
        os: platform.os,
        os_version: platform.os_version.unwrap_or_default(),
        variant: platform.variant.unwrap_or_default(),
    }
}
