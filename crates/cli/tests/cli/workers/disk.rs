//! A full disk.

use super::*;

/// A small file system in memory, where this process may mount one; what stands in it is hidden
/// when it goes.
struct Disk(PathBuf);

impl Disk {
    fn new(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let mut mount = Command::new("mount");
        let made = mount.args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"]).arg(at).output();
        if !made.as_ref().is_ok_and(|out| out.status.success()) {
            println!("skipped: no file system may be mounted here");
            return None;
        }
        Some(Self(at.to_owned()))
    }

    /// Takes all that is free.
    fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = fs::File::create(&path).unwrap();
        for block in [1 << 16, 1 << 12, 1 << 6, 1] {
            while std::io::Write::write_all(&mut file, &vec![7; block]).is_ok() {}
        }
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).output();
    }
}

#[test]
fn a_full_disk_is_waited_for() {
    let dir = std::env::temp_dir().join(format!("cipherlm-full-{}", std::process::id()));
    let Some(disk) = Disk::new(&dir) else { return };
    let Some(mut world) = World::on("full-disk", 1, Some(&dir)) else { return };
    let keys = world.client("keys");
    let sample = world.sample(&keys, PROMPT);
    // Full before anybody begins, and full in the middle of the run.
    for early in [true, false] {
        if !early {
            world.hire(&[]);
        }
        world.submit(&sample);
        if !early {
            world.wait("run", || world.view(&sample)["state"] == "running");
        }
        let filler = disk.fill();
        if early {
            world.hire(&[]);
        }
        sleep(4.0);
        let view = world.view(&sample);
        assert!(!["done", "failed"].iter().any(|state| view["state"] == *state), "{view}");
        fs::remove_file(filler).unwrap();
        world.check(&sample);
        world.workers.clear();
    }
    drop((world, disk));
    let _ = fs::remove_dir_all(&dir);
}
