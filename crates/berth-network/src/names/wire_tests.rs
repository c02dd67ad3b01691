use proptest::prelude::*;

use super::*;

fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut packet = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    assert!(write_name(&mut packet, name));
    packet.extend_from_slice(&kind.to_be_bytes());
    packet.extend_from_slice(&[0, 1]);
    packet
}

fn answered(query: &[u8], records: &[(u16, &[u8])]) -> Vec<u8> {
    let mut packet = query.to_vec();
    set_word(&mut packet, 2, flag::RESPONSE);
    set_word(&mut packet, 6, records.len() as u16);
    for (kind, data) in records {
        packet.extend_from_slice(&[0xc0, 12]);
        packet.extend_from_slice(&kind.to_be_bytes());
        packet.extend_from_slice(&[0, 1, 0, 0, 0, 60]);
        packet.extend_from_slice(&(data.len() as u16).to_be_bytes());
        packet.extend_from_slice(data);
    }
    packet
}

#[test]
fn a_query_is_read_in_lower_case() {
    let packet = query("WeB.Shop", kind::A);
    let read = Query::read(&packet).unwrap();
    assert_eq!(read.name.text(&mut [0; 255]), Some("web.shop"));
    assert_eq!((read.id, read.kind, read.class, read.name.labels()), (0x1234, kind::A, INTERNET, 2));
    assert_eq!(read.question_end, packet.len());
    assert_eq!(read.udp_limit(), PLAIN_UDP);
}

#[test]
fn edns_is_found_once() {
    let mut packet = query("web", kind::A);
    let opt = [0, 0, 41, 4, 0xd0, 0, 0, 0x80, 0, 0, 0];
    packet.extend_from_slice(&opt);
    set_word(&mut packet, 10, 1);
    let edns = Query::read(&packet).unwrap().edns;
    assert_eq!(edns, Some(Edns { size: 1232, signatures: true }));
    packet.extend_from_slice(&opt);
    set_word(&mut packet, 10, 2);
    assert_eq!(Query::read(&packet).unwrap_err(), Refusal::Code(code::FORMAT_ERROR));
}

#[test]
fn what_is_no_query_is_refused() {
    let good = query("web", kind::A);
    assert_eq!(Query::read(&good[..11]).unwrap_err(), Refusal::Silent);
    let mut response = good.clone();
    response[2] |= 0x80;
    assert_eq!(Query::read(&response).unwrap_err(), Refusal::Silent);
    let mut update = good.clone();
    update[2] |= 5 << 3;
    assert_eq!(Query::read(&update).unwrap_err(), Refusal::Code(code::NOT_IMPLEMENTED));
    for cut in HEADER..good.len() {
        assert_eq!(Query::read(&good[..cut]).unwrap_err(), Refusal::Code(code::FORMAT_ERROR), "{cut}");
    }
    let mut pointer = good;
    pointer[12] = 0xc0;
    assert_eq!(Query::read(&pointer).unwrap_err(), Refusal::Code(code::FORMAT_ERROR));
}

#[test]
fn names_that_no_container_has() {
    let mut packet = vec![3, b'a', b'.', b'b', 0];
    assert_eq!(Name::read(&packet, 0).unwrap().0.text(&mut [0; 255]), None);
    packet[2] = 0xff;
    assert_eq!(Name::read(&packet, 0).unwrap().0.text(&mut [0; 255]), None);
    assert_eq!(Name::read(&[0], 0).unwrap().0.text(&mut [0; 255]), None);
    let long = [63; 64].repeat(4);
    assert!(Name::read(&[&long[..], &[0]].concat(), 0).is_none(), "256 bytes");
}

#[test]
fn only_the_answer_to_the_question_is_taken() {
    let asked = query("Web", kind::A);
    let read = Query::read(&asked).unwrap();
    let answer = answered(&asked, &[(kind::A, &[192, 0, 2, 1])]);
    let found = Response::read(&answer, 0x1234, &read).unwrap();
    assert_eq!((found.records.len(), found.lifetime(&answer), found.code()), (1, 60, 0));
    assert!(Response::read(&answer, 0x1235, &read).is_none(), "another id");
    assert!(Response::read(&asked, 0x1234, &read).is_none(), "a query");
    for other in [query("wec", kind::A), query("web", kind::AAAA), query("web.x", kind::A)] {
        assert!(Response::read(&answered(&other, &[]), 0x1234, &read).is_none());
    }
    for cut in 0..answer.len() {
        assert!(Response::read(&answer[..cut], 0x1234, &read).is_none(), "{cut}");
    }
}

#[test]
fn pointers_lead_backwards_only() {
    let asked = query("web", kind::A);
    let read = Query::read(&asked).unwrap();
    for target in [0, 11, asked.len() as u16, asked.len() as u16 + 1, 0x3fff] {
        let mut answer = answered(&asked, &[(kind::A, &[192, 0, 2, 1])]);
        set_word(&mut answer, asked.len(), 0xc000 | target);
        assert!(Response::read(&answer, 0x1234, &read).is_none(), "{target}");
    }
}

#[test]
fn a_negative_answer_lives_as_its_soa_says() {
    let asked = query("web", kind::A);
    let read = Query::read(&asked).unwrap();
    let mut soa = vec![0, 0];
    soa.extend_from_slice(&[0; 16]);
    soa.extend_from_slice(&30u32.to_be_bytes());
    let mut answer = answered(&asked, &[(kind::SOA, &soa)]);
    set_word(&mut answer, 6, 0);
    set_word(&mut answer, 8, 1);
    assert_eq!(Response::read(&answer, 0x1234, &read).unwrap().lifetime(&answer), 30);
    let bare = answered(&asked, &[]);
    assert_eq!(Response::read(&bare, 0x1234, &read).unwrap().lifetime(&bare), 0);
}

#[test]
fn names_are_written_or_not_at_all() {
    let mut out = vec![9];
    for bad in ["", "a..b", &"x".repeat(64), &["a"; 200].join(".")] {
        assert!(!write_name(&mut out, bad), "{bad}");
        assert_eq!(out, [9]);
    }
    assert!(write_name(&mut out, "a.bc."));
    assert_eq!(out, [9, 1, b'a', 2, b'b', b'c', 0]);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_harm(
        packet in proptest::collection::vec(any::<u8>(), 0..200),
        tail in proptest::collection::vec(prop_oneof![Just(0u8), Just(0xc0), Just(12), any::<u8>()], 0..80),
    ) {
        let _ = Query::read(&packet);
        let mut asked = query("web", kind::A);
        let read = Query::read(&asked).unwrap();
        asked[2] |= 0x80;
        asked[7] = 3;
        asked[11] = 2;
        asked.extend_from_slice(&tail);
        if let Some(response) = Response::read(&asked, 0x1234, &read) {
            prop_assert!(response.end <= asked.len());
            response.lifetime(&asked);
        }
        let _ = Query::read(&[&asked[..2], &[1, 0], &asked[4..]].concat());
    }

    #[test]
    fn written_names_read_back(labels in proptest::collection::vec("[a-z0-9_-]{1,20}", 1..8)) {
        let text = labels.join(".");
        let mut out = Vec::new();
        prop_assert!(write_name(&mut out, &text));
        let (name, end) = Name::read(&out, 0).unwrap();
        let mut buffer = [0; 255];
        prop_assert_eq!((name.text(&mut buffer), end), (Some(text.as_str()), out.len()));
    }
}
