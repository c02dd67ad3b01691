//! Mappings of users and groups in a configuration.

pub use berth_sys::ids::{Mappings, Range};
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, LinuxNamespaceType, Spec};

/// The mappings that a configuration asks for: none without a user namespace.
pub fn of_spec(spec: &Spec) -> Option<Mappings> {
    let linux = spec.linux().as_ref()?;
    let namespaces = linux.namespaces().as_deref().unwrap_or_default();
    namespaces.iter().find(|namespace| namespace.typ() == LinuxNamespaceType::User)?;
    let read = |mappings: &Option<Vec<LinuxIdMapping>>| ranges(mappings.as_deref().unwrap_or_default());
    Some(Mappings { users: read(linux.uid_mappings()), groups: read(linux.gid_mappings()) })
}

/// A configuration's form, read.
pub(crate) fn ranges(mappings: &[LinuxIdMapping]) -> Vec<Range> {
    let range = |mapping: &LinuxIdMapping| Range {
        inside: mapping.container_id(),
        outside: mapping.host_id(),
        count: mapping.size(),
    };
    mappings.iter().map(range).collect()
}

/// The configuration's form of mappings.
pub fn configured(ranges: &[Range]) -> Vec<LinuxIdMapping> {
    let mapping = |range: &Range| {
        let builder = LinuxIdMappingBuilder::default().container_id(range.inside).host_id(range.outside);
        // All fields are given.
        builder.size(range.count).build().unwrap_or_default()
    };
    ranges.iter().map(mapping).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_count_with_a_namespace_only() {
        let range = Range { inside: 0, outside: 100_000, count: 65536 };
        let mut spec = crate::defaults::spec(&["true"]);
        let linux = spec.linux_mut().as_mut().unwrap();
        linux.set_uid_mappings(Some(configured(&[range])));
        assert_eq!(of_spec(&spec), None);
        let linux = spec.linux_mut().as_mut().unwrap();
        linux.set_namespaces(Some(crate::defaults::namespaces(&[LinuxNamespaceType::User])));
        assert_eq!(of_spec(&spec), Some(Mappings { users: vec![range], groups: Vec::new() }));
    }
}
