//! The Engine API over HTTP: routes, versions, streams, sockets, configuration, composition of the daemon.
#![forbid(unsafe_code)]
