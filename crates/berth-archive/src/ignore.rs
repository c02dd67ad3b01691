//! Patterns that leave files out of a build context: `.dockerignore`.
//!
//! A pattern is Go's `filepath.Match` with `**` for any number of directories, and `!` for an exception; the last pattern
//! that matches decides. A pattern that matches a directory matches everything below it, as in Docker's own matcher.

mod glob;

use glob::Glob;

/// Longest `.dockerignore` that is read, in bytes.
const FILE_LIMIT: usize = 1 << 20;

/// A pattern that cannot be used; the words are Docker's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    /// An exception of nothing.
    #[error("illegal exclusion pattern: \"!\"")]
    EmptyException,
    /// An open class, an empty range, a backslash at the end.
    #[error("syntax error in pattern: {0:?}")]
    Syntax(String),
    /// The file is unreasonably large.
    #[error(".dockerignore is larger than {FILE_LIMIT} bytes")]
    TooLarge,
}

/// Which files are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ignore {
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    text: String,
    exception: bool,
    glob: Glob,
}

/// Which patterns matched a directory: saves looking at every parent of every file below it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inherited(Vec<bool>);

/// The pattern that matches a path and what lies below it, and nothing else.
pub fn literal(path: &str) -> String {
    let special = |letter: char| "*?[]\\^-!".contains(letter).then_some('\\');
    path.chars().flat_map(|letter| special(letter).into_iter().chain([letter])).collect()
}

impl Ignore {
    /// Reads a `.dockerignore`: a pattern on each line, `#` for comments. Bytes that are no UTF-8 match nothing.
    ///
    /// # Errors
    /// Patterns that cannot be used.
    pub fn read(content: &[u8]) -> Result<Ignore, IgnoreError> {
        if content.len() > FILE_LIMIT {
            return Err(IgnoreError::TooLarge);
        }
        let text = String::from_utf8_lossy(content);
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Ignore::new(lines.filter_map(normal))
    }

    /// Patterns as they are, in their order; empty ones are passed over.
    ///
    /// # Errors
    /// Patterns that cannot be used.
    pub fn new<S: AsRef<str>>(patterns: impl IntoIterator<Item = S>) -> Result<Ignore, IgnoreError> {
        let mut found = Vec::new();
        for pattern in patterns {
            let text = pattern.as_ref().trim();
            if text.is_empty() {
                continue;
            }
            let text = clean(text);
            let (exception, text) = match text.strip_prefix('!') {
                Some("") => return Err(IgnoreError::EmptyException),
                Some(rest) => (true, rest.to_owned()),
                None => (false, text),
            };
            let glob = Glob::parse(&text).ok_or_else(|| IgnoreError::Syntax(text.clone()))?;
            found.push(Pattern { text, exception, glob });
        }
        Ok(Ignore { patterns: found })
    }

    /// Takes one file back in, whatever the patterns before say. `path` is relative and clean; nothing in it is a wildcard.
    #[must_use]
    pub fn except(mut self, path: &str) -> Ignore {
        let text = literal(path);
        if let Some(glob) = Glob::parse(&text) {
            self.patterns.push(Pattern { text, exception: true, glob });
        }
        self
    }

