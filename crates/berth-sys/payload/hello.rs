//! The program of the image `hello`: it says what has just happened.
#![no_std]
#![no_main]

mod linux;

use linux::{Arguments, call, number, text, write, write_number};

const STDOUT: usize = 1;
/// Six fields of 65 bytes: `struct new_utsname` of the kernel.
const FIELD: usize = 65;

fn main(_: Arguments) -> i32 {
    let mut names = [0u8; 6 * FIELD];
    // SAFETY: uname fills a buffer of this size; getpid takes nothing.
    let pid = unsafe {
        call(number::UNAME, [names.as_mut_ptr() as usize, 0, 0, 0, 0]);
        call(number::GETPID, [0; 5])
    };
    // SAFETY: the second field begins inside the buffer, and ends with NUL.
    let host = unsafe { text(names.as_ptr().add(FIELD)) };
    write(
        STDOUT,
        b"\n\
        Hello from Berth!\n\
        \n\
        You see this, so your installation works. What has just happened:\n \
        1. The client asked the daemon for a container of the image \"hello\".\n \
        2. The daemon had the image in its own binary: nothing was downloaded.\n \
        3. It made a root file system, namespaces and a cgroup for the container alone,\n    \
           took most privileges away, and started this program as process ",
    );
    write_number(STDOUT, pid as usize);
    write(STDOUT, b" of host ");
    write(STDOUT, host);
    write(
        STDOUT,
        b".\n \
        4. What it writes came back to your terminal.\n\
        \n\
        Something larger to try:  berth run -it alpine sh\n\n",
    );
    0
}
