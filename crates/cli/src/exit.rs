//! The exit status, and the one line that explains it.

use crate::console;
use std::io;
use std::process::ExitCode;

/// The command ran, and what it checks does not pass.
const WANTING: u8 = 1;
/// The command refused or failed.
const REFUSED: u8 = 2;
/// Nobody reads the result any more, as in `cipherlm plan | head -1`: the status of a program that
/// a closed pipe ended.
const UNREAD: u8 = 141;

/// A mistake on the command line.
#[derive(Debug)]
struct Usage(String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// An error about the command line itself.
pub(crate) fn usage(text: impl Into<String>) -> anyhow::Error {
    Usage(text.into()).into()
}

/// What the parser of the command line has to say: help and version, or one line.
pub(crate) fn parser(error: &clap::Error) -> ExitCode {
    use clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand as Bare;
    if !error.use_stderr() || error.kind() == Bare {
        let _ = error.print();
        return if error.use_stderr() { REFUSED.into() } else { ExitCode::SUCCESS };
    }
    let text = error.render().to_string();
    let lines = text.lines().map(str::trim);
    let said =
        lines.take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    let said = said.filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
    console::error(&format!("{} (see --help)", said.trim_start_matches("error: ")), "usage", REFUSED);
    REFUSED.into()
}

/// The status of a command that came to an end.
pub(crate) fn status(done: anyhow::Result<bool>) -> ExitCode {
    let mut code = match done {
        Ok(true) => 0,
        Ok(false) => WANTING,
        Err(error) => {
            let kind = if error.is::<Usage>() { "usage" } else { "refused" };
            console::error(&sentence(&error), kind, REFUSED);
            REFUSED
        }
    };
    match console::lost() {
        Some(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            code = if code == 0 { UNREAD } else { code }
        }
        Some(error) => {
            console::error(&format!("the result could not be printed: {error}"), "refused", REFUSED);
            code = REFUSED;
        }
        None => {}
    }
    code.into()
}

/// An error and its causes. Many errors quote their cause already: it is not said twice.
fn sentence(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if said.is_empty() {
            said = cause;
        } else if !said.contains(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context;

    #[test]
    fn a_cause_is_said_once() {
        let missing = cipherlm_files::head("/nowhere/x".as_ref(), 1).context("--input").unwrap_err();
        let said = sentence(&missing);
        assert_eq!(said.matches("No such file").count(), 1, "{said}");
        assert!(said.starts_with("--input: ") && said.contains("/nowhere/x"), "{said}");
    }
}
