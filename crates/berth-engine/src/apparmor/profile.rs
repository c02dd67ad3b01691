//! The default profile, in AppArmor's language.

/// The description of what the kernel can mediate, without which the compiler assumes an old one.
pub(super) const ABI: &str = "/etc/apparmor.d/abi/3.0";

/// The profile's text under `name`. It permits what containers need and takes back, first of all, what would change the
/// host through `/proc` and `/sys`, mounts, and the sockets of the kernel's cryptography (R24). `with_abi` says whether
/// the compiler has [`ABI`].
pub(super) fn text(name: &str, with_abi: bool) -> String {
    let abi = if with_abi { "abi <abi/3.0>,\n" } else { "" };
    format!(
        "{abi}
profile {name} flags=(attach_disconnected, mediate_deleted) {{
  file,
  capability,
  umount,

  network,
  deny network alg,

  # The shim and the engine are unconfined.
  signal (receive) peer=unconfined,
  signal (send, receive) peer={name},
  ptrace (read, trace, readby, tracedby) peer={name},

  deny mount,

  # Of /proc, what belongs to processes is written, and nothing that belongs to the host.
  deny /proc/sys/** wl,
  deny /proc/{{acpi,asound,bus,driver,fs,irq,scsi,tty}}/** wl,
  deny /proc/{{sysrq-trigger,kcore,kmem,mem,kallsyms,kpagecgroup,kpagecount,kpageflags}} rwlkx,
  deny /proc/[a-z]* w,

  # Of /sys, the cgroups are left to how they are mounted.
  deny /sys/{{block,bus,class,dev,devices,firmware,hypervisor,kernel,module,power}}/** wl,
  deny /sys/fs/[^c]*/** wl,
  deny /sys/firmware/** r,
  deny /sys/kernel/security/** r,
  deny /sys/devices/virtual/powercap/** r,
}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r24_the_kernels_cryptography_is_out_of_reach() {
        let text = text("docker-default", false);
        assert!(text.contains("\n  deny network alg,\n"), "{text}");
        assert!(!text.contains("abi <"));
        assert!(super::text("docker-default", true).starts_with("abi <abi/3.0>,\n"));
    }
}