    /// Whether there is no pattern at all.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether any pattern begins with `!`: then a directory that is left out may hold files that are not.
    pub fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.exception)
    }

    /// Whether patterns leave out everything at the top (`*`, `**`), exceptions aside.
    pub fn excludes_all(&self) -> bool {
        let all = |pattern: &&Pattern| !pattern.exception && matches!(&*pattern.text, "*" | "**" | "**/*");
        self.patterns.iter().any(|pattern| all(&pattern))
    }

    /// Whether the file is left out. `path` is relative and clean, with slashes; `.` never is.
    pub fn matches(&self, path: &str) -> bool {
        path != "." && !path.is_empty() && self.decide(path, None).0
    }

    /// As [`Ignore::matches`] for an entry of a directory for which `parent` was the answer, or none at the top; for
    /// walks, which see each directory before what is in it.
    pub fn matches_below(&self, path: &str, parent: Option<&Inherited>) -> (bool, Inherited) {
        self.decide(path, parent)
    }

    /// Whether an exception could bring back something below `directory`: otherwise a walk need not enter one that is
    /// left out.
    pub fn may_except_below(&self, directory: &str) -> bool {
        let prefix = format!("{directory}/");
        self.patterns.iter().filter(|pattern| pattern.exception).any(|pattern| {
            let fixed = pattern.glob.fixed_prefix();
            // Wildcards may stand for the directory or for parts of it.
            pattern.text.len() > fixed.len() && prefix.starts_with(fixed)
                || fixed.starts_with(&prefix)
                || prefix.starts_with(&format!("{}/", pattern.text))
        })
    }

    fn decide(&self, path: &str, parent: Option<&Inherited>) -> (bool, Inherited) {
        let mut left_out = false;
        let mut matched = vec![false; self.patterns.len()];
        for (index, pattern) in self.patterns.iter().enumerate() {
            let inherited = parent.is_some_and(|parent| parent.0.get(index).copied().unwrap_or(false));
            // A pattern that could not change the answer is passed over, even for what is below: as Docker does.
            if !inherited && pattern.exception != left_out {
                continue;
            }
            let hit = inherited
                || pattern.glob.matches(path)
                || (parent.is_none() && parents(path).any(|parent| pattern.glob.matches(parent)));
            if let Some(slot) = matched.get_mut(index) {
                *slot = hit;
            }
            if hit {
                left_out = !pattern.exception;
            }
        }
        (left_out, Inherited(matched))
    }
}

/// The directories above `path`, from the top.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').filter_map(|(at, _)| path.get(..at)).filter(|parent| !parent.is_empty())
}

/// A line of the file as a pattern: clean, and relative to the context.
fn normal(line: &str) -> Option<String> {
    let line = line.trim();
    let (mark, pattern) = match line.strip_prefix('!') {
        Some(rest) => ("!", rest.trim()),
        None => ("", line),
    };
    if line.is_empty() {
        return None;
    }
    let pattern = if pattern.is_empty() { String::new() } else { clean(pattern) };
    let relative = match pattern.strip_prefix('/') {
        Some(rest) if !rest.is_empty() => rest,
        _ => &pattern,
    };
    Some(format!("{mark}{relative}"))
}

