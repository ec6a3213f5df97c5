//! `cargo xtask tables`: the tables of our documents, made from results in files, so that a
//! document cannot say what was not measured.
//!
//! A document marks a table's place with `<!-- table: NAME -->` and `<!-- end -->`, each on a line
//! of its own; what stands between is replaced. `docs/results/NAME.json` is what
//! `cargo xtask bench --json`, `cargo xtask demo --json` or `cargo xtask profile --json` wrote.

use crate::bench::{Row, human};
use anyhow::{Context, bail};
use serde_json::Value;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use xshell::{Shell, cmd};

const OPEN: &str = "<!-- table: ";
const CLOSE: &str = "<!-- end -->";

/// Rewrites every document with tables.
pub(crate) fn run(sh: &Shell) -> anyhow::Result<()> {
    for (file, old) in documents(sh)? {
        let new = render(sh, &file, &old)?;
        if new != old {
            std::fs::write(&file, new).with_context(|| format!("writing {}", file.display()))?;
            println!("wrote {}", file.display());
        }
    }
    Ok(())
}

/// Names the documents whose tables are not those of the results.
pub(crate) fn stale(sh: &Shell, found: &mut Vec<String>) -> anyhow::Result<()> {
    for (file, old) in documents(sh)? {
        match render(sh, &file, &old) {
            Ok(new) if new == old => {}
            Ok(_) => found.push(format!(
                "{}: its tables are not those of docs/results: `cargo xtask tables`",
                file.display()
            )),
            Err(error) => found.push(format!("{}: {error:#}", file.display())),
        }
    }
    Ok(())
}

fn documents(sh: &Shell) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let list = cmd!(sh, "git ls-files --cached --others --exclude-standard *.md").quiet().read()?;
    let mut documents = Vec::new();
    for file in list.lines().map(PathBuf::from).filter(|f| f.exists()) {
        let text = std::fs::read_to_string(&file)?;
        if text.lines().any(|line| line.starts_with(OPEN)) {
            documents.push((file, text));
        }
    }
    Ok(documents)
}

fn render(sh: &Shell, file: &Path, text: &str) -> anyhow::Result<String> {
    let mut out = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let _ = writeln!(out, "{line}");
        let Some(name) = line.strip_prefix(OPEN).and_then(|rest| rest.strip_suffix(" -->")) else { continue };
        if !lines.any(|line| line == CLOSE) {
            bail!("{}: the table {name} has no `{CLOSE}`", file.display());
        }
        let results = sh.current_dir().join("docs/results");
        let value = read(&results, name)?;
        let table = if value.is_array() {
            benches(&serde_json::from_value::<Vec<Row>>(value)?)
        } else if let Some(chosen) = value.get("selection") {
            selection(&results, chosen)?
        } else {
            run_table(&value)?
        };
        let _ = write!(out, "\n{table}\n{CLOSE}\n");
    }
    Ok(out)
}

fn read(results: &Path, name: &str) -> anyhow::Result<Value> {
    let source = results.join(format!("{name}.json"));
    let json = std::fs::read_to_string(&source).with_context(|| format!("reading {}", source.display()))?;
    serde_json::from_str(&json).with_context(|| format!("parsing {}", source.display()))
}

/// A few rows of other results under names for people: ours, the peer of the same run, the ratio.
fn selection(results: &Path, chosen: &Value) -> anyhow::Result<String> {
    let mut out =
        String::from("| operation | ours | peer in the same run | ours / peer |\n|---|---|---|---|\n");
    for row in chosen.as_array().context("`selection` is not a list")? {
        let text = |name: &str| row[name].as_str().with_context(|| format!("a selected row has no `{name}`"));
        let (label, file, id) = (text("label")?, text("file")?, text("id")?);
        let rows: Vec<Row> = serde_json::from_value(read(results, file)?)?;
        let find = |peer: bool| rows.iter().find(|r| r.id == id && r.peer.is_some() == peer);
        let ours = find(false).with_context(|| format!("{file}.json has no row {id} of ours"))?;
        let theirs = find(true).with_context(|| format!("{file}.json has no row {id} of a peer"))?;
        let _ = writeln!(
            out,
            "| {label} | {} | {}: {} | {:.2} |",
            human(ours.median_ns),
            theirs.peer.as_deref().unwrap_or_default(),
            human(theirs.median_ns),
            ours.median_ns / theirs.median_ns
        );
    }
    Ok(out)
}

