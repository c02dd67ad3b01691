//! From the OCI configuration's rules to the intervals that are assembled.

use berth_sys::seccomp;
use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSeccompOperator,
    LinuxSyscall,
};

use super::architecture::{self, Machine, Table, X32_BIT};
use super::assemble::{self, Comparison, Condition, Interval, Leaf, Rule};
use super::table::Row;
use super::{Error, Program};

/// The kernel's `SECCOMP_RET_*`: calls by a table that the profile does not list get the first.
const KILL_THREAD: u32 = 0;
const KILL_PROCESS: u32 = 0x8000_0000;
const TRAP: u32 = 0x0003_0000;
const ERRNO: u32 = 0x0005_0000;
const TRACE: u32 = 0x7ff0_0000;
const LOG: u32 = 0x7ffc_0000;
const ALLOW: u32 = 0x7fff_0000;
/// The part of an answer that is not data, such as an error number.
const ACTION: u32 = 0xffff_0000;

const ENOSYS: u32 = libc::ENOSYS as u32;
/// The largest error number that the kernel hands on (`MAX_ERRNO`).
const MAX_ERRNO: u32 = 4095;
/// Of a system call.
const ARGUMENTS: u32 = 6;

/// Compiles a profile for this machine's architecture and its sub-architectures.
///
/// The native architecture is always covered; others that `profile` lists are, if the kernel may run their programs. Calls of all
/// others kill.
pub fn compile(profile: &LinuxSeccomp) -> Result<Program, Error> {
    let flags = flags(profile)?;
    let default = action(profile.default_action(), profile.default_errno_ret())?;
    let listed = profile.architectures().as_deref().unwrap_or_default();
    let calls = profile.syscalls().as_deref().unwrap_or_default();
    let mut rules = Vec::new();
    for call in calls {
        add_rules(&mut rules, call, default)?;
    }
    let newer = newer_calls(default);
    let mut machines = Vec::new();
    for Machine { audit, tables } in architecture::machines() {
        if !tables.iter().any(|table| table.is_listed(listed)) {
            continue;
        }
        let mut intervals = Vec::new();
        for table in *tables {
            if table.is_listed(listed) {
                cover(&mut intervals, *table, &rules, default, newer);
            } else if *table == Table::X32 {
                push(&mut intervals, X32_BIT, Leaf::Return(KILL_THREAD));
            }
        }
        // No call: what a tracer leaves behind in place of one.
        push(&mut intervals, u32::MAX, Leaf::Return(default));
        machines.push((*audit, intervals));
    }
    Ok(Program { instructions: assemble::filter(&machines, KILL_THREAD)?, flags })
}

/// A call that the profile names, and the rule for it, unless that is the default action.
struct Named<'a> {
    name: &'a str,
    row: &'static Row,
    rule: Option<Rule>,
}

fn add_rules<'a>(rules: &mut Vec<Named<'a>>, call: &'a LinuxSyscall, default: u32) -> Result<(), Error> {
    let action = action(call.action(), call.errno_ret())?;
    let arguments = call.args().as_deref().unwrap_or_default();
    let name = call.names().first().map(String::as_str).unwrap_or_default();
    let mut conditions = Vec::with_capacity(arguments.len());
    for argument in arguments {
        conditions.push(condition(argument, name)?);
    }
    let alternatives: Vec<Vec<Condition>> = if has_repeated_argument(&conditions) {
        conditions.into_iter().map(|condition| vec![condition]).collect()
    } else {
        vec![conditions]
    };
    for name in call.names() {
        let Some(row) = architecture::row(name) else { continue };
        if action == default {
            rules.push(Named { name, row, rule: None });
            continue;
        }
        for conditions in &alternatives {
            rules.push(Named { name, row, rule: Some(Rule { action, conditions: conditions.clone() }) });
        }
    }
    Ok(())
}

fn has_repeated_argument(conditions: &[Condition]) -> bool {
    let mut seen = 0u8;
    conditions.iter().any(|condition| {
        let bit = 1 << condition.index;
        let repeated = seen & bit != 0;
        seen |= bit;
        repeated
    })
}

