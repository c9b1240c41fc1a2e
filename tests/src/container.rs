//! What a container costs that does nothing: the floor of steps, and what a frontend would cost that is an
//! image.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail};

use crate::run::Run;
use crate::skip::find_program;

/// The smallest container that runs `true`, by an OCI runtime.
pub struct Container {
    folder: tempfile::TempDir,
}

impl Container {
    /// Makes the container's bundle. None where there is no crun, or no right to use it so.
    pub fn prepare() -> Result<Option<Container>> {
        let (Some(_), Some(busybox)) = (find_program("crun"), find_program("busybox")) else {
            return Ok(None);
        };
        let container = Container { folder: tempfile::tempdir()? };
        let root = container.folder.path().join("rootfs");
        for folder in ["bin", "proc", "dev", "sys"] {
            std::fs::create_dir_all(root.join(folder))?;
        }
        std::fs::copy(busybox, root.join("bin/true"))?;
        let mut spec: serde_json::Value = {
            let mut command = Command::new("crun");
            Run::of(command.arg("spec").current_dir(container.folder.path()))?.success()?;
            serde_json::from_slice(&std::fs::read(container.folder.path().join("config.json"))?)?
        };
        spec["process"]["args"] = serde_json::json!(["/bin/true"]);
        spec["process"]["terminal"] = false.into();
        spec["root"]["readonly"] = false.into();
        // Rules for devices make it load a program into the kernel, which not every root may.
        if let Some(linux) = spec["linux"].as_object_mut() {
            linux.shift_remove("resources");
        }
        // The network of the machine, as steps have it.
        if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
            namespaces.retain(|namespace| namespace["type"] != "network");
        }
        std::fs::write(container.folder.path().join("config.json"), spec.to_string())?;
        match container.times(1) {
            Ok(_) => Ok(Some(container)),
            Err(error) => {
                println!("no container can be started: {error:#}");
                Ok(None)
            }
        }
    }

    /// Runs it `count` times, one after the other.
    pub fn times(&self, count: u32) -> Result<Duration> {
        // In a mount namespace of its own, where the control groups are those crun can use.
        let script = format!(
            "mount -t cgroup2 none /sys/fs/cgroup && cd {} && date +%s%N && \
             for i in $(seq {count}); do crun run bench-$$-$i || exit 1; done && date +%s%N",
            self.folder.path().display()
        );
        let run = Run::of(Command::new("unshare").args(["-m", "sh", "-c", &script]))?.success()?;
        let times: Vec<u64> = run.text()?.lines().filter_map(|line| line.parse().ok()).collect();
        let [before, after] = times[..] else { bail!("no times: {}", run.text()?) };
        Ok(Duration::from_nanos(after - before))
    }
}
