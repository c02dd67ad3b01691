//! What a crash left: everything half-done, and directories and files that no row names.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::root::{EMPTY_LAYER, PARTIAL};
use crate::{Error, Result, Shared, garbage, projects, unsynced, volumes};

/// How long a partly received blob waits for somebody to go on with it.
const PARTIAL_AGE: Duration = Duration::from_secs(24 * 3600);

/// Runs once at the start, before anything else. Trees go to the trash, to be removed in the background.
pub(crate) fn sweep(shared: &Arc<Shared>) -> Result<()> {
    for name in shared.root.list("staging")? {
        let path = format!("staging/{name}");
        if path != crate::root::TRASH && path != PARTIAL {
            shared.root.trash(&path)?;
        }
    }
    forget_old_partials(shared)?;
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

fn forget_old_partials(shared: &Shared) -> Result<()> {
    for name in shared.root.list(PARTIAL)? {
        let path = shared.root.path().join(PARTIAL).join(&name);
        let modified = std::fs::metadata(&path).and_then(|metadata| metadata.modified());
        let old = modified
            .is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age > PARTIAL_AGE));
        if old {
            std::fs::remove_file(&path).map_err(|error| Error::file("removing", path, error))?;
        }
    }
    Ok(())
}
