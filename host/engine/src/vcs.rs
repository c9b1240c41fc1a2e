//! The options `vcs:…`: facts of the repository that the main context lies in.
//!
//! They are found out when a frontend first asks for one, once a build. A repository that cannot be
//! read is none, and the user is told.

use wbuild_api::event::Event;
use wbuild_api::request::ContextSpec;
use wbuild_git::{CommitFacts, ObjectId, RefName, work_tree};
use wbuild_git_url::git_source;
use wbuild_graph::{Attrs, Failure, Severity};

use crate::blocking;
use crate::job::Job;
use crate::source::git::RemoteFacts;
use crate::source::local::MAIN_CONTEXT;

/// What the names of these options begin with.
pub(crate) const PREFIX: &str = "vcs:";

/// How many digits of a commit are enough for people.
const SHORT: usize = 8;

/// The facts, by name without [`PREFIX`].
pub(crate) async fn facts(job: &Job) -> Attrs {
    let found = match job.request().contexts.get(MAIN_CONTEXT) {
        Some(ContextSpec::Local(path)) => of_directory(job, path.clone()).await,
        Some(ContextSpec::Git(url)) => of_url(job, url).await,
        _ => Ok(Attrs::default()),
    };
    found.unwrap_or_else(|failure| {
        let (plugin, severity) = ("wbuild".to_owned(), Severity::Warning);
        let text = format!("the git repository around the build context is left out: {failure}");
        job.steps().sink().event(Event::PluginLog { plugin, severity, text });
        Attrs::default()
    })
}

/// The repository whose work tree a directory lies in.
async fn of_directory(job: &Job, path: std::path::PathBuf) -> Result<Attrs, Failure> {
    let found = blocking(move || -> Result<_, Failure> {
        let Some(top) = work_tree(&path) else { return Ok(None) };
        let real = std::fs::canonicalize(&path).unwrap_or(path);
        let directory = real.strip_prefix(&top).unwrap_or(&real).to_string_lossy().into_owned();
        Ok(Some((top, directory)))
    })
    .await?;
    let Some((top, directory)) = found else { return Ok(Attrs::default()) };
    let Some(found) = job.worker().repositories.facts(&top).await? else {
        return Ok(Attrs::default());
    };
    let mut facts = Facts::default();
    facts.add("source", found.source.as_deref());
    facts.add("branch", found.branch.as_deref());
    facts.add("directory", Some(&directory));
    facts.refs(&found.refs);
    if let Some(commit) = &found.commit {
        facts.commit(commit, &found.about);
    }
    Ok(facts.0)
}

/// The repository that the main context is.
async fn of_url(job: &Job, url: &str) -> Result<Attrs, Failure> {
    let git = git_source(url)
        .ok_or_else(|| Failure::internal("a context is not the repository that it was"))?;
    let attrs = Attrs(git.attrs(false));
    Ok(of_remote(&job.worker().repositories.facts_of(&git.url, &git.reference, &attrs).await?))
}

/// What is known of a repository that is fetched.
pub(crate) fn of_remote(found: &RemoteFacts) -> Attrs {
    let mut facts = Facts::default();
    facts.add("source", Some(&found.source));
    facts.add("directory", Some(&found.directory));
    let branch = found.name.as_ref().filter(|name| !name.is_tag());
    facts.add("branch", branch.map(RefName::short));
    facts.refs(found.name.as_slice());
    facts.commit(&found.commit, &found.about);
    facts.0
}

#[derive(Default)]
struct Facts(Attrs);

impl Facts {
    /// What is empty is not known.
    fn add(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            self.0.push(name, value);
        }
    }

    fn refs(&mut self, refs: &[RefName]) {
        let list = |names: Vec<&str>| names.join(" ");
        self.add("refs", Some(&list(refs.iter().map(RefName::as_str).collect())));
        let tags = refs.iter().filter(|name| name.is_tag());
        self.add("tags", Some(&list(tags.map(RefName::short).collect())));
    }

    fn commit(&mut self, commit: &ObjectId, about: &CommitFacts) {
        self.add("revision", Some(commit.as_str()));
        self.add("short-revision", Some(&commit.as_str()[..SHORT]));
        self.add("author-name", Some(&about.author_name));
        self.add("author-email", Some(&about.author_email));
        self.add("co-authors", Some(&about.co_authors.join(" ")));
        self.add("author-timestamp", Some(&about.authored.to_string()));
        self.add("commit-timestamp", Some(&about.committed.to_string()));
    }
}
