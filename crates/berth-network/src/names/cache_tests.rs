use proptest::prelude::*;

use super::*;
use crate::names::wire::{HEADER, INTERNET, kind, set_word, write_name};

fn packet(name: &str) -> Vec<u8> {
    let mut packet = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    assert!(write_name(&mut packet, name));
    packet.extend_from_slice(&kind::A.to_be_bytes());
    packet.extend_from_slice(&INTERNET.to_be_bytes());
    packet
}

fn answer(asked: &[u8], records: usize, ttl: u32) -> Answer {
    let mut packet = asked.to_vec();
    set_word(&mut packet, 2, flag::RESPONSE);
    set_word(&mut packet, 6, records as u16);
    for last in 0..records {
        packet.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
        packet.extend_from_slice(&ttl.to_be_bytes());
        packet.extend_from_slice(&[0, 4, 192, 0, 2, last as u8]);
    }
    let query = Query::read(asked).unwrap();
    let response = Response::read(&packet, 0x0707, &query).unwrap();
    Answer { packet: packet.into(), response, age: 0 }
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

#[test]
fn an_answer_is_given_older_and_to_whoever_asks_in_his_own_letters() {
    let (asked, start) = (packet("web.test"), Instant::now());
    let mut cache = Cache::default();
    cache.insert(key(1, &Query::read(&asked).unwrap()), &answer(&asked, 2, 60), start);

    let mut other = packet("WeB.tEsT");
    other[0] = 9;
    let query = Query::read(&other).unwrap();
    assert!(cache.get(&key(2, &query), start).is_none(), "other upstreams");
    let found = cache.get(&key(1, &query), start + seconds(20)).unwrap();
    let mut out = Vec::new();
    give(&mut out, &found, (&query, &other), 512);
    assert_eq!(out[..2], [9, 7]);
    assert_eq!(out[HEADER..other.len()], other[HEADER..]);
    assert_eq!(out[other.len()..][..16], [0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 40, 0, 4, 192, 0, 2, 0]);
    assert_eq!((out[7], out.len()), (2, other.len() + 32));
    assert!(cache.get(&key(1, &query), start + seconds(60)).is_none(), "expired");
    assert_eq!((cache.bytes, cache.entries.len()), (0, 0));
}

#[test]
fn what_must_not_be_kept_is_not() {
    let (asked, now) = (packet("web.test"), Instant::now());
    let query = Query::read(&asked).unwrap();
    let mut cache = Cache::default();
    cache.insert(key(1, &query), &answer(&asked, 1, 0), now);
    let mut failure = answer(&asked, 1, 60);
    failure.response.flags |= code::SERVER_FAILURE;
    cache.insert(key(1, &query), &failure, now);
    let mut truncated = answer(&asked, 1, 60);
    truncated.response.flags |= flag::TRUNCATED;
    cache.insert(key(1, &query), &truncated, now);
    cache.insert(key(1, &query), &answer(&asked, 0, 60), now);
    assert!(cache.get(&key(1, &query), now).is_none());
    cache.insert(key(1, &query), &answer(&asked, 1, u32::MAX), now);
    assert!(cache.get(&key(1, &query), now + seconds(3599)).is_some());
    assert!(cache.get(&key(1, &query), now + seconds(3600)).is_none());
}

#[test]
fn the_cache_has_a_bound_and_the_oldest_goes() {
    let now = Instant::now();
    let mut cache = Cache::default();
    let name = |n: usize| packet(&format!("host{n}.test"));
    for n in 0..20_000 {
        cache.insert(key(1, &Query::read(&name(n)).unwrap()), &answer(&name(n), 3, 60), now);
        assert!(cache.bytes <= MAX_BYTES);
    }
    assert!(cache.entries.len() > 1000 && cache.order.len() <= 2 * cache.entries.len() + 64);
    assert!(cache.get(&key(1, &Query::read(&name(19_999)).unwrap()), now).is_some());
    assert!(cache.get(&key(1, &Query::read(&name(0)).unwrap()), now).is_none());
    for _ in 0..1000 {
        cache.insert(key(1, &Query::read(&name(0)).unwrap()), &answer(&name(0), 3, 60), now);
    }
    assert!(cache.order.len() <= 2 * cache.entries.len() + 64);
    cache.insert(key(1, &Query::read(&name(1)).unwrap()), &answer(&name(1), 3, 60), now + seconds(61));
    assert_eq!(cache.entries.len(), 1, "the expired are gone");
    let sum: usize = cache.entries.iter().map(|(key, entry)| cost(key, &entry.answer)).sum();
    assert_eq!(cache.bytes, sum);
}

#[test]
fn large_answers_are_cut_between_records() {
    let asked = packet("web.test");
    let query = Query::read(&asked).unwrap();
    let mut out = Vec::new();
    give(&mut out, &answer(&asked, 100, 60), (&query, &asked), 512);
    assert!(out.len() <= 512);
    assert_eq!(out[2] & 2, 2);
    assert_eq!(usize::from(out[7]), (out.len() - asked.len()) / 16);
}

proptest! {
    #[test]
    fn any_answer_is_given_without_harm(
        counts in proptest::collection::vec(0u8..4, 3),
        tail in proptest::collection::vec(prop_oneof![Just(0u8), Just(0xc0), Just(12), any::<u8>()], 0..700),
        edns in any::<bool>(),
    ) {
        let mut asked = packet("web.test");
        let mut response = asked.clone();
        response[2] |= 0x80;
        for (n, count) in counts.iter().enumerate() {
            response[7 + 2 * n] = *count;
        }
        response.extend_from_slice(&tail);
        if edns {
            asked[11] = 1;
            asked.extend_from_slice(&[0, 0, 41, 2, 0, 0, 0, 0, 0, 0, 0]);
        }
        crate::names::read_any(&[&[asked.len() as u8], &asked[..], &response].concat());
    }
}
