//! Facts of repositories that somebody works in, and that others may have written.

#[path = "../../../tests/src/git.rs"]
#[allow(dead_code, missing_docs)]
mod server;
mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use server::Repo;
use support::{id, program};
use wbuild_git::{CommitFacts, Facts, work_tree};
use wbuild_graph::FailureKind;
use wbuild_http::Reach;

struct Place {
    _dir: tempfile::TempDir,
    top: PathBuf,
    home: PathBuf,
}

impl Place {
    fn new() -> Place {
        let dir = tempfile::tempdir().expect("directory");
        let (top, home) = (dir.path().join("top"), dir.path().join("home"));
        std::fs::create_dir(&home).expect("directory");
        Place { _dir: dir, top, home }
    }

    async fn facts(&self, top: &Path) -> Result<Option<Facts>, wbuild_graph::Failure> {
        program(Reach::Everything).facts(top, &self.home).await
    }
}

#[tokio::test]
async fn what_is_known() {
    let place = Place::new();
    assert_eq!(place.facts(&place.home).await.expect("an answer"), None);
    let repo = Repo::new(&place.top).expect("a repository");
    let before = place.facts(&place.top).await.expect("an answer").expect("a repository");
    assert_eq!(before, Facts { branch: Some("main".to_owned()), ..Facts::default() });

    repo.write("sub/file", "x").expect("file");
    repo.commit("first").expect("a commit");
    repo.git(["tag", "old"]).expect("a tag");
    let message = "second\n\nCo-authored-by: Somebody <s@example.org>\n";
    let commit = repo.commit(message).expect("a commit");
    for args in [
        &["checkout", "--quiet", "-b", "john/work"][..],
        &["tag", "-a", "-m", "x", "v1"],
        &["tag", "v1.1"],
        &["remote", "add", "origin", "https://me:secret@example.org/a.git"],
    ] {
        repo.git(args).expect("git works");
    }
    let facts = place.facts(&place.top).await.expect("an answer").expect("a repository");
    assert_eq!(facts.commit, Some(id(&commit)));
    assert_eq!(facts.branch.as_deref(), Some("john/work"));
    assert_eq!(facts.source.as_deref(), Some("https://example.org/a.git"));
    let names: Vec<&str> = facts.refs.iter().map(|name| name.as_str()).collect();
    assert_eq!(
        names,
        ["refs/heads/john/work", "refs/heads/main", "refs/tags/v1", "refs/tags/v1.1"]
    );
    let about = CommitFacts {
        author_name: "A".to_owned(),
        author_email: "a@example.org".to_owned(),
        authored: 1_700_000_000,
        committed: 1_700_000_000,
        co_authors: vec!["s@example.org".to_owned()],
        has_parents: true,
    };
    assert_eq!(facts.about, about);

    // No branch is checked out, in a second work tree.
    let other = place.home.with_file_name("other");
    let path = other.to_str().expect("text");
    repo.git(["worktree", "add", "--quiet", "--detach", path, "old"]).expect("a work tree");
    assert_eq!(work_tree(&other.join("sub")), Some(std::fs::canonicalize(&other).expect("path")));
    let facts = place.facts(&other).await.expect("an answer").expect("a repository");
    assert_eq!((facts.branch, facts.refs.len()), (None, 1));
}

