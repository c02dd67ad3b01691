//! seccomp profiles and their compilation to classic BPF.
