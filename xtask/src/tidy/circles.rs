//! Imports within a crate: no two files may need each other.
//!
//! The graph is of files. A path is followed through `pub use` to the file that defines the item,
//! so a re-export in `mod.rs` is no import, and neither is `mod x;`.

use super::source::{Source, Word};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A file as a module: `["evaluator", "arith"]`, and where its file stands in the list.
struct Module<'a> {
    source: &'a Source,
    /// Names that it gives on, and the paths behind them.
    given: BTreeMap<String, Vec<String>>,
    /// Paths behind `pub use x::*`.
    globs: Vec<Vec<String>>,
}

type Modules<'a> = BTreeMap<Vec<String>, Module<'a>>;

/// Imports that lie on a circle, as `file -> file`, for all crates.
pub(super) fn find(sources: &[Source]) -> Vec<String> {
    let mut crates: BTreeMap<&Path, Vec<&Source>> = BTreeMap::new();
    for source in sources {
        let mut up = source.path.ancestors().skip(1);
        if let Some(root) = up.find(|dir| dir.file_name().is_some_and(|name| name == "src")) {
            crates.entry(root).or_default().push(source);
        }
    }
    crates.into_iter().flat_map(|(root, files)| of_crate(root, &files)).collect()
}

fn of_crate(root: &Path, files: &[&Source]) -> Vec<String> {
    let mut modules: Modules<'_> = BTreeMap::new();
    for source in files {
        let name = module_name(root, &source.path);
        let (mut given, mut globs) = (BTreeMap::new(), Vec::new());
        for (public, path, alias) in uses(&source.words) {
            let path = absolute(&name, &path, files, root);
            match alias.as_str() {
                _ if !public => {}
                "*" => globs.push(path),
                _ => drop(given.insert(alias, path)),
            }
        }
        modules.insert(name, Module { source, given, globs });
    }
    let mut edges: BTreeMap<&Path, BTreeSet<&Path>> = BTreeMap::new();
    for (name, module) in &modules {
        for path in imports(name, module.source, files, root) {
            if let Some(target) =
                define(&modules, &path, 0).filter(|target| target.path != module.source.path)
            {
                edges.entry(&module.source.path).or_default().insert(&target.path);
            }
        }
    }
    circles(&edges)
}

/// `src/a/b.rs` is `a::b`, `src/a/mod.rs` is `a`, `src/lib.rs` is the root.
fn module_name(root: &Path, path: &Path) -> Vec<String> {
    let inside = path.strip_prefix(root).unwrap_or(path).with_extension("");
    let mut name: Vec<String> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if name.last().is_some_and(|last| ["mod", "lib", "main"].contains(&last.as_str())) {
        name.pop();
    }
    name
}

/// The path from the root of the crate; empty for one that leads elsewhere.
fn absolute(module: &[String], path: &[String], files: &[&Source], root: &Path) -> Vec<String> {
    let mut at = module.to_vec();
    let mut rest = path;
    match path.first().map(String::as_str) {
        Some("crate") => {
            at.clear();
            rest = &path[1..];
        }
        Some("self") => rest = &path[1..],
        Some("super") => {
            while rest.first().is_some_and(|part| part == "super") {
                at.pop();
                rest = &rest[1..];
            }
        }
        // A module below this one.
        Some(first) => {
            let child = [module, &[first.to_owned()]].concat();
            if !files.iter().any(|file| module_name(root, &file.path) == child) {
                return Vec::new();
            }
        }
        None => return Vec::new(),
    }
    at.extend_from_slice(rest);
    at
}

/// Paths that a file imports or names in its code, without what it only gives on.
fn imports(module: &[String], source: &Source, files: &[&Source], root: &Path) -> BTreeSet<Vec<String>> {
    let mut found: BTreeSet<Vec<String>> = BTreeSet::new();
    for (public, path, _) in uses(&source.words) {
        if !public {
            found.insert(absolute(module, &path, files, root));
        }
    }
    let in_use = use_ranges(&source.words);
    for (at, word) in source.words.iter().enumerate() {
        let starts = matches!(word.text.as_str(), "crate" | "super") && source.is(at + 1, "::");
        if starts && !source.is(at.wrapping_sub(1), "::") && !in_use.iter().any(|range| range.contains(&at)) {
            let mut path = vec![word.text.clone()];
            let mut next = at + 1;
            while source.is(next, "::") && source.words.get(next + 1).is_some_and(|w| is_name(&w.text)) {
                path.push(source.words[next + 1].text.clone());
                next += 2;
            }
            found.insert(absolute(module, &path, files, root));
        }
    }
    found.retain(|path| !path.is_empty());
    found
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The file that defines what a path names.
fn define<'a>(modules: &Modules<'a>, path: &[String], depth: usize) -> Option<&'a Source> {
    if depth > 16 {
        return None;
    }
    let length = (0..=path.len()).rev().find(|n| modules.contains_key(&path[..*n]))?;
    let module = &modules[&path[..length]];
    let Some(item) = path.get(length) else { return Some(module.source) };
    if let Some(behind) = module.given.get(item) {
        return if behind.is_empty() { None } else { define(modules, behind, depth + 1) };
    }
    let name = item.as_str();
    let here = module.source.words.windows(2).any(|pair| {
        let kinds =
            ["fn", "struct", "enum", "trait", "type", "const", "static", "mod", "union", "macro_rules"];
        kinds.contains(&pair[0].text.as_str()) && pair[1].text == name
    });
    if !here {
        for glob in module.globs.iter().filter(|glob| !glob.is_empty()) {
            let inside = [glob.as_slice(), &path[length..]].concat();
            if let Some(found) = define(modules, &inside, depth + 1) {
                return Some(found);
            }
        }
    }
    Some(module.source)
}

