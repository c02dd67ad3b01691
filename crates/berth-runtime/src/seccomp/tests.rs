//! The compiler against libseccomp on random profiles, in an interpreter; and the default profile in the kernel.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use oci_spec::runtime::{Arch, Capability, LinuxSeccomp};
use proptest::prelude::*;
use rustix::net::{AddressFamily, SocketType};

use super::assemble::Instruction;
use super::*;

const X86_64: u32 = 0xc000_003e;
const X86: u32 = 0x4000_0003;
const ALLOW: u32 = 0x7fff_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0000 | libc::ENOSYS as u32;
const X32_BIT: u32 = 0x4000_0000;

/// A call as a filter sees it.
#[derive(Debug, Clone, Copy)]
struct Call {
    number: u32,
    arch: u32,
    arguments: [u64; 6],
}

fn call(arch: u32, number: u32, first: u64) -> Call {
    Call { number, arch, arguments: [first, 0, 0, 0, 0, 0] }
}

/// What the kernel would answer.
fn interpret(code: &[Instruction], call: &Call) -> u32 {
    let load = |offset: u32| match offset {
        0 => call.number,
        4 => call.arch,
        16..64 if offset.is_multiple_of(4) => {
            let argument = call.arguments[(offset as usize - 16) / 8];
            (if offset.is_multiple_of(8) { argument } else { argument >> 32 }) as u32
        }
        _ => panic!("load of {offset}"),
    };
    let (mut accumulator, mut at) = (0, 0);
    loop {
        let (operation, yes, no, operand) = code[at];
        at += 1;
        let mut branch = |holds: bool| at += usize::from(if holds { yes } else { no });
        match operation {
            0x20 => accumulator = load(operand),
            0x54 => accumulator &= operand,
            0x05 => at += operand as usize,
            0x15 => branch(accumulator == operand),
            0x25 => branch(accumulator > operand),
            0x35 => branch(accumulator >= operand),
            0x06 => return operand,
            _ => panic!("operation {operation:#x}"),
        }
    }
}

fn profile(json: serde_json::Value) -> LinuxSeccomp {
    serde_json::from_value(json).unwrap()
}

fn compiled(json: serde_json::Value) -> Program {
    compile(&profile(json)).unwrap()
}

fn answer(program: &Program, call: Call) -> u32 {
    interpret(&program.instructions, &call)
}

fn default_for(capabilities: &[Capability]) -> Program {
    compile(&default_profile(capabilities)).unwrap()
}

fn number(name: &str) -> u32 {
    architecture::row(name).and_then(|row| architecture::Table::X86_64.number(row)).unwrap()
}

#[test]
fn the_default_profile_is_dockers() {
    let program = default_for(&crate::capability::DEFAULT);
    let native = |name, first| answer(&program, call(X86_64, number(name), first));
    for name in ["read", "openat", "execve", "ptrace", "removexattrat", "arch_prctl", "chroot"] {
        assert_eq!(native(name, 0), ALLOW, "{name}");
    }
    let refused = [
        "mount",
        "bpf",
        "reboot",
        "add_key",
        "keyctl",
        "io_uring_setup",
        "userfaultfd",
        "unshare",
        "kexec_load",
    ];
    for name in refused {
        assert_eq!(native(name, 0), EPERM, "{name}");
    }
    assert_eq!(native("clone3", 0), ENOSYS);
    assert_eq!(native("clone", 0x11), ALLOW);
    assert_eq!(native("clone", 0x1000_0011), EPERM);
    assert_eq!(native("personality", 0xffff_ffff), ALLOW);
    assert_eq!(native("personality", 0x4_0000), EPERM);
    // Calls above those that the profile names: libraries fall back upon ENOSYS only.
    for newer in [467, 470, 0x3fff_ffff, 0x4000_0400] {
        assert_eq!(answer(&program, call(X86_64, newer, 0)), ENOSYS, "{newer}");
    }
    assert_eq!(answer(&program, call(X86_64, u32::MAX, 0)), EPERM);
}

