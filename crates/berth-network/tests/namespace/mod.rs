//! Network namespaces for tests: each a thread of its own.

use std::os::fd::OwnedFd;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

type Job = Box<dyn FnOnce() + Send>;

/// A thread in its own network namespace that runs what it is given.
pub struct Namespace {
    pub fd: OwnedFd,
    jobs: Option<Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

impl Namespace {
    /// A new namespace in which not even loopback is up.
    pub fn new() -> Namespace {
        let (jobs, work) = channel::<Job>();
        let (ready, opened) = channel();
        let thread = std::thread::spawn(move || {
            ready.send(berth_sys::netns::unshare().unwrap()).unwrap();
            for job in work {
                job();
            }
        });
        Namespace { fd: opened.recv().unwrap(), jobs: Some(jobs), thread: Some(thread) }
    }

    /// Runs `job` there and waits for its result.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = channel();
        self.jobs.as_ref().unwrap().send(Box::new(move || drop(done.send(job())))).unwrap();
        result.recv().expect("the job in the namespace panicked")
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        self.jobs.take();
        let _ = self.thread.take().unwrap().join();
    }
}
