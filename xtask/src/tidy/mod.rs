//! `cargo xtask tidy`: the invariants of `docs/architecture.md` and the house rules, as code.

mod circles;
mod commands;
mod readme;
mod rules;
mod source;

use crate::flags::Tidy;
use anyhow::bail;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use xshell::{Shell, cmd};

/// Packages in a build of `cipherlm-ckks` alone (itself and ours included).
const CKKS_PACKAGE_CEILING: usize = 60;

/// What each crate of ours may name as a dependency.
const LAYERS: [(&str, &[&str]); 16] = [
    ("cipherlm-files", &[]),
    ("cipherlm-ring", &[]),
    ("cipherlm-stories", &[]),
    ("cipherlm-testing", &[]),
    ("cipherlm-approx", &[]),
    ("cipherlm-ckks", &["cipherlm-files", "cipherlm-ring"]),
    ("cipherlm-circuits", &["cipherlm-ckks", "cipherlm-ring", "cipherlm-approx"]),
    ("cipherlm-model", &["cipherlm-files", "cipherlm-approx"]),
    ("cipherlm-train", &["cipherlm-files", "cipherlm-model", "cipherlm-approx"]),
    ("cipherlm-protocol", &["cipherlm-model"]),
    (
        "cipherlm-infer",
        &[
            "cipherlm-files",
            "cipherlm-circuits",
            "cipherlm-ckks",
            "cipherlm-approx",
            "cipherlm-model",
            "cipherlm-protocol",
        ],
    ),
    (
        "cipherlm-service",
        &[
            "cipherlm-files",
            "cipherlm-infer",
            "cipherlm-model",
            "cipherlm-circuits",
            "cipherlm-ckks",
            "cipherlm-protocol",
        ],
    ),
    (
        "cipherlm-web",
        &["cipherlm-infer", "cipherlm-model", "cipherlm-circuits", "cipherlm-ckks", "cipherlm-protocol"],
    ),
    ("cipherlm-remote", &["cipherlm-files", "cipherlm-infer", "cipherlm-model", "cipherlm-protocol"]),
    (
        "cipherlm-py",
        &[
            "cipherlm-files",
            "cipherlm-infer",
            "cipherlm-model",
            "cipherlm-circuits",
            "cipherlm-ckks",
            "cipherlm-protocol",
            "cipherlm-remote",
            "cipherlm-stories",
        ],
    ),
    (
        "cipherlm",
        &[
            "cipherlm-files",
            "cipherlm-infer",
            "cipherlm-model",
            "cipherlm-circuits",
            "cipherlm-ckks",
            "cipherlm-approx",
            "cipherlm-protocol",
            "cipherlm-remote",
            "cipherlm-service",
            "cipherlm-stories",
            "cipherlm-train",
        ],
    ),
];

/// Runs every check and lists all violations.
pub(crate) fn run(sh: &Shell, flags: &Tidy) -> anyhow::Result<()> {
    if flags.count {
        println!("{} lines of Rust outside tests and examples", rules::count(&rust_files(sh)?)?);
        return Ok(());
    }
    let metadata: Value =
        serde_json::from_str(&cmd!(sh, "cargo metadata --locked --format-version 1").quiet().read()?)?;
    let graph = Graph::new(&metadata);
    let files = rust_files(sh)?;
    let mut found = Vec::new();
    layers(&metadata, &mut found);
    burn_reach(&graph, &mut found);
    package_ceiling(sh, &mut found)?;
    unsafe_code(&files, &mut found)?;
    secrets(&files, &mut found)?;
    crate_files(sh, &mut found)?;
    panics(&files, &mut found)?;
    leaks(sh, &mut found)?;
    let documents = documents(sh)?;
    let left = rules::check(&files, &documents, flags.shrink, &mut found)?;
    doc_links(&documents, &mut found)?;
    doc_commands(&documents, &mut found)?;
    examples(sh, &mut found)?;
    readme::check(&mut found)?;
    crate::tables::stale(sh, &mut found)?;
    let left: Vec<String> = left.into_iter().map(|(rule, count)| format!("{rule} {count}")).collect();
    println!("tidy: exceptions left in xtask/tidy: {}", left.join(", "));
    if found.is_empty() {
        println!("tidy: {} Rust files, no violations", files.len());
        return Ok(());
    }
    for violation in &found {
        eprintln!("tidy: {violation}");
    }
    bail!("{} violations of the house rules", found.len())
}

