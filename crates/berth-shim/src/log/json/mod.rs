//! Docker's `json-file` format: one JSON document per line in a file that other programs may follow.
//!
//! The file `NAME` is written; `NAME.1` is the one before it, `NAME.2` the one before that, and so on. A rotated file may
//! be compressed, as `NAME.1.gz`; the header of that keeps the inode number that the file had, so that a reader who
//! was in the middle of it finds its successor.

mod compress;
mod encode;
mod files;
mod line;
mod reader;
mod writer;

pub(super) use reader::Cursor;
pub use writer::JsonWriter;
