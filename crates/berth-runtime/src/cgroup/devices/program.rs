//! Device rules as an eBPF program of type `BPF_PROG_TYPE_CGROUP_DEVICE`.
//!
//! The kernel calls it with `struct bpf_cgroup_dev_ctx { u32 access_type, major, minor }`, whose first field has
//! the kind in the low and the requested rights in the high half, and lets the request pass if it returns 1.

use berth_sys::bpf::Instruction;

use super::rules::{Exception, Kind, Policy};

const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const MOVE: u8 = 0xb7; // BPF_ALU64 | BPF_MOV | BPF_K
const MOVE_REGISTER: u8 = 0xbf; // BPF_ALU64 | BPF_MOV | BPF_X
const AND32: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const SHIFT_RIGHT32: u8 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
const JUMP_EQUAL: u8 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_NOT_EQUAL: u8 = 0x55; // BPF_JMP | BPF_JNE | BPF_K
const JUMP_NOT_EQUAL32: u8 = 0x56; // BPF_JMP32 | BPF_JNE | BPF_K
const EXIT: u8 = 0x95;

/// Registers: the result, the context, and what is taken from it.
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
const SCRATCH: u8 = 6;

/// The program that decides as `policy` does.
pub(super) fn assemble(policy: &Policy) -> Vec<Instruction> {
    let mut program = vec![
        register(LOAD_WORD, KIND, CONTEXT, 0),
        register(MOVE_REGISTER, ACCESS, KIND, 0),
        immediate(AND32, KIND, 0xffff),
        immediate(SHIFT_RIGHT32, ACCESS, 16),
        register(LOAD_WORD, MAJOR, CONTEXT, 4),
        register(LOAD_WORD, MINOR, CONTEXT, 8),
    ];
    for exception in &policy.exceptions {
        program.extend(block(policy.allow, *exception));
    }
    program.extend(answer(policy.allow));
    program
}

/// Returns the opposite of the default if the exception holds, and falls through otherwise.
fn block(default: bool, exception: Exception) -> Vec<Instruction> {
    let kind = match exception.kind {
        Kind::Block => 1,
        Kind::Character => 2,
    };
    let mut tests = vec![immediate(JUMP_NOT_EQUAL, KIND, kind)];
    for (register, number) in [(MAJOR, exception.major), (MINOR, exception.minor)] {
        if let Some(number) = number {
            // A 64-bit comparison would extend the sign of a large number.
            tests.push(immediate(JUMP_NOT_EQUAL32, register, number.cast_signed()));
        }
    }
    tests.push(register(MOVE_REGISTER, SCRATCH, ACCESS, 0));
    if default {
        // Denied if any of the requested rights is.
        tests.push(immediate(AND32, SCRATCH, i32::from(exception.access)));
        tests.push(immediate(JUMP_EQUAL, SCRATCH, 0));
    } else {
        // Allowed if all of the requested rights are.
        tests.push(immediate(AND32, SCRATCH, i32::from(!exception.access & 7)));
        tests.push(immediate(JUMP_NOT_EQUAL, SCRATCH, 0));
    }
    tests.extend(answer(!default));
    let length = tests.len();
    for (at, instruction) in tests.iter_mut().enumerate() {
        if matches!(instruction.code, JUMP_EQUAL | JUMP_NOT_EQUAL | JUMP_NOT_EQUAL32) {
            // A block has at most eight instructions.
            instruction.offset = (length - at - 1) as i16;
        }
    }
    tests
}

fn answer(allow: bool) -> [Instruction; 2] {
    [immediate(MOVE, RESULT, i32::from(allow)), immediate(EXIT, 0, 0)]
}

fn immediate(code: u8, destination: u8, immediate: i32) -> Instruction {
    Instruction { code, registers: destination, offset: 0, immediate }
}

