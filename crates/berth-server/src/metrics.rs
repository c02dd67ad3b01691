//! Figures for Prometheus, with the names that `dockerd` gives them.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use berth_api::system::Info;
use berth_engine::Engine;
use http::header::HeaderValue;
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;

use crate::answer;
use crate::body::Body;
use crate::listen::Listener;

/// Upper bounds of the histogram's buckets: microseconds, and the same as Prometheus wants it.
const BUCKETS: [(u64, &str); 11] = [
    (5_000, "0.005"),
    (10_000, "0.01"),
    (25_000, "0.025"),
    (50_000, "0.05"),
    (100_000, "0.1"),
    (250_000, "0.25"),
    (500_000, "0.5"),
    (1_000_000, "1"),
    (2_500_000, "2.5"),
    (5_000_000, "5"),
    (10_000_000, "10"),
];
/// Connections for metrics at the same time.
const MOST: usize = 16;

/// What is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// A container's changes.
    Changes,
    /// An image made of a container.
    Commit,
    /// A container created.
    Create,
    /// A container removed.
    Delete,
    /// A container started.
    Start,
}

const ACTIONS: [(Action, &str); 5] = [
    (Action::Changes, "changes"),
    (Action::Commit, "commit"),
    (Action::Create, "create"),
    (Action::Delete, "delete"),
    (Action::Start, "start"),
];

impl Action {
    /// What a request does, if that is timed.
    pub fn of(method: &Method, path: &str) -> Option<Action> {
        let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
        match (method, segments.as_slice()) {
            (&Method::POST, ["containers", "create"]) => Some(Action::Create),
            (&Method::POST, ["containers", _, "start"]) => Some(Action::Start),
            (&Method::DELETE, ["containers", _]) => Some(Action::Delete),
            (&Method::GET, ["containers", _, "changes"]) => Some(Action::Changes),
            (&Method::POST, ["commit"]) => Some(Action::Commit),
            _ => None,
        }
    }
}

/// How long things took. Each bucket counts what belongs to it and to no lower one.
struct Histogram {
    buckets: [AtomicU64; BUCKETS.len() + 1],
    micros: AtomicU64,
}

impl Histogram {
    const fn new() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; BUCKETS.len() + 1], micros: AtomicU64::new(0) }
    }

    fn observe(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = BUCKETS.iter().position(|(bound, _)| micros <= *bound).unwrap_or(BUCKETS.len());
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.micros.fetch_add(micros, Relaxed);
    }

    fn write(&self, text: &mut String, name: &str, label: &str) {
        let mut sum = 0;
        let bounds = BUCKETS.iter().map(|(_, bound)| *bound).chain(["+Inf"]);
        for (count, bound) in self.buckets.iter().zip(bounds) {
            sum += count.load(Relaxed);
            let _ = writeln!(text, "{name}_bucket{{{label},le=\"{bound}\"}} {sum}");
        }
        let seconds = Duration::from_micros(self.micros.load(Relaxed)).as_secs_f64();
        let _ = writeln!(text, "{name}_sum{{{label}}} {seconds}\n{name}_count{{{label}}} {sum}");
    }
}

/// Of this process, in the order of [`ACTIONS`].
static TIMES: [Histogram; ACTIONS.len()] = [const { Histogram::new() }; ACTIONS.len()];

/// Waits for `work`, and keeps how long it took if it went well.
pub async fn timed<T, E>(action: Option<Action>, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let started = Instant::now();
    let outcome = work.await;
    let histogram = ACTIONS.iter().position(|(known, _)| Some(*known) == action).map(|index| &TIMES[index]);
    if let (Some(histogram), true) = (histogram, outcome.is_ok()) {
        histogram.observe(started.elapsed());
    }
    outcome
}

/// Answers `/metrics` on `listener` until `stop` changes.
pub async fn serve(listener: Listener, engine: Arc<Engine>, mut stop: watch::Receiver<bool>) {
    let Listener::Tcp(listener) = listener else { return };
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "metrics cannot be answered"),
    };
    let slots = Arc::new(tokio::sync::Semaphore::new(MOST));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.changed() => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        // One too many is closed at once: whoever asks comes again.
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
        let engine = Arc::clone(&engine);
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let engine = Arc::clone(&engine);
                async move { Ok::<_, Infallible>(respond(&engine, &request).await) }
            });
            let served = hyper::server::conn::http1::Builder::new()
                .timer(hyper_util::rt::TokioTimer::new())
                .header_read_timeout(Duration::from_secs(60))
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = served.await {
                tracing::debug!(%error, "a connection for metrics ended early");
            }
            drop(slot);
        });
    }
}

