use super::*;
use crate::error::Fault;

fn read(text: &str) -> Dockerfile {
    Dockerfile::read(text.as_bytes()).unwrap()
}

fn one(text: &str) -> Instruction {
    let mut found = read(text).statements;
    assert_eq!(found.len(), 1, "{text}");
    found.remove(0).instruction
}

fn refused(text: &str) -> String {
    Dockerfile::read(text.as_bytes()).unwrap_err().to_string()
}

#[test]
fn statements_have_their_lines_and_comments() {
    let text = "\u{feff}# syntax=docker/dockerfile:1 extra\r\n# Escape = `\r\n# check=skip=all;error=true\r\n#\r\n# base the first stage\r\n\
        from a AS Base\r\n\r\n# note\r\nRUN one `\r\n  # not text\r\n\r\n  two\r\nrun C:\\x\\\r\n";
    let file = read(text);
    assert_eq!(file.directives.escape, '`');
    assert_eq!(file.directives.syntax, Some(("docker/dockerfile:1".to_owned(), Lines::one(1))));
    assert_eq!(file.directives.check, Some(("skip=all;error=true".to_owned(), Lines::one(3))));
    assert_eq!(file.empty_continuations, [12]);
    let [from, run, last] = file.statements.as_slice() else { panic!("{file:?}") };
    assert_eq!((from.keyword.as_str(), from.lines), ("from", Lines::one(6)));
    assert_eq!(from.comments, ["base the first stage"]);
    assert_eq!((run.text.as_str(), run.lines), ("RUN one   two", Lines { first: 9, last: 12 }));
    assert_eq!(run.comments, ["note"]);
    assert_eq!(last.text, "run C:\\x\\");
}

#[test]
fn continuations_are_dockers() {
    for (text, expected) in [
        ("RUN a \\\n b", "RUN a  b"),
        ("RUN a \\  \t\n b", "RUN a  b"),
        ("RUN a \\\\\nRUN b", "RUN a \\\\"),
        ("RUN \\\na", "RUN a"),
        ("\\\nRUN a", "RUN a"),
        ("RUN a \\\n# c\n#d \\\nb", "RUN a b"),
        ("RUN a \\", "RUN a"),
    ] {
        assert_eq!(read(text).statements[0].text, expected, "{text:?}");
    }
}

#[test]
fn here_documents_follow_their_line() {
    let Instruction::Run(run) = one("RUN <<A cat <<-\"B C\" 3<<'D'\na $x\nA\n\t\tb\n\tB C\nd\nD") else {
        panic!()
    };
    let found: Vec<_> =
        run.documents.iter().map(|d| (&*d.name, d.descriptor, d.expand, d.chomp, &*d.content)).collect();
    let expected =
        [("A", 0, true, false, "a $x\n"), ("B C", 0, false, true, "b\n"), ("D", 3, false, false, "d\n")];
    assert_eq!(found, expected);
    let Instruction::Copy(copy) = one("COPY --chmod=644 <<one x <<two /dst/\n1\none\n2\ntwo") else {
        panic!()
    };
    assert!(
        matches!(&copy.sources[..], [CopySource::Document(a), CopySource::Path(p), CopySource::Document(b)]
        if a.content == "1\n" && p == "x" && b.content == "2\n")
    );
    let Instruction::OnBuild(trigger) = one("ONBUILD RUN <<E\nx\nE\n") else { panic!() };
    assert_eq!(trigger.text, "RUN <<E\nx\nE");
    let again = Dockerfile::read_trigger(&trigger.text, Lines::one(7)).unwrap();
    assert!(matches!(again.instruction, Instruction::Run(run) if run.documents.len() == 1));
    assert_eq!(again.lines, Lines::one(7));
    // None of these begins one.
    for text in
        ["RUN [\"a\", \"<<E\"]", "RUN a <<<E", "RUN 'x <<E'", "ENV A=<<E", "RUN echo it's <<E", "CMD cat <<E"]
    {
        assert_eq!(read(text).statements.len(), 1, "{text}");
    }
    assert_eq!(refused("FROM a\nRUN <<E\nx"), "dockerfile parse error on line 2: unterminated heredoc");
}

