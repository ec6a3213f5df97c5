//! The commands that are the `cipherlm` tool's own, started with the right build profile and
//! features.

use crate::flags::{Demo, Profile, Train};
use xshell::{Shell, cmd};

/// The main job on the shipped model.
pub(crate) fn demo(sh: &Shell, flags: &Demo) -> anyhow::Result<()> {
    let mut args: Vec<String> = vec!["demo".into()];
    push(&mut args, "--prompt", flags.prompt.as_ref());
    push(&mut args, "--tokens", flags.tokens.map(|n| n.to_string()).as_ref());
    push(&mut args, "--length", flags.length.map(|n| n.to_string()).as_ref());
    push(&mut args, "--json-file", path(flags.json.as_ref()).as_ref());
    push(&mut args, "--html", path(flags.html.as_ref()).as_ref());
    push(&mut args, "--profile", flags.profile.as_ref());
    args.extend(flags.precision.then(|| "--precision".into()));
    let program = crate::build::cipherlm(sh)?;
    Ok(cmd!(sh, "{program} {args...}").run()?)
}

/// The latency split, by operator and by primitive.
pub(crate) fn profile(sh: &Shell, flags: &Profile) -> anyhow::Result<()> {
    if let Some(group) = &flags.callgrind {
        return crate::bench::callgrind(sh, group);
    }
    let mut args: Vec<String> = vec!["profile".into()];
    push(&mut args, "--model", flags.model.as_ref());
    push(&mut args, "--length", flags.length.map(|n| n.to_string()).as_ref());
    push(&mut args, "--prompts", flags.prompts.map(|n| n.to_string()).as_ref());
    push(&mut args, "--json-file", path(flags.json.as_ref()).as_ref());
    push(&mut args, "--html", path(flags.html.as_ref()).as_ref());
    push(&mut args, "--profile", flags.profile.as_ref());
    args.extend(flags.precision.then(|| "--precision".into()));
    let program = crate::build::cipherlm(sh)?;
    Ok(cmd!(sh, "{program} {args...}").run()?)
}

/// A training run; the only everyday command that builds burn.
pub(crate) fn train(sh: &Shell, flags: &Train) -> anyhow::Result<()> {
    let config = &flags.config;
    let resume = flags.resume.then_some("--resume");
    Ok(cmd!(
        sh,
        "cargo run --quiet --locked --release -p cipherlm --features train -- train {config} {resume...}"
    )
    .run()?)
}

fn push(args: &mut Vec<String>, name: &str, value: Option<&String>) {
    if let Some(value) = value {
        args.extend([name.to_string(), value.clone()]);
    }
}

/// Relative paths are meant from where the user stands, not from the workspace root.
fn path(file: Option<&std::path::PathBuf>) -> Option<String> {
    let absolute = std::path::absolute(file?).ok()?;
    Some(absolute.to_string_lossy().into_owned())
}
