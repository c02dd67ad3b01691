//! What clients read while an image is pulled or loaded, in Docker's words.

use berth_api::progress::{JsonMessage, ProgressDetail};
use berth_image::{Loaded, Progress};
use berth_oci::{Digest, Reference};
use tokio::sync::mpsc::{Receiver, Sender};

use super::waiting::forward;

/// The first message of a pull.
pub async fn begin(reference: &Reference, out: &Sender<JsonMessage>) {
    // A client that has gone away is noticed by whoever runs the request.
    let _ = out.send(beginning(reference)).await;
}

fn beginning(reference: &Reference) -> JsonMessage {
    let at = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => digest.to_string(),
        (None, tag) => tag.unwrap_or("latest").to_owned(),
    };
    JsonMessage::status(at, format!("Pulling from {}", reference.path()))
}

/// Passes on what the layers of a pull tell, which never waits for the client; whether there was anything.
pub async fn layers(reference: &Reference, layers: Receiver<Progress>, out: &Sender<JsonMessage>) -> bool {
    forward(layers, message, Some(beginning(reference)), out).await
}

/// What a name turned out to be.
pub async fn digest(digest: &Digest, out: &Sender<JsonMessage>) {
    let _ = out.send(JsonMessage::status("", format!("Digest: {digest}"))).await;
}

/// The last message of a pull of an image or a repository.
pub async fn pulled(name: &str, up_to_date: bool, out: &Sender<JsonMessage>) {
    let status = if up_to_date { "Image is up to date" } else { "Downloaded newer image" };
    let _ = out.send(JsonMessage::status("", format!("Status: {status} for {name}"))).await;
}

/// Passes on what the layers of a load or push tell, which never waits for the client.
pub async fn loading(layers: Receiver<Progress>, out: &Sender<JsonMessage>) {
    forward(layers, message, None, out).await;
}

/// An image has been loaded.
pub async fn loaded(image: &Loaded, out: &Sender<JsonMessage>) {
    let taken = image.taken.iter().map(|(name, id)| {
        format!("The image {name} already exists, renaming the old one with ID {id} to empty string\n")
    });
    let loaded: Vec<String> = match image.names.as_slice() {
        [] => vec![format!("Loaded image ID: {}\n", image.id)],
        names => names.iter().map(|name| format!("Loaded image: {name}\n")).collect(),
    };
    for line in taken.chain(loaded) {
        let _ = out.send(JsonMessage::stream(line)).await;
    }
}

fn message(progress: Progress) -> JsonMessage {
    let mut message = JsonMessage::status(progress.id, progress.status);
    if message.id.is_empty() {
        // What is about no layer is a line of its own.
        return message;
    }
    let detail = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    // Docker sends an empty detail with a mere status: clients tell bars from lines by it.
    message.progress_detail =
        Some(ProgressDetail { current: detail(progress.current), total: detail(progress.total) });
    message
}
