//! Programs of other architectures, out of Debian's packages.
//!
//! They come from the machine's own package server. Nothing of the machine's package lists is touched,
//! nothing is installed.

use std::fs::File;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use rustix::fs::{FlockOperation, flock};

use crate::run::Run;
use crate::skip;

/// An architecture that the machine's release of Debian may lack, and one that has it.
const NEWER: (&str, &str) = ("riscv64", "trixie");

/// A list of that release, from where the machine has its own packages.
fn newer_list() -> Result<String> {
    let asked =
        ["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Component: main"];
    let run = Run::of(Command::new("apt-get").args(asked))?.success()?;
    let archive = run.text()?.lines().find(|uri| !uri.contains("security"));
    let archive = archive.context("the machine has no list of packages")?;
    let keys = "/usr/share/keyrings/debian-archive-keyring.gpg";
    Ok(format!("deb [signed-by={keys}] {archive} {} main\n", NEWER.1))
}

/// A folder with the files of these packages, and of no others they depend on. The architecture is
/// named as Debian does it.
pub fn unpacked(debian: &str, names: &[&str]) -> Result<PathBuf> {
    skip::need_program("apt-get")?;
    skip::need_program("dpkg-deb")?;
    let place = crate::scratch()?.join("packages").join(format!("{debian}-{}", names.join("-")));
    for part in ["state/lists/partial", "cache/archives/partial"] {
        std::fs::create_dir_all(place.join(part))?;
    }
    let lock = File::create(place.join("lock"))?;
    flock(&lock, FlockOperation::LockExclusive)?;
    let root = place.join("root");
    if root.exists() {
        return Ok(root);
    }
    std::fs::write(place.join("status"), "")?;
    let list = place.join("sources.list");
    let mut lists = Vec::new();
    if debian == NEWER.0 {
        std::fs::write(&list, newer_list()?)?;
        lists.push(format!("Dir::Etc::sourcelist={}", list.display()));
        lists.push("Dir::Etc::sourceparts=-".to_owned());
    }
    let apt = |command: &[&str]| -> Result<Run> {
        let shown = place.display();
        Run::of(
            Command::new("apt-get")
                .arg("-qq")
                .args(["-o", &format!("Dir::State={shown}/state")])
                .args(["-o", &format!("Dir::State::status={shown}/status")])
                .args(["-o", &format!("Dir::Cache={shown}/cache")])
                .args(["-o", &format!("APT::Architecture={debian}")])
                .args(["-o", &format!("APT::Architectures={debian}")])
                .args(["-o", "Acquire::Languages=none"])
                .args(["-o", "APT::Sandbox::User=root"])
                .args(lists.iter().flat_map(|list| ["-o", list]))
                .args(command)
                .current_dir(&place),
        )
    };
    // One list of several may be on the move; whether the packages are found tells.
    let update = apt(&["update"])?;
    let download: Vec<&str> = ["download"].into_iter().chain(names.iter().copied()).collect();
    apt(&download)?.success().with_context(|| format!("the lists said: {}", update.stderr))?;
    let part = place.join("root.part");
    let mut count = 0;
    for entry in std::fs::read_dir(&place)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            Run::of(Command::new("dpkg-deb").arg("-x").arg(path).arg(&part))?.success()?;
            count += 1;
        }
    }
    ensure!(count == names.len(), "{count} packages for {names:?}");
    std::fs::rename(part, &root)?;
    Ok(root)
}
