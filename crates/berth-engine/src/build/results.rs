//! `outputs`: what was built, sent to the client over its session.

use std::io;
use std::sync::Arc;

use berth_api::build::{Output, OutputKind};
use berth_build::solve::Image;
use berth_oci::Reference;
use tokio::sync::oneshot;

use super::borrowed::Borrowed;
use super::executor::Worker;
use super::session;
use crate::engine::Parts;
use crate::pieces::{self, ArchiveStream, Pieces};
use crate::{Error, error};

/// Sends all that the client wants of an image. Blocks.
pub(super) fn send(worker: &mut Worker, image: &Image) -> Result<(), Error> {
    for (number, output) in (0..).zip(worker.request.outputs.clone()) {
        worker.output.say(&format!(" ---> Sending {}\n", what(output.kind)))?;
        let names = names(&output)?;
        let image = image.clone();
        stream(worker, number, move |parts, out| write(parts, &image, output.kind, names, out))?;
    }
    Ok(())
}

fn what(kind: OutputKind) -> &'static str {
    match kind {
        OutputKind::Tar => "the files of the image",
        OutputKind::Oci => "the image as an OCI layout",
        OutputKind::Docker => "the image as an archive",
    }
}

fn names(output: &Output) -> Result<Vec<Reference>, Error> {
    let read = |name: &String| match name.parse::<Reference>() {
        Ok(name) => Ok(name.with_default_tag()),
        Err(error) => Err(Error::InvalidParameter(error.to_string())),
    };
    output.names.iter().map(read).collect()
}

/// Writes one output. Blocks.
fn write(
    parts: &Arc<Parts>,
    image: &Image,
    kind: OutputKind,
    names: Vec<Reference>,
    out: &mut Pieces,
) -> Result<(), Error> {
    if kind == OutputKind::Tar {
        let borrowed = Borrowed::new(parts, &image.config)?;
        let files = borrowed.snapshot()?.image()?;
        return berth_archive::pack::pack(&files, out)
            .map_err(|source| Error::Files(format!("the files of the image: {}", error::chain(&source))));
    }
    let saving = parts.images.save(&[image.id.to_string()], &[])?.named(names);
    match kind {
        OutputKind::Docker => saving.write(out)?,
        _ => saving.write_layout(out)?,
    }
    Ok(())
}

/// Sends the client what `write` writes, as its output of this number. What ends early is no output. Blocks.
pub(super) fn stream(
    worker: &Worker,
    number: u32,
    write: impl FnOnce(&Arc<Parts>, &mut Pieces) -> Result<(), Error> + Send + 'static,
) -> Result<(), Error> {
    let (mut out, ArchiveStream { pieces }) = pieces::channel();
    let parts = Arc::clone(worker.parts());
    let (told, failed) = oneshot::channel();
    std::thread::spawn(move || {
        let whole = |source| Error::Io { operation: "send what was built".into(), source };
        let written = write(&parts, &mut out).and_then(|()| out.send().map_err(whole));
        // A client that takes no more says itself why.
        if let Err(error) = written
            && !out.carrier().is_over()
        {
            let _ = told.send(error);
            out.carrier().fail(io::ErrorKind::Other.into());
        }
    });
    let sent = futures_util::stream::unfold(pieces, |mut pieces| async move {
        match pieces.recv().await? {
            Ok(piece) => Some((piece.to_vec(), pieces)),
            // The reason is on its way: the call ends with it, and not the stream.
            Err(_) => std::future::pending().await,
        }
    });
    let id = worker.request.session.clone().unwrap_or_default();
    let sessions = &worker.parts().sessions;
    worker.wait(async {
        let session = sessions.get(&id).await.map_err(|error| session::failed(&error))?;
        let sending = session.output(number, &[], sent);
        tokio::select! {
            biased;
            outcome = sending => outcome.map_err(|error| {
                Error::InvalidParameter(format!("error writing an output of the build: {}", error::chain(&error)))
            }),
            Ok(error) = failed => Err(error),
        }
    })
}