/// Appends the intervals of a table, whose numbers are above all before.
fn cover(intervals: &mut Vec<Interval>, table: Table, named: &[Named<'_>], default: u32, newer: Option<u32>) {
    let mut numbered: Vec<(u32, Option<Rule>)> = Vec::with_capacity(named.len());
    for Named { name, row, rule } in named {
        if let Some(number) = table.number(row) {
            numbered.push((number, rule.clone()));
        }
        if let (Table::X86, Some(rule)) = (table, rule) {
            numbered.extend(multiplexed(name, rule).map(|(number, rule)| (number, Some(rule))));
        }
    }
    // Stable: the rules of a call stay in their order.
    numbered.sort_by_key(|(number, _)| *number);
    let first = if table == Table::X32 { X32_BIT } else { 0 };
    push(intervals, first, Leaf::Return(default));
    for group in numbered.chunk_by(|a, b| a.0 == b.0) {
        let rules: Vec<Rule> = group.iter().filter_map(|(_, rule)| rule.clone()).collect();
        let Some((number, _)) = group.first().filter(|_| !rules.is_empty()) else { continue };
        // A rule without conditions takes the call as a whole, wherever it stands.
        let leaf = match rules.iter().find(|rule| rule.conditions.is_empty()) {
            Some(rule) => Leaf::Return(rule.action),
            None => Leaf::Rules { rules, wide: table.is_wide(), otherwise: default },
        };
        push(intervals, *number, leaf);
        push(intervals, number + 1, Leaf::Return(default));
    }
    if let (Some((last, _)), Some(newer)) = (numbered.last(), newer) {
        push(intervals, last + 1, Leaf::Return(newer));
    }
}

/// Appends an interval; one that it leaves empty goes, and one that only continues the last is not needed.
fn push(intervals: &mut Vec<Interval>, first: u32, leaf: Leaf) {
    if intervals.last().is_some_and(|last| last.first == first) {
        intervals.pop();
    }
    if intervals.last().is_none_or(|last| last.leaf != leaf) {
        intervals.push(Interval { first, leaf });
    }
}

/// The rule for a call of x86 that is also reached by the number of another.
///
/// The other's arguments are in memory, where a filter cannot look: what is forbidden under conditions is forbidden there
/// altogether, and what is allowed under conditions is not allowed there.
fn multiplexed(name: &str, rule: &Rule) -> Option<(u32, Rule)> {
    let through = architecture::multiplexed(name)?;
    if is_permissive(rule.action) && !rule.conditions.is_empty() {
        return None;
    }
    let comparison = Comparison::Masked(through.mask);
    let conditions = vec![Condition { index: 0, comparison, value: through.value }];
    Some((through.by, Rule { action: rule.action, conditions }))
}

/// What calls above the last that the profile names get, if not the default: `ENOSYS`, since libraries try new calls and
/// fall back only upon that.
fn newer_calls(default: u32) -> Option<u32> {
    (!is_permissive(default)).then_some(ERRNO | ENOSYS)
}

/// Whether the call may be made after all: by itself, with a record, or if a tracer agrees.
fn is_permissive(action: u32) -> bool {
    matches!(action & ACTION, ALLOW | LOG | TRACE)
}

fn action(action: LinuxSeccompAction, error: Option<u32>) -> Result<u32, Error> {
    use LinuxSeccompAction as A;
    let error = error.unwrap_or(libc::EPERM as u32);
    match action {
        A::ScmpActNotify => Err(Error::Action(action.to_string())),
        A::ScmpActErrno if error > MAX_ERRNO => Err(Error::ErrorNumber(error)),
        A::ScmpActErrno => Ok(ERRNO | error),
        A::ScmpActTrace if error > u32::from(u16::MAX) => Err(Error::ErrorNumber(error)),
        A::ScmpActTrace => Ok(TRACE | error),
        A::ScmpActKill | A::ScmpActKillThread => Ok(KILL_THREAD),
        A::ScmpActKillProcess => Ok(KILL_PROCESS),
        A::ScmpActTrap => Ok(TRAP),
        A::ScmpActLog => Ok(LOG),
        A::ScmpActAllow => Ok(ALLOW),
    }
}

fn condition(argument: &LinuxSeccompArg, name: &str) -> Result<Condition, Error> {
    use LinuxSeccompOperator as O;
    let index = argument.index();
    let value = argument.value();
    let (comparison, value) = match argument.op() {
        O::ScmpCmpNe => (Comparison::Ne, value),
        O::ScmpCmpLt => (Comparison::Lt, value),
        O::ScmpCmpLe => (Comparison::Le, value),
        O::ScmpCmpEq => (Comparison::Eq, value),
        O::ScmpCmpGe => (Comparison::Ge, value),
        O::ScmpCmpGt => (Comparison::Gt, value),
        O::ScmpCmpMaskedEq => (Comparison::Masked(value), argument.value_two().unwrap_or(0)),
    };
    match u32::try_from(index) {
        Ok(index) if index < ARGUMENTS => Ok(Condition { index, comparison, value }),
        _ => Err(Error::Argument { name: name.to_owned(), index }),
    }
}

/// Without any in the profile, the one that runc sets too: filtering is no reason to slow the process down.
fn flags(profile: &LinuxSeccomp) -> Result<u32, Error> {
    use LinuxSeccompFilterFlag as F;
    let Some(listed) = profile.flags() else { return Ok(seccomp::SPEC_ALLOW) };
    listed.iter().try_fold(0, |flags, flag| match flag {
        F::SeccompFilterFlagLog => Ok(flags | seccomp::LOG),
        F::SeccompFilterFlagTsync => Ok(flags | seccomp::TSYNC),
        F::SeccompFilterFlagSpecAllow => Ok(flags | seccomp::SPEC_ALLOW),
        F::SeccompFilterFlagWaitKillableRecv => Err(Error::Flag(flag.to_string())),
    })
}
