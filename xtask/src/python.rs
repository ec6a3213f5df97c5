//! `cargo xtask python`: the Python package as its users get it, a wheel, and everything that is
//! checked about it.

use anyhow::{Context, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;
use xshell::{Shell, cmd};

/// What builds and checks the package, as the package client takes it.
const TOOLS: [&str; 6] = [
    "ipykernel==7.4.0",
    "maturin==1.16.0",
    "mypy==2.4.1",
    "nbclient==0.11.0",
    "numpy==2.4.6",
    "pytest==9.2.0",
];
/// The package's folder, and its notebook there.
const PACKAGE: &str = "crates/py";
const NOTEBOOK: &str = "notebooks/first_answer.ipynb";
/// Largest wheel, in bytes.
const WHEEL: u64 = 8_000_000;
/// Longest import, and longest run of the notebook, in seconds.
const IMPORT: f64 = 0.3;
const MINUTE: f64 = 60.0;

/// Tests, types and notebook on the module of the build that is there, or says why not. A wheel is
/// a build of its own, of minutes.
pub(crate) fn run_if_possible(sh: &Shell) -> anyhow::Result<()> {
    let ready = interpreter(sh).and_then(|python| Environment::new(sh, python));
    match ready {
        Ok(environment) => environment.check_module(sh),
        Err(reason) => {
            println!("the Python package is not checked: {reason:#}");
            Ok(())
        }
    }
}

/// Runs all of it.
pub(crate) fn run(sh: &Shell) -> anyhow::Result<()> {
    let python = interpreter(sh)?;
    Environment::new(sh, python)?.check(sh)
}

/// A Python that is new enough and can make an environment.
fn interpreter(sh: &Shell) -> anyhow::Result<&'static str> {
    const ASK: &str = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))";
    let fits =
        |python: &&str| cmd!(sh, "{python} -c {ASK}").quiet().ignore_stdout().ignore_stderr().run().is_ok();
    let found = ["python3", "python"].into_iter().find(fits);
    found.context("no Python 3.11 or later with `venv` here: install python3 and python3-venv")
}

/// An environment of our own with the tools.
struct Environment {
    /// All that this command makes.
    folder: PathBuf,
}

impl Environment {
    fn new(sh: &Shell, python: &str) -> anyhow::Result<Self> {
        let folder = crate::build::target_dir(sh).join("python");
        let made = Self { folder };
        let (venv, stamp) = (made.folder.join("venv"), made.folder.join("tools"));
        let wanted = TOOLS.join("\n");
        if std::fs::read_to_string(&stamp).is_ok_and(|found| found == wanted) {
            return Ok(made);
        }
        std::fs::create_dir_all(&made.folder)?;
        cmd!(sh, "{python} -m venv --clear {venv}").quiet().run().context("making an environment")?;
        let pip = made.program("pip");
        println!("installing {}", TOOLS.join(", "));
        cmd!(sh, "{pip} install --quiet --disable-pip-version-check {TOOLS...}")
            .quiet()
            .run()
            .context("pip could not install the tools: is the package index reachable?")?;
        std::fs::write(&stamp, wanted)?;
        Ok(made)
    }

    fn program(&self, name: &str) -> PathBuf {
        self.folder.join("venv/bin").join(name)
    }

    fn check(&self, sh: &Shell) -> anyhow::Result<()> {
        let (wheel, bytes) = self.wheel(sh)?;
        let (pip, python) = (self.program("pip"), self.program("python"));
        cmd!(sh, "{pip} install --quiet --disable-pip-version-check --force-reinstall --no-deps {wheel}")
            .quiet()
            .run()?;
        let notebook = self.tests(sh)?;
        let import = import_seconds(&python)?;
        println!("{}", wheel.display());
        println!("wheel     {:.2} MB, at most {:.0}", bytes as f64 / 1e6, WHEEL as f64 / 1e6);
        println!("import    {import:.3} s, less than {IMPORT}");
        println!("notebook  {notebook:.1} s, less than {MINUTE:.0}");
        ensure!(bytes < WHEEL, "the wheel has {bytes} bytes: at most {WHEEL}");
        ensure!(import < IMPORT, "the import takes {import:.3} s: less than {IMPORT}");
        ensure!(notebook < MINUTE, "the notebook takes {notebook:.1} s: less than {MINUTE:.0}");
        Ok(())
    }

