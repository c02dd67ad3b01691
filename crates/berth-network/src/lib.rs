//! Bridges, addresses, ports, names, firewall.
#![forbid(unsafe_code)]