#[test]
fn every_instruction_is_read() {
    let list = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let pair = |name: &str, value: &str, legacy| Pair { name: name.into(), value: value.into(), legacy };
    let argument = |name: &str, default: Option<&str>| Argument {
        name: name.into(),
        default: default.map(str::to_owned),
        description: None,
    };
    for (text, expected) in [
        (
            "ARG a b= c=\"x y\"",
            Instruction::Arg(vec![
                argument("a", None),
                argument("b", Some("")),
                argument("c", Some("\"x y\"")),
            ]),
        ),
        ("cmd [\"/a\", \"b c\"]", Instruction::Cmd(CommandLine::Exec(list(&["/a", "b c"])))),
        ("CMD [a, b]", Instruction::Cmd(CommandLine::Shell("[a, b]".into()))),
        ("CMD", Instruction::Cmd(CommandLine::Shell(String::new()))),
        ("ENTRYPOINT []", Instruction::Entrypoint(CommandLine::Exec(Vec::new()))),
        (
            "ENV A=1  B=\"x y\" C=d\\ e",
            Instruction::Env(vec![
                pair("A", "1", false),
                pair("B", "\"x y\"", false),
                pair("C", "d\\ e", false),
            ]),
        ),
        ("ENV A  b c", Instruction::Env(vec![pair("A", "b c", true)])),
        ("LABEL \"a b\"='c'", Instruction::Label(vec![pair("\"a b\"", "'c'", false)])),
        ("EXPOSE 80 53/udp $P", Instruction::Expose(list(&["$P", "53/udp", "80"]))),
        ("MAINTAINER A <a@b>", Instruction::Maintainer("A <a@b>".into())),
        ("SHELL [\"/bin/bash\", \"-c\"]", Instruction::Shell(list(&["/bin/bash", "-c"]))),
        ("STOPSIGNAL 9", Instruction::StopSignal("9".into())),
        ("USER a:b", Instruction::User("a:b".into())),
        ("VOLUME [\"/a b\"]", Instruction::Volume(list(&["/a b"]))),
        ("VOLUME /a /b", Instruction::Volume(list(&["/a", "/b"]))),
        ("WORKDIR /a b", Instruction::Workdir("/a b".into())),
    ] {
        assert_eq!(one(text), expected, "{text}");
    }
}

#[test]
fn flags_are_read() {
    let Instruction::From(from) = one("FROM --platform=$BUILDPLATFORM a:b@c as Name.1") else { panic!() };
    assert_eq!((from.platform.as_deref(), from.name.as_deref()), (Some("$BUILDPLATFORM"), Some("name.1")));
    let Instruction::Copy(copy) = one(
        "COPY --from=x --chown=\"a b:c\" --chmod=u+x --link --parents=false --exclude=*.md --exclude=y a b /d",
    ) else {
        panic!()
    };
    assert_eq!(
        (copy.from.as_deref(), copy.chown.as_deref(), copy.chmod.as_deref()),
        (Some("x"), Some("a b:c"), Some("u+x"))
    );
    assert_eq!((copy.link, copy.parents, copy.exclude.len(), copy.sources.len()), (true, false, 2, 2));
    let Instruction::Add(add) = one("ADD --checksum=sha256:1 --keep-git-dir --unpack=false https://x /d")
    else {
        panic!()
    };
    assert_eq!(
        (add.keep_git_dir, add.unpack, add.checksum.as_deref()),
        (Some(true), Some(false), Some("sha256:1"))
    );
    let Instruction::Run(run) =
        one("RUN --mount=type=cache,target=/c --mount=target=/x --network=none --security=insecure -- --x")
    else {
        panic!()
    };
    assert_eq!((run.mounts.len(), run.network, run.security), (2, Network::None, Security::Insecure));
    assert_eq!(run.command, CommandLine::Shell("--x".into()));
    let Instruction::Healthcheck(check) = one(
        "HEALTHCHECK --interval=5s --timeout=1m --start-period=0s --start-interval=2s --retries=3 CMD a b",
    ) else {
        panic!()
    };
    assert_eq!(check.test, ["CMD-SHELL", "a b"]);
    assert_eq!((check.interval, check.start_interval), (Some(5_000_000_000), Some(2_000_000_000)));
    assert_eq!((check.start_period, check.retries), (None, Some(3)));
}

