//! Files into and out of a directory tree that somebody else may be changing at the same time: what `docker cp` does.
//!
//! A tree is given by one descriptor of its root. Every path is walked by the kernel inside that root (`openat2`,
//! `RESOLVE_IN_ROOT`): a link that is put in the way at any moment leads to another place of the same tree, and never
//! out of it. Nothing but regular files and directories is ever opened; an existing file is never written, but replaced.

mod into;
mod mode;
mod out;
pub mod path;
mod place;
mod stage;

pub use into::{Options, Owner, Rename, unpack};
pub use mode::ModeChange;
pub(crate) use out::enter;
pub use out::{pack, pack_inside, pack_selected, pack_with_attributes};
pub use place::{Found, follow, look, opened};
