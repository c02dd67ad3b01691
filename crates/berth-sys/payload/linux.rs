//! System calls and the entry point, without any library.
//!
//! A program that includes this defines `fn main(arguments: Arguments) -> i32`.
#![allow(dead_code, reason = "each program uses a part")]

use core::arch::{asm, global_asm};
use core::panic::PanicInfo;

/// Numbers of the system calls used.
#[cfg(target_arch = "x86_64")]
pub mod number {
    pub const WRITE: usize = 1;
    pub const RT_SIGPROCMASK: usize = 14;
    pub const IOCTL: usize = 16;
    pub const GETPID: usize = 39;
    pub const CLONE: usize = 56;
    pub const EXECVE: usize = 59;
    pub const WAIT4: usize = 61;
    pub const KILL: usize = 62;
    pub const UNAME: usize = 63;
    pub const SETPGID: usize = 109;
    pub const PRCTL: usize = 157;
    pub const RT_SIGTIMEDWAIT: usize = 128;
    pub const EXIT_GROUP: usize = 231;
}

/// Numbers of the system calls used.
#[cfg(target_arch = "aarch64")]
pub mod number {
    pub const IOCTL: usize = 29;
    pub const WRITE: usize = 64;
    pub const EXIT_GROUP: usize = 94;
    pub const KILL: usize = 129;
    pub const RT_SIGPROCMASK: usize = 135;
    pub const RT_SIGTIMEDWAIT: usize = 137;
    pub const SETPGID: usize = 154;
    pub const UNAME: usize = 160;
    pub const PRCTL: usize = 167;
    pub const GETPID: usize = 172;
    pub const CLONE: usize = 220;
    pub const EXECVE: usize = 221;
    pub const WAIT4: usize = 260;
}

// The kernel enters with the stack pointer at argc, argv, NULL, envp, NULL.
#[cfg(target_arch = "x86_64")]
global_asm!(".globl _start", "_start:", "xor ebp, ebp", "mov rdi, rsp", "and rsp, -16", "call {begin}", "ud2",
    begin = sym begin);
#[cfg(target_arch = "aarch64")]
global_asm!(".globl _start", "_start:", "mov x29, xzr", "mov x30, xzr", "mov x0, sp", "bl {begin}", "brk 1",
    begin = sym begin);

/// What the kernel put on the stack.
#[derive(Clone, Copy)]
pub struct Arguments {
    pub count: usize,
    /// `count` strings and NULL.
    pub argv: *const *const u8,
    /// Strings and NULL.
    pub envp: *const *const u8,
}

extern "C" fn begin(stack: *const usize) -> ! {
    // SAFETY: `stack` is the initial stack pointer, where the kernel put argc, the arguments and the environment.
    let arguments = unsafe {
        let count = *stack;
        let argv = stack.add(1).cast::<*const u8>();
        Arguments { count, argv, envp: argv.add(count + 1) }
    };
    exit(crate::main(arguments))
}

/// One system call; unused arguments are zero. A negative result is `-errno`.
///
/// # Safety
/// The arguments must be what the call of that number takes.
#[inline(always)]
pub unsafe fn call(number: usize, arguments: [usize; 5]) -> isize {
    let [a, b, c, d, e] = arguments;
    let result: isize;
    // SAFETY: the caller's promise; the clobbered registers are declared.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!("syscall", inlateout("rax") number as isize => result, in("rdi") a, in("rsi") b, in("rdx") c,
            in("r10") d, in("r8") e, lateout("rcx") _, lateout("r11") _, options(nostack));
    }
    // SAFETY: the caller's promise.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!("svc 0", in("x8") number, inlateout("x0") a as isize => result, in("x1") b, in("x2") c, in("x3") d,
            in("x4") e, options(nostack));
    }
    result
}

/// Ends the process.
pub fn exit(code: i32) -> ! {
    loop {
        // SAFETY: exit_group takes a number and does not return.
        unsafe { call(number::EXIT_GROUP, [code as usize, 0, 0, 0, 0]) };
    }
}

/// Writes all of `bytes`, or gives up at the first error.
pub fn write(fd: usize, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        // SAFETY: the pointer and the length are those of a slice.
        let written = unsafe { call(number::WRITE, [fd, rest.as_ptr() as usize, rest.len(), 0, 0]) };
        match rest.get(written as usize..) {
            Some(left) if written > 0 => rest = left,
            _ => return,
        }
    }
}

/// Writes `value` in decimal.
pub fn write_number(fd: usize, value: usize) {
    let mut digits = [b'0'; 20];
    let mut rest = value;
    let mut used = 0;
    for digit in digits.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
        used += 1;
        if rest == 0 {
            break;
        }
    }
    write(fd, digits.get(20 - used..).unwrap_or_default());
}

/// The bytes of a string that ends with NUL.
///
/// # Safety
/// `start` must point to such a string, which stays.
pub unsafe fn text<'a>(start: *const u8) -> &'a [u8] {
    let mut length = 0;
    // SAFETY: the caller's promise: the NUL is not passed. Volatile, lest the loop become a call of strlen.
    unsafe {
        while start.add(length).read_volatile() != 0 {
            length += 1;
        }
        core::slice::from_raw_parts(start, length)
    }
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    exit(125)
}

/// The compiler may call it to fill memory.
///
/// # Safety
/// As C's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memset(to: *mut u8, byte: i32, count: usize) -> *mut u8 {
    for index in 0..count {
        // SAFETY: the caller's promise. Volatile, lest the loop become a call of memset.
        unsafe { to.add(index).write_volatile(byte as u8) };
    }
    to
}

/// The compiler may call it to copy memory.
///
/// # Safety
/// As C's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn memcpy(to: *mut u8, from: *const u8, count: usize) -> *mut u8 {
    for index in 0..count {
        // SAFETY: the caller's promise. Volatile, lest the loop become a call of memcpy.
        unsafe { to.add(index).write_volatile(from.add(index).read()) };
    }
    to
}
