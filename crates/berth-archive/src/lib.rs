//! Safe tar in and out, decompression, patterns of files to leave out.
//!
//! Everything here works on bytes of unknown origin. Three properties hold throughout:
//!
//! - No path of an archive is ever resolved by name from the outside: extraction walks beneath one directory
//!   descriptor and follows no symbolic link that an archive brought.
//! - No program is executed and nothing is loaded; compressed streams are decoded in this process, with bounded memory.
//! - No size that an archive claims is allocated or reserved before its bytes have come.
#![forbid(unsafe_code)]

pub mod changes;
pub mod compress;
pub mod context;
pub mod copy;
pub mod decompress;
mod error;
pub mod extract;
pub mod files;
mod format;
pub mod ignore;
pub mod marks;
pub mod meta;
pub mod overlay;
mod owned;
pub mod pack;
pub mod passage;
pub mod pieces;
pub mod replica;
pub mod spare;
pub mod tree;
pub mod waste;
pub mod writer;

pub use error::{Error, Result};
