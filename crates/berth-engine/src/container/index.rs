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
    /// Links by their full names: who has the link, and to whom. The full names are among the names too.
    links: BTreeMap<String, (String, String)>,
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

    /// Makes a link known by its full name, which is a name of its target from now on. As in Docker, the first of a name
    /// stays; whether this was it.
    pub fn link(&self, parent: &str, target: &str, full_name: &str) -> bool {
        self.write(|tables| {
            if tables.names.contains_key(full_name) {
                return false;
            }
            tables.names.insert(full_name.to_owned(), target.to_owned());
            tables.links.insert(full_name.to_owned(), (parent.to_owned(), target.to_owned()));
            true
        })
    }

    /// Forgets a link by its full name.
    pub fn unlink(&self, full_name: &str) {
        self.write(|tables| {
            if tables.links.remove(full_name).is_some() {
                tables.names.remove(full_name);
            }
        });
    }

    /// Whether this is a link's full name.
    pub fn is_link(&self, name: &str) -> bool {
        self.read(|tables| tables.links.contains_key(name))
    }

    /// The full names of the links to a container, in order.
    pub fn link_names(&self, target: &str) -> Vec<String> {
        self.read(|tables| {
            let to_it = tables.links.iter().filter(|(_, (_, other))| other == target);
            to_it.map(|(name, _)| name.clone()).collect()
        })
    }

    /// Who has links to a container, and what they call it.
    pub fn linked_by(&self, target: &str) -> Vec<(Arc<Container>, String)> {
        self.read(|tables| {
            let to_it = tables.links.iter().filter(|(_, (_, other))| other == target);
            let found = to_it.filter_map(|(name, (parent, _))| {
                let alias = name.split_once('/').map_or(name.as_str(), |(_, alias)| alias);
                Some((Arc::clone(tables.by_id.get(parent)?), alias.to_owned()))
            });
            found.collect()
        })
    }

    /// Forgets a container, its name, its links, and links to it.
    pub fn remove(&self, id: &str) {
        self.write(|tables| {
            tables.by_id.remove(id);
            tables.names.retain(|_, owner| owner != id);
            let Tables { links, names, .. } = tables;
            links.retain(|name, (parent, target)| {
                let stays = parent != id && target != id;
                if !stays {
                    names.remove(name);
                }
                stays
            });
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
    fn a_link_is_a_name_of_its_target_until_one_of_both_goes() {
        let index = filled(&[("aa", "one"), ("bb", "two"), ("cc", "three")]);
        assert!(index.link("bb", "aa", "two/x") && index.link("cc", "aa", "three/x"));
        assert!(!index.link("bb", "cc", "two/x"), "the first of a name stays");
        assert_eq!(index.find("/two/x").unwrap().id(), "aa");
        assert_eq!(index.link_names("aa"), ["three/x", "two/x"]);
        let by: Vec<_> = index.linked_by("aa").into_iter().map(|(one, alias)| (one.name(), alias)).collect();
        assert_eq!(by, [("three".to_owned(), "x".to_owned()), ("two".to_owned(), "x".to_owned())]);
        index.unlink("three/x");
        assert!(index.find("three/x").is_err());
        index.remove("bb");
        assert!(index.link_names("aa").is_empty() && index.find("two/x").is_err());
        index.link("cc", "aa", "three/x");
        index.remove("aa");
        assert!(index.find("three/x").is_err());
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
