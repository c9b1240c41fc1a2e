//! Files of git repositories: `ADD https://….git`, git URLs as contexts.
//!
//! A repository is asked once a build what its branches and tags lead to; the commit is the pin, so two
//! names of one commit are one source. With a whole commit nothing is asked. What is fetched is kept in
//! a bare repository of the store, and only what is not there is transferred, when something reads it.
//!
//! Git writes a commit's files into a directory of its own, from which they are copied like any other
//! files: so owners, modes and times are those of the rules here, whatever git or its umask make of
//! them. How git is kept from doing harm is written down in `wbuild_git`.

mod asked;

use std::collections::{HashMap, VecDeque};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::OnceCell;
use wbuild_api::session::Session;
use wbuild_git::{
    Access, Advertised, Authorization, CommitFacts, Facts, Found, Git, GitDir, ObjectId, RefName,
    Remote, Repository, Revision, Scheme, Want, commit_prefix,
};
use wbuild_graph::encode::Encoder;
use wbuild_graph::{Attrs, Digest, Failure, FailureKind};
use wbuild_http::Reach;
use wbuild_store::{CacheDir, Store};
use wbuild_tree::layer::{CopyOptions, Owner};
use wbuild_tree::root::Root;
use wbuild_tree::select::{SelectOptions, Source, SourceKind, select};
use wbuild_tree::stat::Timestamp;
use wbuild_tree::walk::Filter;

use crate::blocking;
use crate::cancel::CancelOnDrop;
use crate::ops::file::write_layer;
use crate::solved::{Solved, Tree};
use crate::source::registry::proxies;
use crate::steps::{InternalStep, Steps};
use asked::{Asked, Question};

/// Ids of the secrets that are looked at unless a source names others.
const TOKEN: &str = "GIT_AUTH_TOKEN";
const HEADER: &str = "GIT_AUTH_HEADER";
/// Most submodules of one source, and how deep one may lie in another.
const SUBMODULES: usize = 1000;
const DEPTH: usize = 16;
/// Modes of files and directories, whatever the process's umask has taken away.
const MODES: &str = "u=rwX,go=rX";

/// The git repositories of one build.
pub(crate) struct Repositories {
    store: Store,
    session: Arc<dyn Session>,
    steps: Arc<Steps>,
    search: Vec<PathBuf>,
    reach: Reach,
    git: OnceCell<Git>,
    offered: Mutex<HashMap<Question, Arc<OnceCell<Advertised>>>>,
}

/// What is known of a repository that is fetched.
pub(crate) struct RemoteFacts {
    pub(crate) commit: ObjectId,
    /// The branch or tag that leads to it.
    pub(crate) name: Option<RefName>,
    pub(crate) about: CommitFacts,
    /// Its URL, without what may be secret.
    pub(crate) source: String,
    /// The directory of it that is asked for.
    pub(crate) directory: String,
}

/// One repository to be written out.
struct Piece {
    remote: Remote,
    found: Found,
    /// Below the directory that is written.
    place: PathBuf,
    depth: usize,
}

impl Repositories {
    pub(crate) fn new(
        store: Store,
        session: Arc<dyn Session>,
        steps: Arc<Steps>,
        search: Vec<PathBuf>,
        reach: Reach,
    ) -> Repositories {
        let (git, offered) = (OnceCell::new(), Mutex::default());
        Repositories { store, session, steps, search, reach, git, offered }
    }

    /// What keys a repository's files: the commit and how it is laid down, whatever led to it.
    pub(crate) async fn pin(
        &self,
        url: &str,
        reference: &str,
        attrs: &Attrs,
    ) -> Result<Digest, Failure> {
        let asked = Asked::new(url, reference, attrs)?;
        let found = self.find(&asked).await?;
        // Every field is named: a new one has to be thought of. How a commit is asked for does not
        // count, once it is known.
        #[rustfmt::skip]
        let Asked {
            remote: _, revision: _, checksum: _, subdir, keep_git_dir: _, submodules, commit_time,
            token_secret: _, header_secret: _, ssh: _, known_hosts: _,
        } = &asked;
        let mut e = Encoder::new("wbuild.git-pin.v1");
        e.str(found.commit.as_str());
        e.str(subdir);
        e.bool(*submodules);
        e.bool(*commit_time);
        // What `.git` says beside the commit.
        e.option(asked.has_git_dir().then_some(&found), |e, found| {
            e.str(&asked.remote.url());
            e.option(found.name.as_ref(), |e, name| {
                e.str(name.as_str());
            });
            e.option(found.tag.as_ref(), |e, tag| {
                e.str(tag.as_str());
            });
        });
        Ok(e.finish())
    }

