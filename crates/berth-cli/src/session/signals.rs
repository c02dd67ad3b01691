//! Signals and window sizes, passed on to a container.

use std::io;

use berth_client::{Client, Query};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::terminal;

/// Signals that are passed on: all that a program is commonly sent and can catch.
const PASSED: [(i32, &str); 9] = [
    (1, "HUP"),
    (2, "INT"),
    (3, "QUIT"),
    (10, "USR1"),
    (12, "USR2"),
    (14, "ALRM"),
    (15, "TERM"),
    (18, "CONT"),
    (28, "WINCH"),
];
/// Signals that end a session with a terminal, which has to be put in order first.
const ENDING: [i32; 4] = [1, 2, 3, 15];

/// Catches the signals to pass on. They are held until someone asks for them.
pub fn catch() -> io::Result<mpsc::Receiver<&'static str>> {
    let (sender, receiver) = mpsc::channel(16);
    for (number, name) in PASSED {
        let mut caught = signal(SignalKind::from_raw(number))?;
        let sender = sender.clone();
        tokio::spawn(async move {
            while caught.recv().await.is_some() {
                if sender.send(name).await.is_err() {
                    return;
                }
            }
        });
    }
    Ok(receiver)
}

/// Sends what is caught to a container, by its path, for ever.
pub async fn pass_on(client: &Client, object: &str, mut caught: mpsc::Receiver<&'static str>) {
    while let Some(name) = caught.recv().await {
        let path = Query::new().set("signal", name).on(&format!("{object}/kill"));
        // A container that has just ended cannot be signalled, and need not be.
        let _ = client.post_empty(&path).await;
    }
}

/// Waits for a signal that ends a session with a terminal; gives 128 and its number.
pub async fn ending() -> u8 {
    let mut signals: Vec<(i32, Signal)> = Vec::new();
    for number in ENDING {
        if let Ok(caught) = signal(SignalKind::from_raw(number)) {
            signals.push((number, caught));
        }
    }
    let waits = signals.iter_mut().map(|(number, caught)| {
        Box::pin(async move {
            caught.recv().await;
            *number
        })
    });
    let (number, _, _) = futures_util::future::select_all(waits).await;
    u8::try_from(128 + number).unwrap_or(u8::MAX)
}

/// Tells a container or exec instance, by its path, the size of the user's window, now and whenever it changes, for ever.
pub async fn resize(client: &Client, object: &str) {
    let Ok(mut changed) = signal(SignalKind::window_change()) else { return };
    loop {
        if let Some((rows, columns)) = terminal::size() {
            let query = Query::new().set("h", &rows.to_string()).set("w", &columns.to_string());
            // A container that has ended has no window.
            let _ = client.post_empty(&query.on(&format!("{object}/resize"))).await;
        }
        changed.recv().await;
    }
}
