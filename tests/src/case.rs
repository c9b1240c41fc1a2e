//! Case folders: a context, what to build of it, and golden files of what must come out.
//!
//! ```text
//! cases/e2e/<name>/
//!   context/             the build context; a Dockerfile in it unless `args` names another file
//!   setup                shell script run in a copy of the context, for what git cannot hold
//!   args                 further arguments of `wbuild build`, one a line
//!   env                  variables of wbuild, NAME=VALUE a line
//!   root                 the case needs root
//!   says                 texts that the output must contain, one a line
//!   expect.config.json   config of the image, see [`Image::lasting_config`]
//!   expect.tree          its files; of an image that stands on the base image what differs from it
//!   expect.layers        if it is there: the paths in each layer but the base's
//!   expect.failure       instead of the former two in a case called `fail-…`: exit code and report
//!   peer                 the case is also built by other builders, see [`crate::peer`]
//! ```
//!
//! Every case that succeeds is built twice: the second time every step must be `CACHED` and the
//! image the same. The layers of the image, put together by this crate, must give the same files as
//! the output of the type `tar`.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::golden;
use crate::image::Image;
use crate::run::Run;
use crate::sandbox::Sandbox;
use crate::tree::Tree;

/// A case folder.
#[derive(Clone, Debug)]
pub struct Case {
    /// Name of the folder.
    pub name: String,
    folder: PathBuf,
}

impl Case {
    /// All cases, sorted.
    pub fn all() -> Result<Vec<Case>> {
        let parent = crate::workspace().join("tests/cases/e2e");
        let mut cases = Vec::new();
        let entries =
            std::fs::read_dir(&parent).with_context(|| format!("no {}", parent.display()))?;
        for entry in entries {
            let folder = entry?.path();
            let name = folder.file_name().expect("it is an entry").to_string_lossy().into_owned();
            cases.push(Case { name, folder });
        }
        cases.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(cases)
    }

    /// What of this case differs for which other builder: the lines of its file `peer`; none if only
    /// wbuild builds it.
    pub fn peer(&self) -> Result<Option<Vec<String>>> {
        Ok(self.lines("peer")?.map(|lines| {
            lines.into_iter().filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
        }))
    }

    /// The context in a sandbox of its own, as a checkout with the usual umask leaves it.
    pub fn sandbox(&self) -> Result<Sandbox> {
        let sandbox = Sandbox::new(&self.name)?;
        copy(&self.folder.join("context"), &sandbox.path("context"))?;
        let setup = self.folder.join("setup");
        if setup.is_file() {
            let mut command = Command::new("sh");
            command.arg("-eu").arg(&setup).current_dir(sandbox.path("context"));
            Run::of(&mut command)?.success()?;
        }
        Ok(sandbox)
    }

    /// The case's own arguments.
    pub fn args(&self) -> Result<Vec<String>> {
        let args = self.lines("args")?.unwrap_or_default();
        Ok(args.into_iter().filter(|arg| !arg.is_empty()).collect())
    }

    /// Variables of the builder.
    pub fn env(&self) -> Result<Vec<(String, String)>> {
        let lines = self.lines("env")?.unwrap_or_default();
        let pairs = lines.iter().filter_map(|line| line.split_once('='));
        Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
    }

    /// Builds the case in its sandbox: an OCI layout in `image`, the files in `files.tar`.
    pub fn build(&self, sandbox: &Sandbox) -> Result<Run> {
        let args = self.args()?;
        let mut all =
            vec!["--output=type=oci,tar=false,dest=image", "--output=type=tar,dest=files.tar"];
        all.extend(args.iter().map(String::as_str));
        let mut command = sandbox.build_command(&all)?;
        Run::of(command.envs(self.env()?))
    }

