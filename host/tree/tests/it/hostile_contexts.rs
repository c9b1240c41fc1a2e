//! Contexts that hold what nobody expects in them, or that change while they are read: each is read
//! rightly or refused by name, at once and without leaving the context.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FileType, makedev, mknodat};
use wbuild_tree::{Result, Root, Source, Work, select};

use crate::support::*;

/// What a copy of a case must come to.
enum Want {
    /// The layer holds these, as [`Tree::list`] prints them.
    Holds(&'static [&'static str]),
    /// An error that says this.
    Says(&'static str),
}
use Want::{Holds, Says};

struct Case {
    name: &'static str,
    make: fn(&Tree),
    copy: &'static str,
    want: Want,
}

fn device(tree: &Tree, name: &str, kind: FileType) {
    // Without the right to make one there is nothing to be refused: a FIFO stands in for it.
    if mknodat(CWD, tree.path(name), kind, 0o666.into(), makedev(1, 3)).is_err() {
        fifo(tree, name);
    }
}

fn fifo(tree: &Tree, name: &str) {
    mknodat(CWD, tree.path(name), FileType::Fifo, 0o644.into(), 0).unwrap();
}

const CASES: &[Case] = &[
    Case {
        name: "an absolute link stays in the context",
        make: |tree| tree.add("l->/etc/passwd"),
        copy: "l",
        want: Says(r#""l" leads to "/etc/passwd", which does not exist in the build context"#),
    },
    Case {
        name: "an absolute link means a file of the context",
        make: |tree| {
            ["l->/etc/passwd", "644 etc/passwd=mine"].into_iter().for_each(|l| tree.add(l))
        },
        copy: "l",
        want: Holds(&["o dir 755", "o/l 644 = mine"]),
    },
    Case {
        name: "a relative link does not climb out",
        make: |tree| tree.add("d/l->../../../../../../../../etc/passwd"),
        copy: "d/l",
        want: Says("which does not exist in the build context"),
    },
    Case {
        name: "a directory that is a link out of the context",
        make: |tree| tree.add("d->/etc"),
        copy: "d/passwd",
        want: Says(r#"leads to "/etc/passwd", which does not exist"#),
    },
    Case {
        name: "a link in a directory is copied as a link",
        make: |tree| tree.add("d/l->/etc/passwd"),
        copy: "d",
        want: Holds(&["o dir 755", "o/l -> /etc/passwd"]),
    },
    Case {
        name: "links in a circle",
        make: |tree| ["a->b", "b->a"].into_iter().for_each(|l| tree.add(l)),
        copy: "a",
        want: Says(r#""a""#),
    },
    Case {
        name: "a directory that is a link to itself",
        make: |tree| tree.add("d/again->."),
        copy: "d",
        want: Holds(&["o dir 755", "o/again -> ."]),
    },
    Case {
        name: "a path below a link to itself",
        make: |tree| ["644 d/f=F", "d/again->."].into_iter().for_each(|l| tree.add(l)),
        copy: "d/again/again/again/f",
        want: Holds(&["o dir 755", "o/f 644 = F"]),
    },
    Case {
        name: "a FIFO by its name",
        make: |tree| fifo(tree, "pipe"),
        copy: "pipe",
        want: Says(r#"cannot copy "pipe" from the build context: it is a FIFO"#),
    },
    Case {
        name: "a FIFO below a directory",
        make: |tree| (tree.add("d/"), fifo(tree, "d/pipe")).1,
        copy: "d",
        want: Says(r#"cannot copy "d/pipe" from the build context: it is a FIFO"#),
    },
    Case {
        name: "a FIFO behind a link",
        make: |tree| (tree.add("l->pipe"), fifo(tree, "pipe")).1,
        copy: "l",
        want: Says("it is a FIFO"),
    },
    Case {
        name: "a socket",
        make: |tree| drop(UnixListener::bind(tree.path("s")).unwrap()),
        copy: ".",
        want: Says(r#"cannot copy "s" from the build context: it is a socket"#),
    },
    Case {
        name: "a character device",
        make: |tree| device(tree, "null", FileType::CharacterDevice),
        copy: ".",
        want: Says(r#"cannot copy "null" from the build context: it is a "#),
    },
    Case {
        name: "a block device",
        make: |tree| device(tree, "disk", FileType::BlockDevice),
        copy: "disk",
        want: Says(r#"cannot copy "disk" from the build context: it is a "#),
    },
    Case {
        name: "a name with a line feed",
        make: |tree| {
            tree.add("d/");
            fs::write(tree.path("d/a\nb"), "x").unwrap();
            fs::set_permissions(tree.path("d/a\nb"), fs::Permissions::from_mode(0o600)).unwrap();
        },
        copy: "d",
        want: Holds(&["o dir 755", "o/a\nb 600 = x"]),
    },
    Case {
        name: "a name that is no text",
        make: |tree| {
            tree.add("d/");
            fs::write(tree.path("d").join(OsStr::from_bytes(b"\xff\xfe")), "x").unwrap();
        },
        copy: "d",
        want: Holds(&["o dir 755", "o/\u{fffd}\u{fffd} 644 = x"]),
    },
    Case {
        name: "a special file whose name is a terminal's command",
        make: |tree| fifo(tree, "\u{1b}[2Jx"),
        copy: ".",
        want: Says(r#"cannot copy "\u{1b}[2Jx" from"#),
    },
    Case {
        name: "a name of 255 bytes in a deep tree",
        make: |tree| {
            let name = "n".repeat(255);
            // Deeper than a path may be long.
            let mut dir = Root::open(tree.dir.path(), "")
                .unwrap()
                .open_dir(&wbuild_tree::RelPath::root(), wbuild_tree::Links::Refuse);
            for _ in 0..20 {
                let at = dir.unwrap();
                rustix::fs::mkdirat(&at, name.as_str(), 0o755.into()).unwrap();
                let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
                dir = Ok(rustix::fs::openat(&at, name.as_str(), flags, 0.into()).unwrap());
            }
        },
        copy: ".",
        want: Says("nnnn"),
    },
    Case {
        name: "a file that is sparse and large",
        make: |tree| {
            let file = fs::File::create(tree.path("sparse")).unwrap();
            fs::set_permissions(tree.path("sparse"), fs::Permissions::from_mode(0o600)).unwrap();
            file.set_len(3).unwrap();
        },
        copy: "sparse",
        want: Holds(&["o dir 755", "o/sparse 600 = \0\0\0"]),
    },
];

#[test]
fn t_ctx_what_nobody_expects() {
    for Case { name, make, copy, want } in CASES {
        let tree = Tree::new(&[]);
        make(&tree);
        let run = Copy::new(&tree);
        let began = Instant::now();
        let result = run.run(&[copy], "/o/");
        let took = began.elapsed();
        match (result, want) {
            (Ok(_), Holds(wanted)) => assert_eq!(run.upper.list(), *wanted, "{name}"),
            (Err(error), Says(wanted)) => {
                let error = error.to_string();
                assert!(error.contains(wanted), "{name}: {error}");
            }
            (Ok(_), Says(_)) => panic!("{name}: copied as {:?}", run.upper.list()),
            (Err(error), Holds(_)) => panic!("{name}: {error}"),
        }
        assert!(took < Duration::from_secs(1), "{name}: {took:?}");
    }
}

/// Runs as a user who may do nothing special, if this process may become one.
fn as_nobody<T: Send>(run: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            let nobody = rustix::process::Uid::from_raw(65534);
            if rustix::process::geteuid().is_root() {
                // Of this thread, and of those that it starts.
                rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
            }
            run()
        });
        run.join().unwrap()
    })
}

#[test]
fn t_ctx_what_may_not_be_read_is_named() {
    type Shut = (&'static str, &'static str, u32, &'static str, &'static str);
    let cases: [Shut; 4] = [
        ("a file without r", "d/secret", 0o000, "d", "\"d/secret\""),
        ("a directory without r", "d/sub", 0o711, "d", "\"d/sub\""),
        ("a directory without x", "d/sub", 0o744, "d", "\"d/sub"),
        ("a path through a directory without x", "d/sub", 0o644, "d/sub/f", "d/sub"),
    ];
    for (name, path, mode, copy, says) in cases {
        let tree = Tree::new(&["755 d/", "644 d/secret=s", "755 d/sub/", "644 d/sub/f=F"]);
        fs::set_permissions(tree.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(tree.path(path), fs::Permissions::from_mode(mode)).unwrap();
        let root = tree.root("the build context");
        let began = Instant::now();
        let read = || -> Result<()> {
            let filter = wbuild_tree::Filter::all();
            let source =
                Source { root: &root, filter: &filter, kind: wbuild_tree::SourceKind::Context };
            let work = Work::default();
            select(&source, &[copy], &plain(), &work)?.digest(&source, None, &work)?;
            Ok(())
        };
        let error = as_nobody(read).expect_err(name).to_string();
        assert!(error.contains(says), "{name}: {error}");
        assert!(error.contains("Permission denied"), "{name}: {error}");
        assert!(began.elapsed() < Duration::from_secs(1), "{name}");
        // What is not asked for is not in the way.
        fs::set_permissions(tree.path(path), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn t_ctx_race_of_a_file() {
    // A file that becomes a FIFO, a link out of the context and a directory by turns.
    let outside = Tree::new(&["secret=outside"]);
    let tree = Tree::new(&["644 d/f=inside"]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        scope.spawn(|| {
            let (f, next) = (tree.path("d/f"), tree.path("next"));
            let put = || {
                // A directory is in the way of a rename.
                if fs::rename(&next, &f).is_err() {
                    let _ = fs::remove_dir(&f);
                    fs::rename(&next, &f).unwrap();
                }
            };
            while !stop.load(Ordering::Relaxed) {
                mknodat(CWD, &next, FileType::Fifo, 0o644.into(), 0).unwrap();
                put();
                symlink(outside.path("secret"), &next).unwrap();
                put();
                fs::create_dir(&next).unwrap();
                let _ = fs::remove_file(&f);
                put();
                fs::write(&next, "inside").unwrap();
                put();
            }
        });
        let until = Instant::now() + Duration::from_secs(2);
        while Instant::now() < until {
            let began = Instant::now();
            for path in ["d", "d/f"] {
                // A layer of its own: one that failed is left half made.
                let copy = Copy::new(&tree);
                if copy.run(&[path], "/o/").is_ok() {
                    let copied = copy.upper.path("o/f");
                    if copied.is_file() && !copied.is_symlink() {
                        assert_eq!(fs::read_to_string(copied).unwrap(), "inside");
                    }
                }
            }
            // A read that waits for a FIFO would wait for ever; a busy machine only takes its time.
            assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        }
    });
}

/// Ends the other thread also where an assertion fails, for a scope waits for its threads.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
