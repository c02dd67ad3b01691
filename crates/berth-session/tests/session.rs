//! Both ends of a session over a socket pair.
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use berth_archive::context::Insert;
use berth_archive::ignore::Ignore;
use berth_session::{
    Bounds, Directory, Entry, Error, Offer, Progress, Received, Secret, Services, Session, Sessions, Wanted,
};
use hyper_util::rt::TokioIo;
use sha2::{Digest as _, Sha256};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

struct Ends {
    sessions: Arc<Sessions>,
    session: Arc<Session>,
    client: tokio::task::JoinHandle<()>,
}

async fn connect(services: Services) -> Ends {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let services = Arc::new(services);
    let offer = Offer {
        id: "test".into(),
        methods: services.methods().into_iter().map(str::to_owned).collect(),
        ..Offer::default()
    };
    let client = tokio::spawn(services.serve(theirs));
    let sessions = Arc::new(Sessions::default());
    let claim = sessions.claim(offer.clone()).unwrap();
    assert!(matches!(sessions.claim(offer), Err(Error::Exists(_))));
    tokio::spawn(claim.serve(TokioIo::new(ours)));
    let session = sessions.get("build:test").await.unwrap();
    Ends { sessions, session, client }
}

struct Counts {
    moved: AtomicUsize,
    whole: AtomicBool,
}

fn offered(path: &Path, patterns: &[&str]) -> (Services, Arc<Counts>) {
    let counts = Arc::new(Counts { moved: AtomicUsize::new(0), whole: AtomicBool::new(false) });
    let counted = Arc::clone(&counts);
    let progress = move |progress| match progress {
        Progress::Moved(bytes) => drop(counted.moved.fetch_add(bytes, Ordering::Relaxed)),
        Progress::Whole => counted.whole.store(true, Ordering::Relaxed),
    };
    let directory = Directory {
        path: path.to_owned(),
        ignore: Ignore::new(patterns).unwrap(),
        inserts: Vec::new(),
        progress: Box::new(progress),
    };
    let directories = HashMap::from([("context".to_owned(), Arc::new(directory))]);
    (Services { directories, ..Services::default() }, counts)
}

fn open(path: &Path) -> OwnedFd {
    fs::File::open(path).unwrap().into()
}

