//! What a crash left: everything half-done, and directories and files that no row names.

use std::collections::HashSet;
use std::sync::Arc;

use crate::root::{EMPTY_LAYER, PARTIAL};
use crate::{Result, Shared, garbage, partials, projects, unsynced, volumes};

/// Runs once at the start, before anything else. Trees go to the trash, to be removed in the background.
pub(crate) fn sweep(shared: &Arc<Shared>) -> Result<()> {
    for name in shared.root.list("staging")? {
        let path = format!("staging/{name}");
        if path != crate::root::TRASH && path != PARTIAL {
            shared.root.trash(&path)?;
        }
    }
    partials::forget_old(shared)?;
    let known = |query: &str, strip: usize| -> Result<HashSet<String>> {
        let rows = garbage::column(shared, query)?;
        Ok(rows.into_iter().map(|text| text.get(strip..).unwrap_or_default().to_owned()).collect())
    };
    let algorithm = "sha256:".len();
    let mut layers = known("SELECT chain FROM layers", algorithm)?;
    layers.insert(EMPTY_LAYER.to_owned());
    trash_unknown(shared, "layers", &layers)?;
    trash_unknown(shared, "containers", &known("SELECT id FROM snapshots", 0)?)?;
    trash_unknown(shared, "blobs/sha256", &known("SELECT digest FROM blobs", algorithm)?)?;
    let caches = known("SELECT directory FROM build_caches", 0)?;
    trash_unknown(shared, crate::build_caches::DIRECTORY, &caches)?;
    volumes::reconcile(shared)?;
    unsynced::verify(shared)?;
    garbage::collect(shared)?;
    projects::abandon_unknown(shared)
}

fn trash_unknown(shared: &Shared, directory: &str, known: &HashSet<String>) -> Result<()> {
    for name in shared.root.list(directory)? {
        if !known.contains(&name) {
            tracing::info!(directory, name, "removing what a crash left");
            shared.root.trash(&format!("{directory}/{name}"))?;
        }
    }
    Ok(())
}