/// Ranges of words that `use` declarations take.
fn use_ranges(words: &[Word]) -> Vec<std::ops::Range<usize>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    while at < words.len() {
        if words[at].text == "use" {
            let end = words[at..].iter().position(|word| word.text == ";").map_or(words.len(), |n| at + n);
            ranges.push(at..end);
            at = end;
        }
        at += 1;
    }
    ranges
}

/// Every imported path: whether it is given on, the path, and its name here.
fn uses(words: &[Word]) -> Vec<(bool, Vec<String>, String)> {
    let mut found = Vec::new();
    for range in use_ranges(words) {
        let before = range.start.checked_sub(1).map_or("", |at| words[at].text.as_str());
        let public = before == "pub" || before == ")";
        let texts: Vec<&str> = words[range.start + 1..range.end].iter().map(|w| w.text.as_str()).collect();
        tree(&texts, &[], &mut |path, alias| found.push((public, path, alias)));
    }
    found
}

/// Walks through `a::{b, c as d, e::*}`.
fn tree(texts: &[&str], prefix: &[String], found: &mut impl FnMut(Vec<String>, String)) {
    let mut path = prefix.to_vec();
    let mut at = 0;
    while at < texts.len() {
        match texts[at] {
            "::" => {}
            "{" => {
                let inner = &texts[at + 1..texts.len() - 1];
                for part in split(inner) {
                    tree(part, &path, found);
                }
                return;
            }
            "*" => return found(path, "*".into()),
            "as" => {
                let alias = texts.get(at + 1).copied().unwrap_or("_");
                return found(path, alias.into());
            }
            "self" if !path.is_empty() => {}
            name => path.push(name.into()),
        }
        at += 1;
    }
    if let Some(last) = path.last().cloned() {
        found(path, last);
    }
}

/// Splits at the commas outside braces.
fn split<'a>(texts: &'a [&'a str]) -> Vec<&'a [&'a str]> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0usize, 0);
    for (at, text) in texts.iter().enumerate() {
        match *text {
            "{" => depth += 1,
            "}" => depth = depth.saturating_sub(1),
            "," if depth == 0 => {
                parts.push(&texts[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&texts[start..]);
    parts.into_iter().filter(|part| !part.is_empty()).collect()
}

/// Edges between files of which each leads to the other.
fn circles(edges: &BTreeMap<&Path, BTreeSet<&Path>>) -> Vec<String> {
    let reach = |from: &Path| {
        let mut seen: BTreeSet<&Path> = BTreeSet::new();
        let mut stack: Vec<&Path> = edges.get(from).into_iter().flatten().copied().collect();
        while let Some(next) = stack.pop() {
            if seen.insert(next) {
                stack.extend(edges.get(next).into_iter().flatten());
            }
        }
        seen
    };
    let mut found = Vec::new();
    for (from, targets) in edges {
        let back = targets.iter().filter(|to| reach(to).contains(from));
        found.extend(back.map(|to| format!("{} -> {}", from.display(), to.display())));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    fn sources(files: &[(&str, &str)]) -> Vec<Source> {
        let dir = cipherlm_testing::Scratch::new("circles");
        let mut out = Vec::new();
        for (name, text) in files {
            let path: PathBuf = dir.join("src").join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
            out.push(Source::read(&path).unwrap());
        }
        out
    }

    #[test]
    fn two_files_that_need_each_other_are_found_through_re_exports() {
        let found = find(&sources(&[
            ("lib.rs", "mod a; mod b; pub use b::{Two, three as four};"),
            ("a.rs", "use crate::Two; pub struct One; impl One { fn f() { crate::four() } }"),
            ("b.rs", "use super::a::One; pub struct Two; pub fn three() {}"),
            ("c/mod.rs", "mod d; pub(crate) use d::Five; "),
            ("c/d.rs", "use crate::a::One; pub(crate) struct Five;"),
        ]));
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].ends_with("b.rs") && found[0].contains("a.rs ->"));
    }

    #[test]
    fn a_chain_of_files_is_no_circle() {
        let found = find(&sources(&[
            ("lib.rs", "mod a; mod b; pub use a::A; pub use b::B;"),
            ("a.rs", "pub struct A; #[cfg(test)] mod tests { use crate::B; }"),
            ("b.rs", "use crate::{A, std::x}; pub struct B(A);"),
        ]));
        assert!(found.is_empty(), "{found:?}");
    }
}
