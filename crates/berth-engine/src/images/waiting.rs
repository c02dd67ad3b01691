//! Messages that wait for a slow client, so that nothing else waits for it.
//!
//! A pull holds what others want, such as the right to bring a layer: a client that stops reading must not hold it, too.

use std::collections::VecDeque;

use berth_api::progress::JsonMessage;
use tokio::sync::mpsc::{Receiver, Sender};

/// Messages that wait before what is new of a layer takes the place of what was told of it last.
const MOST: usize = 4096;

/// Passes on what is told to `out`, and never lets whoever tells it wait. `first` comes before all else, if there is anything
/// else: whether there was. What is left when nothing more is told is waited for.
pub(super) async fn forward<T>(
    mut told: Receiver<T>,
    message: impl Fn(T) -> JsonMessage,
    mut first: Option<JsonMessage>,
    out: &Sender<JsonMessage>,
) -> bool {
    let mut waiting = Waiting::default();
    let mut any = false;
    loop {
        tokio::select! {
            // What has room goes at once: only then is nothing merged for a client that keeps up.
            biased;
            room = out.reserve(), if !waiting.0.is_empty() => match (room, waiting.0.pop_front()) {
                (Ok(room), Some(message)) => room.send(message),
                // A client that has gone away is noticed by whoever runs the request.
                _ => waiting.0.clear(),
            },
            one = told.recv() => match one {
                Some(one) => {
                    any = true;
                    waiting.0.extend(first.take());
                    waiting.add(message(one));
                }
                None => break,
            },
        }
    }
    for message in waiting.0 {
        if out.send(message).await.is_err() {
            break;
        }
    }
    any
}

#[derive(Default)]
struct Waiting(VecDeque<JsonMessage>);

impl Waiting {
    /// Adds a message. It takes the place of what was counted of its layer last, of which nobody needs to know any more.
    fn add(&mut self, message: JsonMessage) {
        let is_full = self.0.len() >= MOST;
        let of_layer = self.0.iter_mut().rev().find(|waiting| waiting.id == message.id);
        match of_layer.filter(|last| !message.id.is_empty() && (is_full || is_count(last))) {
            Some(last) => *last = message,
            None if is_full => {}
            None => self.0.push_back(message),
        }
    }
}

fn is_count(message: &JsonMessage) -> bool {
    message.progress_detail.as_ref().is_some_and(|detail| detail.current > 0)
}

#[cfg(test)]
mod tests {
    use berth_api::progress::ProgressDetail;
    use tokio::sync::mpsc;

    use super::*;

    fn message((id, status, current): (&str, &str, i64)) -> JsonMessage {
        let mut message = JsonMessage::status(id, status);
        message.progress_detail = Some(ProgressDetail { current, total: 10 });
        message
    }

    #[tokio::test]
    async fn nobody_waits_for_a_client_that_does_not_read() {
        let (out, mut client) = mpsc::channel(1);
        let (tell, told) = mpsc::channel(1);
        let first = JsonMessage::status("", "first");
        let work = tokio::spawn(async move { forward(told, message, Some(first), &out).await });
        // Far more than the channels hold: each is taken all the same.
        for current in 1..1000 {
            tell.send(("a", "Downloading", current)).await.unwrap();
            tell.send(("b", "Downloading", current)).await.unwrap();
        }
        for id in ["a", "b"] {
            tell.send((id, "Pull complete", 0)).await.unwrap();
        }
        drop(tell);
        let mut read = Vec::new();
        while let Some(message) = client.recv().await {
            read.push((message.id, message.status));
        }
        assert!(work.await.unwrap());
        assert_eq!(read[0].1, "first");
        assert!(read.len() < 20, "counts were merged: {read:?}");
        for id in ["a", "b"] {
            assert!(read.contains(&(id.to_owned(), "Pull complete".to_owned())), "{read:?}");
        }
    }

    #[tokio::test]
    async fn a_client_that_keeps_up_gets_all_in_order() {
        let (out, mut client) = mpsc::channel(1);
        let (tell, told) = mpsc::channel(1);
        let work = tokio::spawn(async move { forward(told, message, None, &out).await });
        for current in 1..100 {
            tell.send(("a", "Downloading", current)).await.unwrap();
            let detail = client.recv().await.unwrap().progress_detail.unwrap();
            assert_eq!(detail.current, current);
        }
        drop(tell);
        assert!(work.await.unwrap() && client.recv().await.is_none());
    }

    #[tokio::test]
    async fn states_are_kept_up_to_a_bound() {
        let mut waiting = Waiting::default();
        for layer in 0..2 * MOST {
            waiting.add(message((&format!("{}", layer % (MOST + 7)), "Waiting", 0)));
        }
        assert_eq!(waiting.0.len(), MOST);
        let (out, client) = mpsc::channel(1);
        let (tell, told) = mpsc::channel(1);
        drop((client, tell));
        assert!(!forward(told, message, None, &out).await, "nothing was told");
    }
}