/// The shortest path that means the same: without `.`, doubled slashes and `..` where it can be resolved.
pub fn clean(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&"..") | None if absolute => {}
                Some(&"..") | None => parts.push(".."),
                Some(_) => drop(parts.pop()),
            },
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (absolute, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_out(patterns: &[&str], path: &str) -> bool {
        Ignore::new(patterns).unwrap().matches(path)
    }

    #[test]
    fn patterns_match_as_dockers() {
        for (pattern, path, expected) in [
            ("**", "file", true),
            ("**", "dir/file", true),
            ("**/", "dir/file", true),
            ("**/**", "dir/dir2/file", true),
            ("**/file", "file", true),
            ("**/file", "dir/dir/file", true),
            ("**/file", "dir/afile", false),
            ("**/file/*", "dir/dir/file/x", true),
            ("dir/**", "dir/file/", true),
            ("dir/**", "dir", false),
            ("dir/**", "dir/sub/file", true),
            ("**/*.txt", "a/b/c.txt", true),
            ("**/*.txt", "c.txtx", false),
            ("a**/*.txt", "a/file.txt", true),
            ("a**/*.txt", "a/dir/dir/file.txt", true),
            ("a[b-d]e", "ace", true),
            ("a[b-d]e", "aae", false),
            ("a[^b-d]e", "aze", true),
            ("abc.def", "abcdef", false),
            ("abc?def", "abc/def", false),
            ("a\\*b", "a*b", true),
            ("a\\*b", "axb", false),
            ("a\\\\", "a\\", true),
            ("*", "a/b", true),
            ("foo", "foo/bar/baz", true),
            ("foo/*", "foo", false),
            ("foo/*", "foo/bar/baz", true),
            ("**/foo/bar", "foo/bar", true),
            ("**foo", "barfoo", true),
            ("x.", "xy", false),
            ("a(b)c", "a(b)c", true),
            ("a{1}|$+^", "a{1}|$+^", true),
            ("ä?", "äö", true),
            ("node_modules", "a/node_modules", false),
        ] {
            assert_eq!(left_out(&[pattern], path), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn the_last_match_decides() {
        assert!(!left_out(&["*", "!a/b"], "a/b"));
        assert!(!left_out(&["*", "!a/b"], "a/b/c"));
        assert!(left_out(&["*", "!a/b"], "a/c"));
        assert!(left_out(&["*.md", "!README*.md", "README-secret.md"], "README-secret.md"));
        assert!(!left_out(&["*.md", "!README*.md", "README-secret.md"], "README.md"));
        assert!(!left_out(&["*"], "."));
    }

    #[test]
    fn a_file_is_read_line_by_line() {
        let text = "\u{feff}# note\n\n  /abs/./path  \r\n! /abs/path/kept\n #not a comment\na//b/../c\n";
        let ignore = Ignore::read(text.as_bytes()).unwrap();
        let texts: Vec<_> = ignore.patterns.iter().map(|p| (p.exception, p.text.as_str())).collect();
        let expected =
            [(false, "abs/path"), (true, "abs/path/kept"), (false, "#not a comment"), (false, "a/c")];
        assert_eq!(texts, expected);
        assert!(ignore.has_exceptions() && !ignore.is_empty());
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        assert_eq!(Ignore::read(b"a\n!\n"), Err(IgnoreError::EmptyException));
        for pattern in ["[", "a[", "[]a]", "[-]", "[a-]", "[x-]", "[^]", "a\\", "[a", "[\\"] {
            let error = Ignore::new([pattern]).unwrap_err();
            assert_eq!(error, IgnoreError::Syntax(pattern.to_owned()), "{pattern}");
        }
    }

    #[test]
    fn exceptions_below_a_directory_are_foreseen() {
        let ignore = Ignore::new(["a", "b", "c", "!a/keep/x", "!b*", "d"]).unwrap();
        for (directory, expected) in
            [("a", true), ("a/keep", true), ("a/other", false), ("b", true), ("b/sub", true), ("c", false)]
        {
            assert_eq!(ignore.may_except_below(directory), expected, "{directory}");
        }
        let whole = Ignore::new(["a", "!a/keep"]).unwrap();
        assert!(whole.may_except_below("a/keep/sub"));
    }

    #[test]
    fn a_file_is_taken_back_in_by_its_exact_name() {
        let ignore = Ignore::new(["*"]).unwrap().except("sub/Docker*file [a-b]");
        assert!(!ignore.matches("sub/Docker*file [a-b]"));
        assert!(ignore.matches("sub/Dockerfile a") && ignore.matches("sub/DockerXfile [a-b]"));
        assert!(ignore.may_except_below("sub") && !ignore.may_except_below("other"));
        assert!(Ignore::default().except("x").has_exceptions());
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics_and_walks_agree_with_single_answers(
            patterns in proptest::collection::vec("!?[ab*?/.\\[\\]\\\\^-]{0,6}", 0..4),
            parts in proptest::collection::vec("[ab]{1,2}", 1..4),
        ) {
            let Ok(ignore) = Ignore::new(&patterns) else { return Ok(()) };
            let path = parts.join("/");
            let mut inherited: Option<Inherited> = None;
            let mut answer = false;
            for end in 1..=parts.len() {
                let (left_out, below) = ignore.matches_below(&parts[..end].join("/"), inherited.as_ref());
                answer = left_out;
                inherited = Some(below);
            }
            // Only without exceptions are both the same: Docker's walk passes over a pattern whose parent was not asked.
            if !ignore.has_exceptions() {
                proptest::prop_assert_eq!(answer, ignore.matches(&path));
            }
        }
    }
}
