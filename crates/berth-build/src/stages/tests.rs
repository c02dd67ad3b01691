use super::*;
use crate::expand::Words;
use crate::variables::{Given, Globals};

fn stages(text: &str) -> Stages {
    Stages::new(&Dockerfile::read(text.as_bytes()).unwrap()).unwrap()
}

fn graph_of(text: &str, target: Option<&str>, contexts: &[&str]) -> Result<Graph, String> {
    let stages = stages(text);
    let words = Words::new('\\');
    let given = Given { target_platform: "linux/arm64".parse().unwrap(), ..Given::default() };
    let globals = Globals::new(&given, &stages.arguments, words).unwrap();
    Graph::new(&stages, target, &globals, &Outside::new(contexts), words).map_err(|error| error.to_string())
}

const TEXT: &str = "ARG V=1 P=linux/386\nFROM base:$V AS One\nFROM --platform=$P one AS two\nRUN --mount=from=tools,target=/t x\n\
    FROM scratch AS lost\nFROM two AS three\nCOPY --from=0 a b\nCOPY --from=ONE a b\nCOPY --from=img:1 a b\nONBUILD COPY --from=lost a b\n\
    FROM --platform=$TARGETPLATFORM other\nRUN --mount=from=2,target=/x --mount=target=/y x\nFROM three AS last\n";

#[test]
fn stages_need_each_other() {
    let graph = graph_of(TEXT, Some("THREE"), &["tools"]).unwrap();
    assert_eq!((graph.target, graph.order()), (3, vec![0, 1, 3]));
    let image = |name: &str| Origin::Image(name.to_owned());
    let bases: Vec<_> = graph.inputs.iter().map(|input| input.base.clone()).collect();
    let expected = [
        image("base:1"),
        Origin::Stage(0),
        Origin::Scratch,
        Origin::Stage(1),
        image("other"),
        Origin::Stage(3),
    ];
    assert_eq!(bases, expected);
    let uses =
        |index: usize| graph.inputs[index].uses.iter().map(|one| one.origin.clone()).collect::<Vec<_>>();
    assert_eq!(uses(1), [Origin::Context("tools".to_owned())]);
    assert_eq!(uses(3), [Origin::Stage(0), Origin::Stage(0), image("img:1")]);
    assert_eq!((uses(4), uses(5)), (vec![Origin::Stage(2)], vec![Origin::Stage(2)]));
    assert_eq!(graph.inputs[1].platform.as_ref().unwrap().to_string(), "linux/386");
    assert_eq!(graph.inputs[4].platform.as_ref().unwrap().architecture, "arm64");
    let images: Vec<_> = graph.images().into_keys().collect();
    assert_eq!(images, ["base:1", "img:1"]);
    // The trigger of a base stage counts in the stage upon it.
    assert_eq!(graph_of(TEXT, None, &[]).unwrap().order(), [0, 1, 2, 3, 5]);
    assert_eq!(graph_of(TEXT, Some("4"), &[]).unwrap().order(), [2, 4]);
}

#[test]
fn contexts_take_the_place_of_stages_and_images() {
    let graph =
        graph_of("FROM a AS x\nCOPY --from=y . .\nFROM b:1\nCOPY --from=x . .", None, &["x", "b:1"]).unwrap();
    let context = |name: &str| Origin::Context(name.to_owned());
    assert_eq!((&graph.inputs[0].base, graph.inputs[0].uses.len()), (&context("x"), 0));
    assert_eq!(graph.inputs[1].base, context("b:1"));
    let library = graph_of("FROM alpine", None, &["docker.io/library/alpine:latest"]).unwrap();
    assert_eq!(library.inputs[0].base, context("alpine"));
}

#[test]
fn names_that_lead_nowhere_are_refused() {
    for (text, target, error) in [
        (
            "FROM a AS build\nFROM b",
            Some("buidl"),
            "target stage \"buidl\" could not be found (did you mean build?)",
        ),
        ("FROM a", Some("nosuchtarget"), "target stage \"nosuchtarget\" could not be found"),
        ("FROM $X", None, "base name ($X) should not be blank"),
        ("FROM a AS x\nCOPY --from=x b c", None, "circular dependency detected on stage: x"),
        ("FROM a\nCOPY --from=0 b c", None, "invalid from flag value 0: refers to current build stage"),
        ("FROM a\nCOPY --from=7 b c", None, "invalid stage index 7"),
        (
            "FROM a AS x\nCOPY --from=y b c\nFROM b AS y",
            None,
            "cannot copy from stage \"y\", it needs to be defined before current stage \"x\"",
        ),
        (
            "FROM a AS x\nRUN --mount=from=1 c\nFROM b AS y",
            None,
            "cannot mount from stage \"1\", it needs to be defined before current stage \"x\"",
        ),
        (
            "ARG X=1\nFROM a\nCOPY --from=$X b c",
            None,
            "variable expansion is not supported for --from, define a new stage with FROM using ARG from global scope as a workaround",
        ),
        (
            "ARG PLATFORM=x\nFROM --platform=$PLATFROM a",
            None,
            "empty platform value from expression $PLATFROM (did you mean PLATFORM?)",
        ),
        (
            "FROM --platform=a/b/c/d/e a",
            None,
            "failed to parse platform a/b/c/d/e: \"a/b/c/d/e\": cannot parse platform specifier: invalid argument",
        ),
    ] {
        assert_eq!(graph_of(text, target, &[]), Err(error.to_owned()), "{text}");
    }
}

#[test]
fn a_file_begins_with_from() {
    let refused = |text: &str| Stages::new(&Dockerfile::read(text.as_bytes()).unwrap()).unwrap_err();
    assert_eq!(refused("ARG a").to_string(), "dockerfile contains no stages to build");
    let error = refused("ARG a\nRUN x\nFROM a");
    assert_eq!(
        (error.to_string().as_str(), error.lines()),
        ("no build stage in current context", Some(Lines::one(2)))
    );
    let found = stages("ARG a=1 b\nARG c\nFROM x\nRUN y\nFROM z");
    assert_eq!((found.arguments.len(), found.preamble.len(), found.stages.len()), (3, 2, 2));
    assert_eq!(found.stages[0].statements.len(), 1);
}