#[test]
fn families_of_sockets_are_the_same_for_all_tables() {
    let program = default_for(&crate::capability::ALL);
    let sockets = [(X86_64, number("socket")), (X86_64, number("socket") | X32_BIT), (X86, 359)];
    for (arch, number) in sockets {
        for family in 0..64 {
            let expected = if [38, 40].contains(&family) { EPERM } else { ALLOW };
            // The kernel does not look at the upper half.
            for argument in [family, family | 1 << 32, family | 0xffff_ffff << 32] {
                assert_eq!(
                    answer(&program, call(arch, number, argument)),
                    expected,
                    "{arch:#x} {argument:#x}"
                );
            }
        }
        assert_eq!(answer(&program, call(arch, number, 64)), EPERM);
    }
}

#[test]
fn capabilities_open_their_calls() {
    let program = default_for(&[Capability::SysAdmin, Capability::SysTime]);
    for name in ["mount", "clone3", "unshare", "setns", "clock_settime"] {
        assert_eq!(answer(&program, call(X86_64, number(name), u64::MAX)), ALLOW, "{name}");
    }
    assert_eq!(answer(&program, call(X86_64, number("reboot"), 0)), EPERM);
    assert_eq!(answer(&program, call(X86_64, number("clone"), 0x1000_0011)), ALLOW);
}

#[test]
fn other_tables_are_as_their_numbers_say() {
    let program = default_for(&[]);
    // 1 is exit on x86, 16 lchown; ioctl of x32 is 514, and 16 there is nothing.
    assert_eq!(answer(&program, call(X86, 21, 0)), EPERM, "mount");
    assert_eq!(answer(&program, call(X86, 16, 0)), ALLOW);
    assert_eq!(answer(&program, call(X86_64, 514 | X32_BIT, 0)), ALLOW);
    assert_eq!(answer(&program, call(X86_64, 16 | X32_BIT, 0)), EPERM);
    assert_eq!(answer(&program, call(0xc000_00b7, 1, 0)), 0, "another machine kills");
}

#[test]
fn unlisted_tables_kill() {
    let program = compiled(serde_json::json!({ "defaultAction": "SCMP_ACT_ALLOW" }));
    assert_eq!(answer(&program, call(X86_64, 1, 0)), ALLOW);
    assert_eq!(answer(&program, call(X86, 1, 0)), 0);
    assert_eq!(answer(&program, call(X86_64, 1 | X32_BIT, 0)), 0);
    assert_eq!(answer(&program, call(X86_64, u32::MAX, 0)), ALLOW);
}

#[test]
fn what_x86_multiplexes_follows_the_call() {
    let arches = serde_json::json!(["SCMP_ARCH_X86"]);
    let family = serde_json::json!([{ "index": 0, "value": 38, "op": "SCMP_CMP_EQ" }]);
    let denying = compiled(
        serde_json::json!({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": arches, "syscalls": [
        { "names": ["socket", "msgget"], "action": "SCMP_ACT_ERRNO", "args": family }] }),
    );
    assert_eq!(answer(&denying, call(X86, 102, 1)), EPERM);
    assert_eq!(answer(&denying, call(X86, 102, 2)), ALLOW);
    assert_eq!(answer(&denying, call(X86, 117, 0x1_000d)), EPERM, "a version in the upper half");
    let allowing = compiled(
        serde_json::json!({ "defaultAction": "SCMP_ACT_ERRNO", "architectures": arches, "syscalls": [
        { "names": ["socket"], "action": "SCMP_ACT_ALLOW", "args": family },
        { "names": ["bind"], "action": "SCMP_ACT_ALLOW" }] }),
    );
    assert_eq!(answer(&allowing, call(X86, 102, 1)), EPERM, "its condition cannot be checked there");
    assert_eq!(answer(&allowing, call(X86, 102, 2)), ALLOW);
}

