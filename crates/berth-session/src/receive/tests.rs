use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use tokio::sync::mpsc;

use super::*;
use crate::Kind;

fn entry(path: &str, kind: Kind, size: u64, modified: i64) -> Entry {
    let permissions = if kind == Kind::Directory { 0o755 } else { 0o640 };
    let (path, link, capability) = (path.into(), Vec::new(), Vec::new());
    Entry { path, kind, permissions, uid: 0, gid: 0, size, modified, link, device: (0, 0), capability }
}

fn file(path: &str, content: &str, modified: i64) -> (Entry, Vec<u8>) {
    (entry(path, Kind::File, content.len() as u64, modified), content.into())
}

fn directory(path: &str) -> (Entry, Vec<u8>) {
    (entry(path, Kind::Directory, 0, 5), Vec::new())
}

fn linked(path: &str, kind: Kind, target: &str) -> (Entry, Vec<u8>) {
    (Entry { link: target.into(), ..entry(path, kind, 0, 1) }, Vec::new())
}

fn tree(root: &Path, known: Vec<Entry>) -> Tree {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY;
    Tree::new(rustix::fs::open(root, flags, Mode::empty()).unwrap(), known)
}

/// An honest end that has these files.
async fn sync(root: &Path, known: Vec<Entry>, files: &[(Entry, Vec<u8>)]) -> Result<Received, Error> {
    let (requests, mut asked) = mpsc::channel(REQUESTS);
    let (packets, incoming) = mpsc::channel(4);
    let contents: Vec<Vec<u8>> = files.iter().map(|(_, content)| content.clone()).collect();
    let mut messages: Vec<Message> =
        files.iter().map(|(entry, _)| Message::Entry(Box::new(entry.clone()))).collect();
    messages.push(Message::End);
    let told = packets.clone();
    tokio::spawn(async move {
        for message in messages {
            let _ = told.send(Ok(message.packet())).await;
        }
    });
    tokio::spawn(async move {
        while let Some(packet) = asked.recv().await {
            let answer = match Message::of(packet).unwrap() {
                Message::Request(number) => {
                    for piece in contents[number as usize].chunks(3) {
                        let piece = bytes::Bytes::copy_from_slice(piece);
                        packets.send(Ok(Message::Data(number, piece).packet())).await.unwrap();
                    }
                    Message::Data(number, bytes::Bytes::new())
                }
                Message::Finished => Message::Finished,
                other => panic!("{other:?}"),
            };
            let _ = packets.send(Ok(answer.packet())).await;
        }
    });
    let incoming =
        futures_util::stream::unfold(incoming, |mut all| async move { Some((all.recv().await?, all)) });
    receive(incoming, &requests, None, tree(root, known), Bounds::new(&mut || Ok(())), &mut |_, _| {}).await
}

/// What becomes of packets that nobody honest sends.
async fn hostile(root: &Path, bounds: (usize, usize), messages: Vec<Message>) -> String {
    let (requests, _asked) = mpsc::channel(REQUESTS);
    let packets = futures_util::stream::iter(messages.into_iter().map(|message| Ok(message.packet())));
    let mut room = || Ok(());
    let bounds = Bounds { files: bounds.0, told: bounds.1, room: &mut room };
    receive(packets, &requests, None, tree(root, Vec::new()), bounds, &mut |_, _| {})
        .await
        .unwrap_err()
        .to_string()
}

