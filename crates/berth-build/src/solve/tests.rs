use std::collections::BTreeMap;

use super::*;

/// Remembers what it was asked for. Images are numbered.
#[derive(Default)]
struct Fake {
    told: Vec<String>,
    known: BTreeMap<Digest, Image>,
    made: usize,
    changed: &'static str,
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

    fn image(&mut self, name: &str, _: Option<&Platform>, _: bool) -> Result<Image, Error> {
        let mut config = ImageConfig::default();
        if name == "triggers" {
            config.config.on_build = Some(vec!["ENV T=1".into(), "COPY --from=first /a /b".into()]);
        }
        Ok(Image { id: Digest::of(name.as_bytes()), config })
    }

    fn cached(&mut self, probe: &Probe<'_>) -> Result<Option<Image>, Error> {
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
    asked.given.arguments.insert("W".into(), "2".into());
    let told = build(&mut fake, &asked, text);
    assert_eq!(told.last().unwrap(), "[Warning] One or more build-args [W] were not consumed");
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
