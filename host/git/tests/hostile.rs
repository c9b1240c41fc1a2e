//! Repositories and servers that mean harm: nothing is run, and nothing is written elsewhere.

#[path = "../../../tests/src/git.rs"]
#[allow(dead_code, missing_docs)]
mod server;
mod support;

use std::path::Path;
use std::time::Duration;

use server::{Behaviour, HttpServer, Repo};
use support::{Place, get, id, program, remote};
use wbuild_git::{Access, Authorization, Limits, Repository, Revision, Want};
use wbuild_graph::FailureKind;
use wbuild_http::{GateLimits, Reach};

/// What must come of a commit.
enum Outcome {
    /// Refused, for this reason.
    Refused(FailureKind),
    /// Written, with a file `ok` in it.
    Written,
}
use Outcome::{Refused, Written};

type Change = fn(&mut Limits);
type Make = fn(&Repo, &Path) -> anyhow::Result<()>;

/// Name, the commit, the outcome.
const COMMITS: &[(&str, Make, Outcome)] = &[
    ("a file in .git", dot_git, Refused(FailureKind::Denied)),
    (
        "a link as .git",
        |repo, canary| tree(repo, &[("120000", &text(canary), ".git")]),
        Refused(FailureKind::Denied),
    ),
    ("a directory .GIT", |repo, _| nested(repo, ".GIT"), Refused(FailureKind::Denied)),
    ("a directory ..", |repo, _| nested(repo, ".."), Refused(FailureKind::Denied)),
    ("a directory .", |repo, _| nested(repo, "."), Refused(FailureKind::Denied)),
    (
        "a name with a slash",
        |repo, _| tree(repo, &[("100644", "x", "../../canary")]),
        Refused(FailureKind::Denied),
    ),
    ("a short name of .git", |repo, _| nested(repo, "git~1"), Refused(FailureKind::Denied)),
    ("a hidden .git", |repo, _| nested(repo, ".g\u{200c}it"), Refused(FailureKind::Denied)),
    ("a link and a directory of one name", link_and_directory, Refused(FailureKind::Denied)),
    (
        "a link as .gitmodules",
        |repo, _| tree(repo, &[("120000", "/etc/passwd", ".gitmodules")]),
        Refused(FailureKind::Denied),
    ),
    (
        "a link as .gitattributes",
        |repo, _| {
            tree(repo, &[("120000", "/etc/passwd", ".gitattributes"), ("100644", "ok", "ok")])
        },
        Written,
    ),
    (
        "links that lead out",
        |repo, canary| {
            let (absolute, relative) = (text(canary), "../../../canary");
            tree(
                repo,
                &[("120000", &absolute, "a"), ("120000", relative, "b"), ("100644", "ok", "ok")],
            )
        },
        Written,
    ),
    (
        "a link that is too long",
        |repo, _| tree(repo, &[("120000", &"x/".repeat(4000), "a")]),
        Refused(FailureKind::Limit),
    ),
    ("a filter", filter, Written),
    (
        "an encoding that is none",
        |repo, _| {
            tree(
                repo,
                &[
                    ("100644", "ok working-tree-encoding=UTF-99\n", ".gitattributes"),
                    ("100644", "ok", "ok"),
                ],
            )
        },
        Written,
    ),
    ("configuration beside the files", configuration, Written),
    (
        "names like options",
        |repo, _| {
            tree(repo, &[("100644", "x", "--force"), ("100644", "x", "-x"), ("100644", "ok", "ok")])
        },
        Written,
    ),
    (
        "names like patterns",
        |repo, _| {
            tree(repo, &[("100644", "x", "*"), ("100644", "x", ":(glob)x"), ("100644", "ok", "ok")])
        },
        Written,
    ),
    (
        "names with control characters",
        |repo, _| {
            tree(
                repo,
                &[("100644", "x", "a\nb"), ("100644", "x", "\u{1b}[2J"), ("100644", "ok", "ok")],
            )
        },
        Written,
    ),
    // Git takes it for a submodule.
    (
        "a mode that is none",
        |repo, _| tree(repo, &[("20666", "x", "device"), ("100644", "ok", "ok")]),
        Written,
    ),
    (
        "set-id bits",
        |repo, _| tree(repo, &[("106755", "x", "suid"), ("100644", "ok", "ok")]),
        Written,
    ),
    (
        "a submodule without .gitmodules",
        |repo, _| {
            let commit = "1111111111111111111111111111111111111111";
            tree(repo, &[("160000", commit, "module"), ("100644", "ok", "ok")])
        },
        Written,
    ),
];

