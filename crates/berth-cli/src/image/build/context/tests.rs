//! What users mean by a context.

use std::os::unix::fs::symlink;

use super::*;

fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let temp = tempfile::tempdir().unwrap();
    for (name, content) in files {
        let path = temp.path().join("context").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    temp
}

fn found(temp: &tempfile::TempDir, file: &str) -> Outcome<Directory> {
    let file = match file {
        "" | "-" => file.to_owned(),
        name => temp.path().join(name).display().to_string(),
    };
    let context = temp.path().join("context").display().to_string();
    directory(&context, &file, || Ok(b"FROM stdin".to_vec()))
}

fn kept(directory: &Directory, names: &[&'static str]) -> Vec<&'static str> {
    names.iter().copied().filter(|name| !directory.ignore.matches(name)).collect()
}

fn archive(source: Outcome<Source>) -> (Vec<u8>, String) {
    match source.unwrap() {
        Source::Archive { mut input, dockerfile } => {
            let mut bytes = Vec::new();
            input.read_to_end(&mut bytes).unwrap();
            (bytes, dockerfile)
        }
        _ => panic!("no archive"),
    }
}

#[test]
fn the_dockerfile_is_found_by_its_usual_names_or_by_name() {
    let temp = tree(&[("dockerfile", "FROM a"), ("sub/Other", "FROM b")]);
    assert_eq!(found(&temp, "").unwrap().dockerfile, "dockerfile");
    assert_eq!(found(&temp, "context/sub/../sub/Other").unwrap().dockerfile, "sub/Other");
    fs::write(temp.path().join("context/Dockerfile"), "").unwrap();
    assert_eq!(found(&temp, "").unwrap().dockerfile, "Dockerfile");
    symlink("sub/Other", temp.path().join("context/link")).unwrap();
    assert_eq!(found(&temp, "context/link").unwrap().dockerfile, "sub/Other");
    let told = found(&temp, "context/absent").unwrap_err().message;
    assert!(told.starts_with("unable to evaluate symlinks in Dockerfile path: lstat /"), "{told}");
}

#[test]
fn what_the_daemon_needs_is_sent_whatever_patterns_say() {
    let names = ["Dockerfile", ".dockerignore", "a.log", "b"];
    let temp = tree(&[("Dockerfile", ""), (".dockerignore", "*.log\nDocker*\n.dockerignore\n"), ("b", "")]);
    assert_eq!(kept(&found(&temp, "").unwrap(), &names), ["Dockerfile", ".dockerignore", "b"]);
    let temp = tree(&[("Dockerfile", ""), (".dockerignore", "*\n")]);
    assert_eq!(kept(&found(&temp, "").unwrap(), &names), ["Dockerfile", ".dockerignore"]);
}

#[test]
fn a_dockerfile_may_have_patterns_of_its_own() {
    let temp = tree(&[
        ("Dockerfile", ""),
        ("Other", ""),
        (".dockerignore", "a"),
        ("Other.dockerignore", "b"),
        ("../Outside", "FROM x"),
        ("../Outside.dockerignore", "c"),
    ]);
    let names = ["a", "b", "c"];
    assert_eq!(kept(&found(&temp, "").unwrap(), &names), ["b", "c"]);
    assert_eq!(kept(&found(&temp, "context/Other").unwrap(), &names), ["a", "c"]);
    assert_eq!(kept(&found(&temp, "Outside").unwrap(), &names), ["a", "b"]);
}

#[test]
fn a_dockerfile_from_elsewhere_is_put_aside() {
    let temp = tree(&[("Dockerfile", "FROM inside"), ("../Outside", "FROM outside")]);
    for (file, content) in [("Outside", "FROM outside"), ("-", "FROM stdin")] {
        let directory = found(&temp, file).unwrap();
        let [dockerfile, ignore] = directory.inserts.as_slice() else { panic!("{directory:?}") };
        assert!(dockerfile.name.starts_with(".dockerfile.") && dockerfile.name == directory.dockerfile);
        assert_eq!(dockerfile.content, content.as_bytes());
        assert_eq!(ignore.name, ".dockerignore");
        assert_eq!(ignore.content, format!(".dockerignore\n{}\n", dockerfile.name).as_bytes());
    }
    fs::write(temp.path().join("context/.dockerignore"), "x\n.dockerignore").unwrap();
    let directory = found(&temp, "-").unwrap();
    assert_eq!(
        directory.inserts[1].content,
        format!("x\n.dockerignore\n{}\n", directory.dockerfile).as_bytes()
    );
    assert!(!directory.ignore.matches(".dockerignore"), "it is replaced in its place");
}

#[test]
fn a_context_is_a_directory() {
    let temp = tree(&[("Dockerfile", "")]);
    symlink("context", temp.path().join("link")).unwrap();
    let path = |name: &str| temp.path().join(name).display().to_string();
    assert!(directory(&path("link"), "", || unreachable!()).unwrap().path.ends_with("context"));
    let told = find(&path("context/Dockerfile"), "").err().unwrap().message;
    assert!(told.starts_with("unable to prepare context: context must be a directory: /"), "{told}");
    let told = find("nope", "").err().unwrap().message;
    assert_eq!(told, "unable to prepare context: path \"nope\" not found");
    assert!(find("-", "-").err().unwrap().message.contains("stdin for both"));
}

#[test]
fn the_daemon_fetches_what_is_far() {
    for address in ["https://x/y.tar.gz", "http://x/y.git#main:sub", "git://x/y", "github.com/x/y", "git@x:y"]
    {
        match find(address, "sub/Dockerfile").unwrap() {
            Source::Remote { address: found, dockerfile } => {
                assert_eq!((found.as_str(), dockerfile.as_str()), (address, "sub/Dockerfile"));
            }
            _ => panic!("{address}"),
        }
        assert!(find(address, "-").err().unwrap().message.contains("cannot come from stdin"));
    }
}

#[test]
fn input_is_a_tar_or_a_dockerfile() {
    let input = |bytes: &[u8]| -> Box<dyn Read + Send> { Box::new(Cursor::new(bytes.to_vec())) };
    let mut writer = Writer::new(Vec::new());
    writer.file("Dockerfile", b"FROM x").unwrap();
    let tar = writer.finish().unwrap();
    let gzip = [&[0x1f, 0x8b, 8, 0][..], &[0; 20]].concat();
    for bytes in [&tar, &gzip] {
        assert_eq!(archive(from_input(input(bytes), "sub/file")), (bytes.clone(), "sub/file".to_owned()));
    }
    assert_eq!(archive(from_input(input(b"FROM x"), "")), (tar, "Dockerfile".to_owned()));
    let long = format!("FROM x\n# {}", "x".repeat(2000));
    assert_eq!(archive(from_input(input(long.as_bytes()), "")).1, "Dockerfile");
    let told = from_input(input(b"FROM x"), "other").err().unwrap().message;
    assert_eq!(told, "ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles");
    assert!(from_input(input(&vec![b'x'; (LONGEST + 1) as usize]), "").is_err());
}

#[test]
fn patterns_that_make_no_sense_are_told() {
    let temp = tree(&[("Dockerfile", ""), (".dockerignore", "a[")]);
    let told = found(&temp, "").unwrap_err().message;
    assert_eq!(told, "error checking context: syntax error in pattern: \"a[\"");
}

proptest::proptest! {
    #[test]
    fn any_input_is_one_or_the_other(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..700)) {
        let _ = from_input(Box::new(Cursor::new(bytes)), "");
    }
}
