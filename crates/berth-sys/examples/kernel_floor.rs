//! What the kernel alone takes: the namespaces and mounts of a default container, `pivot_root`, and a program's run.
//!
//! `kernel_floor ROOT COUNT PROGRAM [ARGUMENT…]` prints the milliseconds of one run, the mean of COUNT. ROOT is a
//! directory with the program; it becomes the lower directory of an overlay. No cgroup, filter or network is made:
//! no engine can be faster, and the difference to one is the engine's own work.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use berth_sys::mount::{self, Attributes, Parameter, attr, propagation};
use berth_sys::process::{self, CStrings, Fork, flags};
use rustix::fs::{Mode, OFlags};
use rustix::process::{WaitId, WaitIdOptions};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [root, count, program @ ..] = arguments.as_slice() else {
        eprintln!("usage: kernel_floor ROOT COUNT PROGRAM [ARGUMENT...]");
        std::process::exit(2);
    };
    let count: u32 = count.parse().expect("COUNT is a number");
    let work = tempfile::tempdir().unwrap();
    for directory in ["upper", "work"] {
        std::fs::create_dir(work.path().join(directory)).unwrap();
    }
    let begin = Instant::now();
    for _ in 0..count {
        run(Path::new(root), work.path(), program);
    }
    println!("{:.3}", begin.elapsed().as_secs_f64() * 1000.0 / f64::from(count));
}

fn run(root: &Path, work: &Path, program: &[String]) {
    let namespaces =
        flags::NEWNS | flags::NEWUTS | flags::NEWIPC | flags::NEWPID | flags::NEWNET | flags::NEWCGROUP;
    match process::clone3(namespaces, None).unwrap() {
        Fork::Parent { pidfd, .. } => {
            let status = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED);
            assert_eq!(status.unwrap().unwrap().exit_status(), Some(0));
        }
        Fork::Child => {
            let error = child(root, work, program).unwrap_err();
            eprintln!("{error}");
            process::exit_now(1);
        }
    }
}

fn child(root: &Path, work: &Path, program: &[String]) -> io::Result<std::convert::Infallible> {
    let host = open("/")?;
    let slave = Attributes { propagation: propagation::SLAVE, recursive: true, ..Attributes::default() };
    mount::set_attributes(&host, slave, None)?;
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let overlay = mount::new_filesystem(
        "overlay",
        &[
            Parameter::value("lowerdir", path(root))?,
            Parameter::value("upperdir", path(&work.join("upper")))?,
            Parameter::value("workdir", path(&work.join("work")))?,
        ],
        0,
    )?;
    mount::attach(&overlay, &host)?;
    let mounts: [(&str, &str, &str, u64); 6] = [
        ("proc", "proc", "", attr::NOSUID | attr::NODEV | attr::NOEXEC),
        ("dev", "tmpfs", "mode=755", attr::NOSUID),
        ("dev/pts", "devpts", "newinstance", attr::NOSUID | attr::NOEXEC),
        ("sys", "sysfs", "", attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC),
        ("dev/mqueue", "mqueue", "", attr::NOSUID | attr::NODEV | attr::NOEXEC),
        ("dev/shm", "tmpfs", "mode=1777", attr::NOSUID | attr::NODEV | attr::NOEXEC),
    ];
    for (target, kind, options, attributes) in mounts {
        let parameters: Result<Vec<_>, _> =
            options.split(',').filter(|option| !option.is_empty()).map(Parameter::parse).collect();
        let made = mount::new_filesystem(kind, &parameters?, attributes)?;
        mount::attach(&made, directory(&overlay, target)?)?;
    }
    rustix::process::fchdir(&overlay)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    process::reset_signals();
    let name = CString::new(program[0].as_str())?;
    Err(process::execve(&name, &CStrings::convert(program)?, &CStrings::convert(["PATH=/bin"])?))
}

fn open(path: &str) -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

fn directory(root: &OwnedFd, path: &str) -> io::Result<OwnedFd> {
    berth_sys::beneath::make_directories(root, Path::new(path), Mode::from_raw_mode(0o755))
}