async fn sync(session: &Session, to: &Path, known: Vec<Entry>, exclude: &[&str]) -> Result<Received, Error> {
    let wanted = Wanted {
        directory: "context".into(),
        exclude: exclude.iter().map(|&pattern| pattern.to_owned()).collect(),
        ..Wanted::default()
    };
    session.files(&wanted, open(to), known, Bounds::new(&mut || Ok(())), &mut |_, _| {}).await
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_wanted_travels() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["deep/er/file", "deep/other", "large"] {
        fs::create_dir_all(from.path().join(name).parent().unwrap()).unwrap();
        fs::write(from.path().join(name), name).unwrap();
    }
    fs::hard_link(from.path().join("deep/other"), from.path().join("further")).unwrap();
    std::os::unix::fs::symlink("deep/er", from.path().join("way")).unwrap();
    let (services, _) = offered(from.path(), &[]);
    let ends = connect(services).await;
    let strings = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    for (include, exclude, follow, expected) in [
        (&["deep/er", "further"][..], &[][..], &[][..], &["deep", "deep/er", "deep/er/file", "further"][..]),
        (&[], &["deep", "large"], &[], &["further", "way"]),
        (&[], &[], &["way/file"], &["deep", "deep/er", "deep/er/file", "way"]),
    ] {
        let wanted = Wanted {
            directory: "context".into(),
            include: strings(include),
            exclude: strings(exclude),
            follow: strings(follow),
        };
        let target = to.path().join(format!("{}", expected.len() * 10 + include.len()));
        fs::create_dir(&target).unwrap();
        let received = ends
            .session
            .files(&wanted, open(&target), Vec::new(), Bounds::new(&mut || Ok(())), &mut |_, _| {})
            .await;
        let names = received.unwrap().entries.into_iter().map(|entry| String::from_utf8(entry.path).unwrap());
        assert_eq!(names.collect::<Vec<_>>(), expected);
        if expected.contains(&"further") {
            assert_eq!(fs::read_to_string(target.join("further")).unwrap(), "deep/other");
        }
    }
    let invalid = Wanted { directory: "context".into(), include: strings(&["["]), ..Wanted::default() };
    let refused = ends
        .session
        .files(&invalid, open(to.path()), Vec::new(), Bounds::new(&mut || Ok(())), &mut |_, _| {})
        .await;
    assert!(refused.unwrap_err().to_string().contains("syntax error in pattern"));
    ends.client.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_travels_and_only_what_changed_travels_again() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let large = vec![7; 5 << 20];
    fs::write(from.path().join("large"), &large).unwrap();
    fs::create_dir(from.path().join("many")).unwrap();
    for number in 0..500 {
        fs::write(from.path().join(format!("many/{number}")), format!("file {number}")).unwrap();
    }
    fs::write(from.path().join("left.out"), "x").unwrap();
    fs::hard_link(from.path().join("large"), from.path().join("same")).unwrap();
    let (services, counts) = offered(from.path(), &["*.out"]);
    let ends = connect(services).await;
    let first = sync(&ends.session, to.path(), Vec::new(), &[]).await.unwrap();
    assert_eq!((first.sent, first.entries.len()), (501, 503));
    assert_eq!(fs::read(to.path().join("same")).unwrap(), large);
    assert_eq!(fs::read_to_string(to.path().join("many/77")).unwrap(), "file 77");
    assert!(!to.path().join("left.out").exists());
    assert!(counts.whole.load(Ordering::Relaxed));
    assert!(counts.moved.load(Ordering::Relaxed) > large.len());

    fs::write(from.path().join("many/77"), "changed").unwrap();
    counts.moved.store(0, Ordering::Relaxed);
    let second = sync(&ends.session, to.path(), first.entries, &[]).await.unwrap();
    assert_eq!(second.sent, 1);
    assert_eq!(fs::read_to_string(to.path().join("many/77")).unwrap(), "changed");
    assert!(counts.moved.load(Ordering::Relaxed) < 50_000, "{counts:?}", counts = counts.moved);

    let third = sync(&ends.session, to.path(), second.entries, &["many"]).await.unwrap();
    assert_eq!((third.sent, third.entries.len()), (0, 2));
    assert!(!to.path().join("many").exists());

    ends.client.abort();
    ends.session.ended().await;
    while ends.sessions.has("test") {
        tokio::task::yield_now().await;
    }
    assert!(sync(&ends.session, to.path(), third.entries, &[]).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_handed_over_and_digested_on_the_way() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let sizes = (0..200).map(|number| number * 700).chain([3 << 20]);
    let contents: Vec<_> = sizes.enumerate().map(|(number, size)| vec![number as u8; size]).collect();
    for (number, content) in contents.iter().enumerate() {
        fs::write(from.path().join(format!("{number:03}")), content).unwrap();
    }
    let (mut services, _) = offered(from.path(), &[]);
    let directory = services.directories.get_mut("context").and_then(Arc::get_mut).unwrap();
    directory.inserts = vec![Insert { name: "100".into(), content: b"instead".to_vec() }];
    let ends = connect(services).await;
    let learned = Mutex::new(HashMap::new());
    let wanted = Wanted { directory: "context".into(), ..Wanted::default() };
    let mut learn = |file: &fs::File, sum| {
        assert!(learned.lock().unwrap().insert(file.metadata().unwrap().ino(), sum).is_none())
    };
    let bounds = &mut || Ok(());
    let received =
        ends.session.files(&wanted, open(to.path()), Vec::new(), Bounds::new(bounds), &mut learn).await;
    assert_eq!(received.unwrap().entries.len(), contents.len());
    let learned = learned.into_inner().unwrap();
    // The first is empty, and one is content without a file.
    assert_eq!(learned.len(), contents.len() - 2);
    for (number, content) in contents.iter().enumerate() {
        let path = to.path().join(format!("{number:03}"));
        let content = if number == 100 { b"instead" } else { content.as_slice() };
        assert_eq!(fs::read(&path).unwrap(), content);
        if let Some(sum) = learned.get(&fs::metadata(&path).unwrap().ino()) {
            assert_eq!(sum[..], Sha256::digest(content)[..]);
        }
    }
    ends.client.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_read_when_they_are_asked_for() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("secret");
    let secrets = HashMap::from([
        ("file".to_owned(), Secret::File(path.clone())),
        ("value".to_owned(), Secret::Value(b"v".to_vec())),
        ("dir".to_owned(), Secret::File(temp.path().to_owned())),
    ]);
    let ends = connect(Services { secrets, ..Services::default() }).await;
    assert!(ends.session.secret("file").await.is_err());
    fs::write(&path, "s\0").unwrap();
    assert_eq!(ends.session.secret("file").await.unwrap().unwrap(), b"s\0");
    assert_eq!(ends.session.secret("value").await.unwrap().unwrap(), b"v");
    assert_eq!(ends.session.secret("absent").await.unwrap(), None);
    assert!(ends.session.secret("dir").await.unwrap_err().to_string().contains("no file of at most"));
    fs::write(&path, vec![0; 501 << 10]).unwrap();
    assert!(ends.session.secret("file").await.is_err());
    let error = sync(&ends.session, temp.path(), Vec::new(), &[]).await.unwrap_err();
    assert_eq!(error.to_string(), "the client of the build offers no files");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_reached_through_both_ends() {
    let temp = tempfile::tempdir().unwrap();
    let (own, theirs) = (temp.path().join("own"), temp.path().join("theirs"));
    let listener = UnixListener::bind(&own).unwrap();
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = [0; 5];
        stream.read_exact(&mut asked).await.unwrap();
        stream.write_all(b"keys").await.unwrap();
        asked
    });
    let agents = HashMap::from([("default".to_owned(), own)]);
    let ends = connect(Services { agents, ..Services::default() }).await;
    assert!(ends.session.agent("other", &theirs, (0, 0), 0o600).await.is_err());
    let agent = ends.session.agent("", &theirs, (0, 0), 0o600).await.unwrap();
    let mut stream = UnixStream::connect(agent.path()).await.unwrap();
    stream.write_all(&[0, 0, 0, 1, 11]).await.unwrap();
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!((&answer, asked.await.unwrap()), (b"keys", [0, 0, 0, 1, 11]));
    drop(agent);
    assert!(!theirs.exists());
}

