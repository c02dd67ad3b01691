use std::fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use berth_sys::socket;
use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};

use super::*;
use crate::tree::{Incoming, Tree};
use crate::{Entry, Kind};

fn tree(root: &Path, names: &[&str], size: u64) -> Tree {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    let mut tree = Tree::new(rustix::fs::open(root, flags, Mode::empty()).unwrap(), Vec::new());
    for name in names {
        let entry = Entry {
            path: name.as_bytes().to_vec(),
            kind: Kind::File,
            permissions: 0o644,
            uid: 0,
            gid: 0,
            size,
            modified: 1,
            link: Vec::new(),
            device: (0, 0),
            capability: Vec::new(),
        };
        assert!(tree.entry(entry).unwrap());
    }
    tree.end().unwrap();
    tree
}

/// What comes of the file with this number, without what is told on the way.
async fn outcome(taking: &mut Taking, incoming: Incoming) -> Taken {
    assert!(taking.want(incoming).is_ok());
    loop {
        match taking.next().await {
            Taken::Part(_) => {}
            taken => return taken,
        }
    }
}

/// A sender that shows the right secret, and gives this answer to everything, until its listener is closed.
fn hostile(
    invitation: &Invitation,
    marks: Vec<u8>,
    files: Vec<fs::File>,
) -> (Arc<OwnedFd>, std::thread::JoinHandle<()>) {
    let listener = Arc::new(socket::listen_abstract(&invitation.name(), 4).unwrap());
    let (own, secrets) = (Arc::clone(&listener), Invitation(invitation.0));
    let sender = std::thread::spawn(move || {
        std::thread::scope(|scope| {
            while let Ok(connection) = socket::accept(&*own) {
                let (marks, files, secrets) = (&marks, &files, &secrets);
                scope.spawn(move || {
                    assert_eq!(socket::receive(&connection, SECRET).unwrap().bytes, secrets.of_taker());
                    socket::send(&connection, secrets.of_giver(), &[]).unwrap();
                    while socket::receive(&connection, 4 * BATCH).is_ok_and(|asked| !asked.bytes.is_empty()) {
                        let descriptors: Vec<BorrowedFd<'_>> = files.iter().map(AsFd::as_fd).collect();
                        let _ = socket::send(&connection, marks, &descriptors);
                    }
                });
            }
        });
    });
    (listener, sender)
}

#[test]
fn invitations_are_read_as_they_are_written() {
    let invitation = Invitation::new().unwrap();
    assert_eq!(Invitation::of(&invitation.text()).unwrap().0, invitation.0);
    let short = BASE64.encode([1; 47]);
    for text in ["", "1", "not base64!", &short, &format!("{}AA", invitation.text())] {
        assert!(Invitation::of(text).is_none(), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn files_are_taken_as_they_are_and_what_is_not_given_is_told() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let large = vec![7; (33 << 20) + 1];
    fs::write(from.path().join("0"), &large).unwrap();
    fs::write(from.path().join("1"), "short").unwrap();
    let root = from.path().to_owned();
    let (invitation, giving) =
        Giving::begin(Arc::new(move |number| fs::File::open(root.join(number.to_string())).ok())).unwrap();
    // A stranger, who knows the name, gets nothing, and is in nobody's way.
    let stranger = socket::connect_abstract(&invitation.name(), Duration::from_secs(30)).unwrap();
    socket::send(&stranger, &[0; SECRET], &[]).unwrap();
    assert!(socket::receive(&stranger, 64).unwrap().bytes.is_empty());
    let silent = socket::connect_abstract(&invitation.name(), Duration::from_secs(30)).unwrap();

    let mut taking = Taking::begin(&Invitation::of(&invitation.text()).unwrap(), 8).unwrap();
    let size = large.len() as u64;
    let mut tree = tree(to.path(), &["0", "1", "2"], size);
    for (number, content) in [(0, &large[..]), (1, b"short")] {
        let Taken::Whole(incoming) = outcome(&mut taking, tree.open(number).unwrap()).await else {
            panic!("{number}")
        };
        assert_eq!((incoming.number(), incoming.length()), (number, content.len() as u64));
        let (_, sum) = tree.close(incoming).unwrap().unwrap();
        assert_eq!(sum, <crate::Sum>::from(Sha256::digest(content)));
        assert_eq!(fs::read(to.path().join(number.to_string())).unwrap(), content);
    }
    let absent = outcome(&mut taking, tree.open(2).unwrap()).await;
    assert!(matches!(absent, Taken::Absent(incoming) if incoming.number() == 2));
    assert_eq!(taking.under_way(), 0);

    drop(giving);
    assert!(socket::receive(&silent, 64).unwrap().bytes.is_empty());
    fs::remove_file(to.path().join("2")).unwrap();
    let absent = outcome(&mut taking, tree.open(2).unwrap()).await;
    assert!(matches!(absent, Taken::Absent(_)));
    drop(taking);
    assert!(Taking::begin(&invitation, 8).is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_regular_file_is_refused() {
    let temp = tempfile::tempdir().unwrap();
    let pipe = temp.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, Mode::from_raw_mode(0o600)).unwrap();
    // Open at both ends, so that nobody waits here; whoever read it would.
    let pipe = fs::File::options().read(true).write(true).open(pipe).unwrap();
    let written = fs::File::create(temp.path().join("written")).unwrap();
    let files = [pipe, fs::File::open(temp.path()).unwrap(), fs::File::open("/dev/zero").unwrap(), written];
    for (number, file) in files.into_iter().enumerate() {
        let to = temp.path().join(format!("to-{number}"));
        fs::create_dir(&to).unwrap();
        let invitation = Invitation::new().unwrap();
        let (listener, sender) = hostile(&invitation, vec![1], vec![file]);
        let mut taking = Taking::begin(&invitation, 8).unwrap();
        let taken = outcome(&mut taking, tree(&to, &["0"], 9).open(0).unwrap()).await;
        match taken {
            Taken::Failed(error) if number < 3 => {
                assert!(error.to_string().contains("\"0\" is no regular file"), "{number}: {error}");
            }
            // What may not be read here may be sent.
            Taken::Absent(_) if number == 3 => {}
            _ => panic!("{number}"),
        }
        drop(taking);
        socket::close(&*listener);
        sender.join().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_that_are_none_end_it_and_nothing_is_lost() {
    let temp = tempfile::tempdir().unwrap();
    let null = || fs::File::open("/dev/null").unwrap();
    for (number, (marks, files)) in [
        (vec![1, 1], vec![null(), null()]),
        (vec![1], vec![]),
        (vec![0], vec![null()]),
        (vec![2], vec![null()]),
        (vec![], vec![]),
        (vec![0; BATCH + 1], vec![]),
    ]
    .into_iter()
    .enumerate()
    {
        let to = temp.path().join(number.to_string());
        fs::create_dir(&to).unwrap();
        let invitation = Invitation::new().unwrap();
        let (listener, sender) = hostile(&invitation, marks, files);
        let mut taking = Taking::begin(&invitation, 8).unwrap();
        let mut tree = tree(&to, &["0", "1", "2", "3", "4", "5", "6", "7"], 9);
        let mut absent = 0;
        for file in 0..8 {
            let taken = match taking.want(tree.open(file).unwrap()) {
                Ok(()) => taking.next().await,
                Err(incoming) => Taken::Absent(incoming),
            };
            absent += usize::from(matches!(taken, Taken::Absent(incoming) if incoming.number() == file));
        }
        assert_eq!((absent, taking.under_way()), (8, 0), "{number}");
        drop(taking);
        socket::close(&*listener);
        sender.join().unwrap();
    }
}