#[test]
fn conditions_on_one_argument_are_alternatives_and_others_add_up() {
    let program = compiled(serde_json::json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        { "names": ["dup3"], "action": "SCMP_ACT_ALLOW", "args": [
            { "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }, { "index": 0, "value": 2, "op": "SCMP_CMP_EQ" }] },
        { "names": ["lseek"], "action": "SCMP_ACT_LOG", "args": [
            { "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }, { "index": 1, "value": 2, "op": "SCMP_CMP_EQ" }] }] }));
    let dup = |first| answer(&program, call(X86_64, number("dup3"), first));
    assert_eq!((dup(1), dup(2), dup(3)), (ALLOW, ALLOW, EPERM));
    let seek = |second| {
        let arguments = [1, second, 0, 0, 0, 0];
        answer(&program, Call { number: number("lseek"), arch: X86_64, arguments })
    };
    assert_eq!((seek(2), seek(3)), (0x7ffc_0000, EPERM));
}

#[test]
fn actions_carry_their_error_number() {
    let program =
        compiled(serde_json::json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 13, "syscalls": [
        { "names": ["read"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5 },
        { "names": ["write"], "action": "SCMP_ACT_TRACE", "errnoRet": 7 },
        { "names": ["open"], "action": "SCMP_ACT_TRAP" },
        { "names": ["close"], "action": "SCMP_ACT_KILL_PROCESS" },
        { "names": ["stat"], "action": "SCMP_ACT_KILL" },
        { "names": ["no_such_call", "lseek"], "action": "SCMP_ACT_ALLOW" }] }));
    let answers = ["read", "write", "open", "close", "stat", "fstat", "lseek"]
        .map(|name| answer(&program, call(X86_64, number(name), 0)));
    assert_eq!(answers, [0x0005_0005, 0x7ff0_0007, 0x0003_0000, 0x8000_0000, 0, 0x0005_000d, ALLOW]);
}

#[test]
fn what_cannot_be_done_is_refused() {
    let refusal = |json| compile(&profile(json)).unwrap_err();
    assert_eq!(
        refusal(serde_json::json!({ "defaultAction": "SCMP_ACT_NOTIFY" })).to_string(),
        "the action SCMP_ACT_NOTIFY is not supported"
    );
    let six = serde_json::json!([{ "index": 6, "value": 0, "op": "SCMP_CMP_EQ" }]);
    let rule = serde_json::json!([{ "names": ["read"], "action": "SCMP_ACT_ERRNO", "args": six }]);
    assert_eq!(
        refusal(serde_json::json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rule })),
        Error::Argument { name: "read".to_owned(), index: 6 }
    );
    assert_eq!(
        refusal(serde_json::json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 70000 })),
        Error::ErrorNumber(70000)
    );
    let many: Vec<_> = (0..2000)
        .map(|value| {
            serde_json::json!({ "names": ["read"], "action": "SCMP_ACT_ERRNO",
                "args": [{ "index": 0, "value": value, "op": "SCMP_CMP_EQ" }] })
        })
        .collect();
    assert_eq!(
        refusal(serde_json::json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": many })),
        Error::TooLong
    );
}

#[test]
fn a_program_survives_serialisation() {
    let program = default_for(&crate::capability::DEFAULT);
    let text = serde_json::to_string(&program).unwrap();
    assert_eq!(serde_json::from_str::<Program>(&text).unwrap(), program);
}

#[test]
fn compilation_is_quick_and_the_filter_short() {
    let profile = default_profile(&crate::capability::DEFAULT);
    let fastest = (0..20).map(|_| {
        let begin = Instant::now();
        let program = compile(&profile).unwrap();
        assert!(program.len() < 900, "{}", program.len());
        begin.elapsed()
    });
    // Generous, for the unoptimised build on a busy machine.
    let fastest = fastest.min().unwrap();
    println!("{fastest:?}, {} instructions", default_for(&crate::capability::DEFAULT).len());
    assert!(fastest < Duration::from_millis(5), "{fastest:?}");
}

#[test]
fn the_kernel_takes_the_default_profile() {
    // In a thread of its own: a filter stays.
    let checks = std::thread::spawn(|| {
        rustix::thread::set_no_new_privs(true).unwrap();
        default_for(&crate::capability::DEFAULT).load().unwrap();
        let socket = |family| {
            rustix::net::socket(AddressFamily::from_raw(family), SocketType::SEQPACKET, None)
                .map(drop)
                .map_err(rustix::io::Errno::raw_os_error)
        };
        assert_eq!(socket(1), Ok(()));
        assert_eq!(socket(38), Err(libc::EPERM));
        assert_eq!(socket(40), Err(libc::EPERM));
        let refused = |result: io::Result<()>| result.unwrap_err().raw_os_error();
        let flags = berth_sys::process::flags::NEWUTS;
        assert_eq!(refused(berth_sys::process::unshare(flags)), Some(libc::EPERM));
        assert_eq!(refused(berth_sys::process::personality(0x4_0000)), Some(libc::EPERM));
        berth_sys::process::personality(0).unwrap();
        // The C library tries clone3 and falls back to clone.
        std::thread::spawn(|| ()).join().unwrap();
        std::fs::read("/proc/thread-self/status").unwrap();
    });
    checks.join().unwrap();
}

/// Calls whose name and arguments mean the same on all three tables, and to the old libseccomp of stable distributions.
const POOL: [&str; 12] = [
    "read",
    "write",
    "lseek",
    "dup3",
    "personality",
    "clone",
    "ioctl",
    "fcntl",
    "prctl",
    "execve",
    "getrandom",
    "openat2",
];

#[derive(Debug, Clone)]
struct RandomRule {
    name: &'static str,
    conditions: Vec<(u32, u32, u64, u64)>,
}

fn interesting() -> impl Strategy<Value = u64> {
    prop_oneof![
        0..4u64,
        Just(0x7e02_0000),
        Just(0xffff_ffff),
        Just(0x1_0000_0000),
        Just(0x1_0000_0001),
        Just(u64::MAX),
        any::<u64>()
    ]
}

fn random_rule() -> impl Strategy<Value = RandomRule> {
    let condition = (1..8u32, interesting(), interesting());
    (proptest::sample::select(&POOL[..]), proptest::collection::btree_map(0..6u32, condition, 0..3)).prop_map(
        |(name, conditions)| {
            let conditions = conditions.into_iter().map(|(index, (op, value, two))| {
                // A value with bits outside the mask is never equal, which libseccomp sees otherwise.
                let two = if op == 7 { two & value } else { 0 };
                (index, op, value, two)
            });
            RandomRule { name, conditions: conditions.collect() }
        },
    )
}

/// Whether calls are allowed by default, the rules, how many further architectures, and calls to compare.
type RandomCase = (bool, Vec<RandomRule>, usize, Vec<(usize, [u64; 6])>);

const OPERATORS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];

fn as_profile(default: u32, rules: &[RandomRule], arches: &[Arch]) -> LinuxSeccomp {
    let actions = ["SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"];
    let actions = if default == ALLOW { actions } else { [actions[1], actions[0]] };
    let rules: Vec<_> = rules
        .iter()
        .map(|rule| {
            let args: Vec<_> = rule
                .conditions
                .iter()
                .map(|(index, op, value, two)| {
                    let op = format!("SCMP_CMP_{}", OPERATORS[*op as usize - 1]);
                    serde_json::json!({ "index": index, "op": op, "value": value, "valueTwo": two })
                })
                .collect();
            serde_json::json!({ "names": [rule.name], "action": actions[1], "args": args })
        })
        .collect();
    profile(serde_json::json!({ "defaultAction": actions[0], "architectures": arches, "syscalls": rules }))
}

/// The same rules in the oracle's form, compiled by libseccomp; nothing if it never comes to an end.
fn oracle(program: &Path, default: u32, rules: &[RandomRule], arches: &[Arch]) -> Option<Vec<Instruction>> {
    let action = if default == ALLOW { EPERM } else { ALLOW };
    let mut input = format!("{default} {}\n", arches.len());
    for arch in arches {
        writeln!(input, "{}", *arch as u32).unwrap();
    }
    for rule in rules {
        write!(input, "{action} {} {}", rule.name, rule.conditions.len()).unwrap();
        for (index, op, value, two) in &rule.conditions {
            write!(input, " {index} {op} {value} {two}").unwrap();
        }
        input.push('\n');
    }
    let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    if std::os::unix::process::ExitStatusExt::signal(&output.status) == Some(libc::SIGALRM) {
        return None;
    }
    assert!(output.status.success(), "{input}");
    let half = |bytes: &[u8]| u16::from_ne_bytes(bytes.try_into().unwrap());
    let instructions = output.stdout.chunks(8);
    let read =
        |one: &[u8]| (half(&one[..2]), one[2], one[3], u32::from_ne_bytes(one[4..].try_into().unwrap()));
    Some(instructions.map(read).collect())
}

fn build_oracle(directory: &Path) -> PathBuf {
    let program = directory.join("oracle");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/seccomp_oracle.c");
    let status = Command::new("cc").arg("-o").arg(&program).arg(source).arg("-lseccomp").status().unwrap();
    assert!(status.success());
    program
}

#[test]
fn random_profiles_mean_what_libseccomp_says() {
    let temp = tempfile::tempdir().unwrap();
    let program = build_oracle(temp.path());
    let arches = [Arch::ScmpArchX86, Arch::ScmpArchX32];
    let calls = proptest::collection::vec((0..POOL.len(), proptest::array::uniform6(interesting())), 40);
    let strategy = (any::<bool>(), proptest::collection::vec(random_rule(), 0..8), 0..3usize, calls);
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig {
        cases: 200,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    let test = |(allow, rules, arches_used, calls): RandomCase| {
        let default = if allow { ALLOW } else { EPERM };
        let arches = &arches[..arches_used];
        let ours = compile(&as_profile(default, &rules, arches)).unwrap().instructions;
        let theirs = oracle(&program, default, &rules, arches);
        for (name, arguments) in calls {
            compare(&ours, theirs.as_deref(), POOL[name], arguments, (default, &rules));
        }
        Ok(())
    };
    runner.run(&strategy, test).unwrap();
}

/// What a profile says of a call, without any compiling; `bits` are those that an argument has.
fn meaning(default: u32, rules: &[RandomRule], name: &str, arguments: [u64; 6], bits: u64) -> u32 {
    let holds = |&(index, op, value, two): &(u32, u32, u64, u64)| {
        let (argument, value, two) = (arguments[index as usize], value & bits, two & bits);
        match OPERATORS[op as usize - 1] {
            "NE" => argument != value,
            "LT" => argument < value,
            "LE" => argument <= value,
            "EQ" => argument == value,
            "GE" => argument >= value,
            "GT" => argument > value,
            _ => argument & value == two,
        }
    };
    let meant = rules.iter().any(|rule| rule.name == name && rule.conditions.iter().all(holds));
    match (meant, default) {
        (false, default) => default,
        (true, ALLOW) => EPERM,
        (true, _) => ALLOW,
    }
}

fn compare(
    ours: &[Instruction],
    theirs: Option<&[Instruction]>,
    name: &str,
    arguments: [u64; 6],
    (default, rules): (u32, &[RandomRule]),
) {
    use architecture::Table;
    for (arch, table) in [(X86_64, Table::X86_64), (X86_64, Table::X32), (X86, Table::X86)] {
        if theirs.is_none() && !matches!(table, Table::X86_64) {
            // What becomes of further architectures is only known from there.
            continue;
        }
        let number_of = |name| architecture::row(name).and_then(|row| table.number(row)).unwrap();
        let number = number_of(name);
        let arguments = arguments.map(|value| if table.is_wide() { value } else { value & 0xffff_ffff });
        let call = Call { number, arch, arguments };
        let bits = if table.is_wide() { u64::MAX } else { 0xffff_ffff };
        let meant = meaning(default, rules, name, arguments, bits);
        let mine = interpret(ours, &call);
        let expected = theirs.map_or(meant, |theirs| interpret(theirs, &call));
        let newer = rules.iter().map(|rule| number_of(rule.name)).max().is_some_and(|last| number > last);
        // The answer to calls newer than the profile is runc's, not libseccomp's.
        let excused = newer && mine == ENOSYS && expected == EPERM;
        // Debian's libseccomp 2.5 merges some comparisons of the same argument wrongly.
        let wrong = mine == meant;
        if !excused && !wrong {
            assert_eq!(mine, expected, "{name} by {table:?}: {call:x?}");
        }
    }
}

#[test]
fn a_prepared_filter_is_what_would_be_compiled() {
    let profile = default_profile(&crate::capability::DEFAULT);
    prepare(&profile);
    let sent: LinuxSeccomp = serde_json::from_value(serde_json::to_value(&profile).unwrap()).unwrap();
    assert_eq!(PREPARED.get().map(|(known, _)| known), Some(&sent));
    assert_eq!(program(&sent).unwrap(), compile(&profile).unwrap());
    let other = default_profile(&[]);
    assert_eq!(program(&other).unwrap(), compile(&other).unwrap());
    assert_ne!(program(&other).unwrap(), program(&sent).unwrap());
}