    /// For frontends: the commit, and the object of the annotated tag that led to it.
    pub(crate) async fn resolve(
        &self,
        url: &str,
        reference: &str,
        attrs: &Attrs,
    ) -> Result<(ObjectId, Option<ObjectId>), Failure> {
        let found = self.find(&Asked::new(url, reference, attrs)?).await?;
        Ok((found.commit, found.tag))
    }

    /// The files as a layer.
    pub(crate) async fn fetch(
        &self,
        url: &str,
        reference: &str,
        attrs: &Attrs,
        now: u64,
    ) -> Result<Arc<Solved>, Failure> {
        let asked = Asked::new(url, reference, attrs)?;
        let found = self.find(&asked).await?;
        let store = self.store.clone();
        let scratch = blocking(move || store.begin_snapshot()).await?;
        let time = self.write_out(&asked, found, &scratch.fs_path()).await?;
        let time = time.unwrap_or_else(|| i64::try_from(now).unwrap_or(0));
        let (store, (_cancel, work)) = (self.store.clone(), CancelOnDrop::new());
        let layer = blocking(move || {
            let root = Root::open(&scratch.fs_path().join(&asked.subdir), "the git repository")?;
            let filter = Filter::all();
            let source = Source { root: &root, filter: &filter, kind: SourceKind::Image };
            let everything = SelectOptions { contents_only: true, ..SelectOptions::default() };
            let selection = select(&source, &["/"], &everything, &work)?;
            let options = CopyOptions {
                owner: Owner::Fixed { uid: 0, gid: 0 },
                mode: Some(MODES.parse()?),
                timestamp: Some(Timestamp::from_secs(time)),
                ..CopyOptions::default()
            };
            let layer = write_layer(&store, None, now, &work, None, |writer| {
                Ok(writer.copy(&source, &selection, "/", &options).map(drop)?)
            });
            drop(scratch);
            layer
        })
        .await?;
        Ok(Solved::tree(Tree::new(vec![layer])))
    }

    /// What a source stands for now; a repository is asked once a build.
    async fn find(&self, asked: &Asked) -> Result<Found, Failure> {
        let remote = &asked.remote;
        if let Revision::Commit(_) = asked.revision {
            let found = Advertised::default().find(&asked.revision);
            let found = found.ok_or_else(|| Failure::internal("a commit is not itself"))?;
            asked.verify(&found)?;
            return Ok(found);
        }
        let slot = {
            let mut offered = self.offered.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(offered.entry(asked.question()).or_default())
        };
        let ask = || async {
            let access = self.access(asked, remote).await?;
            let (kept, held) = self.open(remote).await?;
            let offered = kept.advertised(remote, &access).await?;
            close(kept, held)?;
            Ok::<_, Failure>(offered)
        };
        let offered = slot.get_or_try_init(ask).await?;
        let found = match (offered.find(&asked.revision), &asked.revision) {
            (Some(found), _) => found,
            (None, Revision::Name(name)) if commit_prefix(name).is_some() => {
                let access = self.access(asked, remote).await?;
                let (kept, held) = self.open(remote).await?;
                let commit = kept.expand(remote, &access, name).await?;
                close(kept, held)?;
                let missing = || offered.missing(remote, &asked.revision);
                Found { commit: commit.ok_or_else(missing)?, name: None, tag: None }
            }
            (None, _) => return Err(offered.missing(remote, &asked.revision)),
        };
        asked.verify(&found)?;
        Ok(found)
    }