async fn respond(engine: &Engine, request: &http::Request<Incoming>) -> Response<Body> {
    if request.uri().path() != "/metrics" || !matches!(*request.method(), Method::GET | Method::HEAD) {
        return answer::status(StatusCode::NOT_FOUND);
    }
    match engine.info().await {
        Ok(info) => {
            let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            let text = text(
                &info,
                engine.events_told(),
                &std::fs::read_to_string("/proc/self/stat").unwrap_or_default(),
            );
            answer::with(StatusCode::OK, Some(content_type), Body::from(text))
        }
        Err(error) => {
            tracing::warn!(%error, "metrics could not be gathered");
            answer::status(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

fn metric(text: &mut String, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
}

fn text(info: &Info, events: u64, stat: &str) -> String {
    let mut text = String::with_capacity(8 << 10);
    let name = "engine_daemon_container_actions_seconds";
    let _ = writeln!(text, "# HELP {name} The number of seconds it takes to process each container action");
    let _ = writeln!(text, "# TYPE {name} histogram");
    for ((_, action), histogram) in ACTIONS.iter().zip(&TIMES) {
        histogram.write(&mut text, name, &format!("action=\"{action}\""));
    }
    let name = "engine_daemon_container_states_containers";
    let _ = writeln!(text, "# HELP {name} The count of containers in various states\n# TYPE {name} gauge");
    for (state, count) in [
        ("paused", info.containers_paused),
        ("running", info.containers_running),
        ("stopped", info.containers_stopped),
    ] {
        let _ = writeln!(text, "{name}{{state=\"{state}\"}} {count}");
    }
    let gauge =
        |text: &mut String, name: &str, help: &str, value: i64| metric(text, name, "gauge", help, value);
    gauge(
        &mut text,
        "engine_daemon_engine_cpus_cpus",
        "The number of cpus that the host system of the engine has",
        info.ncpu,
    );
    engine_info(&mut text, info);
    gauge(
        &mut text,
        "engine_daemon_engine_memory_bytes",
        "The number of bytes of memory that the host system of the engine has",
        info.mem_total,
    );
    gauge(
        &mut text,
        "engine_daemon_events_subscribers_total",
        "The number of current subscribers to events",
        info.nevents_listener,
    );
    metric(&mut text, "engine_daemon_events_total", "counter", "The number of events logged", events);
    process(&mut text, stat, info.nfd);
    text
}

fn engine_info(text: &mut String, info: &Info) {
    let name = "engine_daemon_engine_info";
    let help = "The information related to the engine and the OS it is running on";
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
    let labels = [
        ("architecture", &info.architecture),
        ("commit", &String::new()),
        ("daemon_id", &info.id),
        ("graphdriver", &info.driver),
        ("kernel", &info.kernel_version),
        ("os", &info.operating_system),
        ("os_type", &info.os_type),
        ("os_version", &info.os_version),
        ("version", &info.server_version),
    ]
    .map(|(name, value)| format!("{name}=\"{}\"", escape(value)));
    let _ = writeln!(text, "{name}{{{}}} 1", labels.join(","));
}

/// A label's value, as the text format wants it.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Figures of this process, from the text of `/proc/self/stat`.
fn process(text: &mut String, stat: &str, descriptors: i64) {
    // The program's name, in parentheses, may hold anything.
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let field = |number: usize| {
        fields.get(number - 3).and_then(|field| field.parse::<u64>().ok()).unwrap_or_default()
    };
    #[expect(clippy::cast_precision_loss, reason = "2^53 hundredths of a second are enough")]
    let seconds = |ticks: u64| ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
    let cpu = seconds(field(14) + field(15));
    metric(
        text,
        "process_cpu_seconds_total",
        "counter",
        "Total user and system CPU time spent in seconds.",
        cpu,
    );
    metric(text, "process_open_fds", "gauge", "Number of open file descriptors.", descriptors);
    let resident = field(24) * rustix::param::page_size() as u64;
    metric(text, "process_resident_memory_bytes", "gauge", "Resident memory size in bytes.", resident);
    metric(text, "process_virtual_memory_bytes", "gauge", "Virtual memory size in bytes.", field(23));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_apart() {
        for (method, path, action) in [
            (Method::POST, "containers/create", Some(Action::Create)),
            (Method::POST, "containers/x/start", Some(Action::Start)),
            (Method::DELETE, "containers/x", Some(Action::Delete)),
            (Method::GET, "containers/x/json", None),
            (Method::GET, "containers/create", None),
        ] {
            assert_eq!(Action::of(&method, path), action, "{path}");
        }
    }

    #[test]
    fn buckets_are_cumulative() {
        let histogram = Histogram::new();
        for millis in [1, 5, 6, 20_000] {
            histogram.observe(Duration::from_millis(millis));
        }
        let mut text = String::new();
        histogram.write(&mut text, "n", "a=\"b\"");
        for line in [
            "n_bucket{a=\"b\",le=\"0.005\"} 2",
            "n_bucket{a=\"b\",le=\"0.01\"} 3",
            "n_bucket{a=\"b\",le=\"10\"} 3",
            "n_bucket{a=\"b\",le=\"+Inf\"} 4",
            "n_sum{a=\"b\"} 20.012",
            "n_count{a=\"b\"} 4",
        ] {
            assert!(text.lines().any(|other| other == line), "{line} in {text}");
        }
    }

    #[test]
    fn every_line_is_in_the_text_format() {
        let info = Info { operating_system: "a \"b\"\\\n".into(), containers_running: 3, ..Info::default() };
        let stat = "1 (be) rth) S 0 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0 1 0 5 4096 7 0";
        let text = text(&info, 9, stat);
        for line in text.lines() {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(line.starts_with("# ") || (!name.is_empty() && value.parse::<f64>().is_ok()), "{line}");
        }
        for line in [
            "engine_daemon_container_states_containers{state=\"running\"} 3",
            "engine_daemon_events_total 9",
            "process_virtual_memory_bytes 4096",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
        assert!(text.contains(r#"os="a \"b\"\\\n""#), "{text}");
    }
}
