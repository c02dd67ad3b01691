//! Classic BPF: the instructions of a filter, and the trees and chains of them.

use super::Error;

/// `struct sock_filter`: operation, jumps over that many instructions if true and if false, operand.
pub(super) type Instruction = (u16, u8, u8, u32);

/// Instructions that a filter may have at most (`BPF_MAXINSNS`).
pub(super) const MAX_INSTRUCTIONS: usize = 4096;

const LOAD: u16 = 0x20;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;
const JUMP: u16 = 0x05;
const JUMP_EQ: u16 = 0x15;
const JUMP_GT: u16 = 0x25;
const JUMP_GE: u16 = 0x35;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// How an argument is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Ne,
    Lt,
    Le,
    Eq,
    Ge,
    Gt,
    /// Equal under the mask.
    Masked(u64),
}

/// A condition on one argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Condition {
    /// 0 to 5.
    pub index: u32,
    pub comparison: Comparison,
    pub value: u64,
}

/// An action, as the kernel's return value, under conditions that must all hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    pub action: u32,
    pub conditions: Vec<Condition>,
}

/// What is decided for a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Leaf {
    /// An action, whatever the arguments.
    Return(u32),
    /// The first rule whose conditions hold, or else the action.
    Rules { rules: Vec<Rule>, wide: bool, otherwise: u32 },
}

/// Numbers from `first` up to the next interval's.
#[derive(Debug)]
pub(super) struct Interval {
    pub first: u32,
    pub leaf: Leaf,
}

/// The filter: for each value of `arch` the intervals that cover all numbers; `stranger` for any other value.
pub(super) fn filter(machines: &[(u32, Vec<Interval>)], stranger: u32) -> Result<Vec<Instruction>, Error> {
    let mut code = vec![(LOAD, 0, 0, ARCH)];
    for (audit, intervals) in machines {
        let mut block = vec![(LOAD, 0, 0, NUMBER)];
        block.extend(tree(intervals)?);
        code.push((JUMP_EQ, 1, 0, *audit));
        code.push((JUMP, 0, 0, distance(block.len())?));
        code.extend(block);
    }
    code.push((RETURN, 0, 0, stranger));
    distance(code.len())?;
    Ok(code)
}

/// A length that a filter can have.
fn distance(length: usize) -> Result<u32, Error> {
    if length > MAX_INSTRUCTIONS { Err(Error::TooLong) } else { Ok(length as u32) }
}

/// A balanced tree of comparisons over intervals, of which there is at least one.
fn tree(intervals: &[Interval]) -> Result<Vec<Instruction>, Error> {
    let (left, right) = intervals.split_at(intervals.len() / 2);
    let Some(middle) = right.first() else { return Ok(Vec::new()) };
    if left.is_empty() {
        return Ok(leaf(&middle.leaf));
    }
    let (below, above) = (tree(left)?, tree(right)?);
    let mut code = match u8::try_from(below.len()) {
        Ok(near) => vec![(JUMP_GE, near, 0, middle.first)],
        Err(_) => vec![(JUMP_GE, 0, 1, middle.first), (JUMP, 0, 0, distance(below.len())?)],
    };
    code.extend(below);
    code.extend(above);
    distance(code.len())?;
    Ok(code)
}

fn leaf(leaf: &Leaf) -> Vec<Instruction> {
    match leaf {
        Leaf::Return(action) => vec![(RETURN, 0, 0, *action)],
        Leaf::Rules { rules, wide, otherwise } => {
            let mut code = Vec::new();
            for rule in rules {
                code.extend(rule_code(rule, *wide));
            }
            code.push((RETURN, 0, 0, *otherwise));
            code
        }
    }
}

/// Where a comparison goes.
#[derive(Clone, Copy)]
enum To {
    /// The next instruction.
    Next,
    /// The next condition.
    Holds,
    /// The next rule.
    Fails,
}

/// Instructions whose jumps are known once it is clear how many follow.
type Step = (u16, To, To, u32);

fn rule_code(rule: &Rule, wide: bool) -> Vec<Instruction> {
    let conditions: Vec<Vec<Step>> = rule.conditions.iter().map(|one| steps(one, wide)).collect();
    // The action's return is behind them all.
    let total = conditions.iter().map(Vec::len).sum::<usize>() + 1;
    let mut code: Vec<Instruction> = Vec::with_capacity(total);
    for steps in conditions {
        let end = code.len() + steps.len();
        for (operation, yes, no, operand) in steps {
            let next = code.len() + 1;
            let over = |to| match to {
                To::Next => 0,
                To::Holds => end - next,
                To::Fails => total - next,
            };
            // At most six conditions of five instructions: the distances fit.
            code.push((operation, over(yes) as u8, over(no) as u8, operand));
        }
    }
    code.push((RETURN, 0, 0, rule.action));
    code
}

fn steps(condition: &Condition, wide: bool) -> Vec<Step> {
    let Condition { index, comparison, value } = *condition;
    let (low, high) = (value as u32, (value >> 32) as u32);
    // Both architectures are little-endian.
    let offset = ARGUMENTS + 8 * index;
    let load = |offset| (LOAD, To::Next, To::Next, offset);
    let mut steps = Vec::with_capacity(5);
    if let Comparison::Masked(mask) = comparison {
        // Arguments of a narrow call have a low half only.
        let halves = [(offset + 4, mask >> 32, high), (offset, mask & 0xffff_ffff, low)];
        for (offset, mask, value) in &halves[usize::from(!wide)..] {
            if (*mask, *value) != (0, 0) {
                steps.push(load(*offset));
                steps.push((AND, To::Next, To::Next, *mask as u32));
                steps.push((JUMP_EQ, To::Next, To::Fails, *value));
            }
        }
        return steps;
    }
    if wide {
        steps.push(load(offset + 4));
        match comparison {
            Comparison::Ne => steps.push((JUMP_EQ, To::Next, To::Holds, high)),
            Comparison::Eq | Comparison::Masked(_) => steps.push((JUMP_EQ, To::Next, To::Fails, high)),
            Comparison::Gt | Comparison::Ge => {
                steps.push((JUMP_GT, To::Holds, To::Next, high));
                steps.push((JUMP_EQ, To::Next, To::Fails, high));
            }
            Comparison::Lt | Comparison::Le => {
                steps.push((JUMP_GT, To::Fails, To::Next, high));
                steps.push((JUMP_EQ, To::Next, To::Holds, high));
            }
        }
    }
    steps.push(load(offset));
    steps.push(match comparison {
        Comparison::Ne => (JUMP_EQ, To::Fails, To::Next, low),
        Comparison::Eq | Comparison::Masked(_) => (JUMP_EQ, To::Next, To::Fails, low),
        Comparison::Gt => (JUMP_GT, To::Next, To::Fails, low),
        Comparison::Ge => (JUMP_GE, To::Next, To::Fails, low),
        Comparison::Lt => (JUMP_GE, To::Fails, To::Next, low),
        Comparison::Le => (JUMP_GT, To::Fails, To::Next, low),
    });
    steps
}
