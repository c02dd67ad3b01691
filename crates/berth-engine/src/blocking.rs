//! Work that blocks, away from the threads that answer clients.

use crate::Error;

/// Runs what may block for some milliseconds on a thread of its own.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|_| Err(Error::Unavailable("the engine is ending".into())))
}
