use super::*;
use crate::dockerfile::Dockerfile;
use berth_oci::config::ContainerDefaults;

fn base() -> ImageConfig {
    let config = ContainerDefaults {
        env: vec!["A=old".into(), "B=kept".into()],
        cmd: Some(vec!["old".into()]),
        working_dir: "/w".into(),
        on_build: Some(vec!["RUN trigger".into()]),
        ..ContainerDefaults::default()
    };
    ImageConfig { config, ..ImageConfig::default() }
}

fn applied(
    base: ImageConfig,
    arguments: &[(&str, &str)],
    text: &str,
) -> Result<(Draft, Vec<Applied>), String> {
    let arguments = arguments.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let given = Given { arguments, ..Given::default() };
    let globals = Globals::new(&given, &[], Words::new('\\')).unwrap();
    let settings = Settings { given: &given, globals: &globals, words: Words::new('\\') };
    let (mut draft, _) = Draft::new(base, &given, None);
    let file = Dockerfile::read(text.as_bytes()).map_err(|error| error.to_string())?;
    let apply = |one: crate::dockerfile::Statement| draft.apply(&one.instruction, settings);
    let all = file.statements.into_iter().map(apply).collect::<Result<Vec<_>>>();
    all.map_err(|error| error.to_string()).map(|all| (draft, all))
}

#[test]
fn each_instruction_changes_its_part() {
    let text = "ENTRYPOINT [\"/e\"]\nENV A=\"new $B\" C=$A\nEXPOSE 80 $P\nLABEL x=\"1 2\" y='$A'\nUSER $B\nVOLUME /v $B\n\
        WORKDIR ../sub/./dir\nSTOPSIGNAL SIGUSR1\nONBUILD RUN x $A\nHEALTHCHECK --interval=5s CMD [\"/h\"]\nMAINTAINER $B\nSHELL [\"/b\", \"-x\"]";
    let (draft, _) = applied(base(), &[("P", "no")], &text.replace("$P", "${P:-7000-7001/UDP}")).unwrap();
    let config = draft.image.config;
    assert_eq!((config.cmd, config.entrypoint), (None, Some(vec!["/e".to_owned()])));
    assert_eq!(config.env[..2], ["A=new kept", "B=kept"]);
    assert_eq!(config.env[2..], [PATH, "C=old"]);
    assert_eq!(config.exposed_ports.keys().collect::<Vec<_>>(), ["7000/udp", "7001/udp", "80/tcp"]);
    assert_eq!((config.labels["x"].as_str(), config.labels["y"].as_str()), ("1 2", "$A"));
    assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("kept", "/sub/dir"));
    assert_eq!(config.volumes.keys().collect::<Vec<_>>(), ["/v", "kept"]);
    assert_eq!(config.stop_signal.as_deref(), Some("SIGUSR1"));
    assert_eq!(config.on_build.unwrap(), ["RUN x $A"]);
    assert_eq!(config.healthcheck.unwrap().test, ["CMD", "/h"]);
    assert_eq!((draft.image.author.as_str(), config.shell.unwrap().len()), ("$B", 2));
}