/// Benchmarks: one line an id and thread count, peers beside ours.
fn benches(rows: &[Row]) -> String {
    let peers = rows.iter().any(|r| r.peer.is_some());
    let mut out = String::from("| benchmark | threads | median | fastest | samples |");
    let mut rule = String::from("|---|---|---|---|---|");
    if peers {
        out.push_str(" peer, its median | ours / peer |");
        rule.push_str("---|---|");
    }
    out.push_str(" also measured |\n");
    out.push_str(&rule);
    out.push_str("---|\n");
    for ours in rows.iter().filter(|r| r.peer.is_none()) {
        let _ = write!(
            out,
            "| `{}` | {} | {} | {} | {} |",
            ours.id,
            ours.threads,
            human(ours.median_ns),
            human(ours.min_ns),
            ours.samples
        );
        if peers {
            let theirs: Vec<&Row> = rows.iter().filter(|r| r.peer.is_some() && r.id == ours.id).collect();
            let join =
                |part: &dyn Fn(&Row) -> String| theirs.iter().map(|r| part(r)).collect::<Vec<_>>().join("; ");
            let _ = write!(
                out,
                " {} | {} |",
                join(&|r| format!("{}: {}", r.peer.as_deref().unwrap_or_default(), human(r.median_ns))),
                join(&|r| format!("{:.2}", ours.median_ns / r.median_ns))
            );
        }
        let metrics: Vec<String> =
            ours.metrics.iter().map(|(name, value)| format!("{name} {value}")).collect();
        let _ = writeln!(out, " {} |", metrics.join(", "));
    }
    out
}

/// A demo or a profile: the facts, then the two attributions side by side.
fn run_table(run: &Value) -> anyhow::Result<String> {
    let number = |name: &str| run[name].as_f64().with_context(|| format!("no number `{name}` in the result"));
    let total = number("seconds_total")?;
    let gib = |name: &str| number(name).map(|bytes| bytes / f64::from(1 << 30));
    let mut out = String::from("| what | value |\n|---|---|\n");
    let mut fact = |name: &str, value: String| {
        let _ = writeln!(out, "| {name} | {value} |");
    };
    fact("model, tokens", format!("{}, {}", run["model"].as_str().unwrap_or("?"), number("length")?));
    fact("machine, threads", run["machine"].as_str().unwrap_or("?").to_owned());
    fact(
        "security",
        format!(
            "{:.0} bits, log QP {:.0}, N = {}",
            number("security_bits")?,
            number("log_qp")?,
            number("ring_degree")?
        ),
    );
    fact("forward pass (predicted)", format!("{total:.1} s ({:.1} s)", number("seconds_predicted")?));
    fact("key generation", format!("{:.1} s", number("seconds_keygen")?));
    fact("bootstraps", format!("{}, by layer {}", number("bootstraps")?, run["bootstraps_by_layer"]));
    fact(
        "peak memory; keys stored",
        format!("{:.1} GiB; {:.2} GiB", gib("peak_rss_bytes")?, gib("key_bytes")?),
    );
    fact(
        "logits: mean square error; largest",
        format!("{:.1e}; {:.1e}", number("mse")?, number("max_abs_error")?),
    );
    fact("same token as the clear polynomial model", format!("{:.0} %", 100.0 * number("top1_agree")?));
    out.push_str(
        "\n| operator | bootstraps apart | share | bootstraps charged | share |\n|---|---|---|---|---|\n",
    );
    let split =
        |name: &str| run[name].as_object().with_context(|| format!("no split `{name}` in the result"));
    let (apart, charged) = (split("by_operator")?, split("bootstrap_attributed")?);
    let mut names: Vec<(&String, f64)> =
        apart.iter().map(|(name, s)| (name, s.as_f64().unwrap_or(0.0))).collect();
    names.sort_by(|a, b| b.1.total_cmp(&a.1));
    for (name, seconds) in names {
        let other = charged.get(name).and_then(Value::as_f64).unwrap_or(0.0);
        let share = |s: f64| 100.0 * s / total;
        let name = name.replace('_', " ");
        let _ = writeln!(
            out,
            "| {name} | {seconds:.2} s | {:.1} % | {other:.2} s | {:.1} % |",
            share(seconds),
            share(other)
        );
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, ns: f64, peer: Option<&str>) -> Row {
        let metrics = [("bits".to_owned(), Value::from(20.5))].into_iter().collect();
        let peer = peer.map(str::to_owned);
        Row {
            id: id.into(),
            threads: 1,
            params: String::new(),
            median_ns: ns,
            min_ns: ns,
            max_ns: ns,
            samples: 3,
            peer,
            metrics,
        }
    }

    #[test]
    fn a_peer_stands_beside_ours() {
        let table = benches(&[row("a/b/1", 2e6, None), row("a/b/1", 4e6, Some("other 1.0"))]);
        assert!(
            table.contains("| `a/b/1` | 1 | 2.00 ms | 2.00 ms | 3 | other 1.0: 4.00 ms | 0.50 | bits 20.5 |"),
            "{table}"
        );
        assert_eq!(table.lines().count(), 3);
    }

    #[test]
    fn a_run_without_its_facts_is_refused() {
        assert!(run_table(&serde_json::json!({"seconds_total": 1.0})).is_err());
    }
}
