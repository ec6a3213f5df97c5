//! Rust files as words, without comments, literals and tests.

use std::path::{Path, PathBuf};

/// An identifier, a path separator or another sign, and its line from 0.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) line: usize,
}

/// A file of a crate, its tests left out.
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(super) words: Vec<Word>,
    /// Lines that belong to no test.
    pub(super) lines: usize,
}

impl Source {
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)?;
        Ok(Self::new(path, text))
    }

    fn new(path: &Path, text: String) -> Self {
        let all = words(&text);
        let total = text.lines().count();
        let test_file = path.file_name().is_some_and(|n| n == "tests.rs");
        let (words, tests) = if test_file { (Vec::new(), total) } else { without_tests(all) };
        Self { path: path.into(), text, words, lines: total - tests }
    }

    pub(super) fn is(&self, at: usize, text: &str) -> bool {
        self.words.get(at).is_some_and(|word| word.text == text)
    }

    /// Whether the words from `at` on are these.
    pub(super) fn follows(&self, at: usize, texts: &[&str]) -> bool {
        texts.iter().enumerate().all(|(i, text)| self.is(at + i, text))
    }
}

/// Cuts a text into words. Comments and the content of literals are left out.
pub(super) fn words(text: &str) -> Vec<Word> {
    let bytes = text.as_bytes();
    let (mut out, mut at, mut line) = (Vec::new(), 0, 0);
    while at < bytes.len() {
        let rest = &text[at..];
        let end = at + skip(rest).unwrap_or_else(|| word(rest));
        let piece = &text[at..end];
        if skip(rest).is_none() {
            out.push(Word { text: piece.into(), line });
        } else if piece.ends_with('"') {
            out.push(Word { text: "\"\"".into(), line });
        }
        line += piece.matches('\n').count();
        at = end;
    }
    out
}

/// Length of white space, a comment or a literal at the start of a text.
fn skip(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    if bytes[0].is_ascii_whitespace() {
        return Some(1);
    }
    if text.starts_with("//") {
        return Some(text.find('\n').unwrap_or(text.len()));
    }
    if text.starts_with("/*") {
        return Some(text.find("*/").map_or(text.len(), |end| end + 2));
    }
    let raw = text.strip_prefix('b').unwrap_or(text);
    if let Some(rest) = raw.strip_prefix('r') {
        let marks = rest.bytes().take_while(|b| *b == b'#').count();
        if rest[marks..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(marks));
            let start = text.len() - rest.len() + marks + 1;
            return Some(text[start..].find(&close).map_or(text.len(), |end| start + end + close.len()));
        }
    }
    if raw.starts_with('"') {
        let start = text.len() - raw.len() + 1;
        let mut escaped = false;
        for (at, byte) in text.bytes().enumerate().skip(start) {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => return Some(at + 1),
                _ => {}
            }
        }
        return Some(text.len());
    }
    character(raw).map(|length| length + text.len() - raw.len())
}

/// Length of a character literal; `None` for a lifetime.
fn character(text: &str) -> Option<usize> {
    let rest = text.strip_prefix('\'')?;
    if rest.starts_with('\\') {
        return rest.get(2..)?.find('\'').map(|end| end + 4);
    }
    let first = rest.chars().next()?.len_utf8();
    rest[first..].starts_with('\'').then_some(first + 2)
}

/// Length of an identifier, of `::`, or of one sign.
fn word(text: &str) -> usize {
    let name = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    match name {
        0 if text.starts_with("::") => 2,
        0 => text.chars().next().map_or(1, char::len_utf8),
        length => length,
    }
}

/// Leaves out what stands under `#[cfg(test)]`; also says how many lines that was.
fn without_tests(words: Vec<Word>) -> (Vec<Word>, usize) {
    const MARK: [&str; 7] = ["#", "[", "cfg", "(", "test", ")", "]"];
    let (mut out, mut lines, mut at) = (Vec::new(), 0, 0);
    while at < words.len() {
        let marked =
            MARK.iter().enumerate().all(|(i, text)| words.get(at + i).is_some_and(|w| w.text == *text));
        if !marked {
            out.push(words[at].clone());
            at += 1;
            continue;
        }
        let end = item_end(&words, at + MARK.len());
        lines += words[end.min(words.len() - 1)].line - words[at].line + 1;
        at = end + 1;
    }
    (out, lines)
}

/// Index of the last word of the item that starts at `from`: its `;`, or its closing brace.
fn item_end(words: &[Word], from: usize) -> usize {
    let mut depth = 0usize;
    for (at, word) in words.iter().enumerate().skip(from) {
        match word.text.as_str() {
            "{" => depth += 1,
            "}" if depth == 1 => return at,
            "}" => depth = depth.saturating_sub(1),
            ";" if depth == 0 => return at,
            _ => {}
        }
    }
    words.len() - 1
}

/// Functions with a body: name, first and last line.
pub(super) fn functions(source: &Source) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for at in 0..source.words.len() {
        if !source.is(at, "fn") || source.is(at + 1, "(") {
            continue;
        }
        let end = item_end(&source.words, at);
        if source.is(end, "}") {
            found.push((source.words[at + 1].text.clone(), source.words[at].line, source.words[end].line));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(source: &str) -> Vec<String> {
        words(source).into_iter().map(|w| w.text).collect()
    }

    #[test]
    fn comments_and_literals_are_no_words() {
        assert_eq!(texts("a::b /* c */ // d\n'e'"), ["a", "::", "b"]);
        assert_eq!(
            texts(r##"f("g { h", r#"i " j"#, 'k', '\'', b"l")"##),
            ["f", "(", "\"\"", ",", ",", ",", ",", "\"\"", ")"]
        );
        assert_eq!(texts("&'a str"), ["&", "'", "a", "str"]);
        assert_eq!(words("x\n\n\"1\n2\"\ny").iter().map(|w| w.line).collect::<Vec<_>>(), [0, 2, 4]);
    }

    #[test]
    fn tests_are_left_out() {
        let text = "fn a() {\n if b { c }\n}\n#[cfg(test)]\nmod tests {\n fn d() {}\n}\nfn e() {}\n";
        let source = Source::new(Path::new("x.rs"), text.into());
        assert_eq!(source.lines, 4);
        assert_eq!(functions(&source), [("a".into(), 0, 2), ("e".into(), 7, 7)]);
    }
}