#[test]
fn commands_and_entry_points_go_together() {
    let both = |text: &str| {
        let config = applied(base(), &[], text).unwrap().0.image.config;
        let line = |words: Option<Vec<String>>| words.map(|words| words.join(" "));
        (line(config.entrypoint), line(config.cmd))
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(both("USER x"), (None, text("old")));
    assert_eq!(both("ENTRYPOINT /e"), (text("/bin/sh -c /e"), None));
    assert_eq!(both("CMD new\nENTRYPOINT /e"), (text("/bin/sh -c /e"), text("/bin/sh -c new")));
    assert_eq!(both("CMD []\nENTRYPOINT [\"/e\"]"), (text("/e"), None));
    assert_eq!(both("ENTRYPOINT [\"/e\"]\nENTRYPOINT []"), (None, None));
    assert_eq!(both("SHELL [\"/bash\", \"-x\"]\nCMD a b"), (None, text("/bash -x a b")));
    assert_eq!(both("CMD []"), (None, None));
}

#[test]
fn history_is_the_classic_builders() {
    let text = "CMD [\"a\", \"b c\"]\nENTRYPOINT x\nENV A=1 B=\"2 3\"\nLABEL l=m\nEXPOSE 80 53/udp\nVOLUME /a /b\nUSER u\n\
        WORKDIR sub\nARG N\nARG D=$B S=hidden\nRUN echo\nCOPY a b\nSTOPSIGNAL 9\nMAINTAINER me\nONBUILD RUN x\n\
        HEALTHCHECK --interval=1m --retries=3 CMD t\nSHELL [\"/b\", \"-c\"]\nUSER v\nRUN [\"p\", \"q\"]\nARG HTTP_PROXY\nRUN [\"p\"]";
    let (_, all) = applied(base(), &[("S", "secret"), ("N", "7"), ("HTTP_PROXY", "p")], text).unwrap();
    let found: Vec<_> = all.into_iter().map(|one| one.history.unwrap_or_default()).collect();
    let expected = [
        "/bin/sh -c #(nop)  CMD [\"a\" \"b c\"]",
        "/bin/sh -c #(nop)  ENTRYPOINT [\"/bin/sh\" \"-c\" \"x\"]",
        "/bin/sh -c #(nop)  ENV A=1 B=2 3",
        "/bin/sh -c #(nop)  LABEL l=m",
        "/bin/sh -c #(nop)  EXPOSE 53/udp 80",
        "/bin/sh -c #(nop)  VOLUME [/a /b]",
        "/bin/sh -c #(nop)  USER u",
        "/bin/sh -c #(nop) WORKDIR /w/sub",
        "/bin/sh -c #(nop)  ARG N",
        "/bin/sh -c #(nop)  ARG D=2 3 S=hidden",
        "|3 D=2 3 N=7 S=secret /bin/sh -c echo",
        "",
        "/bin/sh -c #(nop)  STOPSIGNAL 9",
        "/bin/sh -c #(nop)  MAINTAINER me",
        "/bin/sh -c #(nop)  ONBUILD RUN x",
        "/bin/sh -c #(nop)  HEALTHCHECK &{Test:[CMD-SHELL t] Interval:1m0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:3}",
        "/b -c #(nop)  SHELL [/b -c]",
        "/b -c #(nop)  USER v",
        "|3 D=2 3 N=7 S=secret p q",
        "/b -c #(nop)  ARG HTTP_PROXY",
        "|4 D=2 3 HTTP_PROXY=p N=7 S=secret p",
    ];
    assert_eq!(found, expected);
}

#[test]
fn files_and_mounts_get_their_values() {
    let text = "ENV D=/dst\nCOPY --chown=$D --exclude=$D $D/a <<E <<'F' $D/\n$D \"q\"\nE\n$D\nF\nRUN --mount=type=cache,target=$D/c echo $D $NOT";
    let (draft, all) = applied(ImageConfig::default(), &[], text).unwrap();
    let Instruction::Copy(copy) = &all[1].instruction else { panic!() };
    assert_eq!((copy.chown.as_deref(), copy.exclude[0].as_str()), (Some("/dst"), "$D"));
    assert!(
        matches!(&copy.sources[..], [CopySource::Path(path), CopySource::Document(e), CopySource::Document(f)]
        if path == "/dst/a" && e.content == "/dst \"q\"\n" && f.content == "$D\n")
    );
    let Instruction::Run(run) = &all[2].instruction else { panic!() };
    assert_eq!(draft.command(run), ["/bin/sh", "-c", "echo $D $NOT"]);
    assert_eq!(draft.mounts(run, Words::new('\\')).unwrap()[0].target.as_deref(), Some("/dst/c"));
}

#[test]
fn here_documents_become_scripts() {
    let command = |text: &str| {
        let (draft, all) = applied(ImageConfig::default(), &[], text).unwrap();
        let Instruction::Run(run) = &all[0].instruction else { panic!() };
        draft.command(run).pop().unwrap()
    };
    assert_eq!(command("RUN <<E\nset -e\necho\nE"), "set -e\necho\n");
    assert_eq!(command("RUN <<-'E'\n\techo\n\tE"), "echo\n");
    assert_eq!(command("RUN python3 <<E\nprint()\nE"), "python3 <<E\nprint()\nE");
    assert_eq!(command("RUN <<A cat && cat <<B\n1\nA\n2\nB"), "<<A cat && cat <<B\n1\nA\n2\nB");
}

#[test]
fn a_script_may_say_what_reads_it() {
    let program = |text: &str| {
        let (draft, all) = applied(ImageConfig::default(), &[], text).unwrap();
        let Instruction::Run(run) = &all[0].instruction else { panic!() };
        let (words, script) = draft.program(run);
        (words.last().cloned().unwrap(), script.map(|script| (script.path, script.content)))
    };
    let script = |path: &str, content: &str| Some((path.to_owned(), content.to_owned()));
    assert_eq!(
        program("RUN <<EOF\n#!/usr/bin/env python\nprint()\nEOF"),
        ("/dev/pipes/EOF".into(), script("/dev/pipes/EOF", "#!/usr/bin/env python\nprint()\n"))
    );
    let odd = program("RUN <<'a;b'\n#!/bin/sh\na;b");
    assert_eq!(odd, ("/dev/pipes/script".into(), script("/dev/pipes/script", "#!/bin/sh\n")));
    assert_eq!(program("RUN <<E\necho #!\nE"), ("echo #!\n".into(), None));
    assert_eq!(program("RUN cat <<E\n#!/bin/sh\nE").1, None);
}

#[test]
fn senseless_values_are_refused_and_change_nothing() {
    for (text, error) in [
        ("EXPOSE x", "invalid containerPort: x"),
        ("WORKDIR \"\"", "cannot normalize nothing"),
        ("STOPSIGNAL NOPE", "invalid signal: NOPE"),
        ("STOPSIGNAL 0", "invalid signal: 0"),
        ("VOLUME $NONE", "VOLUME specified can not be an empty string"),
        ("USER ${X:?needed}", "failed to process \"${X:?needed}\": X: needed"),
    ] {
        assert_eq!(applied(base(), &[], text).unwrap_err(), error, "{text}");
    }
    assert!(signal::is_one("sigrtmin+3") && !signal::is_one("RTMIN+16"));
}

#[test]
fn triggers_leave_the_configuration() {
    let (draft, triggers) = Draft::new(base(), &Given::default(), None);
    assert_eq!((triggers, draft.image.config.on_build), (vec!["RUN trigger".to_owned()], None));
}