#[tokio::test]
async fn a_tree_becomes_what_is_told_and_only_what_changed_is_sent() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    let first = [
        file("a", "first", 1_500_000_000_123_456_789),
        linked("b", Kind::File, "a"),
        directory("d"),
        directory("d/e"),
        file("d/e/f", "deep", 2),
        file("d/empty", "", 3),
        linked("l", Kind::Link, "/etc/passwd"),
        (entry("p", Kind::Pipe, 0, 4), Vec::new()),
    ];
    let received = sync(temp.path(), Vec::new(), &first).await.unwrap();
    assert_eq!((received.sent, received.entries.len()), (2, 8));
    assert_eq!(fs::read_to_string(at("b")).unwrap(), "first");
    let told = fs::metadata(at("a")).unwrap();
    assert_eq!((told.nlink(), told.permissions().mode() & 0o7777), (2, 0o640));
    assert_eq!((told.mtime(), told.mtime_nsec()), (1_500_000_000, 123_456_789));
    assert_eq!(fs::read_link(at("l")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!(fs::metadata(at("d")).unwrap().mtime_nsec(), 5);

    let again = sync(temp.path(), received.entries, &first).await.unwrap();
    assert_eq!(again.sent, 0);

    // The file of two names is another one; a directory becomes a file and a file a directory; one goes.
    let second = [
        file("a", "other", 7),
        linked("b", Kind::File, "a"),
        file("d", "no directory", 8),
        directory("l"),
        file("l/new", "n", 9),
    ];
    let received = sync(temp.path(), again.entries, &second).await.unwrap();
    assert_eq!(received.sent, 3);
    assert_eq!(fs::read_to_string(at("b")).unwrap(), "other");
    assert_eq!(fs::read_to_string(at("d")).unwrap(), "no directory");
    assert_eq!(fs::read_to_string(at("l/new")).unwrap(), "n");
    assert!(!at("p").exists());
    let received = sync(temp.path(), received.entries, &[]).await.unwrap();
    assert_eq!((received.sent, fs::read_dir(temp.path()).unwrap().count()), (0, 0));
}

#[tokio::test]
async fn files_that_change_while_they_are_read_come_again() {
    let temp = tempfile::tempdir().unwrap();
    let (told, _) = file("grows", "1234", 1);
    let (short, _) = file("shrinks", "1234", 1);
    let files = [(told, b"123456".to_vec()), (short, b"12".to_vec())];
    let received = sync(temp.path(), Vec::new(), &files).await.unwrap();
    assert_eq!(fs::read_to_string(temp.path().join("grows")).unwrap(), "1234");
    assert_eq!(fs::read_to_string(temp.path().join("shrinks")).unwrap(), "12");
    let whole = [file("grows", "1234", 1), file("shrinks", "1234", 1)];
    let again = sync(temp.path(), received.entries, &whole).await.unwrap();
    assert_eq!(again.sent, 1);
    assert_eq!(fs::read_to_string(temp.path().join("shrinks")).unwrap(), "1234");
}

#[tokio::test]
async fn hostile_ends_are_refused_and_nothing_leaves_the_tree() {
    let temp = tempfile::tempdir().unwrap();
    let (root, outside) = (temp.path().join("root"), temp.path().join("outside"));
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "kept").unwrap();
    let told = |file: (Entry, Vec<u8>)| Message::Entry(Box::new(file.0));
    let data = |number, text: &'static str| Message::Data(number, bytes::Bytes::from_static(text.as_bytes()));
    let link = || told(linked("l", Kind::Link, "../outside"));
    let many = |count: usize| (0..count).map(|at| told(directory(&format!("{at:09}")))).collect::<Vec<_>>();
    for (expected, messages) in [
        ("impossible path \"..\"", vec![told(file("..", "x", 1))]),
        ("absolute path \"/etc/cron.d\"", vec![told(file("/etc/cron.d", "x", 1))]),
        ("files out of order: \"l/new\"", vec![link(), told(file("l/new", "x", 1))]),
        ("files out of order: \"l\"", vec![told(directory("l")), link()]),
        ("invalid link \"m\" to unknown path \"l\"", vec![link(), told(linked("m", Kind::File, "l"))]),
        ("impossible path \"../outside/kept\"", vec![told(linked("m", Kind::File, "../outside/kept"))]),
        ("invalid link \"b\"", vec![told(linked("b", Kind::File, "c"))]),
        ("content of file 0, which was not asked for", vec![data(0, "x")]),
        ("content of file 7", vec![told(file("a", "x", 1)), data(7, "x")]),
        ("content of file 0", vec![told(file("a", "x", 1)), data(0, "x"), data(0, ""), data(0, "again")]),
        ("a request out of turn", vec![Message::Request(0)]),
        ("the end out of turn", vec![told(file("a", "x", 1)), Message::Finished]),
        ("a file's name out of turn", vec![Message::End, told(directory("a"))]),
        ("a file's name out of turn", vec![told(file("a", "x", 1)), Message::End, Message::End]),
        ("more than 50 files", many(51)),
        ("went away before", vec![told(file("a", "x", 1)), Message::End, data(0, "x")]),
        ("error from sender: no such file", vec![Message::Failed("no such file".into())]),
    ] {
        let _ = fs::remove_dir_all(&root);
        fs::create_dir(&root).unwrap();
        let told = hostile(&root, (50, 1 << 20), messages).await;
        assert!(told.contains(expected), "{told}: {expected}");
    }
    let _ = fs::remove_dir_all(&root);
    fs::create_dir(&root).unwrap();
    assert!(hostile(&root, (1000, 500), many(100)).await.contains("more than"));
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(outside.join("kept")).unwrap(), "kept");
}

#[tokio::test]
async fn room_that_runs_out_ends_it() {
    let temp = tempfile::tempdir().unwrap();
    let (requests, _asked) = mpsc::channel(REQUESTS);
    let large = entry("large", Kind::File, 1 << 40, 1);
    let piece = bytes::Bytes::from(vec![0; 8 << 20]);
    let first = [Message::Entry(Box::new(large)), Message::End];
    let messages = first.into_iter().chain((0..9).map(|_| Message::Data(0, piece.clone())));
    let packets = futures_util::stream::iter(messages.map(|message| Ok(message.packet())));
    let mut full = || Err(Error::refused("no space"));
    let error = receive(
        packets,
        &requests,
        None,
        tree(temp.path(), Vec::new()),
        Bounds::new(&mut full),
        &mut |_, _| {},
    )
    .await;
    assert!(error.unwrap_err().to_string().contains("no space"));
}
