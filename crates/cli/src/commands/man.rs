//! `cipherlm man`: manual pages.

use crate::console::say;
use anyhow::Context;
use cipherlm_files::{Access, Existing, create_folder, shown, write};
use clap::Args;
use clap_mangen::Man;
use std::path::PathBuf;

#[derive(Args)]
pub(crate) struct Options {
    /// Folder for the pages, made if it is missing; pages of these names are replaced.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Writes `cipherlm.1` and a page for each command.
pub(crate) fn run(options: &Options, command: clap::Command) -> anyhow::Result<bool> {
    create_folder(&options.out).context("--out")?;
    let pages = pages(command)?;
    for (name, text) in &pages {
        write(&options.out.join(name), text, Existing::Replace, Access::Everyone).context("--out")?;
    }
    say!("{} pages in {}: man -l {}/cipherlm.1", pages.len(), shown(&options.out), shown(&options.out));
    Ok(true)
}

fn pages(mut command: clap::Command) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    // Gives the commands their full names, as in `cipherlm-serve`.
    command.build();
    let commands = command.get_subcommands().filter(|c| c.get_name() != "help").cloned();
    let commands: Vec<clap::Command> = commands.collect();
    let page = |command: clap::Command| {
        let page = Man::new(command);
        let mut text = Vec::new();
        page.render(&mut text)?;
        Ok((page.get_filename(), text))
    };
    std::iter::once(command).chain(commands).map(page).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_command_has_a_page_that_names_its_options() {
        let pages = super::pages(crate::commands::definition()).unwrap();
        let page = |name: &str| {
            let found = pages.iter().find(|(file, _)| file == name).unwrap_or_else(|| panic!("{name}"));
            String::from_utf8(found.1.clone()).unwrap().replace('\\', "")
        };
        assert!(page("cipherlm.1").contains("keygen"));
        assert!(page("cipherlm-keygen.1").contains("--insecure-ring"));
        assert!(pages.len() > 20 && !pages.iter().any(|(file, _)| file.contains("help")));
    }
}
