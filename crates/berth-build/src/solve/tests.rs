use std::collections::BTreeMap;

use super::*;
use crate::error::Fault;
use crate::variables::{CACHES, EPOCH, HOSTNAME};

/// Remembers what it was asked for. Images are numbered.
#[derive(Default)]
struct Fake {
    told: Vec<String>,
    known: BTreeMap<Digest, Image>,
    made: usize,
    changed: &'static str,
    /// Of each step that was looked for, whether its history tells all.
    histories: Vec<bool>,
    failures: Vec<Lines>,
}

fn image(number: usize, config: ImageConfig) -> Image {
    Image { id: Digest::of(number.to_string().as_bytes()), config }
}

impl Executor for Fake {
    type Error = Error;
    type Files = ();

    fn fork(&mut self, _: Option<&str>) -> Fake {
        Fake { known: self.known.clone(), ..Fake::default() }
    }

    fn stop(&mut self) {}

    fn tell(&mut self, event: Event<'_>) -> Result<(), Error> {
        self.told.push(match event {
            Event::Step { number, total, text } => format!("{number}/{total} {text}"),
            Event::Triggers(count) => format!("triggers {count}"),
            Event::Cached => "cached".into(),
            Event::Warning(text) => text.into(),
            Event::Made(_) | Event::Stage(_) => return Ok(()),
        });
        Ok(())
    }

    fn image(&mut self, name: &str, wanted: Wanted<'_>) -> Result<Image, Error> {
        let mut config = ImageConfig::default();
        if let Some(meant) = wanted.meant {
            let fault = Fault::Instruction(format!("no image {name}"));
            return Err(Error::new(fault).meant(Some(meant)));
        }
        assert_ne!(name, "panics");
        if name == "triggers" {
            config.config.on_build = Some(vec!["ENV T=1".into(), "COPY --from=first /a /b".into()]);
        }
        Ok(Image { id: Digest::of(name.as_bytes()), config })
    }

    fn cached(&mut self, probe: &Probe<'_>) -> Result<Option<Image>, Error> {
        self.histories.push(probe.told);
        Ok(self.known.get(probe.key).cloned())
    }

    fn gather(&mut self, copying: &Copying) -> Result<((), String), Error> {
        Ok(((), format!("{}{}", copying.sources.len(), self.changed)))
    }

    fn bound(&mut self, _: &Mount, _: Lines) -> Result<String, Error> {
        Ok(self.changed.to_owned())
    }

    fn make(&mut self, step: Step<'_, ()>) -> Result<Image, Error> {
        self.made += 1;
        let made = image(self.made, step.config);
        self.told.push(match step.change {
            Change::Nothing => step.history,
            Change::Directory(path) => format!("mkdir {path}"),
            Change::Run(program) => format!("run {:?} {:?}", program.command, program.environment),
            Change::Copy(copying, ()) => format!("{} > {}", step.history, copying.destination),
        });
        self.known.insert(step.key, made.clone());
        Ok(made)
    }

    fn failed(&mut self, lines: Lines) {
        self.failures.push(lines);
    }
}

fn build(fake: &mut Fake, build: &Build, text: &str) -> Vec<String> {
    build.run(&Dockerfile::read(text.as_bytes()).unwrap(), fake).unwrap();
    std::mem::take(&mut fake.told)
}

#[test]
fn steps_are_done_once() {
    let text = "ARG V=1\nFROM base AS first\nARG V\nRUN echo $V\nFROM triggers\nWORKDIR a\nCOPY x .\nCMD b\n";
    let mut fake = Fake::default();
    let mut asked = Build::default();
    asked.labels.insert("l".into(), "v".into());
    let path = "\"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\"";
    let nop = "/bin/sh -c #(nop)";
    let copied = format!("{nop} COPY 1 in . ");
    // That the first stage is needed, only a trigger of the second one's base says.
    let expected = [
        "1/6 ARG V=1",
        "2/6 FROM triggers",
        "triggers 2",
        &format!("{nop}  ENV T=1"),
        "2/6 FROM base AS first",
        "3/6 ARG V",
        &format!("{nop}  ARG V"),
        "4/6 RUN echo $V",
        &format!("run [\"/bin/sh\", \"-c\", \"echo $V\"] [{path}, \"V=1\"]"),
        &format!("{nop} COPY 1 in /b  > /b"),
        "3/6 WORKDIR a",
        "mkdir /a",
        "4/6 COPY x .",
        &format!("{copied} > /a/"),
        "5/6 CMD b",
        &format!("{nop}  CMD [\"/bin/sh\" \"-c\" \"b\"]"),
        "6/6 LABEL l=v",
        &format!("{nop}  LABEL l=v"),
    ];
    assert_eq!(build(&mut fake, &asked, text), expected);
    let made = fake.made;
    let again = build(&mut fake, &asked, text);
    assert_eq!((fake.made, again.iter().filter(|line| *line == "cached").count()), (made, 8));
    // Other files: the copies and what stands on them are done again.
    fake.changed = "other";
    build(&mut fake, &asked, text);
    assert_eq!(fake.made - made, 5);
    // Another value of an argument: the step that sees it, and what stands on it.
    asked.given.arguments.insert("V".into(), "2".into());
    let told = build(&mut fake, &asked, text);
    assert_eq!(told.iter().position(|line| line == "cached"), Some(3), "{told:?}");
    assert!(told.iter().any(|line| line.contains("V=2")));
    for name in ["W", "HTTP_PROXY", "BUILDKIT_SYNTAX", "BUILDKIT_INLINE_CACHE", EPOCH] {
        asked.given.arguments.insert(name.into(), "2".into());
    }
    let told = build(&mut fake, &asked, text);
    assert_eq!(told.last().unwrap(), "[Warning] One or more build-args [W] were not consumed");
}