    /// Builds the case and compares it with its golden files.
    pub fn check(&self) -> Result<()> {
        if self.folder.join("root").exists() {
            crate::skip::need_root()?;
        }
        let sandbox = self.sandbox()?;
        let run = self.build(&sandbox)?;
        for text in self.lines("says")?.unwrap_or_default() {
            run.says(&text)?;
        }
        if self.name.starts_with("fail-") {
            ensure!(run.code != 0, "the build must fail, but did not:\n{}", run.stderr);
            ensure!(!sandbox.path("image").exists(), "the build failed and left an image");
            ensure!(!sandbox.path("files.tar").exists(), "the build failed and left a tar");
            let report = sandbox.filter(report(&run.stderr));
            let text = format!("exit code {}\n{report}", run.code);
            return golden::check(&self.folder.join("expect.failure"), &text);
        }
        let run = run.success()?;

        let image = Image::of_layout(&sandbox.path("image"))?;
        let files = std::fs::File::open(sandbox.path("files.tar"))?;
        let tree = Tree::of_tar(files).context("files.tar")?;
        same_trees(("the layers", &image.tree), ("the tar", &tree))?;

        let mut config = serde_json::to_string_pretty(&image.lasting_config())?;
        config.push('\n');
        golden::check(&self.folder.join("expect.config.json"), &config)?;
        golden::check(&self.folder.join("expect.tree"), &listing(&image.tree)?)?;
        for entries in &image.layer_entries {
            in_order(entries)?;
        }
        let expected = self.folder.join("expect.layers");
        if expected.is_file() {
            golden::check(&expected, &layers(&image)?)?;
        }

        for output in ["image", "files.tar"] {
            std::fs::rename(sandbox.path(output), sandbox.path(format!("first-{output}")))?;
        }
        let again = self.build(&sandbox)?.success()?;
        for step in again.steps() {
            ensure!(
                step.end != "DONE" || !runs_something(&step.name),
                "{:?} is not CACHED the second time:\n{}\n--- first time\n{}",
                step.name,
                again.stderr,
                run.stderr
            );
        }
        let second = Image::of_layout(&sandbox.path("image"))?;
        // Without layers it is as old as its build, to the second.
        let dated = image.layer_entries.is_empty();
        ensure!(second.digest == image.digest || dated, "the image of the second build differs");
        let bytes = |name: &str| std::fs::read(sandbox.path(name));
        ensure!(bytes("files.tar")? == bytes("first-files.tar")?, "the second tar differs");
        Ok(())
    }

    /// Lines of a file of the case.
    fn lines(&self, name: &str) -> Result<Option<Vec<String>>> {
        let path = self.folder.join(name);
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text.lines().map(str::to_owned).collect())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
        }
    }
}

/// Whether a step of this name is one of the definition's, not an export or a look-up.
fn runs_something(name: &str) -> bool {
    name.contains("RUN ")
        || name.contains("COPY ")
        || name.contains("ADD ")
        || name.contains("WORKDIR ")
}

/// The report of a failed build: from the last heading on.
fn report(stderr: &str) -> &str {
    let mut start = 0;
    let mut at = 0;
    for line in stderr.split_inclusive('\n') {
        if line.starts_with("error") {
            start = at;
            break;
        }
        at += line.len();
    }
    &stderr[start..]
}

/// What is in a tree besides the base image, if it stands on it.
fn listing(tree: &Tree) -> Result<String> {
    if !tree.0.contains_key("/bin/busybox") {
        return Ok(tree.listing());
    }
    let base = Image::of_layout(&crate::base::layout()?)?;
    Ok(tree.since(&base.tree))
}

/// The paths in each layer, without the layer of the base image.
fn layers(image: &Image) -> Result<String> {
    let base = Image::of_layout(&crate::base::layout()?)?;
    let own = image.layers.iter().zip(&image.layer_entries).enumerate();
    let own = own.filter(|(_, (digest, _))| !base.layers.contains(digest));
    Ok(own
        .map(|(index, (_, entries))| format!("layer {index}\n{}\n", entries.join("\n")))
        .collect())
}

/// Fails unless the entries of a layer are sorted, part by part, so that a directory stands before
/// what is in it.
fn in_order(entries: &[String]) -> Result<()> {
    let parts = |path: &'_ str| path.trim_end_matches('/').split('/').map(str::to_owned).collect();
    let paths: Vec<Vec<String>> = entries.iter().map(|path| parts(path)).collect();
    for (pair, names) in paths.windows(2).zip(entries.windows(2)) {
        ensure!(pair[0] < pair[1], "{} stands before {} in a layer", names[0], names[1]);
    }
    Ok(())
}

/// Fails with the differences of two trees.
pub fn same_trees(a: (&str, &Tree), b: (&str, &Tree)) -> Result<()> {
    if a.1 == b.1 {
        return Ok(());
    }
    bail!(
        "{} (-) and {} (+) hold different files:\n{}",
        a.0,
        b.0,
        golden::diff(&a.1.listing(), &b.1.listing())
            .lines()
            .filter(|line| !line.starts_with(' '))
            .map(|line| format!("{line}\n"))
            .collect::<String>()
    )
}

/// Copies a folder; modes become what a checkout with umask 022 has.
fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to)?;
    std::fs::set_permissions(to, PermissionsExt::from_mode(0o755))?;
    let entries = std::fs::read_dir(from).with_context(|| format!("no {}", from.display()))?;
    for entry in entries {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy(&from, &to)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(std::fs::read_link(&from)?, &to)?;
        } else {
            std::fs::copy(&from, &to)?;
            let executable = entry.metadata()?.permissions().mode() & 0o100 != 0;
            let mode = if executable { 0o755 } else { 0o644 };
            std::fs::set_permissions(&to, PermissionsExt::from_mode(mode))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn reports_begin_at_the_heading() {
        assert_eq!(
            super::report("#1 x\n#1 ERROR: y\n\nlast\nerror: z\n  hint\n"),
            "error: z\n  hint\n"
        );
        assert_eq!(super::report("nothing"), "nothing");
    }
}
