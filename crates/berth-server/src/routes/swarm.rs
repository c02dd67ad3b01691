//! Swarm, which is never active here.

use http::StatusCode;

use crate::failure::Failure;

/// Docker's answer of a node outside a swarm.
pub fn not_a_manager() -> Failure {
    Failure::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to \
         swarm and try again.",
    )
}

/// The same to one that is told to leave its swarm.
pub fn not_a_member() -> Failure {
    Failure::new(StatusCode::SERVICE_UNAVAILABLE, "This node is not part of a swarm")
}