/// The resolved dependency graph, normal edges only.
struct Graph {
    names: BTreeMap<String, String>,
    edges: BTreeMap<String, Vec<String>>,
}

impl Graph {
    fn new(metadata: &Value) -> Self {
        let text = |v: &Value| v.as_str().unwrap_or_default().to_string();
        let list = |v: &Value| v.as_array().cloned().unwrap_or_default();
        let names = list(&metadata["packages"]).iter().map(|p| (text(&p["id"]), text(&p["name"]))).collect();
        let mut edges = BTreeMap::new();
        for node in list(&metadata["resolve"]["nodes"]) {
            let normal = list(&node["deps"])
                .iter()
                .filter(|dep| list(&dep["dep_kinds"]).iter().any(|k| k["kind"].is_null()))
                .map(|dep| text(&dep["pkg"]))
                .collect();
            edges.insert(text(&node["id"]), normal);
        }
        Self { names, edges }
    }

    /// Names of everything `name` reaches.
    fn reach(&self, name: &str) -> BTreeSet<&str> {
        let mut stack: Vec<&String> =
            self.names.iter().filter(|(_, n)| *n == name).map(|(id, _)| id).collect();
        let mut seen = BTreeSet::new();
        while let Some(id) = stack.pop() {
            if seen.insert(id) {
                stack.extend(self.edges.get(id).into_iter().flatten());
            }
        }
        seen.into_iter().filter_map(|id| self.names.get(id)).map(String::as_str).collect()
    }
}

/// Each crate names only the layers below it.
fn layers(metadata: &Value, found: &mut Vec<String>) {
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let Some((name, allowed)) = LAYERS.iter().find(|(n, _)| package["name"] == *n) else { continue };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let target = dependency["name"].as_str().unwrap_or_default();
            let ours = LAYERS.iter().any(|(n, _)| *n == target);
            let dev = dependency["kind"] == "dev";
            if ours && !dev && !allowed.contains(&target) {
                found.push(format!("{name} depends on {target}; it may depend on {allowed:?}"));
            }
            if target == "burn" && *name != "cipherlm-train" {
                found.push(format!("{name} depends on burn; only cipherlm-train may"));
            }
        }
    }
}

/// Only `train`, and `cli` through its feature `train`, reaches burn.
fn burn_reach(graph: &Graph, found: &mut Vec<String>) {
    for (name, _) in LAYERS.iter().filter(|(n, _)| !["cipherlm-train", "cipherlm"].contains(n)) {
        if graph.reach(name).contains("burn") {
            found.push(format!("{name} reaches burn"));
        }
    }
}

fn package_ceiling(sh: &Shell, found: &mut Vec<String>) -> anyhow::Result<()> {
    let tree = cmd!(sh, "cargo tree --locked -p cipherlm-ckks -e normal,build --prefix none --format")
        .arg("{p}")
        .quiet()
        .read()?;
    let packages: BTreeSet<&str> = tree.lines().map(|l| l.trim_end_matches(" (*)")).collect();
    if packages.len() > CKKS_PACKAGE_CEILING {
        found.push(format!(
            "cipherlm-ckks builds {} packages; the ceiling is {CKKS_PACKAGE_CEILING}",
            packages.len()
        ));
    }
    let cli = cmd!(sh, "cargo tree --locked -p cipherlm -e normal,build --prefix none --format")
        .arg("{p}")
        .quiet()
        .read()?;
    if cli.lines().any(|l| l.starts_with("burn")) {
        found.push("the everyday build of cipherlm reaches burn".into());
    }
    Ok(())
}