fn register(code: u8, destination: u8, source: u8, offset: i16) -> Instruction {
    Instruction { code, registers: destination | source << 4, offset, immediate: 0 }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::rules::{MKNOD, READ, WRITE};
    use super::*;

    /// Interprets the instructions that [`assemble`] uses.
    fn run(program: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> u64 {
        let context = [access << 16 | kind, major, minor];
        let mut registers = [0_u64; 11];
        let mut at = 0;
        loop {
            let Instruction { code, registers: operands, offset, immediate } = program[at];
            let (to, from) = (usize::from(operands & 15), usize::from(operands >> 4));
            at += 1;
            let jump = match code {
                LOAD_WORD => {
                    registers[to] = u64::from(context[offset as usize / 4]);
                    false
                }
                MOVE => {
                    registers[to] = i64::from(immediate).cast_unsigned();
                    false
                }
                MOVE_REGISTER => {
                    registers[to] = registers[from];
                    false
                }
                AND32 => {
                    registers[to] = u64::from(registers[to] as u32 & immediate.cast_unsigned());
                    false
                }
                SHIFT_RIGHT32 => {
                    registers[to] = u64::from(registers[to] as u32 >> immediate);
                    false
                }
                JUMP_EQUAL => registers[to] == i64::from(immediate).cast_unsigned(),
                JUMP_NOT_EQUAL => registers[to] != i64::from(immediate).cast_unsigned(),
                JUMP_NOT_EQUAL32 => registers[to] as u32 != immediate.cast_unsigned(),
                EXIT => return registers[usize::from(RESULT)],
                other => panic!("instruction {other:#x}"),
            };
            if jump {
                at += offset as usize;
            }
        }
    }

    fn holds(exception: &Exception, kind: Kind, major: u32, minor: u32) -> bool {
        exception.kind == kind
            && exception.major.is_none_or(|number| number == major)
            && exception.minor.is_none_or(|number| number == minor)
    }

    fn decide(policy: &Policy, kind: Kind, access: u8, major: u32, minor: u32) -> bool {
        let mut matching = policy.exceptions.iter().filter(|exception| holds(exception, kind, major, minor));
        if policy.allow {
            !matching.any(|exception| exception.access & access != 0)
        } else {
            matching.any(|exception| exception.access & access == access)
        }
    }

    fn kinds() -> impl Strategy<Value = Kind> {
        prop_oneof![Just(Kind::Block), Just(Kind::Character)]
    }

    /// Few small numbers, so that rules meet, and the largest, which must not be taken for a sign.
    fn numbers() -> impl Strategy<Value = u32> {
        prop_oneof![0_u32..3, Just(u32::MAX)]
    }

    fn exceptions() -> impl Strategy<Value = Exception> {
        (kinds(), proptest::option::of(numbers()), proptest::option::of(numbers()), 1_u8..8)
            .prop_map(|(kind, major, minor, access)| Exception { kind, major, minor, access })
    }

    proptest! {
        #[test]
        fn the_program_decides_as_the_policy(
            allow: bool,
            exceptions in proptest::collection::vec(exceptions(), 0..8),
            kind in kinds(), access in 1_u8..8, major in numbers(), minor in numbers(),
        ) {
            let policy = Policy { allow, exceptions };
            let number = match kind { Kind::Block => 1, Kind::Character => 2 };
            let answer = run(&assemble(&policy), number, u32::from(access), major, minor);
            prop_assert_eq!(answer == 1, decide(&policy, kind, access, major, minor));
        }
    }

    #[test]
    fn the_kernel_accepts_the_program() {
        let exceptions = vec![
            Exception { kind: Kind::Character, major: Some(1), minor: Some(3), access: READ | WRITE },
            Exception { kind: Kind::Block, major: None, minor: None, access: MKNOD },
            Exception { kind: Kind::Character, major: Some(u32::MAX), minor: None, access: READ },
        ];
        for allow in [false, true] {
            let program = assemble(&Policy { allow, exceptions: exceptions.clone() });
            berth_sys::bpf::load_device_program(&program).unwrap();
        }
    }
}