struct Kept(Arc<Mutex<Vec<u8>>>);

impl Write for Kept {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_and_accounts() {
    let kept = Arc::new(Mutex::new(Vec::new()));
    let output: berth_session::Output = Box::new(Kept(Arc::clone(&kept)));
    let account = |host: &str| (host == "r.example").then(|| ("u".to_owned(), "p".to_owned()));
    let services = Services {
        outputs: Mutex::new(HashMap::from([(2, output)])),
        accounts: Some(Box::new(account)),
        ..Services::default()
    };
    let ends = connect(services).await;
    let pieces = || futures_util::stream::iter([b"one ".to_vec(), b"two".to_vec()]);
    assert!(ends.session.output(1, &[], pieces()).await.is_err());
    ends.session.output(2, &[("containerimage.digest", "sha256:x")], pieces()).await.unwrap();
    assert_eq!(*kept.lock().unwrap(), b"one two");
    assert!(ends.session.output(2, &[], pieces()).await.is_err());
    assert_eq!(ends.session.account("r.example").await.unwrap(), Some(("u".into(), "p".into())));
    assert_eq!(ends.session.account("other").await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_does_not_come_is_not_waited_for() {
    let sessions = Arc::new(Sessions::default());
    let error = sessions.get("absent").await.unwrap_err();
    assert_eq!(error.to_string(), "no active session for absent");
    // A name is free again when its connection never came about.
    let offer = Offer { id: "x".into(), ..Offer::default() };
    drop(sessions.claim(offer.clone()).unwrap());
    assert!(sessions.claim(offer).is_ok());
}