/// `unsafe` lives in `ring::kernel`, and names what the browser calls in `web`; every other crate
/// forbids it.
fn unsafe_code(files: &[PathBuf], found: &mut Vec<String>) -> anyhow::Result<()> {
    for file in files {
        let allowed =
            ["crates/ring/src/kernel", "crates/web/src/bindings.rs"].iter().any(|at| file.starts_with(at));
        let text = std::fs::read_to_string(file)?;
        for (number, line) in text.lines().enumerate() {
            // A content policy's word for WebAssembly is no code.
            let line = line.replace("wasm-unsafe-eval", "");
            let code = line.split("//").next().unwrap_or_default();
            let word = |w: &str| code.split(|c: char| !c.is_alphanumeric() && c != '_').any(|t| t == w);
            if word("unsafe") && !allowed && !file.starts_with("xtask") {
                found.push(format!(
                    "{}:{}: unsafe outside ring::kernel and the bindings of web",
                    file.display(),
                    number + 1
                ));
            }
        }
    }
    if !std::fs::read_to_string("Cargo.toml")?.contains("unsafe_code = \"forbid\"") {
        found.push("Cargo.toml: the shared lint table must forbid unsafe_code".into());
    }
    let ours = [
        "files", "approx", "ckks", "circuits", "model", "stories", "protocol", "train", "infer", "service",
        "remote", "cli", "testing",
    ];
    for name in ours {
        let manifest = Path::new("crates").join(name).join("Cargo.toml");
        if !std::fs::read_to_string(&manifest)?.contains("[lints]\nworkspace = true") {
            found.push(format!(
                "{}: must take the shared lint table, which forbids unsafe code",
                manifest.display()
            ));
        }
    }
    Ok(())
}

/// The server's sources name no type that can hold a secret, or what one opens.
fn secrets(files: &[PathBuf], found: &mut Vec<String>) -> anyhow::Result<()> {
    const TYPES: [&str; 9] = [
        "SecretKey",
        "Secret",
        "Seed",
        "Client",
        "ClientSide",
        "BootstrapKeys",
        "Decrypted",
        "DecodedSlots",
        "wrapping_keys",
    ];
    const COMMANDS: [&str; 3] = ["commands/serve.rs", "commands/worker.rs", "workers.rs"];
    let command = |file: &Path| COMMANDS.iter().any(|name| file == Path::new("crates/cli/src").join(name));
    for file in files.iter().filter(|file| file.starts_with("crates/service/src") || command(file)) {
        for (number, line) in std::fs::read_to_string(file)?.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            let mut words = code.split(|c: char| !c.is_alphanumeric() && c != '_');
            if let Some(word) = words.find(|word| TYPES.contains(word)) {
                found.push(format!("{}:{}: the server names {word}", file.display(), number + 1));
            }
        }
    }
    Ok(())
}

/// Each crate has a short README (its documentation's first page) and documents every public item.
fn crate_files(sh: &Shell, found: &mut Vec<String>) -> anyhow::Result<()> {
    for dir in sh.read_dir("crates")? {
        let name = dir.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_string();
        match std::fs::read_to_string(dir.join("README.md")) {
            Ok(text) if text.lines().count() <= 40 => {}
            Ok(_) => found.push(format!("crates/{name}/README.md: keep it under 40 lines")),
            Err(_) => found.push(format!("crates/{name}/README.md is missing")),
        }
        let manifest = std::fs::read_to_string(dir.join("Cargo.toml"))?;
        if !manifest.contains("[lints]\nworkspace = true") && !manifest.contains("missing_docs") {
            found.push(format!(
                "crates/{name}/Cargo.toml: no lint table, so public items may go undocumented"
            ));
        }
    }
    Ok(())
}

/// No `unwrap`, `expect`, `panic!`, `todo!` in library code outside tests.
fn panics(files: &[PathBuf], found: &mut Vec<String>) -> anyhow::Result<()> {
    const BANNED: [&str; 5] = [".unwrap()", ".expect(", "panic!(", "todo!(", "unimplemented!("];
    for file in
        files.iter().filter(|f| f.starts_with("crates") && f.components().any(|c| c.as_os_str() == "src"))
    {
        // What a test cannot set up ends it.
        if file.starts_with("crates/testing") {
            continue;
        }
        let text = std::fs::read_to_string(file)?;
        if file.file_name().is_some_and(|n| n == "tests.rs" || n == "testing.rs") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            // Unit tests stand at the end of a file.
            if line.trim() == "#[cfg(test)]" {
                break;
            }
            let code = line.split("//").next().unwrap_or_default();
            if let Some(word) = BANNED.iter().find(|w| code.contains(*w)) {
                found.push(format!(
                    "{}:{}: {word} in library code: return a typed error",
                    file.display(),
                    number + 1
                ));
            }
        }
    }
    Ok(())
}

