//! Docker's log format as its users see it: over rotation, compression, crashes and while it is followed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use berth_shim::log::{Entry, Follow, JsonWriter, LogSettings, Query, Reader, Record, Stream};
use proptest::prelude::*;
use tokio::sync::watch;

fn writer(path: &Path, max_file_bytes: u64, max_files: u32, compress: bool) -> JsonWriter {
    let settings = LogSettings { max_file_bytes, max_files };
    JsonWriter::open(path, settings, compress, &BTreeMap::new()).unwrap()
}

fn text(record: &Record) -> String {
    let Entry::Output { payload, .. } = &record.entry else { panic!("{record:?}") };
    String::from_utf8_lossy(payload).into_owned()
}

fn read(path: &Path, query: Query) -> Vec<String> {
    Reader::JsonFile(path.into()).records(query).unwrap().map(|record| text(&record.unwrap())).collect()
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| format!("line {number}")).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let names = std::fs::read_dir(directory).unwrap();
    let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn rotated_files_are_bounded_numbered_and_read_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x-json.log");
    let mut log = writer(&path, 1_000, 3, false);
    let all: String = (0..100).map(|number| format!("line {number}\n")).collect();
    log.write(Stream::Stdout, all.as_bytes());
    assert_eq!(names(directory.path()), ["x-json.log", "x-json.log.1", "x-json.log.2"]);
    for name in names(directory.path()) {
        assert!(directory.path().join(&name).metadata().unwrap().len() <= 1_000, "{name}");
    }
    let kept = read(&path, Query::default());
    assert!(kept.len() > 20 && numbers(0..100).ends_with(&kept), "{kept:?}");
    for tail in [0, 1, 5, 15, 30] {
        let some = read(&path, Query { tail: Some(tail as u64), ..Query::default() });
        assert_eq!(some[..], kept[kept.len().saturating_sub(tail)..], "{tail}");
    }
}

#[test]
fn reading_ends_where_the_log_ended_when_it_began() {
    for query in [Query::default(), Query { tail: Some(2), ..Query::default() }] {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x-json.log");
        let mut log = writer(&path, 1_000, 3, false);
        log.write(Stream::Stdout, b"before\nbefore\n");
        let mut count = 0;
        // Each line that is read brings two more.
        for record in Reader::JsonFile(path).records(query).unwrap() {
            assert_eq!(text(&record.unwrap()), "before");
            log.write(Stream::Stdout, b"after\nafter\n");
            count += 1;
        }
        assert_eq!(count, 2);
    }
}

#[test]
fn compressed_files_are_read_like_the_others() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x-json.log");
    let mut log = writer(&path, 2_000, 5, true);
    for number in 0..80 {
        log.write(Stream::Stdout, format!("line {number}\n").as_bytes());
    }
    log.finish(Stream::Stdout);
    let found = names(directory.path());
    assert!(
        found.contains(&"x-json.log.1.gz".into()) && found.contains(&"x-json.log.2.gz".into()),
        "{found:?}"
    );
    assert!(found.iter().all(|name| name == "x-json.log" || name.ends_with(".gz")), "{found:?}");
    assert_eq!(read(&path, Query::default()), numbers(0..80));
    assert_eq!(read(&path, Query { tail: Some(50), ..Query::default() }), numbers(30..80));
}

#[test]
fn a_torn_line_is_cut_and_the_log_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x-json.log");
    writer(&path, 10_000, 2, false).write(Stream::Stdout, b"a\nb\n");
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 3]).unwrap();
    writer(&path, 10_000, 2, false).write(Stream::Stdout, b"c\n");
    assert_eq!(read(&path, Query::default()), ["a", "c"]);
}

#[test]
fn long_lines_are_written_in_pieces() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x-json.log");
    let line = [vec![b'x'; 40_000], vec![b'\n']].concat();
    writer(&path, 1_000_000, 2, false).write(Stream::Stdout, &line);
    let records: Vec<_> =
        Reader::JsonFile(path.clone()).records(Query::default()).unwrap().map(Result::unwrap).collect();
    let partial = |record: &Record| matches!(record.entry, Entry::Output { partial: true, .. });
    assert_eq!(records.iter().map(partial).collect::<Vec<_>>(), [true, true, false]);
    assert_eq!(records.iter().map(text).collect::<String>().len(), 40_000);
    assert_eq!(std::fs::read_to_string(&path).unwrap().matches("\\n\"").count(), 1);
    let tail = Query { tail: Some(1), ..Query::default() };
    assert_eq!(read(&path, tail).concat().len(), 40_000, "a tail counts lines, not pieces");
}

async fn collect(mut follow: Follow) -> Vec<String> {
    let mut texts = Vec::new();
    while let Some(record) = follow.next().await.unwrap() {
        texts.push(text(&record));
    }
    texts
}

/// More rotations than a reader that is slow keeps up with by name, but none whose file is gone.
async fn follows(compress: bool) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x-json.log");
    let (end, ended) = watch::channel(false);
    let follow = Reader::JsonFile(path.clone()).follow(Query::default(), ended).unwrap();
    let reading = tokio::spawn(collect(follow));
    let writing = tokio::task::spawn_blocking(move || {
        let mut log = writer(&path, 4_000, 500, compress);
        for number in 0..3_000 {
            log.write(Stream::Stdout, format!("line {number}\n").as_bytes());
        }
        log.finish(Stream::Stdout);
    });
    writing.await.unwrap();
    end.send(true).unwrap();
    let texts = tokio::time::timeout(Duration::from_secs(30), reading).await.unwrap().unwrap();
    assert_eq!(texts, numbers(0..3_000));
}

#[tokio::test(flavor = "multi_thread")]
async fn follow_survives_rotation() {
    follows(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn follow_survives_rotation_with_compression() {
    follows(true).await;
}

#[test]
fn since_and_until_bound_the_records() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x-json.log");
    let line = |second| {
        format!(
            "{{\"log\":\"{second}\\n\",\"stream\":\"stdout\",\"time\":\"2024-01-01T00:00:0{second}Z\"}}\n"
        )
    };
    std::fs::write(&path, (0..9).map(line).collect::<String>()).unwrap();
    let moment = |second: u32| Some(format!("2024-01-01T00:00:0{second}Z").parse().unwrap());
    assert_eq!(read(&path, Query { since: moment(3), until: moment(5), tail: None }), ["3", "4", "5"]);
}

/// A new file may get the inode number of one that was compressed; they must not be taken for the same.
#[test]
fn files_of_equal_lines_are_all_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x-json.log");
    let mut log = writer(&path, 350, 1_000, true);
    log.write(Stream::Stdout, &[b'\n'; 300]);
    log.finish(Stream::Stdout);
    assert_eq!(read(&path, Query::default()).len(), 300);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn everything_comes_back(
        chunks in prop::collection::vec("[a-z\n\"<]{0,60}", 1..30), max in 300u64..5_000, compress: bool, tail in 0usize..40
    ) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x-json.log");
        let mut log = writer(&path, max, 1_000, compress);
        for chunk in &chunks {
            log.write(Stream::Stdout, chunk.as_bytes());
        }
        log.finish(Stream::Stdout);
        let written = chunks.concat();
        let lines: Vec<_> = written.lines().map(str::to_owned).collect();
        prop_assert_eq!(read(&path, Query::default()), &lines[..]);
        let some = read(&path, Query { tail: Some(tail as u64), ..Query::default() });
        prop_assert_eq!(some, &lines[lines.len().saturating_sub(tail)..]);
    }
}
