//! Compiled code is used only if this program wrote it, and a cache that cannot be used costs time
//! and nothing else.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::*;
use wbuild_plugin::{PluginHost, PluginHostOptions};

/// A component that compiles fast; `n` makes it another one.
fn component(n: u32) -> Vec<u8> {
    wat(&format!(
        r#"(component
          (core module $m (func (export "run") (result i32) i32.const {n}))
          (core instance $i (instantiate $m))
          (func (export "run") (result u32) (canon lift (core func $i "run"))))"#
    ))
}

/// Warms component `n` in a new host, as a new process would. `None` = it was loaded, not compiled.
fn warm(dir: &Path, n: u32) -> Option<Duration> {
    let host = PluginHost::new(PluginHostOptions::new(dir));
    let plugin = host.load("x", component(n)).expect("it loads");
    run(host.warm(&[plugin])).expect("it is compiled or loaded")[0]
}

fn compiled(dir: &Path, n: u32) -> bool {
    warm(dir, n).is_some()
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(dir).expect("directory").map(|entry| entry.expect("entry").path());
    let mut all: Vec<PathBuf> =
        all.filter(|path| path.extension().is_some_and(|e| e == "cwasm")).collect();
    all.sort();
    all
}

fn the_entry(dir: &Path) -> PathBuf {
    let [entry] = &entries(dir)[..] else { panic!("one entry: {:?}", entries(dir)) };
    entry.clone()
}

#[test]
fn code_is_kept_for_the_next_process_and_nobody_else() {
    let temp = tempfile::tempdir().expect("directory");
    let dir = temp.path().join("a/b/code");
    assert!(compiled(&dir, 1));
    assert!(!compiled(&dir, 1));
    assert!(compiled(&dir, 2), "another component");
    assert_eq!(entries(&dir).len(), 2);
    let mode = |path: &Path| fs::metadata(path).expect("metadata").permissions().mode() & 0o777;
    assert_eq!(mode(&dir), 0o700);
    for entry in fs::read_dir(&dir).expect("directory") {
        assert_eq!(mode(&entry.expect("entry").path()), 0o600);
    }
}

#[test]
fn no_entry_with_a_flipped_bit_is_loaded() {
    let temp = tempfile::tempdir().expect("directory");
    let dir = temp.path().join("code");
    assert!(compiled(&dir, 1));
    let entry = the_entry(&dir);
    let good = fs::read(&entry).expect("entry");
    for n in 0..200usize {
        let mut bad = good.clone();
        // All of the foot and places all over the code.
        let code = good.len() - 88;
        let at = if n < 88 { code + n } else { (n - 88) * code / 112 };
        bad[at] ^= 1 << (n % 8);
        fs::write(&entry, &bad).expect("write");
        assert!(compiled(&dir, 1), "bit {} of byte {at} was flipped, and it was loaded", n % 8);
        assert!(!compiled(&dir, 1), "it was written anew");
    }
}

#[test]
fn no_entry_of_another_length_is_loaded() {
    let temp = tempfile::tempdir().expect("directory");
    let dir = temp.path().join("code");
    assert!(compiled(&dir, 1));
    let entry = the_entry(&dir);
    let good = fs::read(&entry).expect("entry");
    let ends = (0..20).map(|n| good.len() * n / 20).chain([1, 87, 88, 89, good.len() - 1]);
    for end in ends {
        fs::write(&entry, &good[..end]).expect("write");
        assert!(compiled(&dir, 1), "cut to {end} bytes");
    }
    let mut longer = good.clone();
    longer.push(0);
    fs::write(&entry, &longer).expect("write");
    assert!(compiled(&dir, 1), "one byte more");
    assert!(!compiled(&dir, 1));
}

