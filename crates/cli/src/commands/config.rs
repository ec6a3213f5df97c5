//! Options that are the same every time, from a file.
//!
//! A table of the file gives options of the command of its name; what stands before the first table
//! gives options of every command that has them. The command line goes before the file.

use anyhow::{Context, bail};
use cipherlm_files::shown;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// Names the file, for those who have several.
const VARIABLE: &str = "CIPHERLM_CONFIG";
/// Largest file, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// The command line with what the user's file adds to it.
pub(super) fn added(definition: &clap::Command, args: Vec<OsString>) -> anyhow::Result<Vec<OsString>> {
    let Some((path, named)) = place() else { return Ok(args) };
    if !named && !path.exists() {
        return Ok(args);
    }
    let text = cipherlm_files::read_text(&path, MAX_BYTES)?;
    from_text(definition, args, &text).with_context(|| format!("configuration {}", shown(&path)))
}

/// Where the file is, and whether the user said so.
fn place() -> Option<(PathBuf, bool)> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(path) = set(VARIABLE) {
        return Some((path.into(), true));
    }
    let home = || set("HOME").map(|home| Path::new(&home).join(".config"));
    let folder = set("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home)?;
    Some((folder.join("cipherlm/config.toml"), false))
}

fn from_text(definition: &clap::Command, args: Vec<OsString>, text: &str) -> anyhow::Result<Vec<OsString>> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| anyhow::anyhow!("{error}"))?;
    let (tables, common): (Vec<_>, Vec<_>) = table.iter().partition(|(_, value)| value.is_table());
    // All of the file is read before any of it is used.
    for &(name, value) in &tables {
        let Some(command) = definition.find_subcommand(name) else {
            bail!("[{name}] is no command: see --help");
        };
        for (option, value) in value.as_table().into_iter().flatten() {
            let Some(arg) = option_of(command, option).or_else(|| option_of(definition, option)) else {
                bail!("[{name}] has no option --{option}: see `cipherlm {name} --help`");
            };
            words(arg, option, value)?;
        }
    }
    let known = |option: &str| {
        let mut everywhere = definition.get_subcommands().filter_map(|command| option_of(command, option));
        option_of(definition, option).or_else(|| everywhere.next())
    };
    for &(option, value) in &common {
        let Some(arg) = known(option) else { bail!("no command has an option --{option}") };
        words(arg, option, value)?;
    }
    let Some(command) = args.iter().skip(1).find_map(|arg| definition.find_subcommand(arg)) else {
        return Ok(args);
    };
    let own = tables.iter().find(|(name, _)| name.as_str() == command.get_name());
    let own = own.and_then(|(_, value)| value.as_table());
    let common = common.into_iter().filter(|(option, _)| own.is_none_or(|own| !own.contains_key(*option)));
    let mut added = Vec::new();
    for (option, value) in own.into_iter().flatten().chain(common) {
        let arg = option_of(command, option).or_else(|| option_of(definition, option));
        if let Some(arg) = arg.filter(|arg| !given(arg, &args) && !beaten(command, arg, &args)) {
            added.extend(words(arg, option, value)?);
        }
    }
    // What stands behind `--` is no option.
    let end = args.iter().position(|word| word == "--").unwrap_or(args.len());
    let mut out = args;
    out.splice(end..end, added);
    Ok(out)
}

fn option_of<'a>(command: &'a clap::Command, name: &str) -> Option<&'a clap::Arg> {
    command.get_arguments().find(|arg| arg.get_long() == Some(name))
}

/// Whether the command line gives an option.
fn given(arg: &clap::Arg, args: &[OsString]) -> bool {
    let long = arg.get_long().map(|name| format!("--{name}"));
    let short = arg.get_short().map(|letter| format!("-{letter}"));
    args.iter().skip(1).take_while(|word| *word != "--").any(|word| {
        let word = word.to_string_lossy();
        let name = word.split_once('=').map_or(&*word, |(name, _)| name);
        long.as_deref() == Some(name) || short.as_deref().is_some_and(|short| word.starts_with(short))
    })
}

/// Whether the command line gives an option that excludes this one.
fn beaten(command: &clap::Command, arg: &clap::Arg, args: &[OsString]) -> bool {
    let excludes = |a: &clap::Arg, b: &clap::Arg| {
        command.get_arg_conflicts_with(a).iter().any(|other| other.get_id() == b.get_id())
    };
    let others = command.get_arguments().filter(|other| given(other, args));
    others.into_iter().any(|other| excludes(arg, other) || excludes(other, arg))
}

/// An option as words of a command line.
fn words(arg: &clap::Arg, option: &str, value: &Value) -> anyhow::Result<Vec<OsString>> {
    if !arg.get_action().takes_values() {
        return match value {
            Value::Boolean(true) => Ok(vec![format!("--{option}").into()]),
            Value::Boolean(false) => Ok(vec![]),
            _ => bail!("`{option} = {value}`: --{option} takes no value; write true or false"),
        };
    }
    let one = |value: &Value| match value {
        Value::String(text) => Ok(format!("--{option}={text}").into()),
        Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Ok(format!("--{option}={value}").into()),
        _ => bail!("`{option} = {value}`: --{option} takes a text or a number"),
    };
    match value {
        Value::Array(values) => values.iter().map(one).collect(),
        value => Ok(vec![one(value)?]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::definition;

    fn line(text: &str, args: &[&str]) -> anyhow::Result<Vec<String>> {
        let args = args.iter().map(Into::into).collect();
        let all = from_text(&definition(), args, text)?;
        Ok(all.into_iter().map(|word| word.into_string().unwrap()).collect())
    }

    #[test]
    fn the_command_line_goes_before_the_file_and_tables_before_what_is_common() {
        let text = "threads = 3\nmodel = \"tiny\"\njson = true\n[plan]\nlength = 16\nmodel = \"other\"";
        let plan = line(text, &["cipherlm", "plan", "--length", "8"]).unwrap();
        assert_eq!(plan, ["cipherlm", "plan", "--length", "8", "--model=other", "--json", "--threads=3"]);
        let demo = line(text, &["cipherlm", "demo", "--threads=1"]).unwrap();
        assert_eq!(demo, ["cipherlm", "demo", "--threads=1", "--json", "--model=tiny"]);
        // A command without the option is not given it.
        let shell = line(text, &["cipherlm", "completions", "bash"]).unwrap();
        assert_eq!(shell, ["cipherlm", "completions", "bash", "--json", "--threads=3"]);
        let shell = line(text, &["cipherlm", "completions", "--", "bash"]).unwrap();
        assert_eq!(shell, ["cipherlm", "completions", "--json", "--threads=3", "--", "bash"]);
        assert_eq!(line(text, &["cipherlm", "--help"]).unwrap(), ["cipherlm", "--help"]);
    }

    #[test]
    fn what_no_command_takes_is_named() {
        for (text, named) in [
            ("[plam]\nlength = 1", "[plam]"),
            ("[plan]\nlenght = 1", "--lenght"),
            ("colour = 1", "--colour"),
            ("[plan]\nlength = { a = 1 }", "length"),
            ("json = 3", "--json takes no value"),
            ("length = ", "line 1"),
        ] {
            // Whatever the command is.
            let error = format!("{:#}", line(text, &["cipherlm", "doctor"]).unwrap_err());
            assert!(error.contains(named), "{text}: {error}");
        }
    }
}
