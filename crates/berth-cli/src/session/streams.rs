//! Bytes between the user and a container.

use std::io::{self, Read as _};

use berth_api::stream::{Decoder, MULTIPLEXED_STREAM, RAW_STREAM, Stream};
use berth_client::Hijacked;
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::detach::Watch;
use super::terminal;
use crate::failure::{Failure, Outcome};

/// Bytes read at once.
const PART: usize = 64 << 10;

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The container's output is closed.
    Closed,
    /// The user typed the detach keys.
    Detached,
}

/// What is joined.
#[derive(Debug)]
pub struct Session {
    /// The user's input goes to the container.
    pub stdin: bool,
    /// The container has a terminal: one stream, byte for byte.
    pub tty: bool,
    /// What detaches from a terminal.
    pub detach_keys: Vec<u8>,
}

impl Session {
    /// Carries bytes until the container's output ends or the user detaches.
    pub async fn run(self, connection: Hijacked) -> Outcome<End> {
        let multiplexed = match connection.content_type() {
            MULTIPLEXED_STREAM => true,
            RAW_STREAM if self.tty => false,
            // Older servers say the same of both.
            _ => !self.tty,
        };
        let (read, write) = tokio::io::split(connection);
        // Input that is not wanted stays open: closing it could end the output with it.
        let mut output = std::pin::pin!(copy_output(read, multiplexed));
        if !self.stdin {
            let outcome = output.await;
            drop(write);
            return outcome.map(|()| End::Closed);
        }
        let watch = Watch::new(if self.tty { self.detach_keys } else { Vec::new() });
        let _raw = if self.tty {
            terminal::Raw::enter().map_err(|error| Failure::io("setting the terminal up", &error))?
        } else {
            None
        };
        tokio::select! {
            outcome = &mut output => outcome.map(|()| End::Closed),
            end = copy_input(write, watch) => match end {
                Some(end) => Ok(end),
                None => output.await.map(|()| End::Closed),
            },
        }
    }
}

/// Sends standard input; `None` at its end, after which the other direction goes on.
async fn copy_input(mut write: WriteHalf<Hijacked>, mut watch: Watch) -> Option<End> {
    let mut input = read_stdin();
    while let Some(part) = input.recv().await {
        let seen = watch.look(&part);
        if !seen.forward.is_empty() && write.write_all(&seen.forward).await.is_err() {
            // The container reads no more; its output tells how it ended.
            return None;
        }
        if seen.detach {
            return Some(End::Detached);
        }
    }
    // An error means that nobody reads.
    let _ = write.shutdown().await;
    // The half must live: dropping it could close the connection.
    std::future::pending::<()>().await;
    None
}

/// Standard input, read by a thread, since files and terminals cannot be polled alike.
pub fn read_stdin() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(4);
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        let mut buffer = vec![0; PART];
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
                Ok(count) => {
                    if sender.blocking_send(buffer[..count].to_vec()).is_err() {
                        return;
                    }
                }
            }
        }
    });
    receiver
}

async fn copy_output(mut read: ReadHalf<Hijacked>, multiplexed: bool) -> Outcome {
    let mut out = Output::new(multiplexed);
    let mut buffer = vec![0; PART];
    loop {
        let count = match read.read(&mut buffer).await {
            Ok(count) => count,
            // A daemon or shim that was killed; what there was has been written.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            Err(error) => return Err(Failure::io("reading the container's output", &error)),
        };
        if count == 0 {
            return Ok(());
        }
        out.write(Bytes::copy_from_slice(&buffer[..count])).await?;
    }
}

/// Standard output and error, fed from one stream.
pub struct Output {
    decoder: Option<Decoder>,
    stdout: tokio::io::Stdout,
    stderr: tokio::io::Stderr,
}

impl Output {
    /// Takes frames, or bytes as they are.
    pub fn new(multiplexed: bool) -> Self {
        let decoder = multiplexed.then(Decoder::new);
        Self { decoder, stdout: tokio::io::stdout(), stderr: tokio::io::stderr() }
    }

    /// Writes some of the stream.
    pub async fn write(&mut self, mut input: Bytes) -> Outcome {
        let Some(decoder) = &mut self.decoder else {
            return self.put(Stream::Stdout, &input).await;
        };
        // A write costs a switch of threads, a frame is often a single line: neighbours go out as one.
        let (runs, failure) = runs(decoder, &mut input);
        for (stream, data) in runs {
            self.put(stream, &data).await?;
        }
        failure.map_or(Ok(()), Err)
    }

    /// Writes text of one of the two.
    pub async fn put(&mut self, stream: Stream, data: &[u8]) -> Outcome {
        let to: &mut (dyn AsyncWrite + Unpin) =
            if stream == Stream::Stderr { &mut self.stderr } else { &mut self.stdout };
        let outcome = async {
            to.write_all(data).await?;
            to.flush().await
        };
        outcome.await.map_err(|error| Failure::io("writing output", &error))
    }
}

/// What `input` holds, with neighbouring frames of one stream joined, and why the stream ends there if it does.
fn runs(decoder: &mut Decoder, input: &mut Bytes) -> (Vec<(Stream, Vec<u8>)>, Option<Failure>) {
    let mut runs: Vec<(Stream, Vec<u8>)> = Vec::new();
    loop {
        match decoder.next(input) {
            Ok(Some(chunk)) if chunk.stream == Stream::SystemError => {
                let text = String::from_utf8_lossy(&chunk.data).trim().to_owned();
                return (runs, Some(Failure::new(format!("error from daemon in stream: {text}"))));
            }
            Ok(Some(chunk)) => match runs.last_mut() {
                Some((stream, data)) if *stream == chunk.stream => data.extend_from_slice(&chunk.data),
                _ => runs.push((chunk.stream, chunk.data.to_vec())),
            },
            Ok(None) => return (runs, None),
            Err(error) => return (runs, Some(Failure::new(error.to_string()))),
        }
    }
}

/// Writes a stream that nobody answers, such as logs.
pub async fn show(mut body: berth_client::ResponseBody, multiplexed: bool) -> Outcome {
    let mut out = Output::new(multiplexed);
    while let Some(chunk) = body.chunk().await? {
        out.write(chunk).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    #[test]
    fn neighbouring_frames_of_one_stream_are_joined() {
        let mut frames = BytesMut::new();
        for (stream, text) in [
            (Stream::Stdout, "a"),
            (Stream::Stdout, "b"),
            (Stream::Stderr, "c"),
            (Stream::Stdout, "d"),
            (Stream::SystemError, "gone\n"),
            (Stream::Stdout, "never"),
        ] {
            berth_api::stream::encode(stream, text.as_bytes(), &mut frames);
        }
        let mut frames = frames.freeze();
        let (found, failure) = runs(&mut Decoder::new(), &mut frames);
        let expected: Vec<(Stream, Vec<u8>)> = vec![
            (Stream::Stdout, b"ab".into()),
            (Stream::Stderr, b"c".into()),
            (Stream::Stdout, b"d".into()),
        ];
        assert_eq!(found, expected);
        assert!(failure.is_some_and(|failure| failure.to_string().contains("gone")));
    }
}
