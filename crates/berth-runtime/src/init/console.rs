//! The pseudo-terminal of a process: made in the container's own devpts, and only ever named by descriptor (R4).

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use berth_sys::beneath;
use berth_sys::mount::{self, DEVPTS_MAGIC};
use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use crate::launch::error::{Context, Stage, StartError};

/// Both ends of a pseudo-terminal.
pub(super) struct Console {
    pub master: OwnedFd,
    pub terminal: OwnedFd,
}

impl Console {
    /// Makes one in the devpts `devpts` with `size` rows and columns; zeros leave the kernel's.
    pub fn new(devpts: BorrowedFd<'_>, size: (u16, u16)) -> Result<Self, StartError> {
        let what = || "make a pseudo-terminal";
        mount::verify_magic(devpts, DEVPTS_MAGIC).context(Stage::Console, what)?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        let master =
            rustix::fs::openat(devpts, "ptmx", flags, Mode::empty()).context(Stage::Console, what)?;
        rustix::pty::unlockpt(&master).context(Stage::Console, what)?;
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let terminal = rustix::pty::ioctl_tiocgptpeer(&master, flags).context(Stage::Console, what)?;
        if size != (0, 0) {
            let size = Winsize { ws_row: size.0, ws_col: size.1, ws_xpixel: 0, ws_ypixel: 0 };
            rustix::termios::tcsetwinsize(&master, size)
                .context(Stage::Console, || "set the terminal's size")?;
        }
        Ok(Self { master, terminal })
    }

    /// The devpts at `/dev/pts` of a root.
    pub fn devpts(root: BorrowedFd<'_>) -> Result<OwnedFd, StartError> {
        beneath::open_path(root, Path::new("/dev/pts")).context(Stage::Console, || "open /dev/pts")
    }

    /// Binds the terminal over `/dev/console`.
    pub fn bind(&self, root: BorrowedFd<'_>) -> Result<(), StartError> {
        let what = || "bind the terminal to /dev/console";
        let target = beneath::make_file(root, Path::new("/dev/console"), Mode::from_raw_mode(0o600));
        let target = target.context(Stage::Console, what)?;
        let tree = mount::clone_tree(&self.terminal, false).context(Stage::Console, what)?;
        mount::attach(&tree, &target).context(Stage::Console, what)
    }

    /// Makes the terminal the controlling one of the process, which leads a session, and its standard descriptors.
    pub fn adopt(&self) -> Result<(), StartError> {
        rustix::process::ioctl_tiocsctty(&self.terminal)
            .context(Stage::Console, || "set the controlling terminal")?;
        standard(self.terminal.as_fd(), self.terminal.as_fd(), self.terminal.as_fd())
    }
}

/// Makes the three descriptors 0, 1 and 2.
pub(super) fn standard(
    stdin: BorrowedFd<'_>,
    stdout: BorrowedFd<'_>,
    stderr: BorrowedFd<'_>,
) -> Result<(), StartError> {
    let what = || "set the standard descriptors";
    rustix::stdio::dup2_stdin(stdin).context(Stage::Console, what)?;
    rustix::stdio::dup2_stdout(stdout).context(Stage::Console, what)?;
    rustix::stdio::dup2_stderr(stderr).context(Stage::Console, what)
}

/// Gives pipes and terminals at the standard descriptors to the user, so that `/dev/stdout` can be opened again.
pub(super) fn hand_over(uid: u32) {
    let uid = Some(rustix::fs::Uid::from_raw(uid));
    let own = [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()];
    for fd in own {
        let Ok(stat) = rustix::fs::fstat(fd) else { continue };
        let is_null = rustix::fs::FileType::from_raw_mode(stat.st_mode)
            == rustix::fs::FileType::CharacterDevice
            && stat.st_rdev == rustix::fs::makedev(1, 3) as u64;
        // A file that refuses, on a read-only file system or of somebody else, stays as it is.
        let _ = if is_null { Ok(()) } else { rustix::fs::fchown(fd, uid, None) };
    }
}
