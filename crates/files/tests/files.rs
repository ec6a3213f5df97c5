//! Whole or not at all, refused before work, bounded, for one process at a time.

use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use cipherlm_files::{
    Access, Error, Existing, Lock, Target, append, check_folder, create_folder, head, read, read_text,
    read_text_from, rename, write, write_with,
};
use cipherlm_testing::Scratch;

/// Names of what lies in a folder, sorted.
fn names(folder: &Scratch) -> Vec<String> {
    folder.entries().iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_file_is_written_with_the_access_asked_for_and_nothing_stays_aside() {
    let dir = Scratch::new("modes");
    write(&dir.join("open"), b"1", Existing::Refuse, Access::Everyone).unwrap();
    write(&dir.join("shut"), b"2", Existing::Refuse, Access::Owner).unwrap();
    // The mode of what is replaced does not stay.
    write(&dir.join("open"), b"3", Existing::Replace, Access::Owner).unwrap();
    assert_eq!((mode(&dir.join("shut")), mode(&dir.join("open"))), (0o600, 0o600));
    assert_eq!(fs::read(dir.join("open")).unwrap(), b"3");
    assert_eq!(names(&dir), ["open", "shut"]);
}

#[test]
fn nothing_is_replaced_unless_that_was_asked_for() {
    let dir = Scratch::new("refuse");
    let file = dir.join("file");
    fs::write(&file, b"old").unwrap();
    assert!(matches!(write(&file, b"new", Existing::Refuse, Access::Everyone), Err(Error::Exists { .. })));
    assert!(matches!(Target::file(&file, Existing::Refuse), Err(Error::Exists { .. })));
    // One that appears during the work is not replaced either.
    let late = Target::file(&dir.join("late"), Existing::Refuse).unwrap();
    fs::write(dir.join("late"), b"other's").unwrap();
    assert!(matches!(late.write(b"new", Access::Everyone), Err(Error::Exists { .. })));
    // A link that leads nowhere is a name that is taken.
    symlink(dir.join("nowhere"), dir.join("link")).unwrap();
    assert!(matches!(Target::file(&dir.join("link"), Existing::Refuse), Err(Error::Exists { .. })));
    assert_eq!(
        (fs::read(&file).unwrap(), fs::read(dir.join("late")).unwrap()),
        (b"old".to_vec(), b"other's".to_vec())
    );
    assert_eq!(names(&dir), ["file", "late", "link"]);
}

#[test]
fn a_link_stays_a_link_to_the_new_content() {
    let dir = Scratch::new("link");
    fs::create_dir(dir.join("deep")).unwrap();
    fs::write(dir.join("deep/file"), b"old").unwrap();
    symlink(dir.join("deep/file"), dir.join("link")).unwrap();
    write(&dir.join("link"), b"new", Existing::Replace, Access::Everyone).unwrap();
    assert_eq!(fs::read(dir.join("deep/file")).unwrap(), b"new");
    assert!(fs::symlink_metadata(dir.join("link")).unwrap().is_symlink());
}

#[test]
fn an_error_in_the_middle_leaves_the_old_file() {
    let dir = Scratch::new("middle");
    fs::write(dir.join("file"), b"old").unwrap();
    let broken = write_with(&dir.join("file"), Existing::Replace, Access::Everyone, |out| {
        out.write_all(&[7; 200_000])?;
        Err(io::Error::other("the source failed"))
    });
    assert!(broken.unwrap_err().to_string().contains("the source failed"));
    assert_eq!(fs::read(dir.join("file")).unwrap(), b"old");
    assert_eq!(names(&dir), ["file"]);
}

#[test]
fn many_writers_of_one_name_publish_whole_files_only() {
    let dir = Scratch::new("race");
    let file = dir.join("file");
    std::thread::scope(|scope| {
        for byte in 0..8u8 {
            let file = &file;
            scope.spawn(move || {
                for _ in 0..20 {
                    write(file, &[byte; 50_000], Existing::Replace, Access::Everyone).unwrap();
                    let seen = fs::read(file).unwrap();
                    assert!(seen.len() == 50_000 && seen.iter().all(|b| *b == seen[0]));
                }
            });
        }
    });
    assert_eq!(names(&dir), ["file"]);
}

#[test]
fn of_many_writers_that_may_not_replace_one_wins() {
    let dir = Scratch::new("first");
    let file = dir.join("file");
    let won: Vec<bool> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8u8)
            .map(|byte| {
                let file = &file;
                scope.spawn(move || write(file, &[byte; 9], Existing::Refuse, Access::Everyone).is_ok())
            })
            .collect();
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    });
    assert_eq!(won.iter().filter(|won| **won).count(), 1);
    assert_eq!(usize::from(fs::read(&file).unwrap()[0]), won.iter().position(|won| *won).unwrap());
}

