//! The tiny init: `docker-init [--] PROGRAM [ARGUMENT…]`.
//!
//! As process 1 of a container it starts PROGRAM (a path; `PATH` is not searched) in a process group of its own, which gets the
//! terminal if there is one, hands it every signal, reaps every process that ends, and ends with PROGRAM: with its exit
//! code, or 128 and the number of the signal that killed it. 127: PROGRAM does not exist; 126: it cannot be executed.
#![no_std]
#![no_main]

mod linux;

use linux::{Arguments, call, number, text, write, write_number};

const STDERR: usize = 2;
const SIGCHLD: usize = 17;
const SIG_BLOCK: usize = 0;
const SIG_SETMASK: usize = 2;
/// Bytes of the kernel's signal set.
const SET_BYTES: usize = 8;
const TIOCSPGRP: usize = 0x5410;
const WNOHANG: usize = 1;
const PR_SET_NAME: usize = 15;
const EINTR: isize = -4;
const ENOENT: isize = -2;
const EACCES: isize = -13;
const EAGAIN: isize = -11;
const ENOEXEC: isize = -8;
const ENOTDIR: isize = -20;

fn main(arguments: Arguments) -> i32 {
    // SAFETY: argv has `count` strings and a NULL, and PROGRAM is looked at only if it is before the NULL.
    let program = unsafe {
        let dashes = arguments.count > 1 && text(*arguments.argv.add(1)) == b"--";
        let first = if dashes { 2 } else { 1 };
        if arguments.count <= first {
            write(STDERR, b"usage: docker-init [--] PROGRAM [ARGUMENT...]\n");
            return 1;
        }
        arguments.argv.add(first)
    };
    // An init that is executed by its descriptor would be called after that.
    // SAFETY: the name is a string of at most 15 bytes and a NUL.
    unsafe { call(number::PRCTL, [PR_SET_NAME, c"docker-init".as_ptr() as usize, 0, 0, 0]) };
    let old = mask(SIG_BLOCK, u64::MAX);
    // SAFETY: without CLONE_VM the child goes on in a copy of the memory.
    let child = unsafe { call(number::CLONE, [SIGCHLD, 0, 0, 0, 0]) };
    match child {
        0 => become_program(program, arguments.envp, old),
        1.. => supervise(child as usize),
        error => {
            write(STDERR, b"docker-init: cannot fork");
            report(error);
            1
        }
    }
}

/// Changes the signal mask; returns the one before.
fn mask(how: usize, set: u64) -> u64 {
    let mut old = 0u64;
    let (set, before) = (&raw const set as usize, &raw mut old as usize);
    // SAFETY: both point to sets of the size that is given.
    unsafe { call(number::RT_SIGPROCMASK, [how, set, before, SET_BYTES, 0]) };
    old
}

fn become_program(program: *const *const u8, envp: *const *const u8, signals: u64) -> i32 {
    // SAFETY: numbers only, and a pointer to one. Without a terminal the second call fails, and nothing is lost. SIGTTOU, which
    // a process in the background gets here, is blocked.
    unsafe {
        call(number::SETPGID, [0, 0, 0, 0, 0]);
        let group = call(number::GETPID, [0; 5]) as i32;
        call(number::IOCTL, [0, TIOCSPGRP, &raw const group as usize, 0, 0]);
    }
    mask(SIG_SETMASK, signals);
    // SAFETY: `program` is the rest of argv, with its NULL; envp is as the kernel gave it.
    let (name, error) = unsafe {
        let error = call(number::EXECVE, [*program as usize, program as usize, envp as usize, 0, 0]);
        (text(*program), error)
    };
    write(STDERR, b"docker-init: exec ");
    write(STDERR, name);
    write(STDERR, b" failed");
    report(error);
    if matches!(error, ENOENT | ENOTDIR) { 127 } else { 126 }
}

fn report(error: isize) {
    let words: &[u8] = match error {
        ENOENT => b"no such file or directory",
        ENOTDIR => b"not a directory",
        EACCES => b"permission denied",
        ENOEXEC => b"exec format error",
        EAGAIN => b"resource temporarily unavailable",
        _ => b"error ",
    };
    write(STDERR, b": ");
    write(STDERR, words);
    if words == b"error " {
        write_number(STDERR, error.unsigned_abs());
    }
    write(STDERR, b"\n");
}

/// Hands signals on and reaps until `child` has ended; returns the exit code for it.
fn supervise(child: usize) -> i32 {
    let all = u64::MAX;
    loop {
        // SAFETY: the set has the given size; no information and no timeout are asked for.
        let signal = unsafe { call(number::RT_SIGTIMEDWAIT, [&raw const all as usize, 0, 0, SET_BYTES, 0]) };
        match signal {
            EINTR | EAGAIN => {}
            1.. if signal as usize != SIGCHLD => {
                // SAFETY: numbers only. The child, not yet waited for, cannot have given its number to another.
                unsafe { call(number::KILL, [child, signal as usize, 0, 0, 0]) };
            }
            1.. => {
                if let Some(code) = reap(child) {
                    return code;
                }
            }
            _ => return 1,
        }
    }
}

/// Waits for all that have ended.
fn reap(child: usize) -> Option<i32> {
    let mut code = None;
    loop {
        let mut status = 0i32;
        // SAFETY: the status is as long as the call expects.
        let pid = unsafe { call(number::WAIT4, [usize::MAX, &raw mut status as usize, WNOHANG, 0, 0]) };
        if pid == EINTR {
            continue;
        }
        if pid <= 0 {
            return code;
        }
        if pid as usize == child {
            let signal = status & 0x7f;
            code = Some(if signal == 0 { (status >> 8) & 0xff } else { 128 + signal });
        }
    }
}
