//! The OCI runtime command line.
