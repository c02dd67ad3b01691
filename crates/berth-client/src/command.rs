//! A program's standard input and output as a connection.

use std::io;
use std::pin::Pin;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};
use tokio::sync::oneshot;

/// Most that is kept of what the program complains about, in bytes: its end.
const MOST: usize = 4096;
/// How long the rest of the complaints is waited for after the program's end: a process of its own may keep the
/// descriptor open, as ssh's shared connections do.
const REST: Duration = Duration::from_millis(200);
/// The shell's code for a program that it does not find.
const NOT_FOUND: i32 = 127;

/// A running program that carries bytes. Dropping it ends the program.
#[derive(Debug)]
pub(crate) struct CommandStream {
    /// None when it is closed.
    input: Option<ChildStdin>,
    output: ChildStdout,
    /// How the program failed, or none; arrives with its end.
    end: oneshot::Receiver<Option<String>>,
    /// The end has been told.
    over: bool,
}

impl CommandStream {
    /// Starts a program, in a session of its own.
    pub(crate) fn start(program: &str, arguments: Vec<String>) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args(&arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        berth_sys::command::detach_from_terminal(&mut command);
        let mut child =
            tokio::process::Command::from(command).spawn().map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => {
                    io::Error::other(format!("exec: {program:?}: executable file not found in $PATH"))
                }
                _ => error,
            })?;
        let pipe = || io::Error::other("a pipe is missing");
        let input = child.stdin.take().ok_or_else(pipe)?;
        let output = child.stdout.take().ok_or_else(pipe)?;
        let complaints = child.stderr.take().ok_or_else(pipe)?;
        let (sender, end) = oneshot::channel();
        tokio::spawn(watch(child, complaints, format!("{program} {}", arguments.join(" ")), sender));
        Ok(Self { input: Some(input), output, end, over: false })
    }

    /// Waits for the program's end: an error if it failed.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.over {
            return Poll::Ready(Ok(()));
        }
        let told = ready!(Pin::new(&mut self.end).poll(cx));
        self.over = true;
        match told {
            Ok(Some(text)) => Poll::Ready(Err(io::Error::other(text))),
            _ => Poll::Ready(Ok(())),
        }
    }

    /// What a write came to; a program that reads no more is asked why.
    fn written(&mut self, cx: &mut Context<'_>, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match outcome {
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
                ready!(self.poll_end(cx))?;
                Poll::Ready(Err(error))
            }
            outcome => outcome,
        }
    }
}

/// Waits until the program ends, and tells how it failed; ends it if nobody wants to know.
async fn watch(
    mut child: Child,
    complaints: ChildStderr,
    line: String,
    mut sender: oneshot::Sender<Option<String>>,
) {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let reader = tokio::spawn(keep(complaints, Arc::clone(&kept)));
    let status = tokio::select! {
        status = child.wait() => status,
        () = sender.closed() => {
            let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                // It may have ended by itself.
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            child.wait().await
        }
    };
    // Without the rest it is told with what there is.
    let _ = tokio::time::timeout(REST, reader).await;
    let complaints = kept.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let complaints = String::from_utf8_lossy(&complaints);
    // The receiver may be gone.
    let _ = match status {
        Ok(status) if status.success() => sender.send(None),
        Ok(status) => sender.send(Some(failure(&line, status, complaints.trim()))),
        Err(error) => sender.send(Some(error.to_string())),
    };
}

/// Keeps the end of what a program complains about.
async fn keep(mut complaints: ChildStderr, kept: Arc<Mutex<Vec<u8>>>) {
    let mut part = [0; 1024];
    while let Ok(count @ 1..) = complaints.read(&mut part).await {
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend_from_slice(&part[..count]);
        let surplus = kept.len().saturating_sub(MOST);
        kept.drain(..surplus);
    }
}

/// Says how a program failed, and what may help.
fn failure(line: &str, status: ExitStatus, complaints: &str) -> String {
    let remedy = if status.code() == Some(NOT_FOUND) {
        "neither 'berth' nor 'docker' may be on the PATH of the remote host: install one of them there \
         ('berth' can be linked under the name 'docker')"
    } else {
        "make sure the URL is valid, and Berth, or Docker 18.09 or later, is installed on the remote host"
    };
    let status = match status.code() {
        Some(code) => format!("exit status {code}"),
        None => status.to_string(),
    };
    format!("command [{line}] has exited with {status}, {remedy}: stderr={complaints}")
}

impl AsyncRead for CommandStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.output).poll_read(cx, buf))?;
        if buf.filled().len() == before && buf.remaining() > 0 {
            return self.poll_end(cx);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for CommandStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let Some(input) = &mut self.input else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        let outcome = Pin::new(input).poll_write(cx, buf);
        self.written(cx, outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Some(input) = &mut self.input else { return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())) };
        let outcome = Pin::new(input).poll_write_vectored(cx, bufs);
        self.written(cx, outcome)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.input {
            Some(input) => Pin::new(input).poll_flush(cx),
            None => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The end of input is the pipe's closing.
        self.input = None;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    fn shell(script: &str) -> CommandStream {
        CommandStream::start("sh", vec!["-c".to_owned(), script.to_owned()]).unwrap()
    }

    #[tokio::test]
    async fn input_ends_before_output() {
        let mut stream = shell("cat; echo end");
        stream.write_all(b"some\n").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "some\nend\n");
    }

    #[tokio::test]
    async fn complaints_are_part_of_the_error() {
        let mut text = String::new();
        let error = shell("echo no route >&2; exit 255").read_to_string(&mut text).await.unwrap_err();
        let error = error.to_string();
        assert!(error.contains("has exited with exit status 255"), "{error}");
        assert!(error.ends_with("stderr=no route"), "{error}");
        let error = shell("exit 127").read_to_string(&mut text).await.unwrap_err().to_string();
        assert!(error.contains("install one of them there"), "{error}");
    }

    #[tokio::test]
    async fn only_the_end_of_many_complaints_is_kept() {
        let script = "i=0; while [ $i -lt 2000 ]; do echo line $i >&2; i=$((i+1)); done; exit 1";
        let error = shell(script).read_to_string(&mut String::new()).await.unwrap_err().to_string();
        assert!(error.ends_with("line 1999") && error.len() < MOST + 500, "{}", error.len());
    }

    #[test]
    fn programs_that_are_missing_are_named() {
        let error = CommandStream::start("no-such-program", Vec::new()).unwrap_err();
        assert_eq!(error.to_string(), "exec: \"no-such-program\": executable file not found in $PATH");
    }
}