#[test]
fn an_entry_of_something_else_is_not_loaded() {
    let temp = tempfile::tempdir().expect("directory");
    let dir = temp.path().join("code");
    assert!(compiled(&dir, 1));
    let first = the_entry(&dir);
    assert!(compiled(&dir, 2));
    let second = entries(&dir).into_iter().find(|e| *e != first).expect("two");
    fs::copy(&first, &second).expect("copy");
    assert!(compiled(&dir, 2), "the code of another component");

    // An entry of another directory: the same component, hashed with another key.
    let other = temp.path().join("other");
    assert!(compiled(&other, 1));
    fs::copy(the_entry(&other), &first).expect("copy");
    assert!(compiled(&dir, 1), "an entry that this directory's owner did not write");

    // The reason is told.
    fs::copy(the_entry(&other), &first).expect("copy");
    let host = PluginHost::new(PluginHostOptions::new(&dir));
    let plugin = host.load("steps", dist("steps")).expect("it loads");
    let info = run(plugin.inspect()).expect("inspect");
    assert_eq!(info.code_cache_note, None);
    let entry = entries(&dir).into_iter().max_by_key(|e| fs::metadata(e).expect("size").len());
    fs::write(entry.expect("an entry"), "short").expect("write");
    let host = PluginHost::new(PluginHostOptions::new(&dir));
    let plugin = host.load("steps", dist("steps")).expect("it loads");
    let info = run(plugin.inspect()).expect("inspect");
    assert_eq!(info.code_cache_note.as_deref(), Some("it is shorter than its foot"));
    assert!(info.compile_time.is_some() && info.load_time.is_some());
}

#[test]
fn files_that_others_could_have_written_are_not_loaded() {
    let temp = tempfile::tempdir().expect("directory");
    let dir = temp.path().join("code");
    assert!(compiled(&dir, 1));
    let entry = the_entry(&dir);
    let outside = temp.path().join("outside");
    fs::rename(&entry, &outside).expect("rename");
    symlink(&outside, &entry).expect("symlink");
    assert!(compiled(&dir, 1), "a symlink");
    assert!(outside.exists(), "what it points to is left alone");
    assert!(!fs::symlink_metadata(&entry).expect("entry").is_symlink(), "replaced");

    fs::set_permissions(&entry, fs::Permissions::from_mode(0o666)).expect("mode");
    assert!(compiled(&dir, 1), "a file that others may write");
    fs::remove_file(&entry).expect("remove");
    fs::create_dir(&entry).expect("mkdir");
    assert!(compiled(&dir, 1), "a directory in its place");
}

#[test]
fn a_directory_that_others_may_enter_is_not_used() {
    let temp = tempfile::tempdir().expect("directory");
    let open = temp.path().join("open");
    fs::create_dir(&open).expect("mkdir");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).expect("mode");
    assert!(compiled(&open, 1) && compiled(&open, 1), "compiled each time");
    assert_eq!(fs::read_dir(&open).expect("directory").count(), 0);

    let linked = temp.path().join("linked");
    symlink(&open, &linked).expect("symlink");
    assert!(compiled(&linked, 1) && compiled(&linked, 1), "a symlink is not followed");

    let file = temp.path().join("file");
    fs::write(&file, "").expect("write");
    assert!(compiled(&file, 1), "no directory at all");

    let host = PluginHost::new(PluginHostOptions::new(&open));
    let info = run(host.load("steps", dist("steps")).expect("loads").inspect()).expect("inspect");
    let note = info.code_cache_note.expect("a note");
    assert!(note.ends_with("others may enter it (its mode must be 0700)"), "{note}");
}

#[test]
fn a_damaged_key_is_made_anew() {
    let temp = tempfile::tempdir().expect("directory");
    let dir = temp.path().join("code");
    assert!(compiled(&dir, 1));
    fs::write(dir.join("hash.key"), "short").expect("write");
    assert!(compiled(&dir, 1), "its hash is of the old key");
    assert!(!compiled(&dir, 1));
    assert_eq!(fs::metadata(dir.join("hash.key")).expect("key").len(), 32);
}

#[test]
fn processes_that_compile_at_once_agree() {
    let temp = tempfile::tempdir().expect("directory");
    let dir = temp.path().join("code");
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for n in 0..4 {
                    warm(&dir, n);
                }
            });
        }
    });
    assert_eq!(entries(&dir).len(), 4);
    for n in 0..4 {
        assert!(!compiled(&dir, n), "component {n} was kept");
    }
    let rest = fs::read_dir(&dir).expect("directory").map(|entry| entry.expect("entry").path());
    // On a slow machine there are marks already.
    let rest = rest.filter(|path| path.extension().is_none_or(|e| e != "mark")).count();
    assert_eq!(rest, 5, "four entries, one key, nothing temporary");
}