/// No path of somebody's machine in a tracked file.
fn leaks(sh: &Shell, found: &mut Vec<String>) -> anyhow::Result<()> {
    let patterns = ["/ro".to_string() + "ot/", "/ho".to_string() + "me/", "/wo".to_string() + "rk/"];
    for pattern in patterns {
        let hits = cmd!(sh, "git grep -nIF -e {pattern} -- . :!*.lock")
            .quiet()
            .ignore_status()
            .ignore_stderr()
            .read()?;
        found.extend(hits.lines().map(|hit| format!("{hit}: a path of one machine")));
    }
    Ok(())
}

/// Our Markdown files, relative to the root.
fn documents(sh: &Shell) -> anyhow::Result<Vec<PathBuf>> {
    let list = cmd!(sh, "git ls-files --cached --others --exclude-standard *.md").quiet().read()?;
    Ok(list.lines().map(PathBuf::from).filter(|f| f.exists()).collect())
}

/// Every relative link in our Markdown leads to a file, and its fragment to a heading there.
fn doc_links(documents: &[PathBuf], found: &mut Vec<String>) -> anyhow::Result<()> {
    for file in documents {
        let text = std::fs::read_to_string(file)?;
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let (target, fragment) = link.split_once('#').unwrap_or((link, ""));
            if target.contains("::") || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let path = if target.is_empty() {
                file.clone()
            } else {
                file.parent().unwrap_or(Path::new("")).join(target)
            };
            if !path.exists() {
                found.push(format!("{}: dead link {link}", file.display()));
            } else if !fragment.is_empty() && path.extension().is_some_and(|e| e == "md") {
                let there = std::fs::read_to_string(&path)?;
                if !there.lines().filter(|l| l.starts_with('#')).any(|l| anchor(l) == fragment) {
                    found.push(format!("{}: no heading for the link {link}", file.display()));
                }
            }
        }
    }
    Ok(())
}

/// The fragment by which a heading is linked.
fn anchor(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// Every `cargo xtask` command in our Markdown is one that this program takes, and every example
/// there is one of ours. (Commands of `cipherlm` are checked by its own tests.)
fn doc_commands(documents: &[PathBuf], found: &mut Vec<String>) -> anyhow::Result<()> {
    for file in documents {
        let text = std::fs::read_to_string(file)?;
        for command in commands::find(&text, "cargo run") {
            let after = command
                .args
                .iter()
                .position(|arg| arg == "--example")
                .and_then(|at| command.args.get(at + 1));
            if let Some(name) = after.filter(|name| !crate::test::EXAMPLES.iter().any(|(_, e, _)| e == *name))
            {
                found.push(format!("{}:{}: there is no example {name}", file.display(), command.line));
            }
        }
        for command in commands::find(&text, "cargo xtask") {
            let line = command.args.join(" ");
            // A command that is only named needs no arguments.
            let named = command.args.len() == 1;
            if let Err(error) =
                crate::flags::Xtask::from_vec(command.args.into_iter().map(Into::into).collect())
            {
                let at = command.line;
                if named && error.to_string().contains("required") {
                    continue;
                }
                found
                    .push(format!("{}:{at}: `cargo xtask {line}` is not a command: {error}", file.display()));
            }
        }
    }
    Ok(())
}

/// Every example is run by the test command, or named there with the reason why not.
fn examples(sh: &Shell, found: &mut Vec<String>) -> anyhow::Result<()> {
    let list = cmd!(sh, "git ls-files --cached --others --exclude-standard crates/*/examples/*.rs")
        .quiet()
        .read()?;
    let files: Vec<PathBuf> = list.lines().map(PathBuf::from).filter(|f| f.exists()).collect();
    let name =
        |file: &PathBuf| file.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    for file in files.iter().filter(|f| !crate::test::EXAMPLES.iter().any(|(_, n, _)| *n == name(f))) {
        found.push(format!("{}: not in the list of examples that `cargo xtask test` runs", file.display()));
    }
    for (package, example, _) in crate::test::EXAMPLES {
        if !files.iter().any(|f| name(f) == *example) {
            found.push(format!(
                "{package}: its example {example} is listed for `cargo xtask test` and is not there"
            ));
        }
    }
    Ok(())
}

/// Our Rust sources, relative to the root.
fn rust_files(sh: &Shell) -> anyhow::Result<Vec<PathBuf>> {
    let list = cmd!(sh, "git ls-files --cached --others --exclude-standard *.rs").quiet().read()?;
    std::env::set_current_dir(sh.current_dir())?;
    Ok(list.lines().map(PathBuf::from).filter(|f| f.exists()).collect())
}
