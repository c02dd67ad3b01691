use std::fs;

use berth_engine::IdRange;

use super::*;

fn etc() -> tempfile::TempDir {
    let etc = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(etc.path().join(name), text).unwrap();
    write("passwd", "root:x:0:0:root:/root:/bin/sh\nalice:x:1000:1001::/home/alice:/bin/sh\nbroken\n");
    write("group", "root:x:0:\nalice:x:1001:\nusers:x:100:alice\nten:x:1000:\n");
    write("subuid", "alice:200000:1000\nbob:300000:65536\n1000:400000:10\n");
    write("subgid", "alice:200000:65536\n");
    etc
}

fn failure(text: &str) -> String {
    mappings(etc().path(), text).unwrap_err().to_string()
}

#[test]
fn ranges_lie_one_after_the_other() {
    let users = vec![
        IdRange { inside: 0, outside: 200_000, count: 1000 },
        // By the account's number.
        IdRange { inside: 1000, outside: 400_000, count: 10 },
    ];
    let groups = vec![IdRange { inside: 0, outside: 200_000, count: 65536 }];
    for text in ["alice", "1000", "alice:users", "alice:100", "1000:1001"] {
        let found = mappings(etc().path(), text).unwrap();
        assert_eq!(found, Some(Mappings { users: users.clone(), groups: groups.clone() }), "{text}");
    }
}

#[test]
fn root_is_left_as_it_is() {
    assert_eq!(mappings(etc().path(), "root").unwrap(), None);
    assert_eq!(mappings(etc().path(), "0:0").unwrap(), None);
}

#[test]
fn who_is_not_there_is_refused() {
    assert!(failure("a:b:c").starts_with("Invalid user/group specification in --userns-remap"));
    assert!(failure("").starts_with("Invalid user/group specification"));
    assert!(failure("carol").starts_with("Error during uid lookup for \"carol\""));
    assert!(failure("77").starts_with("Uid 77 has no entry in /etc/passwd"));
    assert!(failure("alice:none").starts_with("Error during gid lookup for \"none\""));
    assert!(failure("alice:77").starts_with("Gid 77 has no entry in /etc/group"));
    assert!(failure("dockremap").contains("uid lookup"), "only default makes it");
}

#[test]
fn an_account_without_ids_is_refused() {
    let etc = etc();
    fs::write(etc.path().join("subgid"), "alice:nonsense:5\nalice:1\nalice:4294967295:2\nalice:5:0\n")
        .unwrap();
    let message = mappings(etc.path(), "alice").unwrap_err().to_string();
    assert!(message.contains("no usable entries for user alice") && message.contains("subgid"), "{message}");
}

#[test]
fn the_default_account_is_made_once() {
    let etc = etc();
    let shadow = etc.path().join("shadow");
    fs::write(&shadow, "root:*:1::::::\n").unwrap();
    fs::set_permissions(&shadow, std::os::unix::fs::PermissionsExt::from_mode(0o640)).unwrap();
    let made = mappings(etc.path(), "default").unwrap().unwrap();
    // Nobody has 100000 to 165535 for users, nor for groups.
    let range = IdRange { inside: 0, outside: 100_000, count: 65536 };
    assert_eq!(made, Mappings { users: vec![range], groups: vec![range] });
    let read = |name: &str| fs::read_to_string(etc.path().join(name)).unwrap();
    let all = || ["passwd", "group", "shadow", "subuid", "subgid"].map(read);
    let first = all();
    assert!(first[0].ends_with("broken\ndockremap:x:999:999::/home/dockremap:/bin/false\n"), "{}", first[0]);
    assert!(first[2].contains("dockremap:!:"), "{}", first[2]);
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&fs::metadata(&shadow).unwrap()) & 0o777, 0o640);
    assert!(!etc.path().join("gshadow").exists());
    assert_eq!(mappings(etc.path(), "default").unwrap().unwrap(), made);
    assert_eq!(all(), first, "nothing is made twice");
}

#[test]
fn new_ids_are_nobodys() {
    let taken = "a:100000:65536\nb:165536:10\nc:50000:50001";
    let text = list::with_range(taken, "x", 999).unwrap().unwrap();
    assert_eq!(text, format!("{taken}\nx:165546:65536\n"));
    let full = "a:100000:4294867000\n";
    assert!(list::with_range(full, "x", 999).is_err());
}

proptest::proptest! {
    #[test]
    fn a_given_range_overlaps_no_other(
        taken in proptest::collection::vec((90_000_u32..400_000, 1_u32..70_000), 0..8)
    ) {
        let mut text = String::new();
        for (first, count) in &taken {
            text.push_str(&format!("other:{first}:{count}\n"));
        }
        let text = list::with_range(&text, "x", 999).unwrap().unwrap();
        let own = list::ranges_of(&text, "x", 999)[0];
        for (first, count) in taken {
            proptest::prop_assert!(first + count <= own.outside || own.outside + own.count <= first);
        }
    }

    #[test]
    fn any_list_is_read(text in "[a-z0-9:\n#]{0,200}") {
        for range in list::ranges_of(&text, "a", 1) {
            proptest::prop_assert!(range.count > 0);
        }
    }
}
