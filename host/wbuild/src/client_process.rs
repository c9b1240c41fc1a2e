//! Processes of the user's that a build begins with the user's leave: in a group of their own, so that
//! all of it can be ended.

use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use wbuild_api::session::{ClientProcess, ClientSpec};
use wbuild_graph::{Failure, FailureKind};

/// A process and its group.
struct Group {
    id: Pid,
    /// None once it was waited for: its number may be another's then.
    child: Mutex<Option<Child>>,
}

/// Begins a process in a directory.
pub(crate) fn spawn(context: &Path, spec: ClientSpec) -> Result<Arc<dyn ClientProcess>, Failure> {
    let directory = context.join(&spec.cwd);
    let Some((program, args)) = spec.args.split_first() else {
        return Err(Failure::invalid("a process needs at least one argument"));
    };
    if !directory.is_dir() {
        let message = format!("there is no directory {} to run in", directory.display());
        return Err(Failure::not_found(message));
    }
    let child = Command::new(program)
        .args(args)
        .envs(spec.env)
        .current_dir(&directory)
        .stdin(Stdio::null())
        .stdout(spec.stdout)
        .stderr(spec.stderr)
        .process_group(0)
        .spawn()
        .map_err(|error| {
            let kind = match error.kind() {
                std::io::ErrorKind::NotFound => FailureKind::NotFound,
                std::io::ErrorKind::PermissionDenied => FailureKind::Denied,
                _ => FailureKind::Unavailable,
            };
            Failure::new(kind, format!("cannot run {program:?} on this machine")).cause(&error)
        })?;
    let id = Pid::from_child(&child);
    Ok(Arc::new(Group { id, child: Mutex::new(Some(child)) }))
}

impl Group {
    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end(&self) {
        // There may be nobody any more.
        let _ = kill_process_group(self.id, Signal::KILL);
    }
}

impl ClientProcess for Group {
    fn wait(&self) -> Result<i32, Failure> {
        let failed = |error: std::io::Error| {
            Failure::internal("cannot wait for a process of the caller's").cause(&error)
        };
        // Without taking it away: as long as it is there, the number of its group is nobody else's.
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(error) = waitid(WaitId::Pid(self.id), options) {
            if error != rustix::io::Errno::INTR {
                return Err(failed(error.into()));
            }
        }
        let mut child = self.child();
        self.end();
        let Some(mut ended) = child.take() else {
            return Err(Failure::internal("a process was waited for twice"));
        };
        let status = ended.wait().map_err(failed)?;
        let signal = || status.signal().map_or(1, |signal| 128 + signal);
        Ok(status.code().unwrap_or_else(signal))
    }

    fn kill(&self) {
        if self.child().is_some() {
            self.end();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::os::fd::OwnedFd;
    use std::time::{Duration, Instant};

    use super::*;

    fn begin(command: &str, cwd: &str) -> (Arc<dyn ClientProcess>, std::fs::File) {
        let (reader, writer) = rustix::pipe::pipe().expect("a pipe");
        let stderr: OwnedFd = writer.try_clone().expect("a second end");
        let args = ["/bin/sh", "-c", command].map(str::to_owned).to_vec();
        let env = vec![("A".to_owned(), "first".to_owned()), ("A".to_owned(), "last".to_owned())];
        let cwd = cwd.to_owned();
        let spec = ClientSpec { args, env, cwd, stdout: writer, stderr };
        (spawn(Path::new("/"), spec).expect("begun"), reader.into())
    }

    fn said(mut reader: std::fs::File) -> String {
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("text");
        text
    }

    #[test]
    fn a_process_has_its_directory_variables_and_exit_code() {
        let (process, reader) = begin("pwd; echo $A; test -n \"$PATH\"; exit 7", "usr");
        assert_eq!(process.wait(), Ok(7));
        assert_eq!(said(reader), "/usr\nlast\n");
        process.kill();
        let (process, _) = begin("kill -TERM $$", "");
        assert_eq!(process.wait(), Ok(143));
    }

    #[test]
    fn what_it_has_begun_ends_with_it() {
        let began = Instant::now();
        // The pipe is closed when all who hold it have ended.
        let (process, reader) = begin("sleep 60 & echo left", "");
        assert_eq!(process.wait(), Ok(0));
        assert_eq!(said(reader), "left\n");
        let (process, reader) = begin("sleep 60 & sleep 60", "");
        process.kill();
        assert_eq!(process.wait(), Ok(137));
        assert_eq!(said(reader), "");
        assert!(began.elapsed() < Duration::from_secs(50));
    }

    #[test]
    fn what_cannot_be_begun_is_said() {
        let (_, writer) = rustix::pipe::pipe().expect("a pipe");
        let stderr = writer.try_clone().expect("a second end");
        let (args, cwd) = (vec!["true".to_owned()], "no/such".to_owned());
        let spec = ClientSpec { args, env: Vec::new(), cwd, stdout: writer, stderr };
        let failure = spawn(Path::new("/"), spec).map(drop).expect_err("no directory");
        assert_eq!(failure.message, "there is no directory /no/such to run in");
    }
}