#[test]
fn a_folder_may_be_made_by_several_at_once() {
    for round in 0..200 {
        let dir = Scratch::new(&format!("folder-{round}"));
        let (start, folder) = (std::sync::Barrier::new(4), dir.join("a/b"));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    start.wait();
                    cipherlm_files::create_folder(&folder).unwrap();
                });
            }
        });
        fs::write(dir.join("file"), b"").unwrap();
        for taken in ["file", "file/b"] {
            let refused = cipherlm_files::create_folder(&dir.join(taken));
            assert!(refused.is_err(), "{taken} became a folder");
        }
        assert!(matches!(cipherlm_files::create_folder(&dir.join("file")), Err(Error::NotAFolder { .. })));
    }
}

#[test]
fn outputs_that_cannot_be_written_are_refused_before_work() {
    let dir = Scratch::new("target");
    fs::write(dir.join("file"), b"").unwrap();
    fs::create_dir(dir.join("folder")).unwrap();
    let check = |path: &Path| Target::file(path, Existing::Replace).map(drop).unwrap_err();
    assert!(matches!(check(&dir.join("missing/a.bin")), Error::NoFolder { folder, .. }
            if folder == dir.join("missing")));
    assert!(matches!(check(&dir.join("file/a.bin")), Error::NotAFolder { path } if path == dir.join("file")));
    assert!(matches!(check(&dir.join("folder")), Error::NotAFile { kind: "a folder", .. }));
    assert!(matches!(check(&dir.join("new/")), Error::NotAFile { kind: "a folder", .. }));
    assert!(matches!(check(Path::new("/dev/null")), Error::NotAFile { kind: "a device or a pipe", .. }));
    assert!(matches!(check(Path::new("/proc/a.bin")), Error::NotWritable { .. }));
    assert!(matches!(check(&dir.join("x".repeat(300))), Error::Io { .. }));
    assert!(matches!(check(&dir.join("a\0b")), Error::Io { .. }));
    assert!(matches!(check_folder(&dir.join("file/deep"), Existing::Replace), Err(Error::NotAFolder { .. })));
    assert!(matches!(
        check_folder(Path::new("/proc/deep"), Existing::Replace),
        Err(Error::NotWritable { .. })
    ));
    assert!(matches!(check_folder(&dir.0, Existing::Refuse), Err(Error::Exists { .. })));
    check_folder(&dir.join("folder"), Existing::Refuse).unwrap();
    check_folder(&dir.join("new/deep"), Existing::Refuse).unwrap();
    Target::file(&dir.join("a.bin"), Existing::Refuse).unwrap();
    let strange = dir.0.join(std::ffi::OsStr::from_bytes(b"not-\xff-utf8"));
    Target::file(&strange, Existing::Refuse).unwrap().write(b"1", Access::Everyone).unwrap();
    assert_eq!(fs::read(&strange).unwrap(), b"1");
    fs::remove_file(&strange).unwrap();
    assert_eq!(names(&dir), ["file", "folder"], "checks leave no trace");
}

#[test]
fn a_folder_is_for_one_holder_at_a_time_and_leftovers_go() {
    let dir = Scratch::new("lock");
    let held = Lock::exclusive(&dir.0).unwrap();
    assert!(matches!(Lock::exclusive(&dir.0), Err(Error::InUse { .. })));
    fs::write(dir.join(".aside-1-0123456789abcdef.part"), b"torn").unwrap();
    fs::write(dir.join("mine.part"), b"kept").unwrap();
    held.sweep().unwrap();
    assert_eq!(names(&dir), ["mine.part"]);
    drop(held);
    Lock::exclusive(&dir.0).unwrap();
    assert!(matches!(Lock::exclusive(&dir.join("missing")), Err(Error::Io { .. })));
}

