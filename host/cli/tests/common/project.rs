//! A small project, and the program as users run it in there.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// A directory with a small project and a state of its own.
pub struct Project {
    pub root: tempfile::TempDir,
}

impl Project {
    /// One that builds a directory and a label on nothing.
    pub fn new() -> Self {
        let root = tempfile::tempdir().expect("temporary directory");
        let project = Project { root };
        project.write("src/a.txt", "hello\n");
        project.write("Dockerfile", "FROM scratch\nCOPY src /src\nLABEL a=b\n");
        project
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Writes a file, and makes the directories above it.
    pub fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("below the root")).expect("directory");
        fs::write(path, content).expect("file");
    }

    /// `wbuild` in an environment that holds nothing else.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_wbuild"));
        command
            .args(args)
            .current_dir(self.root.path())
            .env_clear()
            .env("HOME", self.root.path())
            .env("WBUILD_STATE_DIR", self.path("state"))
            .env("WBUILD_CACHE_DIR", code_cache())
            .stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("wbuild starts")
    }

    /// Runs and demands success; returns standard output and standard error.
    pub fn good(&self, args: &[&str]) -> (String, String) {
        let output = self.run(args);
        let (out, err) = streams(&output);
        assert_eq!(output.status.code(), Some(0), "{args:?}\n{out}{err}");
        (out, err)
    }

    /// Runs and demands this exit code; returns standard error. Standard output must be empty.
    pub fn bad(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        let (out, err) = streams(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}\n{out}{err}");
        assert_eq!(out, "", "{args:?}: standard output is for data");
        err
    }
}

/// Standard output and standard error as text.
pub fn streams(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// Compiled plugins are shared by all tests, and by runs: compiling takes seconds.
pub fn code_cache() -> &'static Path {
    static DIR: OnceLock<PathBuf> = OnceLock::new();
    DIR.get_or_init(|| {
        // Only a directory of the user's own, closed to others, is used.
        let name = format!("wbuild-code-{}", rustix::process::geteuid().as_raw());
        let private = |dir: &Path| {
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
            made.and_then(|()| fs::set_permissions(dir, fs::Permissions::from_mode(0o700)))
        };
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&name);
        let dir = match private(&dir) {
            Ok(()) => dir,
            Err(_) => std::env::temp_dir().join(name),
        };
        private(&dir).expect("a directory for compiled code");
        for name in ["dockerfile", "native", "cache-local"] {
            let status = Command::new(env!("CARGO_BIN_EXE_wbuild"))
                .args(["plugin", "inspect", name])
                .env_clear()
                .env("WBUILD_CACHE_DIR", &dir)
                .stdout(Stdio::null())
                .status();
            assert!(status.expect("wbuild starts").success(), "{name}");
        }
        dir
    })
}
