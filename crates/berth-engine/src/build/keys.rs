//! Where secrets and agents of a build come from.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// What a client lends to the steps of its build. Calls block.
pub trait Keys: Send + Sync {
    /// The secret of this name, if the client has one.
    fn secret(&self, id: &str) -> Option<Vec<u8>>;

    /// A Unix socket where the client's ssh agent of this name answers.
    fn ssh(&self, id: &str) -> Option<PathBuf>;
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
    fn secret(&self, _: &str) -> Option<Vec<u8>> {
        None
    }

    fn ssh(&self, _: &str) -> Option<PathBuf> {
        None
    }
}
