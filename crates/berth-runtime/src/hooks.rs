//! Hooks of the OCI configuration.
