//! The engine inside itself where there are only cgroups of version 2: there, a private namespace of them is the default,
//! and the root of the inner tree is evacuated before it gets children with controllers.

use std::fs;

use crate::files;
use crate::nested::{SCRIPT, expected, image};
use crate::vm::{Extras, boot};

#[test]
fn the_engine_runs_in_itself_on_cgroup_v2() {
    let work = tempfile::tempdir().unwrap();
    let image = files::write(work.path(), "nested.tar", &image().docker_archive("nested:latest"));
    let script = work.path().join("inner");
    fs::write(&script, SCRIPT).unwrap();
    let extras = Extras {
        files: vec![(image.into(), "/nested.tar".to_owned()), (script, "/inner".to_owned())],
        ..Extras::default()
    };
    let steps = boot(
        "berth load -q -i /nested.tar
         rm /nested.tar
         step copy berth run --rm --privileged -v /inner:/inner nested sh /inner /var/lib/berth
         step volume berth run --rm --privileged -v /inner:/inner -v /var/lib/berth nested sh /inner /var/lib/berth",
        &extras,
    );
    for (step, driver) in [("copy", "vfs"), ("volume", "overlay2")] {
        // The reason, in brackets, is for whoever reads of a failure; here standard error is part of what is shown.
        let shown = steps.step(step);
        let lines: Vec<&str> =
            shown.lines().filter(|line| !line.starts_with("WARNING") || !line.contains(" (")).collect();
        assert_eq!(
            lines.join("\n"),
            format!("{}\ncode 0", expected(driver, "/var/lib/berth")),
            "{step}: {shown}"
        );
    }
}
