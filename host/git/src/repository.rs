//! A bare repository that is kept between builds.
//!
//! ```text
//! <dir>/repository   the bare repository
//! <dir>/home         where git runs: what belongs to one command
//! <dir>/busy         somebody works here, or was killed while doing so
//! ```
//!
//! Whoever opens one must be the only user of its directory. After a kill git's own locks and
//! half-written files are removed; what is complete has its mark (see [`Repository::fetch`]).

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wbuild_graph::{Failure, FailureKind};
use wbuild_http::Gate;

use crate::explain::own_words;
use crate::name::ObjectId;
use crate::program::{Call, Ended, Git, Input};

/// Most packs; each fetch adds one. With more of them it is quicker to begin anew than to look in all.
const PACKS: usize = 100;
/// How often progress is told.
const TICK: Duration = Duration::from_millis(200);

/// Told how many bytes a command has received so far.
pub type Progress = Box<dyn Fn(u64) + Send + Sync>;

/// See the module.
pub struct Repository {
    pub(crate) git: Git,
    dir: PathBuf,
    home: PathBuf,
    place: PathBuf,
    progress: Option<Progress>,
}

impl Repository {
    /// Opens the repository in `place`, a directory of its own; made if it is empty.
    ///
    /// # Errors
    /// The directory cannot be used, or git is too old.
    pub async fn open(git: &Git, place: &Path) -> Result<Repository, Failure> {
        git.check_version(place).await?;
        let repository = Repository {
            git: git.clone(),
            dir: place.join("repository"),
            home: place.join("home"),
            place: place.to_owned(),
            progress: None,
        };
        let interrupted = repository.begin().map_err(|error| repository.unusable(&error))?;
        let is_there =
            ["objects", "refs", "HEAD"].iter().all(|name| repository.dir.join(name).exists());
        if !is_there || repository.packs() > PACKS {
            repository.reset().await?;
        } else if interrupted {
            clean(&repository.dir, 0).map_err(|error| repository.unusable(&error))?;
        }
        Ok(repository)
    }

    /// Whom to tell how many bytes have come while something is transferred.
    pub fn on_progress(&mut self, progress: Option<Progress>) {
        self.progress = progress;
    }

    /// Begins anew with nothing: what is here cannot be used.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub async fn reset(&self) -> Result<(), Failure> {
        self.init("sha1").await
    }

    async fn init(&self, format: &str) -> Result<(), Failure> {
        remove(&self.dir)
            .and_then(|()| fs::create_dir(&self.dir))
            .map_err(|error| self.unusable(&error))?;
        let format = format!("--object-format={format}");
        let args = ["init", "--quiet", "--bare", &format];
        self.checked(&args, Input::Nothing, Vec::new()).await.map(drop)
    }

    /// Makes this a repository for objects with ids like this one. A server that has changed from one
    /// kind to the other has no object in common with what it had.
    pub(crate) async fn take_format_of(&self, id: &ObjectId) -> Result<(), Failure> {
        let args = ["rev-parse", "--show-object-format"];
        let format = self.checked(&args, Input::Nothing, Vec::new()).await?;
        let wanted = if id.as_str().len() == 64 { "sha256" } else { "sha1" };
        match format.trim_ascii_end() == wanted.as_bytes() {
            true => Ok(()),
            false => self.init(wanted).await,
        }
    }

    /// Says that nothing is left half done.
    ///
    /// # Errors
    /// The directory cannot be used.
    pub fn close(self) -> Result<(), Failure> {
        fs::remove_file(self.place.join("busy")).map_err(|error| self.unusable(&error))
    }

    /// Whether somebody was here before and did not close it.
    fn begin(&self) -> io::Result<bool> {
        let busy = self.place.join("busy");
        let interrupted = busy.exists();
        fs::write(busy, "")?;
        remove(&self.home)?;
        fs::create_dir(&self.home)?;
        Ok(interrupted)
    }

    fn packs(&self) -> usize {
        let files = fs::read_dir(self.dir.join("objects/pack")).into_iter().flatten();
        files.flatten().filter(|file| file.path().extension() == Some("pack".as_ref())).count()
    }

    fn unusable(&self, error: &io::Error) -> Failure {
        let place = self.place.display();
        Failure::internal(format!("cannot keep a git repository in {place}")).cause(error)
    }

    pub(crate) fn home(&self) -> &Path {
        &self.home
    }

    pub(crate) fn is_shallow(&self) -> bool {
        fs::metadata(self.dir.join("shallow")).is_ok_and(|file| file.len() > 0)
    }

    pub(crate) fn call(&self, args: Vec<OsString>, input: Input) -> Call<'_> {
        Call {
            dir: &self.dir,
            home: &self.home,
            args,
            env: Vec::new(),
            settings: Vec::new(),
            protocols: "none",
            input,
            time: self.git.limits.local,
        }
    }

    /// Runs a command that stays on this machine.
    pub(crate) async fn local(
        &self,
        args: &[&str],
        input: Input,
        env: Vec<(&'static str, OsString)>,
    ) -> Result<Ended, Failure> {
        let mut call = self.call(args.iter().map(Into::into).collect(), input);
        call.env = env;
        self.git.run(call).await
    }

    /// The same; a command that fails means that what is here cannot be used (`Gone`).
    pub(crate) async fn checked(
        &self,
        args: &[&str],
        input: Input,
        env: Vec<(&'static str, OsString)>,
    ) -> Result<Vec<u8>, Failure> {
        let ended = self.local(args, input, env).await?;
        if ended.status.success() {
            return Ok(ended.output);
        }
        let what = args.first().copied().unwrap_or_default();
        let message = format!("git {what} failed: {}", own_words(&ended.messages));
        Err(Failure::new(FailureKind::Gone, message))
    }

    /// A command, and its progress meanwhile.
    pub(crate) async fn watched<T>(&self, gate: &Gate, running: impl Future<Output = T>) -> T {
        let Some(progress) = &self.progress else { return running.await };
        let mut running = std::pin::pin!(running);
        loop {
            match tokio::time::timeout(TICK, &mut running).await {
                Ok(result) => return result,
                Err(_) => progress(gate.received()),
            }
        }
    }
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes locks and unfinished files of a git that was killed.
fn clean(dir: &Path, depth: usize) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            // Loose objects lie in directories of two digits; there are none of ours to remove.
            if name.len() != 2 && depth < 32 {
                clean(&entry.path(), depth + 1)?;
            }
        } else if name.ends_with(".lock") || name.starts_with("tmp_") || name.starts_with(".tmp-") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
