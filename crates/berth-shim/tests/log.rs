//! The log as its users see it: written by one `Writer`, read by many, over rotation, restarts and full disks.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_shim::log::{Entry, JsonWriter, LogError, LogSettings, Query, Reader, Record, Stream, Writer};
use proptest::prelude::*;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use tokio::sync::watch;

fn small() -> LogSettings {
    LogSettings { max_file_bytes: 2_000, max_files: 3 }
}

fn read(directory: &Path, query: Query) -> Vec<Record> {
    Reader::open(directory).records(query).unwrap().collect::<Result<_, _>>().unwrap()
}

fn text(record: &Record) -> String {
    match &record.entry {
        Entry::Output { payload, .. } => String::from_utf8_lossy(payload).into_owned(),
        Entry::Lost { records, .. } => format!("lost {records}"),
    }
}

fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(text).collect()
}

fn segments(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn lines_come_back_with_stream_and_order() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(directory.path(), LogSettings::default()).unwrap();
    writer.write(Stream::Stdout, b"one\ntw");
    writer.write(Stream::Stderr, b"error\n");
    writer.write(Stream::Stdout, b"o\nrest");
    writer.finish(Stream::Stdout);
    let records = read(directory.path(), Query::default());
    assert_eq!(texts(&records), ["one", "error", "two", "rest"]);
    assert_eq!(records.iter().map(|record| record.sequence).collect::<Vec<_>>(), [0, 1, 2, 3]);
    let Entry::Output { stream: Stream::Stderr, partial: false, .. } = records[1].entry else { panic!() };
    let Entry::Output { partial: true, .. } = records[3].entry else { panic!("a line without newline") };
}

#[test]
fn lines_that_never_came_leave_a_record_in_their_place() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(directory.path(), LogSettings::default()).unwrap();
    writer.write(Stream::Stdout, b"one\ntw");
    writer.lose(3, 30);
    writer.write(Stream::Stdout, b"five\n");
    assert_eq!(texts(&read(directory.path(), Query::default())), ["one", "tw", "lost 3", "five"]);
    let path = directory.path().join("x-json.log");
    let mut json = JsonWriter::open(&path, LogSettings::default(), false, &Default::default()).unwrap();
    json.write(Stream::Stdout, b"one\n");
    json.lose(3, 30);
    json.write(Stream::Stdout, b"five\n");
    let lines = std::fs::read_to_string(&path).unwrap();
    let told = lines.lines().nth(1).unwrap();
    assert!(lines.lines().count() == 3 && told.contains("[berth: 3 log records (30 bytes)"), "{lines}");
}

#[test]
fn a_missing_log_is_empty() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("none");
    assert!(read(&missing, Query::default()).is_empty());
    assert!(read(&missing, Query { tail: Some(3), ..Query::default() }).is_empty());
}

#[test]
fn rotation_keeps_the_newest_files_within_their_size() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(directory.path(), small()).unwrap();
    for index in 0..500 {
        writer.write(Stream::Stdout, format!("line {index}\n").as_bytes());
    }
    let files = segments(directory.path());
    assert_eq!(files.len(), 3);
    assert!(files.iter().all(|path| path.metadata().unwrap().len() <= 2_000));
    let records = read(directory.path(), Query::default());
    assert_eq!(records.last().map(text).unwrap(), "line 499");
    let first = records[0].sequence;
    assert!(records.iter().zip(first..).all(|(record, sequence)| record.sequence == sequence));
}

#[test]
fn a_new_writer_goes_on_where_the_old_one_stopped() {
    let directory = tempfile::tempdir().unwrap();
    for round in 0..50 {
        let mut writer = Writer::open(directory.path(), small()).unwrap();
        writer.write(Stream::Stdout, format!("round {round}\n").as_bytes());
    }
    let records = read(directory.path(), Query::default());
    assert_eq!(records.len(), 50);
    assert_eq!(records[49].sequence, 49);
}