fn text(path: &Path) -> String {
    path.display().to_string()
}

fn tree(repo: &Repo, entries: &[(&str, &str, &str)]) -> anyhow::Result<()> {
    repo.commit_tree(entries).map(drop)
}

/// A directory of that name with a file.
fn nested(repo: &Repo, name: &str) -> anyhow::Result<()> {
    let inner = repo.tree(&[("100755", "#!/bin/sh\ntouch CANARY\n", "canary")])?;
    tree(repo, &[("40000", &inner, name), ("100644", "ok", "ok")])
}

fn dot_git(repo: &Repo, canary: &Path) -> anyhow::Result<()> {
    let script = format!("#!/bin/sh\ntouch {}\n", text(canary));
    let hooks = repo.tree(&[("100755", &script, "post-checkout")])?;
    let git = repo.tree(&[("40000", &hooks, "hooks")])?;
    tree(repo, &[("40000", &git, ".git")])
}

fn link_and_directory(repo: &Repo, canary: &Path) -> anyhow::Result<()> {
    let above = text(canary.parent().expect("a directory"));
    let inner = repo.tree(&[("100644", "x", "canary")])?;
    tree(repo, &[("120000", &above, "a"), ("40000", &inner, "a")])
}

fn filter(repo: &Repo, canary: &Path) -> anyhow::Result<()> {
    let run = format!("[filter \"evil\"]\n\tsmudge = touch {}\n\trequired = true\n", text(canary));
    let attributes = "* filter=evil diff=evil merge=evil\n*.x filter=lfs\n";
    tree(
        repo,
        &[
            ("100644", attributes, ".gitattributes"),
            ("100644", &run, ".gitconfig"),
            ("100644", "ok", "ok"),
        ],
    )
}

fn configuration(repo: &Repo, canary: &Path) -> anyhow::Result<()> {
    let run = format!("[core]\n\tfsmonitor = touch {0}\n\tsshCommand = touch {0}\n", text(canary));
    let hooks = repo.tree(&[(
        "100755",
        &format!("#!/bin/sh\ntouch {}\n", text(canary)),
        "post-index-change",
    )])?;
    // What a bare repository looks like.
    tree(
        repo,
        &[
            ("100644", "ref: refs/heads/main\n", "HEAD"),
            ("100644", &run, "config"),
            ("40000", &hooks, "hooks"),
            ("40000", &hooks, "objects"),
            ("100644", "ok", "ok"),
            ("40000", &hooks, "refs"),
        ],
    )
}

