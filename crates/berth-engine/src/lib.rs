//! Containers and their life: create, start, exec, attach, events, adoption.
#![forbid(unsafe_code)]
