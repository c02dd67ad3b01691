//! Runs a program in a default container over a root directory: `launch ROOT [-t] PROGRAM [ARGUMENT…]`.
use std::path::PathBuf;

use berth_runtime::launch::{self, Launch, NetworkMode, Release, ReleaseMode, Rootfs, Stdio};

fn main() {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let root = args.remove(0);
    let count: u32 = args.remove(0).parse().unwrap();
    let init = args[0] == "--init";
    if init {
        args.remove(0);
    }
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let begin = std::time::Instant::now();
    for n in 0..count {
        let mut spec = berth_runtime::defaults::spec(&words);
        spec.linux_mut().as_mut().unwrap().set_cgroups_path(Some(PathBuf::from(format!("/berth-test-{}", std::process::id()))));
        let launch = Launch {
            id: "test".into(),
            spec,
            rootfs: Rootfs::Path(PathBuf::from(&root)),
            network: NetworkMode::FromSpec,
            mount_fds: Default::default(),
            init,
            terminal: None,
            generated: vec![],
            release: ReleaseMode::Execute,
            bundle: None,
            die_with_parent: true,
        };
        let stdio = Stdio {
            stdin: rustix::stdio::stdin().try_clone_to_owned().unwrap(),
            stdout: rustix::stdio::stdout().try_clone_to_owned().unwrap(),
            stderr: rustix::stdio::stderr().try_clone_to_owned().unwrap(),
        };
        let one = std::time::Instant::now();
        let init = launch::clone(&launch, vec![], stdio).unwrap_or_else(|e| panic!("{}", e.docker_message()));
        let cloned = one.elapsed();
        let pidfd = init.pidfd.try_clone().unwrap();
        match init.release(Release::default()) {
            Ok(_) => {}
            Err(error) => eprintln!("{} ({})", error.docker_message(), error.exit_code()),
        }
        let started = one.elapsed();
        let status = rustix::process::waitid(
            rustix::process::WaitId::PidFd(std::os::fd::AsFd::as_fd(&pidfd)),
            rustix::process::WaitIdOptions::EXITED,
        );
        let ended = one.elapsed();
        if n == 0 { eprintln!("{cloned:?} {started:?} {ended:?} {:?}", status.unwrap().unwrap().exit_status()); }
    }
    eprintln!("{:?} each", begin.elapsed() / count);
    berth_runtime::cgroup::Manager::for_path(&format!("/berth-test-{}", std::process::id())).unwrap().remove().unwrap();
}