#[test]
fn what_is_wrong_is_said_in_dockers_words() {
    for (text, error) in [
        ("FRMO x", "unknown instruction: FRMO (did you mean FROM?)"),
        ("rnu x", "unknown instruction: rnu (did you mean run?)"),
        ("NOINSTRUCTION x", "unknown instruction: NOINSTRUCTION"),
        ("FROM", "FROM requires either one or three arguments"),
        ("FROM a b", "FROM requires either one or three arguments"),
        (
            "FROM a AS 1b",
            "invalid name for build stage: \"1b\", name can't start with a number or contain symbols",
        ),
        ("FROM --platfrom=x a", "unknown flag: --platfrom (did you mean platform?)"),
        ("COPY --form=x a b", "unknown flag: --form (did you mean from?)"),
        ("COPY --link= a b", "missing a value on flag: --link"),
        ("COPY --link=1 a b", "expecting boolean value for flag --link, not: 1"),
        ("COPY --from a b", "missing a value on flag: --from"),
        ("COPY --from=a --from=b a b", "duplicate flag specified: --from"),
        (
            "COPY a",
            "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        (
            "ADD",
            "ADD requires at least two arguments, but only one was provided. Destination could not be determined",
        ),
        ("COPY a <<E\nE", "COPY cannot accept a heredoc as a destination"),
        ("RUN --network=bridge x", "invalid network mode \"bridge\""),
        ("RUN --security=x x", "security \"x\" is not valid"),
        ("RUN --mount=type=cahce x", "unsupported mount type \"cahce\" (did you mean cache?)"),
        ("ENV", "ENV requires at least one argument"),
        ("ENV a", "ENV must have two arguments"),
        ("ENV a=b c", "Syntax error - can't find = in \"c\". Must be of the form: name=value"),
        ("ENV =x", "ENV names can not be blank"),
        ("LABEL =x", "LABEL names can not be blank"),
        ("ARG =x", "ARG names can not be blank"),
        ("ARG", "ARG requires at least one argument"),
        ("USER", "USER requires exactly one argument"),
        ("MAINTAINER", "MAINTAINER requires exactly one argument"),
        ("VOLUME", "VOLUME requires at least one argument"),
        ("SHELL", "SHELL requires at least one argument"),
        ("SHELL []", "SHELL requires at least one argument"),
        ("SHELL bash -c", "SHELL requires the arguments to be in JSON form"),
        ("CMD [\"a\", 1]", "when using JSON array syntax, arrays must be comprised of strings only"),
        ("ONBUILD", "ONBUILD requires at least one argument"),
        ("ONBUILD ONBUILD RUN x", "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK TCP x", "Unknown type \"TCP\" in HEALTHCHECK (try CMD)"),
        ("HEALTHCHECK --interval=1us CMD x", "Interval \"interval\" cannot be less than 1ms"),
        ("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)"),
    ] {
        assert_eq!(
            refused(&format!("\n{text}")),
            format!("dockerfile parse error on line 2: {error}"),
            "{text}"
        );
    }
    for (text, error) in [
        ("", "file with no instructions"),
        ("# only\n\n", "file with no instructions"),
        ("# escape=x\nFROM a", "invalid escape token 'x' does not match ` or \\"),
        ("# escape=`\n# escape=\\\nFROM a", "only one escape parser directive can be used"),
    ] {
        assert_eq!(refused(text), error, "{text}");
    }
}

#[test]
fn sizes_are_limited() {
    let long = format!("RUN {}", "x".repeat(LINE_LIMIT));
    assert_eq!(refused(&long), "dockerfile line greater than max allowed size of 65535");
    assert!(Dockerfile::read(format!("RUN {}", "x".repeat(LINE_LIMIT - 4)).as_bytes()).is_ok());
    let error = Dockerfile::read(&vec![b'#'; FILE_LIMIT + 1]).unwrap_err();
    assert!(matches!(error.fault(), Fault::TooLarge(_)));
}

#[test]
fn triggers_are_single_instructions() {
    let refused = |text: &str| Dockerfile::read_trigger(text, Lines::one(4)).unwrap_err();
    assert_eq!(refused("RUN a\nRUN b").to_string(), "onbuild trigger should be a single expression");
    assert_eq!(refused("FROM a").to_string(), "FROM isn't allowed as an ONBUILD trigger");
    assert_eq!(refused("RNU a").to_string(), "unknown instruction: RNU (did you mean RUN?)");
    assert_eq!(refused("RNU a").lines(), Some(Lines::one(4)));
}

/// Printed, it reads back as the same.
fn prints_back(text: &str) {
    let Ok(file) = Dockerfile::read(text.as_bytes()) else { return };
    if file.directives.escape != '\\' {
        return;
    }
    for statement in file.statements {
        let printed = statement.instruction.to_string();
        let again =
            Dockerfile::read(printed.as_bytes()).unwrap_or_else(|error| panic!("{error}: {printed:?}"));
        let [same] = again.statements.as_slice() else { panic!("{printed:?}") };
        assert_eq!(same.instruction, without_descriptions(statement.instruction), "{printed:?}");
    }
}

fn without_descriptions(mut instruction: Instruction) -> Instruction {
    if let Instruction::Arg(arguments) = &mut instruction {
        arguments.iter_mut().for_each(|argument| argument.description = None);
    }
    instruction
}

#[test]
fn printed_instructions_read_back() {
    prints_back(
        "FROM --platform=a\\ b x AS Y\nENV A b c\nRUN --mount=type=cache,target=/x --network=host <<A cat <<-'B C'\n1\nA\n\t2\n\tB C\n\
        COPY --link --exclude=\"a b\" [\"a b\", \"<<c\", \"d\"]\nADD --unpack=false <<E <<\"F\" /x\nE\n$y\nF\n\
        HEALTHCHECK --interval=3s CMD [\"a\"]\nONBUILD COPY <<G /g\nG\nCMD [\"a\\n\"]\nARG a=1 b",
    );
}

proptest::proptest! {
    #[test]
    fn nothing_panics_and_what_is_printed_reads_back(
        text in "((FROM|RUN|COPY|ENV|ARG|HEALTHCHECK|ONBUILD|ADD|LABEL|VOLUME|#|# escape=`|x) ?[ -~\u{e4}\n\t\r\\\\<\"']{0,24}\n?){0,4}",
    ) {
        prints_back(&text);
    }

    #[test]
    fn bytes_do_not_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..64)) {
        let _ = Dockerfile::read(&bytes);
    }
}