    /// Writes the files of a commit and of its submodules; the time they should have, unless that is
    /// the present.
    async fn write_out(
        &self,
        asked: &Asked,
        found: Found,
        into: &Path,
    ) -> Result<Option<i64>, Failure> {
        let mut time = None;
        let mut count = 0;
        let top = Piece { remote: asked.remote.clone(), found, place: PathBuf::new(), depth: 0 };
        let mut pieces = VecDeque::from([top]);
        while let Some(piece) = pieces.pop_front() {
            let is_top = piece.depth == 0;
            let access = self.access(asked, &piece.remote).await?;
            // One after the other, and none held meanwhile: repositories may contain each other.
            let (kept, held) = self.open(&piece.remote).await?;
            let mut kept = kept;
            let mut result =
                self.write_piece(asked, &mut kept, &piece, &access, into, &mut time).await;
            if result.as_ref().is_err_and(|failure| failure.kind == FailureKind::Gone) {
                // What was kept is damaged: once more from nothing.
                kept.reset().await?;
                result = self.write_piece(asked, &mut kept, &piece, &access, into, &mut time).await;
            }
            let submodules = result.map_err(|mut failure| match is_top {
                _ if failure.kind == FailureKind::Gone => {
                    // Nothing that solving it again would bring.
                    failure.kind = FailureKind::Internal;
                    failure
                }
                true => failure,
                false => failure.context(format!(
                    "the submodule {:?} cannot be fetched",
                    piece.place.display().to_string()
                )),
            })?;
            close(kept, held)?;
            for submodule in submodules {
                count += 1;
                if count > SUBMODULES || piece.depth == DEPTH {
                    let message = format!(
                        "{} has more than {SUBMODULES} submodules, or {DEPTH} in each other",
                        asked.remote
                    );
                    return Err(Failure::new(FailureKind::Limit, message));
                }
                let place = piece.place.join(OsStr::from_bytes(&submodule.path));
                let (remote, depth) = (submodule.remote, piece.depth + 1);
                let found = Found { commit: submodule.commit, name: None, tag: None };
                pieces.push_back(Piece { remote, found, place, depth });
            }
        }
        Ok(time)
    }

    async fn write_piece(
        &self,
        asked: &Asked,
        kept: &mut Repository,
        piece: &Piece,
        access: &Access,
        into: &Path,
        time: &mut Option<i64>,
    ) -> Result<Vec<wbuild_git::Submodule>, Failure> {
        let Piece { remote, found, place, depth } = piece;
        let commit = &found.commit;
        let want = Want { commit, name: found.name.as_ref(), tag: found.tag.as_ref() };
        if !kept.has(&want).await? {
            let step = self.steps.internal(&format!("fetch {remote}"));
            let step = Arc::new(Mutex::new(step));
            let (shown, name) = (Arc::clone(&step), remote.to_string());
            kept.on_progress(Some(Box::new(move |bytes| {
                let step: &InternalStep = &shown.lock().unwrap_or_else(PoisonError::into_inner);
                step.progress(&name, bytes, None);
            })));
            let result = kept.fetch(remote, access, &want).await;
            kept.on_progress(None);
            // Where it fails, the source does, which says where it stands in the definition.
            result?;
            if let Some(Ok(step)) = Arc::into_inner(step).map(Mutex::into_inner) {
                step.done();
            }
        }
        let is_top = *depth == 0;
        let subdir = if is_top { asked.subdir.as_str() } else { "" };
        let tree = kept.tree(commit, subdir).await.map_err(|failure| match failure.kind {
            FailureKind::NotFound | FailureKind::Invalid => {
                failure.context(format!("{remote} cannot be used"))
            }
            _ => failure,
        })?;
        let place = into.join(place);
        // A directory may hold nothing but submodules, or nothing.
        std::fs::create_dir_all(place.join(subdir)).map_err(|error| {
            Failure::internal("cannot make a directory for a repository").cause(&error)
        })?;
        kept.checkout(commit, &tree, &place).await?;
        if is_top && asked.has_git_dir() {
            let about = GitDir { remote, name: found.name.as_ref(), tag: found.tag.as_ref() };
            kept.write_git_dir(commit, &about, &place).await?;
        }
        if is_top && asked.commit_time {
            *time = Some(kept.about(commit).await?.committed);
        }
        match asked.submodules {
            true => kept.submodules(remote, commit, &tree).await,
            false => Ok(Vec::new()),
        }
    }

    /// What is known of the repository of a work tree on this machine; none if there is none.
    pub(crate) async fn facts(&self, top: &Path) -> Result<Option<Facts>, Failure> {
        let git = self.program().await?;
        let store = self.store.clone();
        // A place for git, of which nothing is kept.
        let scratch = blocking(move || store.begin_snapshot()).await?;
        git.facts(top, &scratch.fs_path()).await
    }

    /// What is known of a repository behind a URL.
    pub(crate) async fn facts_of(
        &self,
        url: &str,
        reference: &str,
        attrs: &Attrs,
    ) -> Result<RemoteFacts, Failure> {
        let asked = Asked::new(url, reference, attrs)?;
        let found = self.find(&asked).await?;
        let (remote, access) = (&asked.remote, self.access(&asked, &asked.remote).await?);
        let (kept, held) = self.open(remote).await?;
        let (commit, name) = (&found.commit, found.name.as_ref());
        let want = Want { commit, name, tag: found.tag.as_ref() };
        if !kept.has(&want).await? {
            kept.fetch(remote, &access, &want).await?;
        }
        let about = kept.about(commit).await?;
        close(kept, held)?;
        let source = remote.to_string();
        let Found { commit, name, .. } = found;
        Ok(RemoteFacts { commit, name, about, source, directory: asked.subdir })
    }

