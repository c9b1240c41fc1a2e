//! A directory of its own for a test: a context, a state directory, outputs, and wbuild run in it.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::image::Image;
use crate::run::{DEADLINE, Run, Running};
use crate::tree::Tree;

/// See the module. Removed when dropped, unless `WBUILD_TEST_KEEP=1`.
pub struct Sandbox {
    folder: PathBuf,
    keep: bool,
}

impl Sandbox {
    /// An empty one.
    pub fn new(name: &str) -> Result<Sandbox> {
        Sandbox::below(&crate::scratch()?.join("sandboxes"), name)
    }

    /// An empty one in this directory.
    pub fn below(parent: &Path, name: &str) -> Result<Sandbox> {
        std::fs::create_dir_all(parent)?;
        // Short and readable, because goldens and failures show it.
        let folder = tempfile::Builder::new()
            .prefix(&format!("{name}-"))
            .tempdir_in(parent)
            .context("cannot make a directory for a test")?
            .keep();
        // A step's own user must be able to walk through, in other builders' storage too.
        std::fs::set_permissions(&folder, PermissionsExt::from_mode(0o711))?;
        let keep = std::env::var_os("WBUILD_TEST_KEEP").is_some_and(|value| value == "1");
        let sandbox = Sandbox { folder, keep };
        std::fs::create_dir(sandbox.path("context"))?;
        std::fs::create_dir(sandbox.path("home"))?;
        Ok(sandbox)
    }

    /// One whose context holds these files.
    pub fn with(name: &str, files: &[(&str, &str)]) -> Result<Sandbox> {
        let sandbox = Sandbox::new(name)?;
        for (path, content) in files {
            sandbox.write(path, content)?;
        }
        Ok(sandbox)
    }

    /// The directory.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A path in it.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.join(name)
    }

    /// Writes a file of the context; its directories are made.
    pub fn write(&self, path: &str, content: &str) -> Result<()> {
        let path = self.path("context").join(path);
        std::fs::create_dir_all(path.parent().expect("it lies in the context"))?;
        std::fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    }

    /// wbuild, with nothing of this process's environment but PATH.
    pub fn wbuild<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Command> {
        let mut command = Command::new(crate::wbuild_program()?);
        command
            .args(args)
            .current_dir(&self.folder)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path("home"))
            .env("WBUILD_STATE_DIR", self.path("state"))
            // Compiled plugins do not depend on the test.
            .env("WBUILD_CACHE_DIR", crate::scratch()?.join("code-cache"));
        Ok(command)
    }

    /// Runs wbuild to its end.
    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Result<Run> {
        Run::of(&mut self.wbuild(args)?)
    }

    /// `wbuild build` with plain progress, with the base image as `base`, these arguments, and the
    /// context last.
    pub fn build_command(&self, args: &[&str]) -> Result<Command> {
        let base = crate::base::layout()?;
        let mut command = self.wbuild(["build"])?;
        command
            .env("WBUILD_PROGRESS", "plain")
            .arg(format!("--build-context=base=oci-layout://{}", base.display()))
            .args(args)
            .arg("context");
        Ok(command)
    }

    /// Runs [`Self::build_command`] to its end.
    pub fn build(&self, args: &[&str]) -> Result<Run> {
        Run::of(&mut self.build_command(args)?)
    }

    /// Runs [`Self::build_command`] with bytes for standard input.
    pub fn build_with_input(&self, args: &[&str], input: &[u8]) -> Result<Run> {
        Running::start_with_input(&mut self.build_command(args)?, input)?.wait(DEADLINE)
    }

    /// Starts [`Self::build_command`].
    pub fn start_build(&self, args: &[&str]) -> Result<Running> {
        Running::start(&mut self.build_command(args)?)
    }

    /// Builds; the image as an OCI layout in `name`, alone there.
    pub fn image(&self, name: &str, args: &[&str]) -> Result<(Run, Image)> {
        // An image that is exported into a layout joins those that are there.
        match std::fs::remove_dir_all(self.path(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
        let output = format!("type=oci,tar=false,dest={name}");
        let args: Vec<&str> = ["-o", &output].into_iter().chain(args.iter().copied()).collect();
        let run = self.build(&args)?.success()?;
        Ok((run, Image::of_layout(&self.path(name))?))
    }

    /// Builds; the files.
    pub fn tree(&self, args: &[&str]) -> Result<(Run, Tree)> {
        let args: Vec<&str> = ["-o", "-"].into_iter().chain(args.iter().copied()).collect();
        let run = self.build(&args)?.success()?;
        let tree = Tree::of_tar(&run.stdout[..])?;
        Ok((run, tree))
    }

    /// Output without what differs from run to run: this directory, digests, durations.
    pub fn filter(&self, text: &str) -> String {
        let folder = self.folder.to_string_lossy();
        let base = crate::base::layout().map(|path| path.display().to_string());
        let mut text = text.replace(&*folder, "{dir}");
        if let Ok(base) = base {
            text = text.replace(&base, "{base}");
        }
        without_digests(&text)
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if self.keep || std::thread::panicking() {
            return;
        }
        if std::fs::remove_dir_all(&self.folder).is_err() {
            // Files of an ordinary user's build belong to other ids of theirs.
            let _ = Command::new("unshare")
                .args(["--user", "--map-auto", "--map-root-user", "rm", "-rf"])
                .arg(&self.folder)
                .output();
        }
    }
}

/// Shortens `sha256:` and 64 hex digits to `sha256:…`.
fn without_digests(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("sha256:") {
        let (before, from) = rest.split_at(at + "sha256:".len());
        out.push_str(before);
        let hex = from.bytes().take_while(u8::is_ascii_hexdigit).count();
        if hex == 64 {
            out.push('…');
            rest = &from[64..];
        } else {
            rest = from;
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    #[test]
    fn digests_are_shortened() {
        let hex = "0123456789abcdef".repeat(4);
        let text = format!("a sha256:{hex}, sha256:short and sha256:{hex}");
        assert_eq!(super::without_digests(&text), "a sha256:…, sha256:short and sha256:…");
    }
}
