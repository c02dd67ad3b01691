//! The tar format: headers, PAX records, sparse maps. Field layout is the `tar` crate's; its entry reader is not used,
//! because a layer's exact bytes (headers, padding, trailer) must be kept and hashed as they pass, and because its PAX
//! records end at the first newline, which cuts binary extended attributes.

pub(crate) mod ahead;
pub(crate) mod entry;
pub(crate) mod header;
pub(crate) mod input;
pub(crate) mod pax;
pub(crate) mod sparse;