#[tokio::test]
async fn commits() {
    let place = Place::new();
    let server = place.http();
    let canary = place.path("canary");
    let mut wrong = String::new();
    for (number, (name, make, outcome)) in COMMITS.iter().enumerate() {
        let repo = place.repo(&format!("{number}.git"));
        make(&repo, &canary).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        let remote = remote(&server.url(&format!("{number}.git")));
        let kept = place.kept_as(&format!("kept-{number}")).await;
        let out = place.out(&format!("{number}"));
        let result = get(&kept, &remote, "main", "", &out).await;
        match (outcome, result) {
            (Written, Ok(_)) if out.join("ok").is_file() => {}
            (Refused(kind), Err(failure)) if failure.kind == *kind => {}
            (_, Ok(_)) => wrong.push_str(&format!("{name}: written\n")),
            (_, Err(failure)) => wrong.push_str(&format!("{name}: {:?} {failure}\n", failure.kind)),
        }
        for elsewhere in [&canary, &place.path("out/canary"), &place.path("ok")] {
            assert!(!elsewhere.exists(), "{name}: {}", elsewhere.display());
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// `.gitmodules`, and what is said about it.
const MODULES: &[(&str, &str)] = &[
    ("[submodule \"x\"]\npath = m\nurl = ext::sh -c touch% CANARY\n", "white space"),
    ("[submodule \"x\"]\npath = m\nurl = ext::sh\n", "not the URL"),
    ("[submodule \"x\"]\npath = m\nurl = file:///CANARY\n", "may not fetch"),
    ("[submodule \"x\"]\npath = m\nurl = /CANARY\n", "not the URL"),
    ("[submodule \"x\"]\npath = m\nurl = --upload-pack=touch\n", "dash"),
    ("[submodule \"x\"]\npath = m\nurl = ssh://-oProxyCommand=touch/x\n", "malformed"),
    ("[submodule \"x\"]\npath = m\nurl = ../../../../x\n", "above"),
    ("[submodule \"x\"]\npath = m\nurl = \"https://h/a\\nb\"\n", "control"),
    ("[submodule \"x\"]\npath = m\n", "does not say"),
    // CVE-2025-48384: a path with a carriage return at its end is another path.
    ("[submodule \"x\"]\npath = \"m\r\"\nurl = https://h/a\n", "does not say"),
    ("[submodule \"../../x\"]\npath = ../m\nurl = https://h/a\n", "does not say"),
    ("[submodule \"x\"]\npath = m\nurl = https://h/a\n[broken\n", "malformed"),
    ("[include]\npath = CANARY\n", "does not say"),
];

#[tokio::test]
async fn submodules() {
    let place = Place::new();
    let server = place.http();
    let repo = place.repo("a.git");
    let kept = place.kept().await;
    let remote = remote(&server.url("a.git"));
    let commit = "1111111111111111111111111111111111111111";
    let canary = place.path("canary");
    std::fs::write(&canary, "[submodule \"x\"]\npath = m\nurl = https://h/a\n").expect("file");
    for (text, said) in MODULES {
        let text = text.replace("CANARY", &canary.display().to_string());
        let outer = repo.commit_tree(&[("100644", &text, ".gitmodules"), ("160000", commit, "m")]);
        let outer = id(&outer.expect("a commit"));
        let want = Want { commit: &outer, name: None, tag: None };
        let fetched = kept.fetch(&remote, &Access::default(), &want).await;
        let failure = match fetched {
            Ok(()) => {
                let tree = kept.tree(&outer, "").await.expect("a tree");
                kept.submodules(&remote, &outer, &tree).await.expect_err(&text)
            }
            // Git itself knows some of them.
            Err(failure) => {
                assert_eq!(failure.kind, FailureKind::Denied, "{text}: {failure}");
                continue;
            }
        };
        let whole = failure.to_string();
        assert!(whole.contains(said), "{text}: {whole}");
    }
}

/// An answer of a server's to `ls-remote`, first version of the protocol.
fn advertisement(head: &str, refs: &[(&str, &str)]) -> Vec<u8> {
    let line = |text: String| format!("{:04x}{text}", text.len() + 4);
    let mut out = line("# service=git-upload-pack\n".to_owned()) + "0000";
    for (number, (object, name)) in refs.iter().enumerate() {
        let more = if number == 0 { format!("\0symref=HEAD:{head}") } else { String::new() };
        out += &line(format!("{object} {name}{more}\n"));
    }
    (out + "0000").into_bytes()
}

#[tokio::test]
async fn names_that_are_options() {
    let place = Place::new();
    let server = place.http();
    let kept = place.kept().await;
    let remote = remote(&server.url("a.git"));
    let one = "1111111111111111111111111111111111111111";
    for head in ["-x", "--upload-pack=touch", "refs/heads/-x", "refs/heads/../../x"] {
        let body = advertisement(head, &[(one, "HEAD"), (one, head), (one, "refs/heads/main")]);
        let kind = "application/x-git-upload-pack-advertisement".to_owned();
        let canned = Some(("/info/refs".to_owned(), kind, body));
        server.behave(Behaviour { canned, ..Behaviour::default() });
        match kept.advertised(&remote, &Access::default()).await {
            Ok(offered) => {
                let found = offered.find(&Revision::Default).expect("a default");
                assert_eq!(found.name, None, "{head}");
            }
            // Git itself refuses some.
            Err(failure) => assert!(!failure.to_string().is_empty()),
        }
    }
}

#[tokio::test]
async fn credentials_go_to_their_host_only() {
    let place = Place::new();
    place.repo("a.git").commit("first").expect("commit");
    let (own, other) = (place.http(), place.http());
    let kept = place.kept().await;
    let header = "Bearer s3cr3t";
    let access = Access {
        authorization: Some(Authorization::header(header).expect("a header")),
        ..Access::default()
    };
    own.behave(Behaviour {
        redirect: Some((
            "/moved.git".to_owned(),
            other.url("a.git/info/refs?service=git-upload-pack"),
        )),
        authorization: Some(header.to_owned()),
        ..Behaviour::default()
    });
    let remote = |path: &str| support::remote(&own.url(path));
    kept.advertised(&remote("a.git"), &access).await.expect("let in");
    let failure = kept.advertised(&remote("moved.git"), &access).await.expect_err("moved");
    assert_eq!(failure.kind, FailureKind::Denied, "{failure}");
    assert!(other.take_requests().is_empty());
    // Without one there is nothing to be lost.
    kept.advertised(&remote("moved.git"), &Access::default()).await.expect("followed");
    let asked = other.take_requests();
    assert!(
        !asked.is_empty() && asked.iter().all(|asked| !asked.headers.contains_key("authorization"))
    );
    // Neither in messages nor in what is kept.
    let wrong = Access {
        authorization: Some(Authorization::header("Bearer wr0ng").expect("a header")),
        ..Access::default()
    };
    let failure = kept.advertised(&remote("a.git"), &wrong).await.expect_err("refused");
    assert_eq!(failure.kind, FailureKind::Denied);
    let text = format!("{failure:?}{wrong:?}");
    assert!(!text.contains("wr0ng") && text.contains("credential"), "{text}");
    assert!(Authorization::header("a\r\nX: y").is_err() && Authorization::header("").is_err());
}

#[tokio::test]
async fn redirects_stay_within_http() {
    let place = Place::new();
    let server = place.http();
    let kept = place.kept().await;
    let canary = place.path("served/canary");
    for to in [
        format!("file://{}", canary.display()),
        "git://127.0.0.1:1/a".to_owned(),
        "ssh://127.0.0.1/a".to_owned(),
        "ext::sh".to_owned(),
        "gopher://127.0.0.1/".to_owned(),
    ] {
        let redirect = Some(("/a.git".to_owned(), to.clone()));
        server.behave(Behaviour { redirect, ..Behaviour::default() });
        let remote = remote(&server.url("a.git"));
        kept.advertised(&remote, &Access::default()).await.map(drop).expect_err(&to);
    }
}

#[tokio::test]
async fn limits() {
    let place = Place::new();
    let repo = place.repo("a.git");
    let mut noise: u64 = 1;
    let bytes = std::iter::repeat_with(|| {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (noise >> 33) as u8
    });
    let bytes = bytes.take(1 << 20).collect::<Vec<u8>>();
    repo.write("ok", &bytes).expect("file");
    repo.write("more", "x").expect("file");
    repo.commit("first").expect("commit");
    let server = place.http();
    let remote = remote(&server.url("a.git"));
    let with = |change: Change| {
        let mut limits = Limits::default();
        change(&mut limits);
        program(Reach::Everything).with_limits(limits)
    };
    let cases: [(&str, Change); 5] = [
        ("transfer", |limits| limits.gate = GateLimits { bytes: 100_000, ..GateLimits::default() }),
        ("file", |limits| limits.file = 100_000),
        ("entries", |limits| limits.entries = 1),
        ("tree", |limits| limits.tree = 100_000),
        ("output", |limits| limits.output = 20),
    ];
    for (name, change) in cases {
        let dir = place.path(name);
        std::fs::create_dir(&dir).expect("directory");
        let kept = Repository::open(&with(change), &dir).await.expect("a repository");
        let failure = get(&kept, &remote, "main", "", &place.out(name)).await.expect_err(name);
        assert_eq!(failure.kind, FailureKind::Limit, "{name}: {failure}");
    }
    // A server that says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/a.git", silent.local_addr().expect("an address"));
    let git = with(|limits| {
        limits.gate = GateLimits { stall: Duration::from_millis(200), ..GateLimits::default() };
    });
    let kept = Repository::open(&git, &place.path("kept")).await.expect("a repository");
    let failure = kept.advertised(&support::remote(&url), &Access::default()).await;
    assert_eq!(failure.expect_err("stalled").kind, FailureKind::Unavailable);
}

#[tokio::test]
async fn nothing_inner_is_reached() {
    let place = Place::new();
    place.repo("a.git").commit("first").expect("commit");
    let server: HttpServer = place.http();
    let kept =
        Repository::open(&program(Reach::Public), &place.path("kept")).await.expect("opened");
    let port = server.host().rsplit(':').next().expect("a port").to_owned();
    for url in [
        server.url("a.git"),
        format!("http://localhost:{port}/a.git"),
        format!("http://[::ffff:127.0.0.1]:{port}/a.git"),
        format!("http://2130706433:{port}/a.git"),
        "http://169.254.169.254/a.git".to_owned(),
        format!("git://127.0.0.1:{port}/a.git"),
        format!("git://localhost:{port}/a.git"),
        format!("ssh://git@127.0.0.1:{port}/a.git"),
        "git@localhost:a.git".to_owned(),
    ] {
        let failure = kept.advertised(&remote(&url), &Access::default()).await.expect_err(&url);
        assert_eq!(failure.kind, FailureKind::Denied, "{url}: {failure}");
        assert!(failure.hints.iter().any(|hint| hint.contains("network.private")), "{failure:?}");
    }
    assert!(server.take_requests().is_empty());
}
