//! The sender's end.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};

use berth_sys::socket;

use super::{BATCH, Invitation, MARKS, PATIENCE, SECRET};

/// The most connections, strangers' included.
const MOST: usize = 16;

/// Opens files by their numbers; none for one that is not to be had so.
pub(crate) type Files = dyn Fn(u32) -> Option<File> + Send + Sync;

/// Hands files over until it goes.
pub(crate) struct Giving {
    listener: Arc<OwnedFd>,
    takers: Arc<Takers>,
}

/// Connections; none when it is over.
struct Takers(Mutex<Option<Vec<Arc<OwnedFd>>>>);

impl Giving {
    /// Begins to.
    pub fn begin(files: Arc<Files>) -> io::Result<(Invitation, Giving)> {
        let invitation = Invitation::new()?;
        let backlog = i32::try_from(MOST).unwrap_or(i32::MAX);
        let listener = Arc::new(socket::listen_abstract(&invitation.name(), backlog)?);
        let takers = Arc::new(Takers(Mutex::new(Some(Vec::new()))));
        let giving = Giving { listener: Arc::clone(&listener), takers: Arc::clone(&takers) };
        let secrets = Arc::new(Invitation(invitation.0));
        let accept = move || {
            while let Ok(connection) = socket::accept(&listener) {
                let Some(connection) = takers.add(connection) else { continue };
                let (files, secrets, takers) =
                    (Arc::clone(&files), Arc::clone(&secrets), Arc::clone(&takers));
                let serve = move || {
                    if let Err(error) = serve(&connection, &secrets, &*files) {
                        tracing::debug!(%error, "files are not handed over any more");
                    }
                    takers.remove(&connection);
                };
                if std::thread::Builder::new().name("handing over".into()).spawn(serve).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("handing over".into()).spawn(accept)?;
        Ok((invitation, giving))
    }
}

impl Drop for Giving {
    fn drop(&mut self) {
        socket::close(&*self.listener);
        self.takers.end();
    }
}

impl Takers {
    /// One more, if there may be.
    fn add(&self, connection: OwnedFd) -> Option<Arc<OwnedFd>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = all.as_mut().filter(|all| all.len() < MOST)?;
        let connection = Arc::new(connection);
        all.push(Arc::clone(&connection));
        Some(connection)
    }

    fn remove(&self, connection: &Arc<OwnedFd>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter_mut().for_each(|all| all.retain(|one| !Arc::ptr_eq(one, connection)));
    }

    fn end(&self) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        all.iter().flatten().for_each(socket::close);
    }
}

/// Answers one receiver. Blocks.
fn serve(connection: &OwnedFd, secrets: &Invitation, files: &Files) -> io::Result<()> {
    // Nobody else may ask even with the secret, which a stranger could have got by passing for this end elsewhere.
    let asking = socket::peer(connection)?.uid;
    if asking != 0 && asking != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "another user asked for files"));
    }
    socket::wait_for(connection, Some(PATIENCE))?;
    if socket::receive(connection, SECRET)?.bytes != secrets.of_taker() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "somebody without the secret asked for files",
        ));
    }
    socket::send(connection, secrets.of_giver(), &[])?;
    socket::wait_for(connection, None)?;
    loop {
        let asked = socket::receive(connection, BATCH * size_of::<u32>())?.bytes;
        if asked.is_empty() {
            return Ok(());
        }
        let (numbers, _) = asked.as_chunks();
        let found: Vec<Option<File>> =
            numbers.iter().map(|&number| files(u32::from_le_bytes(number))).collect();
        let marks: Vec<u8> = found.iter().map(|file| MARKS[usize::from(file.is_some())]).collect();
        let descriptors: Vec<_> = found.iter().flatten().map(File::as_fd).collect();
        socket::send(connection, &marks, &descriptors)?;
    }
}
