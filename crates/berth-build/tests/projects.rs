//! Dockerfiles in the manner of known projects.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;

use berth_build::dockerfile::{Dockerfile, Instruction};

fn read(name: &str) -> Dockerfile {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dockerfiles").join(name);
    Dockerfile::read(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn statements_are_counted() {
    for (name, statements, last_line) in [
        ("web-server", 11, 46),
        ("cache-server", 13, 25),
        ("database", 16, 22),
        ("go", 20, 33),
        ("rust", 16, 21),
        ("node", 15, 17),
        ("python", 10, 13),
    ] {
        let file = read(name);
        let end = file.statements.last().unwrap().lines.last;
        assert_eq!((file.statements.len(), end), (statements, last_line), "{name}");
        for statement in &file.statements {
            let printed = statement.instruction.to_string();
            let again = Dockerfile::read(printed.as_bytes()).unwrap();
            assert_eq!(again.statements[0].instruction, statement.instruction, "{name}: {printed}");
        }
    }
}

#[test]
fn long_commands_lose_their_comments() {
    let file = read("web-server");
    let Instruction::Run(run) = &file.statements[4].instruction else { panic!() };
    let text = run.command.to_string();
    assert!(text.contains("set -x     && groupadd") && !text.contains("# a user"), "{text}");
}