    /// All but what a wheel is needed for: its size, and the time of an import.
    fn check_module(&self, sh: &Shell) -> anyhow::Result<()> {
        let selection = crate::build::selection();
        // What loads the module has Python's symbols.
        cmd!(sh, "cargo build --quiet {selection...} --lib").env("PYO3_BUILD_EXTENSION_MODULE", "1").run()?;
        let (site, module) = (self.folder.join("site"), self.folder.join("site/cipherlm"));
        if site.exists() {
            std::fs::remove_dir_all(&site)?;
        }
        std::fs::create_dir_all(&module)?;
        for entry in std::fs::read_dir(Path::new(PACKAGE).join("python/cipherlm"))? {
            let file = entry?;
            if file.file_type()?.is_file() {
                std::fs::copy(file.path(), module.join(file.file_name()))?;
            }
        }
        let built = crate::build::target_dir(sh).join("release/lib_cipherlm.so");
        std::fs::copy(&built, module.join("_cipherlm.abi3.so"))
            .with_context(|| built.display().to_string())?;
        let pip = self.program("pip");
        // One of an earlier wheel would be found by what does not look at the variable.
        cmd!(sh, "{pip} uninstall --quiet --yes cipherlm").quiet().ignore_stderr().run()?;
        let _path = sh.push_env("PYTHONPATH", &site);
        let _types = sh.push_env("MYPYPATH", &site);
        println!("notebook  {:.1} s", self.tests(sh)?);
        Ok(())
    }

    /// Tests, types, and the notebook, whose seconds it says.
    fn tests(&self, sh: &Shell) -> anyhow::Result<f64> {
        let (python, command) = (self.program("python"), crate::build::cipherlm(sh)?);
        let root = sh.current_dir();
        let _dir = sh.push_dir(PACKAGE);
        println!("== tests");
        cmd!(sh, "{python} -m pytest -q").env("CIPHERLM_COMMAND", root.join(command)).run()?;
        println!("== types");
        cmd!(sh, "{python} -m mypy").run()?;
        cmd!(sh, "{python} -m mypy.stubtest cipherlm").run()?;
        println!("== notebook");
        let clock = Instant::now();
        let jupyter = self.program("jupyter-execute");
        cmd!(sh, "{jupyter} --timeout=60 {NOTEBOOK}").run()?;
        Ok(clock.elapsed().as_secs_f64())
    }

    /// Builds the wheel; says where it is and how large.
    fn wheel(&self, sh: &Shell) -> anyhow::Result<(PathBuf, u64)> {
        let (maturin, out) = (self.program("maturin"), self.folder.join("wheels"));
        if out.exists() {
            std::fs::remove_dir_all(&out)?;
        }
        let manifest = Path::new(PACKAGE).join("Cargo.toml");
        // Its selection of packages is another one than everybody else's: apart, neither is built
        // again for the other.
        cmd!(sh, "{maturin} build --quiet --release --locked --manifest-path {manifest} --out {out}")
            .env("CARGO_TARGET_DIR", self.folder.join("target"))
            .run()?;
        let mut made = std::fs::read_dir(&out)?.collect::<Result<Vec<_>, _>>()?;
        match (made.pop(), made.is_empty()) {
            (Some(wheel), true) => Ok((wheel.path(), wheel.metadata()?.len())),
            _ => bail!("{}: there should be one wheel", out.display()),
        }
    }
}

/// What the import adds to a Python that does nothing; the best of some, as other programs run too.
fn import_seconds(python: &Path) -> anyhow::Result<f64> {
    let seconds = |code: &str| -> anyhow::Result<f64> {
        let mut best = f64::INFINITY;
        for _ in 0..7 {
            let clock = Instant::now();
            let status = Command::new(python).args(["-c", code]).stdin(Stdio::null()).status()?;
            ensure!(status.success(), "python -c {code:?} failed");
            best = best.min(clock.elapsed().as_secs_f64());
        }
        Ok(best)
    };
    Ok(seconds("import cipherlm")? - seconds("pass")?)
}