#[test]
fn a_torn_tail_is_cut_and_the_log_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(directory.path(), LogSettings::default()).unwrap();
    writer.write(Stream::Stdout, b"one\ntwo\nthree\n");
    drop(writer);
    let path = &segments(directory.path())[0];
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() - 3]).unwrap();
    assert_eq!(texts(&read(directory.path(), Query::default())), ["one", "two"]);
    assert_eq!(texts(&read(directory.path(), Query { tail: Some(1), ..Query::default() })), ["two"]);
    let mut writer = Writer::open(directory.path(), LogSettings::default()).unwrap();
    writer.write(Stream::Stdout, b"four\n");
    let records = read(directory.path(), Query::default());
    assert_eq!(texts(&records), ["one", "two", "four"]);
    assert_eq!(records[2].sequence, 2);
}

#[test]
fn damage_is_reported_and_the_next_segment_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(directory.path(), small()).unwrap();
    for index in 0..100 {
        writer.write(Stream::Stdout, format!("line {index}\n").as_bytes());
    }
    let path = &segments(directory.path())[0];
    let mut bytes = std::fs::read(path).unwrap();
    bytes[100] ^= 0xff;
    bytes[101] ^= 0xff;
    bytes[102] ^= 0xff;
    bytes[103] ^= 0xff;
    for byte in &mut bytes[60..200] {
        *byte ^= 0x5a;
    }
    std::fs::write(path, &bytes).unwrap();
    let results: Vec<_> = Reader::open(directory.path()).records(Query::default()).unwrap().collect();
    let damaged = results.iter().filter(|result| matches!(result, Err(LogError::Damaged { .. }))).count();
    assert_eq!(damaged, 1);
    assert_eq!(text(results.last().unwrap().as_ref().unwrap()), "line 99");
}

#[test]
fn reading_ends_where_the_log_ended_when_it_began() {
    for query in [Query::default(), Query { tail: Some(2), ..Query::default() }] {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(directory.path(), small()).unwrap();
        writer.write(Stream::Stdout, b"before\nbefore\n");
        let mut count = 0;
        // Each line that is read brings two more.
        for record in Reader::open(directory.path()).records(query).unwrap() {
            assert_eq!(text(&record.unwrap()), "before");
            writer.write(Stream::Stdout, b"after\nafter\n");
            count += 1;
        }
        assert_eq!(count, 2);
    }
}

#[test]
fn tail_counts_lines_and_not_pieces() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(directory.path(), LogSettings::default()).unwrap();
    let mut long = vec![b'x'; 40_000];
    long.push(b'\n');
    writer.write(Stream::Stdout, b"first\n");
    writer.write(Stream::Stdout, &long);
    writer.write(Stream::Stdout, b"last\n");
    let tail = |lines| read(directory.path(), Query { tail: Some(lines), ..Query::default() });
    assert_eq!(tail(0).len(), 0);
    assert_eq!(texts(&tail(1)), ["last"]);
    assert_eq!(tail(2).len(), 4, "three pieces of 16 KiB and less, and the last line");
    assert_eq!(text(&tail(3)[0]), "first");
    assert_eq!(text(&tail(30)[0]), "first");
}

#[test]
fn since_and_until_cut_by_time() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(directory.path(), small()).unwrap();
    for index in 0..90 {
        writer.write(Stream::Stdout, format!("line {index}\n").as_bytes());
    }
    let all = read(directory.path(), Query::default());
    let (from, to) = (all.len() / 2, all.len() - 5);
    let query = Query { since: Some(all[from].time), until: Some(all[to].time), tail: None };
    assert_eq!(texts(&read(directory.path(), query)), texts(&all[from..=to]));
}

/// A small file system that no mount table shows: it lives as long as its descriptor.
fn tiny_tmpfs(size: &str) -> (OwnedFd, PathBuf) {
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    rustix::mount::fsconfig_set_string(&context, "size", size).unwrap();
    rustix::mount::fsconfig_create(&context).unwrap();
    let mount =
        rustix::mount::fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
    let path = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    (mount, path)
}

