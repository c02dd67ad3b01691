//! Places in a Dockerfile, and warnings about them, as BuildKit's clients show them.

use std::fmt::Write as _;

use berth_api::build::{Checked, Failed, Place};

/// Between the parts of an excerpt.
const RULER: &str = "--------------------\n";

/// What `--check` prints: every warning with the lines that it is about.
pub fn report(checked: &Checked, file: &str) -> String {
    let warnings = checked.warnings.as_deref().unwrap_or_default();
    let mut out = match warnings.len() {
        0 => "Check complete, no warnings found.\n".to_owned(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    };
    for warning in warnings {
        let url = if warning.url.is_empty() { String::new() } else { format!(" - {}", warning.url) };
        let _ = write!(out, "\nWARNING: {}{url}\n{}\n", warning.rule, warning.message);
        excerpt(&mut out, &checked.source, file, Place { first: warning.first, last: warning.last });
    }
    out
}

/// What is told at the end of a build; empty if there is nothing to tell.
pub fn summary(checked: &Checked) -> String {
    let warnings = checked.warnings.as_deref().unwrap_or_default();
    let mut out = match warnings.len() {
        0 => return String::new(),
        1 => "\n 1 warning found (use --check to expand):\n".to_owned(),
        count => format!("\n {count} warnings found (use --check to expand):\n"),
    };
    for warning in warnings {
        let _ = writeln!(out, " - {}: {} (line {})", warning.rule, warning.message, warning.first);
    }
    out
}

/// Where a build has failed.
pub fn place(failed: &Failed, file: &str) -> String {
    let mut out = String::new();
    if let Some(place) = failed.failed {
        excerpt(&mut out, &failed.source, file, place);
    }
    out
}

/// Some lines, and others around them.
fn excerpt(out: &mut String, source: &str, file: &str, place: Place) {
    let lines: Vec<&str> = source.split('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).collect();
    let (first, last) = (place.first, place.last.max(place.first).min(lines.len()));
    if first < 1 || first > lines.len() {
        return;
    }
    // As BuildKit has it: four lines around one, two around several.
    let around = if first == last { 4 } else { 2 };
    let (mut from, mut to, mut padded) = (first, last, 0);
    while padded < around {
        if from > 1 {
            from -= 1;
            padded += 1;
        }
        if to != lines.len() {
            to += 1;
            padded += 1;
        }
        padded += 1;
    }
    let _ = write!(out, "{file}:{first}\n{RULER}");
    for (number, line) in (from..=to).zip(&lines[from - 1..to]) {
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        let _ = writeln!(out, " {number:>3} | {mark} {line}");
    }
    out.push_str(RULER);
}

#[cfg(test)]
mod tests {
    use berth_api::build::Warning;

    use super::*;

    fn checked(source: &str, places: &[(usize, usize)]) -> Checked {
        let warning = |(first, last): &(usize, usize)| Warning {
            rule: "Rule".into(),
            url: "https://x.example".into(),
            message: "it is wrong".into(),
            first: *first,
            last: *last,
            ..Warning::default()
        };
        Checked { warnings: Some(places.iter().map(warning).collect()), source: source.into() }
    }

    #[test]
    fn warnings_stand_with_their_lines() {
        let source = "FROM scratch\nCOPY a /\nCMD x\n";
        let expected = "Check complete, 1 warning has been found!\n\nWARNING: Rule - https://x.example\nit is wrong\n\
            D:3\n--------------------\n   1 |     FROM scratch\n   2 |     COPY a /\n   3 | >>> CMD x\n   4 |     \n\
            --------------------\n";
        assert_eq!(report(&checked(source, &[(3, 3)]), "D"), expected);
        assert_eq!(report(&checked(source, &[]), "D"), "Check complete, no warnings found.\n");
        let wide = report(&checked("a\nb\nc\nd\ne\nf\n", &[(3, 4)]), "D");
        assert!(wide.contains("   2 |     b\n   3 | >>> c\n   4 | >>> d\n   5 |     e\n-"), "{wide}");
        // A daemon that lies does no harm.
        assert!(report(&checked("a", &[(0, 0), (7, 9), (1, 99)]), "D").starts_with("Check complete, 3"));
    }

    #[test]
    fn a_failure_stands_with_its_line() {
        let failed = Failed { failed: Some(Place { first: 2, last: 2 }), source: "FROM a\r\nRUN b".into() };
        let expected =
            "D:2\n--------------------\n   1 |     FROM a\n   2 | >>> RUN b\n--------------------\n";
        assert_eq!(place(&failed, "D"), expected);
        assert_eq!(place(&Failed::default(), "D"), "");
    }

    #[test]
    fn a_build_tells_them_in_short() {
        assert_eq!(summary(&checked("", &[])), "");
        let told = summary(&checked("x", &[(1, 1), (2, 2)]));
        assert_eq!(
            told,
            "\n 2 warnings found (use --check to expand):\n - Rule: it is wrong (line 1)\n - Rule: it is wrong (line 2)\n"
        );
    }
}
