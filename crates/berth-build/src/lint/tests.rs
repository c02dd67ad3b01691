use super::*;

fn found(text: &str) -> Vec<String> {
    let given = Given { target_platform: "linux/amd64".parse().unwrap(), ..Given::default() };
    let ignore = Ignore::new(["secret", "*.log"]).unwrap();
    let base = |image: &str| (image != "unknown").then(ContainerDefaults::default);
    let surroundings = Surroundings { given: &given, ignore: &ignore, base: &base };
    let file = Dockerfile::read(text.as_bytes()).unwrap();
    check(&file, &surroundings).unwrap().0.iter().map(Warning::short).collect()
}

#[test]
fn each_rule_is_seen() {
    for (text, expected) in [
        ("FROM a AS Base", "StageNameCasing: Stage name 'Base' should be lowercase (line 1)"),
        ("FROM a as b", "FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)"),
        ("FROM a\nRUN b \\\n\n c", "NoEmptyContinuation: Empty continuation line (line 4)"),
        (
            "FROM a\nRun b\nUSER c",
            "ConsistentInstructionCasing: Command 'Run' should match the case of the command majority (uppercase) (line 2)",
        ),
        (
            "from a\nrun b\nUSER c",
            "ConsistentInstructionCasing: Command 'USER' should match the case of the command majority (lowercase) (line 3)",
        ),
        (
            "FROM a AS b\nFROM a AS b",
            "DuplicateStageName: Duplicate stage name \"b\", stage names should be unique (line 2)",
        ),
        (
            "FROM a AS scratch",
            "ReservedStageName: Stage name should not use the same name as reserved stage \"scratch\" (line 1)",
        ),
        (
            "FROM a\nCMD b",
            "JSONArgsRecommended: JSON arguments recommended for CMD to prevent unintended behavior related to OS signals (line 2)",
        ),
        (
            "FROM a\nMAINTAINER b",
            "MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)",
        ),
        (
            "ARG VERSION=1\nFROM a$VERSON",
            "UndefinedArgInFrom: FROM argument 'VERSON' is not declared (did you mean VERSION?) (line 2)",
        ),
        (
            "FROM a\nWORKDIR b",
            "WorkdirRelativePath: Relative workdir \"b\" can have unexpected results if the base image changes (line 2)",
        ),
        (
            "FROM a\nENV NAME=1\nUSER $NAEM",
            "UndefinedVar: Usage of undefined variable '$NAEM' (did you mean $NAME?) (line 3)",
        ),
        ("FROM a\nARG B=${NOPE}", "UndefinedVar: Usage of undefined variable '$NOPE' (line 2)"),
        (
            "FROM a\nCMD [\"b\"]\nCMD [\"c\"]",
            "MultipleInstructionsDisallowed: Multiple CMD instructions should not be used in the same stage because only the last one will be used (line 2)",
        ),
        (
            "FROM a\nENV b c",
            "LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format (line 2)",
        ),
        (
            "FROM --platform=${TARGETPLATFORM} a",
            "RedundantTargetPlatform: Setting platform to predefined ${TARGETPLATFORM} in FROM is redundant as this is the default behavior (line 1)",
        ),
        (
            "FROM a\nARG API_TOKEN",
            "SecretsUsedInArgOrEnv: Do not use ARG or ENV instructions for sensitive data (ARG \"API_TOKEN\") (line 2)",
        ),
        (
            "ARG T\nFROM a:$T",
            "InvalidDefaultArgInFrom: Default value for ARG a:$T results in empty or invalid base image name (line 2)",
        ),
        (
            "FROM --platform=linux/arm64 a AS b",
            "FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/arm64\" (line 1)",
        ),
        (
            "FROM a\nCOPY ./x.log b",
            "CopyIgnoredFile: Attempting to Copy file \"x.log\" that is excluded by .dockerignore (line 2)",
        ),
        (
            "FROM a\nADD secret/x b",
            "CopyIgnoredFile: Attempting to Add file \"secret/x\" that is excluded by .dockerignore (line 2)",
        ),
        (
            "# check=experimental=all\n\n# the base\nFROM a AS b",
            "InvalidDefinitionDescription: Comment for FROM should follow the format: `# b <description>` (line 4)",
        ),
        (
            "FROM a\nEXPOSE 80/TCP",
            "ExposeProtoCasing: Defined protocol '80/TCP' in EXPOSE instruction should be lowercase (line 2)",
        ),
        (
            "FROM a\nEXPOSE 80:80",
            "ExposeInvalidFormat: EXPOSE instruction should not define an IP address or host-port mapping, found '80:80' (line 2)",
        ),
    ] {
        assert_eq!(found(text), [expected], "{text}");
    }
}

#[test]
fn what_is_right_is_left_alone() {
    for text in [
        "ARG V=1\nFROM a:$V AS linux-build\nARG V\nENV PUBLIC_KEY=1 KEY_FILE=x\nRUN $NOPE\nWORKDIR /x\nWORKDIR y\nUSER $V$PATH",
        "FROM a AS b\nWORKDIR /x\nARG C=1\nFROM b\nWORKDIR y\nUSER $C",
        "FROM unknown\nUSER $ANY",
        "FROM a\nSHELL [\"/b\"]\nCMD c\nHEALTHCHECK NONE\nCOPY --from=x secret y\nCOPY . https://x/x.log /",
        "FROM --platform=linux/arm64 a AS arm64",
        "FROM --platform=$BUILDPLATFORM a\nCMD [\"a\"]\nFROM b\nCMD [\"b\"]",
        "# check=skip=all\nFROM a as B\nMAINTAINER x",
        "# check=skip=JSONArgsRecommended,MaintainerDeprecated\nFROM a\nMAINTAINER x\nCMD y",
        "FROM a\n# check=skip=JSONArgsRecommended\nCMD y",
        "# the base\nFROM a AS b",
    ] {
        assert_eq!(found(text), Vec::<String>::new(), "{text}");
    }
}

#[test]
fn options_are_read() {
    for (text, error) in [
        ("skip", "invalid check option \"skip\""),
        ("jump=all", "invalid check option \"jump\""),
        ("error=maybe", "failed to parse check option \"error=maybe\": invalid syntax"),
    ] {
        assert_eq!(Options::parse(text).unwrap_err().to_string(), error);
    }
    let file = Dockerfile::read(b"# check=error=true\nFROM a\nMAINTAINER b").unwrap();
    let (given, ignore) = (Given::default(), Ignore::default());
    let surroundings = Surroundings { given: &given, ignore: &ignore, base: &|_| None };
    let (warnings, fails) = check(&file, &surroundings).unwrap();
    assert!(fails);
    assert_eq!(failure(&warnings), "lint violation found for rules: MaintainerDeprecated");
    let url = |rule: Rule| rule.url().unwrap();
    assert!(url(Rule::JSONArgsRecommended).ends_with("/json-args-recommended/"));
    assert!(url(Rule::FromAsCasing).ends_with("/from-as-casing/"));
}
