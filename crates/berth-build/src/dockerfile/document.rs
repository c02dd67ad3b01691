//! Here-documents: `<<EOF`, `<<-EOF`, `<<"EOF"`.

use crate::expand::Words;

/// A here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// What ends it, and the name of the file that `COPY` makes of it.
    pub name: String,
    /// The number before `<<`: the descriptor that a shell would read it from; 0 without one.
    pub descriptor: u32,
    /// Whether variables in it are replaced by their values: not if its name is quoted.
    pub expand: bool,
    /// `<<-`: tabs at the beginning of lines are taken away.
    pub chomp: bool,
    /// Its lines, without those tabs.
    pub content: String,
}

/// A word as the beginning of a here-document, whose content is still missing.
pub(super) fn opening(word: &str) -> Option<Document> {
    let (descriptor, rest) = word.split_once("<<")?;
    if !descriptor.bytes().all(|byte| byte.is_ascii_digit()) || rest.contains('<') {
        return None;
    }
    let (chomp, rest) = match rest.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, rest),
    };
    let rest = rest.trim_start();
    let bare = Words { keep_unset: true, ..Words::new('\\') };
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    let one = |words: Words| match words.expand(rest, &()).ok()?.words.as_slice() {
        [word] => Some(word.clone()),
        _ => None,
    };
    let name = one(bare)?;
    let written = one(Words { keep_quotes: true, ..bare })?;
    let expand = quotes(&name) == quotes(&written);
    let descriptor = if descriptor.is_empty() { 0 } else { descriptor.parse().ok()? };
    Some(Document { name, descriptor, expand, chomp, content: String::new() })
}

/// The here-documents that a line begins, in their order.
pub(super) fn openings(line: &str) -> Vec<Document> {
    let words = Words { keep_quotes: true, keep_escapes: true, keep_unset: true, ..Words::new('\\') };
    match words.expand(line, &()) {
        Ok(made) => made.words.iter().filter_map(|word| opening(word)).collect(),
        // A quote that is not closed may be the shell's business; then there are no documents.
        Err(_) => Vec::new(),
    }
}

impl Document {
    /// Whether this line ends the document.
    pub(super) fn ends_at(&self, line: &str) -> bool {
        let line = line.trim_end_matches(['\r', '\n']);
        let line = if self.chomp { line.trim_start_matches('\t') } else { line };
        line == self.name
    }

    /// Adds a line, its end included.
    pub(super) fn add(&mut self, line: &str) {
        self.content.push_str(if self.chomp { line.trim_start_matches('\t') } else { line });
    }

    /// The opening as it is written.
    pub(super) fn opening(&self) -> String {
        let descriptor = if self.descriptor == 0 { String::new() } else { self.descriptor.to_string() };
        let dash = if self.chomp { "-" } else { "" };
        let quote = if self.expand { "" } else { "\"" };
        format!("{descriptor}<<{dash}{quote}{}{quote}", self.name)
    }
}
