//! Dockerfiles, what is expanded and warned about in them, and `.dockerignore`.
#![no_main]

use berth_archive::ignore::Ignore;
use berth_build::dockerfile::Dockerfile;
use berth_build::expand::Words;
use berth_build::lint::{self, Surroundings};
use berth_build::variables::Given;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let ignore = Ignore::read(data).unwrap_or_default();
    let _ = ignore.matches("a/b");
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Words::new('\\').expand(text, &vec!["a=b*".to_owned()]);
    }
    let Ok(file) = Dockerfile::read(data) else { return };
    let given = Given::default();
    let _ = lint::check(&file, &Surroundings { given: &given, ignore: &ignore, base: &|_| None });
    // Escapes and odd spaces at the end of a line are read but not printed as they were.
    let plain = data.iter().all(|byte| matches!(byte, b'\n' | b' '..=b'~') && *byte != file.directives.escape as u8);
    for statement in file.statements.iter().filter(|_| plain && file.directives.escape == '\\') {
        let again = Dockerfile::read(statement.instruction.to_string().as_bytes());
        assert_eq!(again.map(|file| file.statements.len()), Ok(1));
    }
});
