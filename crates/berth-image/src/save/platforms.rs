//! Which platforms of an image are saved, and the index that holds them together.

use std::collections::BTreeMap;

use berth_oci::media_type::OCI_INDEX;
use berth_oci::{Descriptor, Digest, Index, Platform};
use berth_storage::ImageRecord;

use super::select::Selected;
use super::{Content, Image, Planner};
use crate::made::json;
use crate::{Error, Images, Result};

impl Images {
    /// Plans one image with its platforms: by its manifest if it is one, by an index otherwise. `manifest.json` tells
    /// of one of them only, since older programs take every entry for an image of its own.
    pub(super) fn plan_save(
        &self,
        plan: &mut Planner<'_>,
        selected: Selected,
        platforms: &[Platform],
    ) -> Result<Image> {
        let Selected { record, config, index, names } = selected;
        let kept = index.as_ref().map(|index| self.kept(index)).transpose()?.unwrap_or_default();
        let chosen = match kept.is_empty() {
            // Its own platform is all there is.
            true => {
                let own = config.platform();
                if let Some(missing) = platforms.iter().find(|wanted| !own.satisfies(wanted)) {
                    return Err(Error::NoExport { platform: missing.clone() });
                }
                Vec::new()
            }
            false => choose(kept, platforms)?,
        };
        let mut image = match (index, chosen.as_slice()) {
            (_, []) => plan.image(&record, &config, None)?,
            (_, [(listed, only)]) => plan.image(only, &self.config(&only.id)?, Some(&listed.digest))?,
            (index, several) => self.plan_several(plan, &record, index.as_ref(), several)?,
        };
        image.names = names;
        Ok(image)
    }

    /// The platforms of one index: under that index as it came if all their manifests are as they came too, and under
    /// one of those that are there now otherwise.
    fn plan_several(
        &self,
        plan: &mut Planner<'_>,
        first: &ImageRecord,
        index: Option<&Digest>,
        chosen: &[(Descriptor, ImageRecord)],
    ) -> Result<Image> {
        let mut images = Vec::new();
        let mut entries = Vec::new();
        for (listed, record) in chosen {
            let config = self.config(&record.id)?;
            let image = plan.image(record, &config, Some(&listed.digest))?;
            let platform = listed.platform.clone().or_else(|| Some(config.platform()));
            entries.push(Descriptor { platform, ..image.manifest.clone() });
            images.push(image);
        }
        let as_it_came = entries.iter().zip(chosen).all(|(entry, (listed, _))| entry.digest == listed.digest);
        let top = match index.filter(|_| as_it_came) {
            Some(index) => plan.kept_index(index)?,
            None => None,
        };
        let top = match top {
            Some(kept) => kept,
            None => plan.made_index(entries)?,
        };
        // The one that the name means where nobody asks for a platform.
        let main = images.iter().position(|image| image.id == first.id).unwrap_or_default();
        let mut image = images.swap_remove(main);
        image.index = Some(top);
        Ok(image)
    }
}

/// Those of the kept platforms that are asked for, each once; all if none are.
fn choose(
    kept: Vec<(Descriptor, ImageRecord)>,
    platforms: &[Platform],
) -> Result<Vec<(Descriptor, ImageRecord)>> {
    if platforms.is_empty() {
        return Ok(kept);
    }
    let mut chosen: Vec<(Descriptor, ImageRecord)> = Vec::new();
    for wanted in platforms {
        let does = |entry: &Descriptor| entry.platform.as_ref().is_some_and(|found| found.satisfies(wanted));
        let exact = kept.iter().find(|(entry, _)| entry.platform.as_ref() == Some(wanted));
        let found = exact.or_else(|| kept.iter().find(|(entry, _)| does(entry)));
        let found = found.ok_or_else(|| Error::NoExport { platform: wanted.clone() })?;
        if !chosen.contains(found) {
            chosen.push(found.clone());
        }
    }
    Ok(chosen)
}

impl Planner<'_> {
    /// An index as it came; none if it is gone.
    fn kept_index(&mut self, index: &Digest) -> Result<Option<Descriptor>> {
        if !self.storage.blobs().hold(index, self.lease)? {
            return Ok(None);
        }
        let bytes = self.storage.blobs().read(index)?;
        let said: Option<Index> = serde_json::from_slice(&bytes).ok();
        let kind = said.map(|index| index.media_type).filter(|kind| !kind.is_empty());
        let kind = kind.unwrap_or_else(|| OCI_INDEX.to_owned());
        let stands = Descriptor::new(&kind, index.clone(), bytes.len() as u64);
        self.add(index.clone(), stands.size, Content::Bytes(bytes));
        Ok(Some(stands))
    }

    fn made_index(&mut self, manifests: Vec<Descriptor>) -> Result<Descriptor> {
        let index = Index {
            schema_version: 2,
            media_type: OCI_INDEX.to_owned(),
            manifests,
            annotations: BTreeMap::new(),
        };
        let bytes = json(&index)?;
        let stands = Descriptor::new(OCI_INDEX, Digest::of(&bytes), bytes.len() as u64);
        self.add(stands.digest.clone(), stands.size, Content::Bytes(bytes));
        Ok(stands)
    }
}
