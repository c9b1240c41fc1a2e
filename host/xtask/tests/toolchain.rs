//! `wasm-std.sh` with stand-ins for rustc, and without anything it could download with.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use xtask::workspace_root;

/// Ordinary tools the script may use. None of them reaches a network.
const TOOLS: [&str; 20] = [
    "sh", "cat", "cut", "dirname", "du", "env", "flock", "grep", "head", "id", "ln", "ls", "mkdir",
    "readlink", "rm", "sed", "tail", "tar", "timeout", "uname",
];

struct Machine {
    folder: PathBuf,
}

impl Machine {
    /// A machine with the ordinary tools and a rustc. `has_target`: with a standard library.
    fn new(name: &str, has_target: bool) -> Machine {
        let folder = std::env::temp_dir().join(format!("xtask-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        let bin = folder.join("bin");
        std::fs::create_dir_all(&bin).expect("temporary folder");
        let path = std::env::var_os("PATH").expect("a PATH");
        for tool in TOOLS {
            let found =
                std::env::split_paths(&path).map(|dir| dir.join(tool)).find(|at| at.exists());
            if let Some(found) = found {
                symlink(found, bin.join(tool)).expect("link");
            }
        }
        let machine = Machine { folder };
        machine.rustc(&bin.join("rustc"), &machine.folder.join("sysroot"), has_target);
        machine
    }

    /// Writes a stand-in for rustc that answers what the script asks.
    fn rustc(&self, at: &Path, sysroot: &Path, has_target: bool) {
        let libdir = sysroot.join("lib/rustlib/wasm32-unknown-unknown/lib");
        std::fs::create_dir_all(&libdir).expect("temporary folder");
        if has_target {
            std::fs::write(libdir.join("libstd-0.rlib"), "").expect("write");
        }
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in\n'-vV') echo 'host: pc-linux' ;;\n'--print sysroot') echo '{}' ;;\n'--print target-libdir'*) echo '{}' ;;\n*) exit 1 ;;\nesac\n",
            sysroot.display(),
            libdir.display()
        );
        std::fs::create_dir_all(at.parent().expect("a folder")).expect("temporary folder");
        std::fs::write(at, script).expect("write");
        std::fs::set_permissions(at, PermissionsExt::from_mode(0o755)).expect("mode");
    }

    fn private(&self) -> PathBuf {
        self.folder.join("private")
    }

    fn run(&self) -> Output {
        Command::new("/bin/sh")
            .arg(workspace_root().join("host/xtask/wasm-std.sh"))
            .arg(self.private())
            .env_clear()
            .env("PATH", self.folder.join("bin"))
            .output()
            .expect("sh runs")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_toolchain_that_has_the_target_is_used_and_nothing_is_made() {
    let machine = Machine::new("has-target", true);
    let output = machine.run();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout).trim(), machine.folder.join("bin/rustc").display().to_string());
    assert_eq!(text(&output.stderr), "");
    assert!(!machine.private().exists());
}

#[test]
fn without_the_target_and_without_a_source_of_it_the_error_names_the_remedy() {
    let machine = Machine::new("no-source", false);
    let output = machine.run();
    assert!(!output.status.success());
    assert_eq!(text(&output.stdout), "");
    let stderr = text(&output.stderr);
    assert!(stderr.contains("rustup target add wasm32-unknown-unknown"), "{stderr}");
}

#[test]
fn a_finished_private_toolchain_is_used_again_with_the_linkers_of_today() {
    let machine = Machine::new("private", false);
    let private = machine.private();
    machine.rustc(&private.join("rustc"), &private.join("usr"), true);
    std::fs::create_dir_all(private.join("usr/lib/rustlib/pc-linux")).expect("temporary folder");
    let output = machine.run();
    assert!(!output.status.success(), "not finished: {}", text(&output.stdout));

    std::fs::write(
        private.join("ready"),
        format!("recipe 2, rust {}\n", env!("CARGO_PKG_RUST_VERSION")),
    )
    .expect("write");
    let output = machine.run();
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stdout).trim(), private.join("rustc").display().to_string());
    let link = std::fs::read_link(private.join("usr/lib/rustlib/pc-linux/bin")).expect("a link");
    assert_eq!(link, machine.folder.join("sysroot/lib/rustlib/pc-linux/bin"));

    for other in ["recipe 1, rust 1.95\n", "recipe 2, rust 1.85\n"] {
        std::fs::write(private.join("ready"), other).expect("write");
        assert!(!machine.run().status.success(), "made by another recipe or too old: {other}");
    }
}