    /// Git, looked for once a build.
    async fn program(&self) -> Result<&Git, Failure> {
        let program = || async {
            Ok::<_, Failure>(
                program(&self.search, self.reach)?.with_proxies(proxies(&*self.session)),
            )
        };
        self.git.get_or_try_init(program).await
    }

    /// The kept repository of a URL, for one user at a time.
    async fn open(&self, remote: &Remote) -> Result<(Repository, CacheDir), Failure> {
        let git = self.program().await?;
        let mut pause = Duration::from_millis(1);
        let held = loop {
            let (store, url) = (self.store.clone(), remote.url());
            match blocking(move || store.try_repository(&url)).await? {
                Some(held) => break held,
                None => tokio::time::sleep(pause).await,
            }
            pause = (pause * 2).min(Duration::from_millis(100));
        };
        Ok((Repository::open(git, &held.path()).await?, held))
    }

    /// What the server of `remote`, the repository asked for or a submodule of it, is shown.
    async fn access(&self, asked: &Asked, remote: &Remote) -> Result<Access, Failure> {
        let mut access = Access::default();
        match remote.scheme() {
            Scheme::Https | Scheme::Http => {
                access.authorization = self.authorization(asked, remote).await?;
            }
            Scheme::Git => {}
            Scheme::Ssh => {
                let id = asked.ssh.as_deref().unwrap_or("default");
                access.agent = self.session.ssh_socket(id);
                if access.agent.is_none() && asked.ssh.is_some() {
                    return Err(Failure::not_found(format!("the ssh agent {id} is not there"))
                        .hint(format!("lend it with --ssh {id}")));
                }
                access.known_hosts = match &asked.known_hosts {
                    Some(known) => known.clone().into_bytes(),
                    None => self.session.known_hosts().await?,
                };
            }
        }
        Ok(access)
    }

    /// The credential for a server, from the secrets that `docker build` looks at. Those without a
    /// host in their name are for the repository that was asked for.
    async fn authorization(
        &self,
        asked: &Asked,
        remote: &Remote,
    ) -> Result<Option<Authorization>, Failure> {
        let header_id = asked.header_secret.as_deref().unwrap_or(HEADER);
        let token_id = asked.token_secret.as_deref().unwrap_or(TOKEN);
        let host = remote.host_and_port();
        let is_own = asked.remote.same_origin(remote);
        let ids = [
            (format!("{header_id}.{host}"), false, true),
            (format!("{token_id}.{host}"), true, true),
            (header_id.to_owned(), false, is_own),
            (token_id.to_owned(), true, is_own),
        ];
        for (id, is_token, allowed) in ids {
            if !allowed {
                continue;
            }
            let Some(secret) = self.session.secret(&id).await? else { continue };
            let malformed =
                || Failure::invalid(format!("the secret {id} cannot be sent to a server"));
            let secret = std::str::from_utf8(&secret).map_err(|_| malformed())?.trim_end();
            return match is_token {
                true => Ok(Some(Authorization::basic("x-access-token", secret))),
                false => Authorization::header(secret).map(Some).map_err(|_| malformed()),
            };
        }
        for id in [&asked.header_secret, &asked.token_secret].into_iter().flatten() {
            if is_own {
                return Err(Failure::not_found(format!("the secret {id} is not there"))
                    .hint(format!("give it with --secret id={id},src=FILE")));
            }
        }
        let own = remote.user().zip(remote.password()).filter(|_| is_own);
        Ok(own.map(|(user, password)| Authorization::basic(user, password)))
    }
}

fn program(search: &[PathBuf], reach: Reach) -> Result<Git, Failure> {
    let program = wbuild_exec::runtime::find_program("git", search).ok_or_else(|| {
        Failure::not_found("the program git, which fetches repositories, is not installed")
            .hint("install the package git")
    })?;
    Ok(Git::new(program, search, reach))
}

/// Gives a kept repository back.
fn close(kept: Repository, held: CacheDir) -> Result<(), Failure> {
    kept.close()?;
    drop(held);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_git_it_says_what_to_install() {
        let failure = program(&["/nonexistent".into()], Reach::Public).expect_err("no git");
        assert_eq!(failure.kind, FailureKind::NotFound);
        assert!(failure.hints[0].contains("package git"));
    }
}