#[test]
fn words_and_the_epoch_are_part_of_a_key() {
    let mut fake = Fake::default();
    let mut asked = Build::default();
    let mut made = |asked: &Build, text: &str| {
        let before = fake.made;
        build(&mut fake, asked, text);
        fake.made - before
    };
    // They have the same history.
    for text in ["FROM base\nRUN [\"touch\", \"/a b\"]\n", "FROM base\nRUN [\"touch\", \"/a\", \"b\"]\n"] {
        assert!(made(&asked, text) > 0, "{text}");
        assert_eq!(made(&asked, text), 0, "{text}");
    }
    // A step sees where it runs, and the caches that it has.
    for name in [HOSTNAME, CACHES] {
        let mut other = asked.clone();
        other.given.arguments.insert(name.to_owned(), "other".to_owned());
        let text = "FROM base\nENV A=b\nRUN hostname\n";
        let first = usize::from(name == HOSTNAME) * 2;
        assert_eq!((made(&asked, text), made(&other, text), made(&other, text)), (first, 1, 0), "{name}");
    }
    let text = "FROM base\nRUN touch\nCOPY a /b\nENV A=b\n";
    assert_eq!((made(&asked, text), made(&asked, text)), (3, 0));
    for epoch in ["1", "2"] {
        asked.given.arguments.insert(EPOCH.to_owned(), epoch.to_owned());
        assert_eq!((made(&asked, text), made(&asked, text)), (3, 0), "{epoch}");
    }
}

#[test]
fn what_a_history_does_not_tell_is_known() {
    let told = |text: &str| {
        let mut fake = Fake::default();
        build(&mut fake, &Build::default(), &format!("FROM base\n{text}\n"));
        fake.histories
    };
    for text in ["RUN make a", "RUN [\"make\", \"a\"]", "COPY a /b", "COPY --exclude=c a /b", "ENV A=b"] {
        assert_eq!(told(text), [true], "{text}");
    }
    for text in [
        "RUN --mount=target=/src make",
        "RUN --network=none make",
        "RUN --security=insecure make",
        "RUN [\"touch\", \"/a b\"]",
        "RUN [\"/bin/sh\", \"-c\", \"make\", \"a\"]",
        "COPY --link a /b",
    ] {
        assert_eq!(told(text), [false], "{text}");
    }
}

#[test]
fn failures_have_a_place_and_a_suggestion() {
    let failed = |text: &str| {
        let mut fake = Fake::default();
        let error = Build::default().run(&Dockerfile::read(text.as_bytes()).unwrap(), &mut fake).unwrap_err();
        (error.to_string(), fake.failures.first().map(|lines| (lines.first, lines.last)))
    };
    let first = "FROM base AS builder\n\n";
    for (text, words, lines) in [
        ("FROM biulder\n", "no image biulder (did you mean builder?)", (3, 3)),
        ("FROM base\nCOPY --from=bilder \\\n a b\n", "no image bilder (did you mean builder?)", (4, 5)),
        (
            "FROM base\nRUN --mount=from=Bulder,target=/a b\n",
            "no image Bulder (did you mean builder?)",
            (4, 4),
        ),
        ("FROM base\nENV A=${B?why}\n", "failed to process \"${B?why}\": B: why", (4, 4)),
    ] {
        assert_eq!(failed(&format!("{first}{text}")), (words.to_owned(), Some(lines)), "{text}");
    }
}

#[test]
fn a_panic_ends_the_build() {
    let text = "FROM panics AS one\nFROM base AS two\nFROM base\nCOPY --from=one a b\nCOPY --from=two a b\n";
    let file = Dockerfile::read(text.as_bytes()).unwrap();
    let build = Build { jobs: 2, ..Build::default() };
    let outcome = std::panic::catch_unwind(|| build.run(&file, &mut Fake::default()).is_ok());
    assert!(outcome.is_err());
}

#[test]
fn stages_before_the_target_are_built_if_all_are_asked_for() {
    let text = "FROM base AS unused\nRUN a\nFROM base AS target\nRUN b\nFROM base\nRUN c\n";
    let mut asked = Build { all: true, ..Build::default() };
    asked.given.target = Some("target".into());
    let ran = |told: Vec<String>| told.iter().filter(|line| line.starts_with("run")).count();
    assert_eq!(ran(build(&mut Fake::default(), &asked, text)), 2);
    asked.all = false;
    assert_eq!(ran(build(&mut Fake::default(), &asked, text)), 1);
}

#[test]
fn destinations_are_clean() {
    for (directory, path, expected) in [
        ("", "a", "/a"),
        ("/w", "a/", "/w/a/"),
        ("/w", ".", "/w/"),
        ("/w", "..", "/"),
        ("/w", "/x/./y/../", "/x/"),
        ("/w/v", "../../../b", "/b"),
        ("/w", "/", "/"),
        ("/w", "/x/.", "/x/"),
    ] {
        assert_eq!(destination(directory, path), expected, "{directory} {path}");
    }
}
