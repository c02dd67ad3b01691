//! Networks.

use super::Outcome;
use crate::answer;
use crate::call::Call;

pub async fn list(call: Call) -> Outcome {
    Ok(answer::ok(&call.engine.network_list(call.query.filters()?).await?))
}

pub async fn inspect(call: Call, name: &str) -> Outcome {
    Ok(answer::ok(&call.engine.network_inspect(name).await?))
}
