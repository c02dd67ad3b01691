//! What a pull will bring, before it begins.

use berth_api::image::PullEstimate;
use berth_client::{Client, Query, segment};
use berth_oci::Reference;

use crate::context::Context;
use crate::credentials;
use crate::failure::Outcome;
use crate::format::human::size;

/// Asks the daemon, which asks the registry.
pub async fn ask(
    context: &Context,
    client: &Client,
    reference: &Reference,
    platform: Option<&str>,
) -> Outcome<PullEstimate> {
    let path = format!("/images/{}/estimate", segment(&reference.familiar()));
    let path = Query::new().set_some("platform", platform).on(&path);
    Ok(match credentials::header(&context.config, reference).await? {
        Some(auth) => client.get_with(&path, "x-registry-auth", &auth).await?,
        None => client.get(&path).await?,
    })
}

/// In full.
pub fn text(reference: &Reference, estimate: &PullEstimate) -> String {
    let here = estimate.layers.iter().filter(|layer| layer.exists).count();
    let more = if estimate.unpacked_is_exact { "" } else { "more than " };
    let fits = if estimate.fits { "yes" } else { "no" };
    [
        ("Image", format!("{} ({})", reference.canonical(), estimate.platform)),
        ("Digest", estimate.digest.clone()),
        ("Layers", format!("{}, of which {here} are here", estimate.layers.len())),
        ("Download", format!("{} of {}", size(estimate.download), size(estimate.total))),
        ("Unpacked", format!("{more}{}", size(estimate.unpacked))),
        ("Needed", format!("at least {}", size(estimate.needed))),
        ("Free", format!("{}, of which {} stay free", size(estimate.free), size(estimate.keep_free))),
        ("Fits", fits.to_owned()),
    ]
    .map(|(name, value)| format!("{:<10}{value}", format!("{name}:")))
    .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_figure_is_named() {
        let estimate = PullEstimate { download: 48_200_000, free: 9_000_000_000, ..PullEstimate::default() };
        let text = text(&"debian:12".parse().unwrap(), &estimate);
        for line in
            ["Download: 48.2MB of 0B", "Unpacked: more than 0B", "Free:     9GB, of which 0B stay free"]
        {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
    }
}