#[test]
fn reads_are_bounded_and_of_regular_files() {
    let dir = Scratch::new("read");
    let sparse = dir.join("sparse");
    fs::File::create(&sparse).unwrap().set_len(100 << 30).unwrap();
    let start = head(&sparse, 100).unwrap();
    assert_eq!((start.bytes.len(), start.length), (100, 100 << 30));
    assert!(matches!(read(&sparse, 1 << 20), Err(Error::TooLarge { bytes: Some(_), .. })));
    let pipe = dir.join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    for path in [Path::new("/dev/zero"), &dir.0, &pipe] {
        assert!(matches!(head(path, 10), Err(Error::NotAFile { .. })), "{path:?}");
        assert!(matches!(read(path, 10), Err(Error::NotAFile { .. })), "{path:?}");
    }
    assert!(matches!(
        read_text_from(io::repeat(b'a'), "stdin", 1000),
        Err(Error::TooLarge { bytes: None, .. })
    ));
    assert_eq!(read_text_from(&b"\xef\xbb\xbfa"[..], "stdin", 4).unwrap(), "a");
    // A file that says it has no bytes.
    assert!(read_text(Path::new("/proc/self/status"), 1 << 16).unwrap().contains("Name:"));
}

#[test]
fn texts_lose_their_mark_and_errors_name_the_file() {
    let dir = Scratch::new("text");
    let file = dir.join("bad\u{1b}[2Jname");
    fs::write(&file, b"\xef\xbb\xbf{}\r\n").unwrap();
    assert_eq!(read_text(&file, 100).unwrap(), "{}\r\n");
    fs::write(&file, b"ab\xffcd").unwrap();
    let error = read_text(&file, 100).unwrap_err();
    assert!(matches!(error, Error::NotText { at: 2, .. }));
    let said = error.to_string();
    assert!(
        said.contains("bad\\u{1b}[2Jname") && said.contains("byte 2") && !said.contains('\u{1b}'),
        "{said}"
    );
    assert_eq!(error.path(), file);
}

#[test]
fn a_log_goes_on_after_a_torn_line() {
    let dir = Scratch::new("log");
    let log = dir.join("log.csv");
    append(&log, "a,1\n").unwrap();
    append(&log, "b,2").unwrap();
    fs::OpenOptions::new().append(true).open(&log).unwrap().write_all(b"c,").unwrap();
    append(&log, "d,4\n").unwrap();
    assert_eq!(fs::read_to_string(&log).unwrap(), "a,1\nb,2\nc,\nd,4\n");
}

#[test]
fn folders_are_made_and_names_changed() {
    let dir = Scratch::new("folder");
    create_folder(&dir.join("a/b/c")).unwrap();
    create_folder(&dir.join("a/b/c")).unwrap();
    fs::write(dir.join("file"), b"1").unwrap();
    assert!(matches!(create_folder(&dir.join("file")), Err(Error::NotAFolder { .. })));
    rename(&dir.join("file"), &dir.join("a/file")).unwrap();
    assert!(dir.join("a/file").exists() && !dir.join("file").exists());
    assert!(matches!(rename(&dir.join("gone"), &dir.join("x")), Err(Error::Io { .. })));
}

const CHILD: &str = "CIPHERLM_FILES_CHILD";

#[test]
fn a_full_disk_leaves_the_old_file_and_nothing_aside() {
    if let Some(folder) = std::env::var_os(CHILD) {
        let file = Path::new(&folder).join("file");
        let full = write(&file, &[7; 1 << 20], Existing::Replace, Access::Everyone).unwrap_err();
        assert!(full.to_string().contains("limit"), "{full}");
        write(&file, &[8; 100], Existing::Replace, Access::Everyone).unwrap();
        return;
    }
    let dir = Scratch::new("full");
    fs::write(dir.join("file"), b"old").unwrap();
    // A limit of the shell's: writes past it fail as on a full disk.
    let script =
        "trap '' XFSZ; ulimit -f 64; exec \"$0\" --exact a_full_disk_leaves_the_old_file_and_nothing_aside";
    let mut child = Command::new("sh");
    child.args(["-c", script]).arg(std::env::current_exe().unwrap()).env(CHILD, &dir.0);
    let out = child.output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
    assert_eq!(fs::read(dir.join("file")).unwrap(), [8; 100]);
    assert_eq!(names(&dir), ["file"]);
}