#[test]
fn a_full_disk_loses_records_and_says_how_many() {
    let (_mount, path) = tiny_tmpfs("256k");
    let log = path.join("log");
    let mut writer = Writer::open(&log, LogSettings { max_file_bytes: 100_000_000, max_files: 2 }).unwrap();
    writer.write(Stream::Stdout, b"before\n");
    let filler = path.join("filler");
    let mut filled = 0;
    // Fill what is left, so that not one more page fits.
    while std::fs::write(path.join(format!("filler{filled}")), vec![0; 64 * 1024]).is_ok() {
        filled += 1;
    }
    std::fs::write(&filler, vec![0; 4096]).ok();
    let line = vec![b'x'; 10_000];
    for _ in 0..20 {
        writer.write(Stream::Stdout, &line);
        writer.write(Stream::Stdout, b"\n");
    }
    for entry in std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()) {
        if entry.is_file() {
            std::fs::remove_file(entry).unwrap();
        }
    }
    writer.write(Stream::Stdout, b"after\n");
    let records = read(&log, Query::default());
    let names = texts(&records);
    assert_eq!(names.first().unwrap(), "before");
    assert_eq!(names.last().unwrap(), "after");
    let told: Vec<(u64, u64)> = records
        .iter()
        .filter_map(|record| match record.entry {
            Entry::Lost { records, bytes } => Some((records, bytes)),
            Entry::Output { .. } => None,
        })
        .collect();
    let [(lost, bytes)] = told[..] else { panic!("one record tells of all: {told:?}") };
    assert!(lost > 0 && bytes >= lost * 6_000, "{lost} records, {bytes} bytes");
    assert_eq!(lost as usize + records.len() - 1, 22, "before, after, and what came between");
    let last = records.last().unwrap().sequence;
    assert_eq!(last, 1 + 20 + 1, "lost records keep their numbers, the marker has its own");
}

async fn collect(mut follow: berth_shim::log::Follow) -> Vec<Record> {
    let mut records = Vec::new();
    while let Some(record) = follow.next().await.unwrap() {
        records.push(record);
    }
    records
}

#[tokio::test]
async fn follow_survives_rotation_and_ends_when_told() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("log");
    let (end, ended) = watch::channel(false);
    let follow = Reader::open(&log).follow(Query::default(), ended).unwrap();
    let reading = tokio::spawn(collect(follow));
    let settings = LogSettings { max_file_bytes: 2_000, max_files: 1_000 };
    for round in 0..20 {
        let mut writer = Writer::open(&log, settings).unwrap();
        for index in 0..50 {
            writer.write(Stream::Stdout, format!("{round} {index}\n").as_bytes());
            tokio::task::yield_now().await;
        }
    }
    end.send(true).unwrap();
    let records = tokio::time::timeout(Duration::from_secs(20), reading).await.unwrap().unwrap();
    assert_eq!(records.len(), 1000);
    assert!(records.iter().zip(0..).all(|(record, sequence)| record.sequence == sequence));
}

#[tokio::test]
async fn follow_after_a_tail_begins_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let mut writer = Writer::open(directory.path(), small()).unwrap();
    writer.write(Stream::Stdout, b"a\nb\nc\n");
    let (end, ended) = watch::channel(false);
    let query = Query { tail: Some(1), ..Query::default() };
    let mut follow = Reader::open(directory.path()).follow(query, ended).unwrap();
    assert_eq!(text(&follow.next().await.unwrap().unwrap()), "c");
    writer.write(Stream::Stdout, b"d\n");
    assert_eq!(text(&follow.next().await.unwrap().unwrap()), "d");
    drop(end);
    assert_eq!(follow.next().await.unwrap(), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn tail_is_the_end_of_everything(
        lengths in prop::collection::vec(0usize..600, 1..60), tail in 0usize..70
    ) {
        let directory = tempfile::tempdir().unwrap();
        let mut writer = Writer::open(directory.path(), small()).unwrap();
        for length in lengths {
            writer.write(Stream::Stderr, &[vec![b'y'; length], vec![b'\n']].concat());
        }
        let all = read(directory.path(), Query::default());
        let some = read(directory.path(), Query { tail: Some(tail as u64), ..Query::default() });
        prop_assert_eq!(&some[..], &all[all.len().saturating_sub(tail)..]);
    }

    #[test]
    fn random_segments_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..500)) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(format!("{:020}.log", 0)), &bytes).unwrap();
        for query in [Query::default(), Query { tail: Some(2), ..Query::default() }] {
            let _ = Reader::open(directory.path()).records(query).map(Iterator::count);
        }
        let mut writer = Writer::open(directory.path(), LogSettings::default()).unwrap();
        writer.write(Stream::Stdout, b"sound\n");
        let last = Reader::open(directory.path()).records(Query::default()).unwrap().last();
        prop_assert_eq!(text(&last.unwrap().unwrap()), "sound");
    }
}