/// Everything in a configuration that names a program, and whatever may start one.
#[tokio::test]
async fn nothing_of_the_repository_runs() {
    let place = Place::new();
    let repo = Repo::new(&place.top).expect("a repository");
    repo.write("file", "x").expect("file");
    let commit = repo.commit("first").expect("a commit");
    let canary = place.top.join("canary");
    let evil = place.top.join("evil");
    std::fs::write(&evil, format!("#!/bin/sh\necho \"$0\" \"$@\" >> {}\n", canary.display()))
        .expect("file");
    let hooks = place.top.join(".git/hooks");
    std::fs::create_dir_all(&hooks).expect("directory");
    for hook in ["reference-transaction", "post-index-change", "fsmonitor-watchman", "pre-auto-gc"]
    {
        std::fs::copy(&evil, hooks.join(hook)).expect("file");
    }
    for program in [&evil, &hooks.join("reference-transaction"), &hooks.join("fsmonitor-watchman")]
    {
        std::fs::set_permissions(program, PermissionsExt::from_mode(0o755)).expect("a mode");
    }
    let run = evil.display();
    let config = format!(
        "[core]\n\trepositoryFormatVersion = 1\n\tfsmonitor = {run}\n\tpager = {run}\n\teditor = {run}\n\tsshCommand = {run}\n\
         \taskPass = {run}\n\tgitProxy = {run}\n\talternateRefsCommand = {run}\n\thooksPath = {hooks}\n\
         [pager]\n\tconfig = {run}\n\trev-parse = {run}\n\tfor-each-ref = {run}\n\
         [gpg]\n\tprogram = {run}\n\tformat = openpgp\n[gpg \"ssh\"]\n\tprogram = {run}\n\
         [log]\n\tshowSignature = true\n[commit]\n\tgpgSign = true\n\
         [alias]\n\tconfig = !{run}\n\trev-parse = !{run}\n\tcat-file = !{run}\n\tfor-each-ref = !{run}\n\
         [credential]\n\thelper = !{run}\n[diff]\n\texternal = {run}\n[gc]\n\tauto = 1\n\
         [filter \"x\"]\n\tclean = {run}\n\tsmudge = {run}\n\tprocess = {run}\n\
         [protocol]\n\tallow = always\n[protocol \"ext\"]\n\tallow = always\n\
         [extensions]\n\tpartialClone = origin\n\
         [remote \"origin\"]\n\turl = ext::{run}\n\tpromisor = true\n\tuploadpack = {run}\n\tvcs = x\n\
         [trace2]\n\teventTarget = {canary}\n",
        hooks = hooks.display(),
        canary = canary.display(),
    );
    let path = place.top.join(".git/config");
    let before = std::fs::read_to_string(&path).expect("a file");
    std::fs::write(&path, format!("{before}{config}")).expect("file");
    repo.write(".gitattributes", "* filter=x diff=x\n").expect("file");
    let facts = place.facts(&place.top).await.expect("an answer").expect("a repository");
    assert_eq!(facts.commit, Some(id(&commit)));
    assert_eq!(facts.source.as_deref(), Some(&*format!("ext::{run}")));
    assert!(!canary.exists(), "{}", std::fs::read_to_string(&canary).unwrap_or_default());

    // What is missing here would have to be fetched.
    for url in [format!("ext::{run}"), place.home.display().to_string(), "ssh://h/x".to_owned()] {
        let config = config.replace(&format!("url = ext::{run}"), &format!("url = {url}"));
        std::fs::write(&path, format!("{before}{config}")).expect("file");
        std::fs::write(place.top.join(".git/refs/heads/main"), format!("{}\n", "1".repeat(40)))
            .expect("file");
        let answer = place.facts(&place.top).await;
        let commit = answer.map(|facts| facts.and_then(|facts| facts.commit));
        assert!(matches!(&commit, Ok(None) | Err(_)), "{commit:?}");
        assert!(!canary.exists(), "{}", std::fs::read_to_string(&canary).unwrap_or_default());
    }
}

#[tokio::test]
async fn a_repository_that_cannot_be_read() {
    let place = Place::new();
    Repo::new(&place.top).expect("a repository");
    std::fs::write(place.top.join(".git/config"), "[core\n").expect("file");
    let failure = place.facts(&place.top).await.expect_err("it cannot be read");
    assert_eq!(failure.kind, FailureKind::Invalid);
    // One that is elsewhere, and not there.
    std::fs::remove_dir_all(place.top.join(".git")).expect("directory");
    std::fs::write(place.top.join(".git"), "gitdir: /nonexistent\n").expect("file");
    assert!(place.facts(&place.top).await.is_err());
}
