//! A disk that fills: every write of every command, at many sizes.

use super::world::{End, World, contents};
use super::{Fault, Tally, kill};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Sizes of the disk, as a share of what the command writes.
const SHARES: [f64; 10] = [0.0, 0.05, 0.15, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99, 0.999];

/// A small file system in memory, where this process may mount one.
struct Disk(PathBuf);

impl Disk {
    fn new(at: PathBuf) -> anyhow::Result<Option<Self>> {
        std::fs::create_dir_all(&at)?;
        let disk = Self(at);
        Ok(disk.mount("size=64k").then_some(disk))
    }

    fn mount(&self, options: &str) -> bool {
        let quiet = |command: &mut Command| command.output().is_ok_and(|out| out.status.success());
        quiet(Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(&self.0))
    }

    fn resize(&self, bytes: u64) -> bool {
        let option = format!("remount,size={}", bytes.max(4096));
        Command::new("mount")
            .args(["-o", &option])
            .arg(&self.0)
            .output()
            .is_ok_and(|out| out.status.success())
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).output();
    }
}

/// Bytes that the files of a folder take on a disk of pages.
fn size(folder: &Path) -> u64 {
    let files = contents(folder).unwrap_or_default();
    files.values().map(|bytes| (bytes.len() as u64).div_ceil(4096) * 4096).sum()
}

/// All commands that write, on a full disk; then, with room again, the command goes on.
pub(super) fn all(world: &mut World, tally: &mut Tally) -> anyhow::Result<()> {
    tally.group("disk full");
    kill::together(world, tally)?;
    let Some(disk) = Disk::new(world.at("disk"))? else {
        println!("  no file system may be mounted here: files are cut by `ulimit -f` instead");
        return limited(world, tally);
    };
    let keys = size(&world.keys().join("server")) + size(&world.keys());
    let rounds = world.rounds(SHARES.len(), 0.3, 3.0 * (world.seconds[0] + world.seconds[1]));
    for share in SHARES.iter().rev().step_by((SHARES.len() / rounds).max(1)) {
        let what = format!("a disk of {share} of what is written");
        tally.add(&format!("keygen, {what}"), keygen(world, &disk, (share * keys as f64) as u64));
        tally.add(&format!("run, {what}"), run(world, &disk, *share));
        let prompt = std::fs::metadata(world.prompt())?.len();
        tally.add(&format!("encrypt, {what}"), encrypt(world, &disk, (share * prompt as f64) as u64));
    }
    Ok(())
}

fn emptied(disk: &Disk, bytes: u64) {
    for entry in std::fs::read_dir(&disk.0).into_iter().flatten().flatten() {
        let path = entry.path();
        let _ = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
    }
    disk.resize(bytes);
}

fn keygen(world: &World, disk: &Disk, bytes: u64) -> Result<(), Fault> {
    emptied(disk, bytes);
    let out = disk.0.join("keys");
    if let End::Done(_) = world.call(&world.keygen_args(&out))? {
        return Err(Fault::Wrong("it says that it wrote more than there is room for".into()));
    }
    let secret = std::fs::read(out.join("secret.key")).ok();
    disk.resize(1 << 30);
    let again = [world.keygen_args(&out), vec!["--resume".into()]].concat();
    if let End::Refused(why) = world.call(&again)? {
        return Err(Fault::Lost(format!("with room again: {why}")));
    }
    if secret.is_some() && secret != std::fs::read(out.join("secret.key")).ok() {
        return Err(Fault::Lost("the secret key was replaced".into()));
    }
    let (made, whole) = (contents(&out.join("server")), contents(&world.keys().join("server")));
    match (made, whole) {
        (Ok(made), Ok(whole)) if made.len() == whole.len() && same_lengths(&made, &whole) => Ok(()),
        _ => Err(Fault::Wrong("a folder of keys that is not whole was called complete".into())),
    }
}

type Files = std::collections::BTreeMap<String, Vec<u8>>;

/// Keys of another secret are as long.
fn same_lengths(one: &Files, two: &Files) -> bool {
    let keys = |files: &Files| -> Vec<(String, usize)> {
        files.iter().filter(|(n, _)| n.ends_with(".key")).map(|(n, b)| (n.clone(), b.len())).collect()
    };
    keys(one) == keys(two)
}

fn run(world: &World, disk: &Disk, share: f64) -> Result<(), Fault> {
    // Checkpoints and the answer; 64 answers are more than all steps of the smallest model.
    emptied(disk, (share * 64.0 * world.answer.len() as f64) as u64);
    let (out, kept) = (disk.0.join("answer"), disk.0.join("steps").display().to_string());
    let args = world.run_args(&out, &["--checkpoints", &kept, "--checkpoint-after", "0"]);
    if let End::Done(_) = world.call(&args)? {
        return world.same_answer(&out);
    }
    if out.exists() {
        return Err(Fault::Wrong("it was refused, and the answer is there".into()));
    }
    disk.resize(1 << 30);
    match world.call(&args)? {
        End::Refused(why) => Err(Fault::Lost(format!("with room again: {why}"))),
        End::Done(_) => world.same_answer(&out),
    }
}

fn encrypt(world: &World, disk: &Disk, bytes: u64) -> Result<(), Fault> {
    emptied(disk, bytes);
    let out = disk.0.join("prompt");
    match world.call(&world.encrypt_args(&world.keys(), &out))? {
        End::Done(_) => Err(Fault::Wrong("it says that it wrote more than there is room for".into())),
        End::Refused(_) if out.exists() => {
            Err(Fault::Wrong("it was refused, and the prompt is there".into()))
        }
        End::Refused(_) => Ok(()),
    }
}

/// Without the right to mount: the system ends or refuses every write beyond a length.
fn limited(world: &World, tally: &mut Tally) -> anyhow::Result<()> {
    let longest = contents(&world.keys().join("server"))?.values().map(Vec::len).max().unwrap_or(0);
    for share in SHARES {
        let out = world.at("limited");
        let _ = std::fs::remove_dir_all(&out);
        let blocks = (share * longest as f64 / 512.0) as u64;
        let args = world.keygen_args(&out);
        let program = world.command(&[]).get_program().to_owned();
        let limited = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        let ended = Command::new("sh")
            .args(["-c", &limited])
            .arg(program)
            .args(&args)
            .current_dir(world.folder())
            .output()?;
        let again = [args, vec!["--resume".into()]].concat();
        let result = match ended.status.code() {
            Some(0) => Err(Fault::Wrong("it says that it wrote more than it may".into())),
            Some(2) => world.call(&again).and_then(|end| match end {
                End::Done(_) => Ok(()),
                End::Refused(why) => Err(Fault::Lost(format!("with room again: {why}"))),
            }),
            code => Err(Fault::Panic(format!("status {code:?}"))),
        };
        tally.add(&format!("keygen, files of at most {blocks} blocks"), result);
    }
    Ok(())
}
