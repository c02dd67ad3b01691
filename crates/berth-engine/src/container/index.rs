//! All containers, by ID, by name and by the beginning of an ID.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use super::Container;
use crate::Error;

/// All containers of an engine.
#[derive(Default)]
pub struct Index {
    tables: RwLock<Tables>,
}

#[derive(Default)]
struct Tables {
    by_id: BTreeMap<String, Arc<Container>>,
    /// Names without a slash, also those of containers that are being created.
    names: HashMap<String, String>,
}

impl Index {
    fn read<T>(&self, look: impl FnOnce(&Tables) -> T) -> T {
        look(&self.tables.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write<T>(&self, change: impl FnOnce(&mut Tables) -> T) -> T {
        change(&mut self.tables.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Finds a container as Docker does: by its ID, by its name, by the beginning of its ID.
    pub fn find(&self, name: &str) -> Result<Arc<Container>, Error> {
        self.read(|tables| {
            let bare = name.strip_prefix('/').unwrap_or(name);
            if let Some(found) = tables.by_id.get(name) {
                return Ok(found.clone());
            }
            if let Some(found) = tables.names.get(bare).and_then(|id| tables.by_id.get(id)) {
                return Ok(found.clone());
            }
            let missing = || Error::NoSuchContainer(name.to_owned());
            if name.is_empty() {
                return Err(missing());
            }
            let mut matches =
                tables.by_id.range(name.to_owned()..).take_while(|(id, _)| id.starts_with(name));
            match (matches.next(), matches.next()) {
                (None, _) => Err(missing()),
                (Some((_, found)), None) => Ok(found.clone()),
                _ => Err(Error::AmbiguousId(name.to_owned())),
            }
        })
    }

    /// All containers, in no particular order.
    pub fn all(&self) -> Vec<Arc<Container>> {
        self.read(|tables| tables.by_id.values().cloned().collect())
    }

    /// Takes a name for a container, which need not be known yet.
    pub fn reserve(&self, name: &str, id: &str) -> Result<(), Error> {
        self.write(|tables| match tables.names.get(name) {
            Some(owner) => Err(Error::NameInUse { name: name.to_owned(), id: owner.clone() }),
            None => {
                tables.names.insert(name.to_owned(), id.to_owned());
                Ok(())
            }
        })
    }

    /// Lets a name go, if that container has it.
    pub fn release(&self, name: &str, id: &str) {
        self.write(|tables| {
            if tables.names.get(name).is_some_and(|owner| owner == id) {
                tables.names.remove(name);
            }
        });
    }

    /// Makes a container known, whose name is reserved.
    pub fn insert(&self, container: Arc<Container>) {
        self.write(|tables| tables.by_id.insert(container.id().to_owned(), container));
    }

    /// Forgets a container and its name.
    pub fn remove(&self, id: &str) {
        self.write(|tables| {
            tables.by_id.remove(id);
            tables.names.retain(|_, owner| owner != id);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::Kept;
    use crate::create::tests::definition;

    fn filled(ids: &[(&str, &str)]) -> Index {
        let index = Index::default();
        for (id, name) in ids {
            let mut definition = definition();
            definition.id = (*id).to_owned();
            let kept = Kept::new((*name).into());
            index.reserve(name, id).unwrap();
            index.insert(Arc::new(Container::new(definition, kept).0));
        }
        index
    }

    #[test]
    fn containers_are_found_by_id_name_and_prefix() {
        let index = filled(&[("abc1", "one"), ("abd2", "two"), ("ffff", "abc1")]);
        for (name, id) in
            [("abc1", "abc1"), ("one", "abc1"), ("/two", "abd2"), ("abd", "abd2"), ("f", "ffff")]
        {
            assert_eq!(index.find(name).unwrap().id(), id, "{name}");
        }
        assert!(matches!(index.find("ab"), Err(Error::AmbiguousId(_))));
        for name in ["", "x", "abc12", "/"] {
            assert!(matches!(index.find(name), Err(Error::NoSuchContainer(_))), "{name}");
        }
    }

    #[test]
    fn names_are_unique_and_go_with_their_container() {
        let index = filled(&[("aa", "one")]);
        let error = index.reserve("one", "bb").unwrap_err().to_string();
        assert!(
            error.contains("The container name \"/one\" is already in use by container \"aa\""),
            "{error}"
        );
        index.release("one", "bb");
        assert!(index.reserve("one", "bb").is_err(), "only its owner lets a name go");
        index.remove("aa");
        index.reserve("one", "bb").unwrap();
        assert!(index.find("one").is_err(), "reserved, but not there yet");
    }
}
