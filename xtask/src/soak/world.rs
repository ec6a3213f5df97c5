//! The program, a folder to work in, and what undisturbed runs give.

use super::Fault;
use crate::rng::Rng;
use anyhow::{Context, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Options of every key folder here.
const SMALL: [&str; 4] = ["--insecure-ring", "10", "--length", "8"];
const PROMPT: &str = "One day a cat";

/// See the module.
pub(super) struct World {
    program: PathBuf,
    pub(super) model: PathBuf,
    folder: PathBuf,
    pub(super) rng: Rng,
    until: Option<Instant>,
    /// Seconds of an undisturbed key generation and run.
    pub(super) seconds: [f64; 2],
    /// The answer and the token it decrypts to.
    pub(super) answer: Vec<u8>,
    token: Value,
}

/// How a command ended, other than by a crash.
pub(super) enum End {
    /// Status 0 or 1, with standard output.
    Done(String),
    /// Status 2, with standard error.
    Refused(String),
}

impl World {
    pub(super) fn new(program: PathBuf, seed: u64, seconds: Option<f64>) -> anyhow::Result<Self> {
        let folder = std::env::temp_dir().join(format!("cipherlm-soak-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder)?;
        let mut world = Self {
            program,
            model: crate::root().join("models/tiny"),
            folder,
            rng: Rng::new(seed),
            until: seconds.map(|s| Instant::now() + Duration::from_secs_f64(s)),
            seconds: [0.0; 2],
            answer: Vec::new(),
            token: Value::Null,
        };
        world.prepare()?;
        Ok(world)
    }

    fn prepare(&mut self) -> anyhow::Result<()> {
        let clock = Instant::now();
        self.must(&self.keygen_args(&self.keys()))?;
        self.seconds[0] = clock.elapsed().as_secs_f64();
        self.must(&self.encrypt_args(&self.keys(), &self.prompt()))?;
        let clock = Instant::now();
        self.must(&self.run_args(&self.at("answer"), &[]))?;
        self.seconds[1] = clock.elapsed().as_secs_f64();
        self.answer = std::fs::read(self.at("answer"))?;
        self.token = self.token_of(&self.must(&self.decrypt_args(&self.keys(), &self.at("answer")))?);
        anyhow::ensure!(self.token.is_number(), "the undisturbed answer decrypts to no token");
        Ok(())
    }

    /// The folder to work in.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    pub(super) fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The client's folder.
    pub(super) fn keys(&self) -> PathBuf {
        self.at("keys")
    }

    pub(super) fn prompt(&self) -> PathBuf {
        self.at("prompt")
    }

    /// Trials of a group: all of them, or as many as the time of a short run allows, two at least.
    pub(super) fn rounds(&self, all: usize, share: f64, each: f64) -> usize {
        let left = self.until.map(|until| until.saturating_duration_since(Instant::now()).as_secs_f64());
        left.map_or(all, |left| ((left * share / each.max(1e-3)) as usize).clamp(2, all))
    }

    pub(super) fn keygen_args(&self, out: &Path) -> Vec<String> {
        self.args("keygen", &[("--out", out)], &SMALL)
    }

    pub(super) fn encrypt_args(&self, keys: &Path, out: &Path) -> Vec<String> {
        self.args("encrypt", &[("--keys", keys), ("--out", out)], &["--prompt", PROMPT, "--force"])
    }

    pub(super) fn run_args(&self, out: &Path, more: &[&str]) -> Vec<String> {
        let list =
            [("--keys", self.keys().join("server")), ("--input", self.prompt()), ("--out", out.to_owned())];
        let list: Vec<(&str, &Path)> = list.iter().map(|(name, path)| (*name, path.as_path())).collect();
        self.args("run", &list, &[&["--json"], more].concat())
    }

    pub(super) fn decrypt_args(&self, keys: &Path, answer: &Path) -> Vec<String> {
        let note = self.at("prompt.note");
        self.args("decrypt", &[("--keys", keys), ("--input", answer), ("--note", &note)], &["--json"])
    }

    fn args(&self, command: &str, paths: &[(&str, &Path)], more: &[&str]) -> Vec<String> {
        let mut args = vec![command.to_owned(), "--model".into(), self.model.display().to_string()];
        for (option, path) in paths {
            args.extend([(*option).to_owned(), path.display().to_string()]);
        }
        args.extend(more.iter().map(|arg| (*arg).to_owned()));
        args
    }

    pub(super) fn command(&self, args: &[String]) -> Command {
        let mut command = Command::new(&self.program);
        // What the program rescues it leaves in the current folder.
        command.args(args).stdin(Stdio::null()).current_dir(&self.folder);
        command
    }

    /// A command of the set-up: it has to work.
    pub(super) fn must(&self, args: &[String]) -> anyhow::Result<String> {
        let out = self.command(args).output().context("the program could not be started")?;
        if !out.status.success() {
            bail!("{}: {}", args.join(" "), String::from_utf8_lossy(&out.stderr));
        }
        Ok(String::from_utf8_lossy(&out.stdout).into_owned())
    }

    /// A command of a trial.
    pub(super) fn call(&self, args: &[String]) -> Result<End, Fault> {
        let out =
            self.command(args).output().map_err(|e| Fault::Lost(format!("it could not be started: {e}")))?;
        judge(&out)
    }

    /// Kills a command after that time; true if it had ended before.
    pub(super) fn kill_after(&self, args: &[String], seconds: f64) -> anyhow::Result<bool> {
        let mut child = self.command(args).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let end = Instant::now() + Duration::from_secs_f64(seconds);
        while Instant::now() < end {
            if child.try_wait()?.is_some() {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        child.kill()?;
        Ok(child.wait()?.code().is_some())
    }

    fn token_of(&self, said: &str) -> Value {
        serde_json::from_str::<Value>(said).map(|value| value["token"].clone()).unwrap_or_default()
    }

    /// The output of `decrypt` must name the token of the undisturbed run.
    pub(super) fn same_token(&self, said: &str) -> Result<(), Fault> {
        let found = self.token_of(said);
        if found == self.token {
            Ok(())
        } else {
            Err(Fault::Wrong(format!("token {found}, not {}", self.token)))
        }
    }

    /// The file must hold the answer of the undisturbed run.
    pub(super) fn same_answer(&self, file: &Path) -> Result<(), Fault> {
        match std::fs::read(file) {
            Ok(bytes) if bytes == self.answer => Ok(()),
            Ok(_) => Err(Fault::Wrong("another answer than that of the undisturbed run".into())),
            Err(error) => Err(Fault::Lost(format!("no answer: {error}"))),
        }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Status 0, 1 and 2 are in the program's table; all else is a crash.
fn judge(out: &Output) -> Result<End, Fault> {
    let errors = String::from_utf8_lossy(&out.stderr).into_owned();
    let last = errors.lines().last().unwrap_or_default().to_owned();
    match out.status.code() {
        _ if errors.contains("panicked") => {
            Err(Fault::Panic(errors.lines().take(2).collect::<Vec<_>>().join(" ")))
        }
        Some(0 | 1) => Ok(End::Done(String::from_utf8_lossy(&out.stdout).into_owned())),
        Some(2) => Ok(End::Refused(last)),
        _ => Err(Fault::Panic(format!("{}: {last}", out.status))),
    }
}

/// Copies a folder.
pub(super) fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            std::fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

/// Files of a folder by name, folders left out.
pub(super) fn contents(folder: &Path) -> anyhow::Result<std::collections::BTreeMap<String, Vec<u8>>> {
    let mut files = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.is_file() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.insert(name, std::fs::read(&path)?);
        }
    }
    Ok(files)
}
