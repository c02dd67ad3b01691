//! Where secrets and agents of a build come from.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::Error;

/// What a client lends to the steps of its build. Calls block, and fail when the client cannot be asked: that is another
/// answer than none.
pub trait Keys: Send + Sync {
    /// The secret of this name, if the client has one.
    fn secret(&self, id: &str) -> Result<Option<Vec<u8>>, Error>;

    /// A Unix socket where the client's ssh agent of this name answers, if it has one. It belongs to `owner` and has the
    /// permissions `mode`.
    fn ssh(&self, id: &str, owner: (u32, u32), mode: u32) -> Result<Option<PathBuf>, Error>;
}

/// Shared [`Keys`]; there are none by default.
#[derive(Clone)]
pub struct SharedKeys(pub Arc<dyn Keys>);

impl Default for SharedKeys {
    fn default() -> Self {
        SharedKeys(Arc::new(Nothing))
    }
}

impl fmt::Debug for SharedKeys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never what they are.
        out.write_str("SharedKeys")
    }
}

/// A client that lends nothing.
struct Nothing;

impl Keys for Nothing {
    fn secret(&self, _: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(None)
    }

    fn ssh(&self, _: &str, _: (u32, u32), _: u32) -> Result<Option<PathBuf>, Error> {
        Ok(None)
    }
}
