//! What an instruction's copy does, one test for each rule.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

use wbuild_tree::{Owner, Timestamp, TreeError};

use crate::support::*;

#[test]
fn a_target_with_a_slash_is_a_directory_and_one_without_is_the_file() {
    let source = Tree::new(&["644 a=A", "644 b=B", "644 d/x=X"]);
    for (paths, target, wanted) in [
        (&["a"][..], "/out", &["out 644 = A"][..]),
        (&["a"], "/out/", &["out dir 755", "out/a 644 = A"]),
        (&["a"], "out/.", &["out dir 755", "out/a 644 = A"]),
        (&["a"], "/", &["a 644 = A"]),
        (&["a", "b"], "/out/", &["out dir 755", "out/a 644 = A", "out/b 644 = B"]),
        (&["[ab]"], "/out/", &["out dir 755", "out/a 644 = A", "out/b 644 = B"]),
        (&["b", "d"], "/o/", &["o dir 755", "o/b 644 = B", "o/x 644 = X"]),
        (&["a"], "/x/y/out", &["x dir 755", "x/y dir 755", "x/y/out 644 = A"]),
    ] {
        assert_eq!(Copy::new(&source).layer(paths, target), wanted, "{paths:?} to {target}");
    }
    for paths in [&["a", "b"][..], &["[ab]"]] {
        let error = Copy::new(&source).run(paths, "/out").unwrap_err();
        assert!(matches!(error, TreeError::Conflict { .. }), "{error}");
    }
    // A directory that exists needs no slash.
    let base = Tree::new(&["750 out/"]);
    assert_eq!(Copy::over(&source, &base).layer(&["a"], "/out"), ["out dir 750", "out/a 644 = A"]);
    assert_eq!(
        Copy::over(&source, &base).layer(&["a", "b"], "out"),
        ["out dir 750", "out/a 644 = A", "out/b 644 = B"]
    );
}

#[test]
fn a_directory_stands_for_its_contents() {
    let source = Tree::new(&["700 d/", "711 d/sub/", "644 d/sub/x=X", "600 d/y=Y", "744 d/empty/"]);
    // The directory that is made for the contents has the mode of made directories.
    let wanted = [
        "out dir 755",
        "out/empty dir 744",
        "out/sub dir 711",
        "out/sub/x 644 = X",
        "out/y 600 = Y",
    ];
    for target in ["/out", "/out/"] {
        assert_eq!(Copy::new(&source).layer(&["d"], target), wanted);
        assert_eq!(Copy::new(&source).layer(&["d/"], target), wanted);
    }
    let mut whole = Copy::new(&source);
    whole.select.contents_only = false;
    assert_eq!(whole.layer(&["d"], "/out")[0], "out dir 700");
    let mut whole = Copy::new(&source);
    whole.select.contents_only = false;
    assert_eq!(whole.layer(&["d"], "/out/")[..2], ["out dir 755", "out/d dir 700"]);
    assert_eq!(Copy::new(&source).layer(&["."], "/"), source.list());
}

#[test]
fn parents_are_kept_below_the_pivot() {
    let source = Tree::new(&["750 a/", "a/b/c=1", "a/b/d=2", "a/e/c=3", "f=4"]);
    for (paths, wanted) in [
        (&["a/b/c"][..], &["o", "o/a", "o/a/b", "o/a/b/c"][..]),
        (&["./a/b/c", "f"], &["o", "o/a", "o/a/b", "o/a/b/c", "o/f"]),
        (&["a/./b/c"], &["o", "o/b", "o/b/c"]),
        (&["a/b"], &["o", "o/a", "o/a/b", "o/a/b/c", "o/a/b/d"]),
        (&["**/c"], &["o", "o/a", "o/a/b", "o/a/b/c", "o/a/e", "o/a/e/c"]),
        (&["a/./*/c"], &["o", "o/b", "o/b/c", "o/e", "o/e/c"]),
        (&["x*"], &[]),
    ] {
        let mut copy = Copy::new(&source);
        copy.select.parents = true;
        copy.run(paths, "/o/").unwrap();
        assert_eq!(copy.upper.names(), wanted, "{paths:?}");
        if copy.upper.path("o/a").exists() {
            assert_eq!(copy.upper.mode("o/a"), 0o750);
        }
    }
    let mut copy = Copy::new(&source);
    copy.select.parents = true;
    assert!(matches!(copy.run(&["a/b/x"], "/o/"), Err(TreeError::Missing(_))));
}

#[test]
fn missing_parents_are_0755_of_the_given_owner_and_time() {
    let test = "missing_parents_are_0755_of_the_given_owner_and_time";
    let source = Tree::new(&["600 a=A"]);
    let mut copy = Copy::new(&source);
    copy.options.timestamp = Some(at(1000));
    copy.run(&["a"], "/x/y/a").unwrap();
    assert_eq!(copy.upper.mode("x"), 0o755);
    assert_eq!(copy.upper.mode("x/y"), 0o755);
    for path in ["x", "x/y", "x/y/a"] {
        assert_eq!(copy.upper.meta(path).mtime(), 1000, "{path}");
    }
    let mut strict = Copy::new(&source);
    strict.options.create_dest = false;
    assert!(strict.run(&["a"], "/x/y/a").is_err());
    strict.run(&["a"], "/b").unwrap();
    if privileged(test) {
        let mut copy = Copy::new(&source);
        copy.options.owner = Owner::Fixed { uid: 5, gid: 6 };
        copy.run(&["a"], "/x/y/a").unwrap();
        for path in ["x", "x/y", "x/y/a"] {
            assert_eq!(copy.upper.owner(path), (5, 6), "{path}");
        }
    }
}

#[test]
fn a_target_directory_that_exists_keeps_its_metadata() {
    let source = Tree::new(&["700 d/", "700 d/sub/", "d/sub/x=X"]);
    let base = Tree::new(&["711 out/", "755 out/sub/", "out/sub/old=O"]);
    let copy = Copy::over(&source, &base);
    copy.run(&["d"], "/out/").unwrap();
    assert_eq!(copy.upper.mode("out"), 0o711);
    // A directory that is itself copied arrives with its own metadata.
    assert_eq!(copy.upper.mode("out/sub"), 0o700);
    // Over an empty base, as a linked copy is made, nothing of the base is seen.
    let linked = Copy::new(&source);
    linked.run(&["d"], "/out/").unwrap();
    assert_eq!(linked.upper.mode("out"), 0o755);
    // Where only part of the directory was asked for, directories that exist are left alone.
    let mut partial = Copy::over(&source, &base);
    partial.select.include = vec!["**/x".into()];
    partial.run(&["d"], "/out/").unwrap();
    assert_eq!(partial.upper.mode("out/sub"), 0o755);
}

#[test]
fn links_in_a_tree_stay_links_and_a_named_link_is_followed() {
    let source =
        Tree::new(&["real=R", "link->real", "dir/l->../real", "dangling->nowhere", "d->dir"]);
    assert_eq!(Copy::new(&source).layer(&["dir"], "/o/")[1], "o/l -> ../real");
    let copy = Copy::new(&source);
    copy.run(&["link"], "/o/").unwrap();
    assert_eq!(copy.upper.text("o/link"), "R");
    assert!(copy.upper.meta("o/link").is_file());
    // A pattern's matches are followed as well.
    let copy = Copy::new(&source);
    copy.run(&["lin*"], "/o/").unwrap();
    assert!(copy.upper.meta("o/link").is_file());
    // A link to a directory stands for the directory.
    assert_eq!(Copy::new(&source).layer(&["d"], "/o/")[1], "o/l -> ../real");
    let mut unfollowed = Copy::new(&source);
    unfollowed.select.follow_links = false;
    assert_eq!(unfollowed.layer(&["link"], "/o/")[1], "o/link -> real");
    assert!(matches!(Copy::new(&source).run(&["dangling"], "/o/"), Err(TreeError::Missing(_))));
    // One that leads nowhere is told of by its own name, also where a pattern has found it.
    for (path, wanted) in [
        ("/dangling", r#""/dangling" leads to "/nowhere", which does not exist in"#),
        ("/d*g", r#""/dangling" leads to "/nowhere", which does not exist in"#),
        ("/d/none", r#""/d/none" leads to "/dir/none", which does not exist in"#),
        ("/dir/none", r#""/dir/none" does not exist in"#),
    ] {
        let error = Copy::new(&source).run(&[path], "/o/").unwrap_err().to_string();
        assert!(error.starts_with(wanted), "{path}: {error}");
    }
    let mut dangling = Copy::new(&source);
    dangling.select.follow_links = false;
    assert_eq!(dangling.layer(&["dangling"], "/o/")[1], "o/dangling -> nowhere");
}

#[test]
fn links_in_the_target_are_followed_unless_it_is_a_linked_copy() {
    let source = Tree::new(&["644 a=A"]);
    let base =
        Tree::new(&["real/sub/", "link->real", "abs->/real/sub", "file->real/f", "up->../../real"]);
    for (target, wanted) in [
        ("/link/", "real/a"),
        ("/link/x", "real/x"),
        ("/link/sub/a", "real/sub/a"),
        ("/abs/a", "real/sub/a"),
        ("/file", "real/f"),
        ("/up/a", "real/a"),
    ] {
        let copy = Copy::over(&source, &base);
        copy.run(&["a"], target).unwrap();
        assert_eq!(copy.upper.text(wanted), "A", "{target}");
        assert!(!copy.upper.path("link").exists());
    }
    // Not followed: the link at the end is replaced, one on the way is in the way.
    let mut copy = Copy::over(&source, &base);
    copy.options.follow_links = false;
    assert_eq!(copy.layer(&["a"], "/file"), ["file 644 = A"]);
    let error = copy.run(&["a"], "/link/x").unwrap_err();
    assert!(matches!(error, TreeError::Conflict { .. }), "{error}");
    // A dangling link leads to what is then made.
    let base = Tree::new(&["to->/made/here"]);
    let copy = Copy::over(&source, &base);
    copy.run(&["a"], "/to/").unwrap();
    assert_eq!(copy.upper.text("made/here/a"), "A");
}

#[test]
fn owners_are_root_by_default_and_modes_are_kept() {
    if !privileged("owners_are_root_by_default_and_modes_are_kept") {
        return;
    }
    let source = Tree::new(&["4755 d/suid", "2755 d/sgid", "1777 d/tmp/", "640 d/f", "d/l->f"]);
    for path in ["d/suid", "d/tmp", "d/f", "d/l"] {
        std::os::unix::fs::lchown(source.path(path), Some(1000), Some(1001)).unwrap();
    }
    fs::set_permissions(
        source.path("d/suid"),
        std::os::unix::fs::PermissionsExt::from_mode(0o4755),
    )
    .unwrap();
    for (owner, wanted) in [
        (Owner::Fixed { uid: 0, gid: 0 }, (0, 0)),
        (Owner::Fixed { uid: 7, gid: 8 }, (7, 8)),
        (Owner::Kept, (1000, 1001)),
    ] {
        let mut copy = Copy::image(&source);
        copy.options.owner = owner;
        copy.run(&["d"], "/o/").unwrap();
        for path in ["o/suid", "o/tmp", "o/f", "o/l"] {
            assert_eq!(copy.upper.owner(path), wanted, "{path}");
        }
        let modes = ["o/suid", "o/sgid", "o/tmp", "o/f"].map(|path| copy.upper.mode(path));
        assert_eq!(modes, [0o4755, 0o2755, 0o1777, 0o640]);
    }
}

#[test]
fn a_directory_with_the_set_gid_bit_does_not_change_groups() {
    if !privileged("a_directory_with_the_set_gid_bit_does_not_change_groups") {
        return;
    }
    let source = Tree::new(&["644 a=A"]);
    let base = Tree::new(&["out/"]);
    std::os::unix::fs::chown(base.path("out"), None, Some(50)).unwrap();
    base.add("2775 out/");
    let mut copy = Copy::over(&source, &base);
    copy.options.owner = Owner::Fixed { uid: 0, gid: 0 };
    copy.run(&["a"], "/out/").unwrap();
    assert_eq!(copy.upper.owner("out"), (0, 50));
    assert_eq!(copy.upper.mode("out"), 0o2775);
    assert_eq!(copy.upper.owner("out/a"), (0, 0));
}

#[test]
fn a_mode_is_octal_or_relative_to_the_source() {
    let source = Tree::new(&["700 d/", "700 d/s/", "600 d/s/data", "700 d/s/tool", "d/s/l->data"]);
    for (mode, wanted) in [
        ("540", [0o540, 0o540, 0o540]),
        ("4711", [0o4711, 0o4711, 0o4711]),
        ("u=rwX,go=rX", [0o755, 0o644, 0o755]),
        ("go+r", [0o744, 0o644, 0o744]),
    ] {
        let mut copy = Copy::new(&source);
        copy.options.mode = Some(mode.parse().unwrap());
        copy.run(&["d"], "/o/").unwrap();
        let got = ["o/s", "o/s/data", "o/s/tool"].map(|path| copy.upper.mode(path));
        assert_eq!(got, wanted, "{mode}");
    }
}

#[test]
fn times_are_kept_but_in_no_digest() {
    let source = Tree::new(&["d/f=F", "d/s/"]);
    source.set_mtime("d/f", 1_000_000);
    source.set_mtime("d/s", 2_000_000);
    let copy = Copy::new(&source);
    let before = copy.digest(&["d"]);
    copy.run(&["d"], "/o/").unwrap();
    assert_eq!(copy.upper.meta("o/f").mtime(), 1_000_000);
    assert_eq!(copy.upper.meta("o/s").mtime(), 2_000_000);
    source.set_mtime("d/f", 3_000_000);
    assert_eq!(copy.digest(&["d"]), before);

    let mut copy = Copy::new(&source);
    copy.options.keep_times = false;
    copy.run(&["d"], "/o/").unwrap();
    assert!(copy.upper.meta("o/f").mtime() > 1_500_000_000);

    let mut copy = Copy::new(&source);
    copy.options.timestamp = Some(at(77));
    copy.run(&["d"], "/o/").unwrap();
    for path in ["o", "o/f", "o/s"] {
        assert_eq!(copy.upper.meta(path).mtime(), 77, "{path}");
    }
}

#[test]
fn the_digest_is_of_exactly_what_is_copied() {
    let source =
        Tree::new(&["644 a=A", "644 b=A", "644 d/x=X", "644 d/y=Y", "644 e/x=X", "644 e/y=Y"]);
    let copy = Copy::new(&source);
    // The name of one file that gets another name does not count, that of several does.
    assert_eq!(copy.digest(&["a"]), copy.digest(&["b"]));
    assert_ne!(copy.digest(&["a*"]), copy.digest(&["b*"]));
    assert_ne!(copy.digest(&["a", "d"]), copy.digest(&["b", "d"]));
    let mut into = Copy::new(&source);
    into.select.into_dir = true;
    assert_ne!(into.digest(&["a"]), into.digest(&["b"]));
    // The name of a directory whose contents are copied does not count either.
    assert_eq!(into.digest(&["d"]), into.digest(&["e"]));
    // What no path selects changes nothing; what one does, does.
    let before = copy.digest(&["d"]);
    source.add("644 other=O");
    source.add("644 e/more");
    assert_eq!(copy.digest(&["d"]), before);
    source.add("600 d/x=X");
    let chmod = copy.digest(&["d"]);
    assert_ne!(chmod, before);
    source.add("644 d/x=X");
    assert_eq!(copy.digest(&["d"]), before);
    // The mode of the directory itself is not copied with its contents.
    source.add("700 d/");
    assert_eq!(copy.digest(&["d"]), before);
    source.add("644 d/z");
    assert_ne!(copy.digest(&["d"]), before);
    fs::remove_file(source.path("d/z")).unwrap();
    fs::rename(source.path("d/y"), source.path("d/w")).unwrap();
    assert_ne!(copy.digest(&["d"]), before);
    // An ignored or excluded file is not in it.
    fs::rename(source.path("d/w"), source.path("d/y")).unwrap();
    source.add("644 d/z");
    let ignoring = Copy { ignore: &["d/z"], ..Copy::new(&source) };
    assert_eq!(ignoring.digest(&["d"]), before);
    let mut excluding = Copy::new(&source);
    excluding.select.exclude = vec!["z".into()];
    assert_eq!(excluding.digest(&["d"]), before);
    fs::remove_file(source.path("d/z")).unwrap();
    // Link targets count.
    symlink("x", source.path("d/l")).unwrap();
    let to_x = copy.digest(&["d"]);
    fs::remove_file(source.path("d/l")).unwrap();
    symlink("y", source.path("d/l")).unwrap();
    assert_ne!(copy.digest(&["d"]), to_x);
}

/// The encoding is stored in cache keys; see the digests module for where the line comes from.
#[test]
fn the_digest_of_a_selection_stays_what_it_was() {
    let source = Tree::new(&["644 a=hello", "d/s/", "644 d/b=", "644 d/s/c=C"]);
    source.add("755 d/s/");
    let golden = include_str!("../golden/digests.txt");
    let wanted = golden.lines().find_map(|line| line.strip_prefix("selection ")).unwrap();
    assert_eq!(Copy::new(&source).digest(&["a", "d"]), format!("sha256:{wanted}"));
}

#[test]
fn owners_and_attributes_count_for_images_only() {
    if !privileged("owners_and_attributes_count_for_images_only") {
        return;
    }
    let source = Tree::new(&["d/f"]);
    let digests = || (Copy::new(&source).digest(&["d"]), Copy::image(&source).digest(&["d"]));
    let before = digests();
    std::os::unix::fs::chown(source.path("d/f"), Some(9), None).unwrap();
    let chowned = digests();
    assert_eq!(chowned.0, before.0);
    assert_ne!(chowned.1, before.1);
    if set_xattr(&source.path("d/f"), "user.note", b"1") {
        let marked = digests();
        assert_eq!(marked.0, before.0);
        assert_ne!(marked.1, chowned.1);
    } else {
        skip("owners_and_attributes_count_for_images_only", "no user attributes here");
    }
}

#[test]
fn a_missing_path_is_an_error_that_helps() {
    let source = Tree::new(&["package.json", "src/main.rs", "docs/secret", "README.md"]);
    let copy = Copy { ignore: &["*.log", "docs", "!docs/public"], ..Copy::new(&source) };
    let missing = |path: &str| match copy.run(&[path], "/o/") {
        Err(TreeError::Missing(missing)) => *missing,
        other => panic!("{path}: {other:?}"),
    };
    let found = missing("pakage.json");
    assert_eq!(found.nearest, ["package.json"]);
    assert_eq!(found.excluded_by, None);
    assert_eq!(found.place, "the build context");
    assert_eq!(missing("src/mian.rs").nearest, ["src/main.rs"]);
    assert_eq!(missing("SRC/main.rs").nearest, ["src"]);
    assert_eq!(missing("readme.md").nearest, ["README.md"]);
    assert_eq!(missing("package.json/x").nearest, ["package.json"]);
    assert_eq!(missing("docs/secret").excluded_by, Some(1));
    assert_eq!(missing("docs").excluded_by, Some(1));
    assert_eq!(missing("nothing-like-it").nearest, [""; 0]);
    // It reads well as a failure.
    let failure: wbuild_graph::Failure =
        TreeError::Missing(Box::new(missing("pakage.json"))).into();
    assert_eq!(failure.kind, wbuild_graph::FailureKind::NotFound);
    assert!(failure.message.contains("pakage.json"), "{failure}");
    assert_eq!(failure.hints, ["did you mean \"package.json\"?"]);
    // A pattern without matches copies nothing, and makes nothing.
    copy.run(&["*.nothing"], "/o/").unwrap();
    assert_eq!(copy.upper.names(), [""; 0]);
    let mut lenient = Copy::new(&source);
    lenient.select.allow_missing = true;
    lenient.run(&["nope", "README.md"], "/o/").unwrap();
    assert_eq!(lenient.upper.names(), ["o", "o/README.md"]);
    let mut required = Copy::new(&source);
    required.select.required = vec!["main.rs".into()];
    required.run(&["src"], "/o/").unwrap();
    required.select.required = vec!["lib.rs".into()];
    assert!(matches!(required.run(&["src"], "/o/"), Err(TreeError::Missing(_))));
    // The paths themselves: each pattern must match something.
    required.select.required = vec![".".into()];
    required.run(&["s*", "README.md"], "/o/").expect("all of them are there");
    let Err(TreeError::Missing(missing)) = required.run(&["s*", "*.nothing"], "/o/") else {
        panic!("a pattern without matches is missing");
    };
    assert_eq!(missing.path, "*.nothing");
}

#[test]
fn ignore_patterns_hide_and_bring_back() {
    let source = Tree::new(&["a.md", "sub/a.md", "docs/x", "docs/keep", "build/out", "k"]);
    let copy = Copy { ignore: &["*.md", "docs", "!docs/keep", "build"], ..Copy::new(&source) };
    copy.run(&["."], "/").unwrap();
    // Without a slash or `**/` a pattern is about the top only.
    assert_eq!(copy.upper.names(), ["docs", "docs/keep", "k", "sub", "sub/a.md"]);
    // The same for patterns of the paths: a hidden directory is there if something in it is.
    let copy = Copy { ignore: copy.ignore, ..Copy::new(&source) };
    copy.run(&["*"], "/o/").unwrap();
    assert_eq!(copy.upper.names(), ["o", "o/a.md", "o/k", "o/keep"]);
    let copy = Copy { ignore: copy.ignore, ..Copy::new(&source) };
    copy.run(&["docs"], "/o/").unwrap();
    assert_eq!(copy.upper.names(), ["o", "o/keep"]);
}

#[test]
fn excluded_names_win_over_what_a_path_selects() {
    let source = Tree::new(&["home.txt", "home.md", "homes/a.txt", "homes/b/c.txt", "homes/d"]);
    for (exclude, wanted) in [
        (&["*.txt"][..], &["o", "o/b", "o/b/c.txt", "o/d", "o/home.md"][..]),
        (&["**/*.txt"], &["o", "o/b", "o/d", "o/home.md"]),
        (&["**/*.txt", "!b/c.txt"], &["o", "o/b", "o/b/c.txt", "o/d", "o/home.md"]),
        (&["*"], &["o"]),
    ] {
        let mut copy = Copy::new(&source);
        copy.select.exclude = exclude.iter().map(|text| (*text).to_owned()).collect();
        copy.run(&["hom*"], "/o/").unwrap();
        assert_eq!(copy.upper.names(), wanted, "{exclude:?}");
    }
}

#[test]
fn paths_are_patterns_as_go_reads_them() {
    let source = Tree::new(&["a1", "a2", "b1", "d1/f", "d2/f", "d2/g", "[x]", "sp ace", "*star"]);
    for (path, wanted) in [
        ("a?", &["a1", "a2"][..]),
        ("[a-b]1", &["a1", "b1"]),
        ("[^ad]1", &["b1"]),
        ("d*/f", &["f"]),
        ("d?/[fg]", &["f", "g"]),
        ("[[]x]", &["[x]"]),
        ("\\[x]", &["[x]"]),
        ("\\*star", &["*star"]),
        ("sp ace", &["sp ace"]),
        ("../a1", &["a1"]),
        ("/a1", &["a1"]),
        ("d1/../a*", &["a1", "a2"]),
        ("**", &["*star", "[x]", "a1", "a2", "b1", "f", "g", "sp ace"]),
    ] {
        let copy = Copy::new(&source);
        copy.run(&[path], "/o/").unwrap();
        let names: Vec<String> =
            copy.upper.names().iter().skip(1).map(|n| n[2..].to_owned()).collect();
        assert_eq!(names, wanted, "{path}");
    }
    assert!(matches!(Copy::new(&source).run(&["[a"], "/o/"), Err(TreeError::Pattern { .. })));
    let mut literal = Copy::new(&source);
    literal.select.wildcard = false;
    literal.run(&["[x]", "*star"], "/o/").unwrap();
    assert_eq!(literal.upper.names(), ["o", "o/*star", "o/[x]"]);
}

#[test]
fn hard_links_in_one_tree_stay_hard_links() {
    let source = Tree::new(&["d/a=same", "d/other", "outside=O"]);
    fs::create_dir(source.path("d/sub")).unwrap();
    fs::hard_link(source.path("d/a"), source.path("d/sub/b")).unwrap();
    fs::hard_link(source.path("d/a"), source.path("d/z")).unwrap();
    fs::hard_link(source.path("outside"), source.path("d/one")).unwrap();
    let copy = Copy::new(&source);
    let report = copy.run(&["d"], "/o/").unwrap();
    assert_eq!(copy.upper.meta("o/a").ino(), copy.upper.meta("o/sub/b").ino());
    assert_eq!(copy.upper.meta("o/a").ino(), copy.upper.meta("o/z").ino());
    assert_eq!(copy.upper.meta("o/a").nlink(), 3);
    assert_eq!(copy.upper.meta("o/one").nlink(), 1);
    assert_eq!(report.entries, 6);
    // Never with the source.
    assert_ne!(copy.upper.meta("o/one").ino(), source.meta("d/one").ino());
    // Over what was there, too.
    copy.run(&["d"], "/o/").unwrap();
    assert_eq!(copy.upper.meta("o/a").nlink(), 3);
}

#[test]
fn sparse_and_large_files_arrive_whole() {
    let source = Tree::new(&["d/"]);
    let size = 3 * 1024 * 1024;
    let sparse = fs::File::create(source.path("d/sparse")).unwrap();
    sparse.set_len(size).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 1_500_000).unwrap();
    let dense: Vec<u8> = (0..size).map(|n| (n * 31 % 251) as u8).collect();
    fs::write(source.path("d/dense"), &dense).unwrap();
    for copy in [Copy::new(&source), Copy::image(&source)] {
        let mut selection = copy.selection(&["d"]).unwrap();
        copy.with_source(|from| {
            selection.digest(from, None, &Default::default()).unwrap();
            let mut writer = copy.writer();
            writer.copy(from, &selection, "/o/", &copy.options).unwrap();
            writer.finish().unwrap();
        });
        assert!(fs::read(copy.upper.path("o/dense")).unwrap() == dense);
        let got = fs::read(copy.upper.path("o/sparse")).unwrap();
        assert!(got == fs::read(source.path("d/sparse")).unwrap());
    }
}

#[test]
fn special_files_are_refused_in_contexts_and_kept_in_images() {
    let test = "special_files_are_refused_in_contexts_and_kept_in_images";
    let source = Tree::new(&["d/a", "d/b"]);
    let fifo = source.path("d/pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, 0o640.into(), 0)
        .unwrap();
    let copy = Copy::new(&source);
    for path in ["d", "d/pipe", "d/p*"] {
        let error = copy.run(&[path], "/o/").unwrap_err();
        let TreeError::Special { path: at, kind, .. } = error else { panic!("{error}") };
        assert_eq!((at.as_str(), kind), ("d/pipe", "FIFO"), "{path}");
    }
    // What is ignored is not in the way.
    Copy { ignore: &["**/pipe"], ..Copy::new(&source) }.run(&["d"], "/o/").unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(source.path("d/a.sock")).unwrap();
    let error = copy.run(&["d"], "/o/").unwrap_err();
    assert!(error.to_string().contains("it is a socket"), "{error}");

    let device = source.path("d/null");
    let kind = rustix::fs::FileType::CharacterDevice;
    let number = rustix::fs::makedev(1, 3);
    if rustix::fs::mknodat(rustix::fs::CWD, &device, kind, 0o666.into(), number).is_err() {
        return skip(test, "devices cannot be made");
    }
    let image = Copy::image(&source);
    image.run(&["d"], "/o/").unwrap();
    assert_eq!(image.upper.meta("o/null").rdev(), number);
    assert_eq!(image.upper.mode("o/pipe"), source.mode("d/pipe"));
}

#[test]
fn attributes_survive_from_images_and_not_from_contexts() {
    let test = "attributes_survive_from_images_and_not_from_contexts";
    let source = Tree::new(&["755 d/tool", "d/s/", "d/l->tool"]);
    if !set_xattr(&source.path("d/tool"), "user.note", b"kept") {
        return skip(test, "no user attributes here");
    }
    set_xattr(&source.path("d/s"), "user.dir", b"too");
    set_xattr(&source.path("d/s"), "user.overlay.origin", b"not");
    // cap_net_raw, permitted and effective, version 2.
    let capability: Vec<u8> =
        [0x0200_0001_u32, 1 << 13, 0, 0, 0].iter().flat_map(|n| n.to_le_bytes()).collect();
    let capable = set_xattr(&source.path("d/tool"), "security.capability", &capability);
    for loaded in [false, true] {
        let mut copy = Copy::image(&source);
        copy.options.owner = if capable { Owner::Fixed { uid: 3, gid: 4 } } else { me() };
        let mut selection = copy.selection(&["d"]).unwrap();
        copy.with_source(|from| {
            if loaded {
                selection.digest(from, None, &Default::default()).unwrap();
            }
            let mut writer = copy.writer();
            writer.copy(from, &selection, "/o/", &copy.options).unwrap();
            writer.finish().unwrap();
        });
        let get = |path: &str, name| get_xattr(&copy.upper.path(path), name);
        assert_eq!(get("o/tool", "user.note").unwrap(), b"kept");
        assert_eq!(get("o/s", "user.dir").unwrap(), b"too");
        assert_eq!(get("o/s", "user.overlay.origin"), None);
        if capable {
            assert_eq!(get("o/tool", "security.capability").unwrap(), capability);
        }
    }
    let context = Copy::new(&source);
    context.run(&["d"], "/o/").unwrap();
    assert_eq!(get_xattr(&context.upper.path("o/tool"), "user.note"), None);
    if !capable {
        skip(test, "file capabilities cannot be set");
    }
}

#[test]
fn what_is_in_the_way() {
    let source = Tree::new(&["644 f=new", "d/x=X", "d/y/z=Z"]);
    let base = Tree::new(&["dir/in", "file=old", "m/x/deep", "m/y=file", "link->dir"]);
    // A file over a file.
    assert_eq!(Copy::over(&source, &base).layer(&["f"], "/file"), ["file 644 = new"]);
    // A file into a directory, never over it.
    assert_eq!(Copy::over(&source, &base).layer(&["f"], "/dir")[1], "dir/f 644 = new");
    let conflict = |copy: &Copy<'_>, paths: &[&str], target: &str| {
        let error = copy.run(paths, target).unwrap_err();
        assert!(matches!(error, TreeError::Conflict { .. }), "{error}");
        error.to_string()
    };
    assert!(conflict(&Copy::over(&source, &base), &["d"], "/m").contains("m/x"));
    conflict(&Copy::over(&source, &base), &["d"], "/file");
    conflict(&Copy::over(&source, &base), &["f"], "/file/x");
    let mut replacing = Copy::over(&source, &base);
    replacing.options.replace = true;
    replacing.run(&["d"], "/m").unwrap();
    assert_eq!(replacing.upper.names(), ["m", "m/x", "m/y", "m/y/z"]);
    if let Some(seen) = mounted("what_is_in_the_way", &base, &replacing.upper) {
        let seen: Vec<&str> = seen.iter().map(|l| l.split(' ').next().unwrap()).collect();
        assert_eq!(seen, ["dir", "dir/in", "file", "link", "m", "m/x", "m/y", "m/y/z"]);
    }
}

#[test]
fn times_of_directories_tell_of_changes_in_them_only() {
    let source = Tree::new(&["f=F", "d/sub/x=X"]);
    let base = Tree::new(&["usr/local/bin/", "usr/lib/", "opt/sub/"]);
    for path in ["usr/local/bin", "usr/local", "usr/lib", "usr", "opt/sub", "opt"] {
        base.set_mtime(path, 1000);
    }
    let copy = Copy::over(&source, &base);
    copy.run(&["f"], "/usr/local/bin/").unwrap();
    assert_eq!(copy.upper.meta("usr").mtime(), 1000);
    assert_eq!(copy.upper.meta("usr/local").mtime(), 1000);
    assert!(copy.upper.meta("usr/local/bin").mtime() > 1000);
    assert_eq!(
        copy.upper.dir.path().metadata().unwrap().mtime(),
        base.dir.path().metadata().unwrap().mtime()
    );
    let mut copy = Copy::over(&source, &base);
    copy.options.timestamp = Some(Timestamp::from_secs(5000));
    copy.select.include = vec!["sub/x".into()];
    copy.run(&["d"], "/opt/").unwrap();
    assert_eq!(copy.upper.meta("opt").mtime(), 1000);
    assert_eq!(copy.upper.meta("opt/sub").mtime(), 5000);
}

#[test]
fn many_files_and_directories_in_parallel() {
    let source = Tree::new(&[]);
    for n in 0..600 {
        source.add(&format!("644 flat/f{n}=flat {n}"));
        source.add(&format!("644 deep/{}/{}/{n}=deep {n}", n % 13, n % 7));
    }
    let base = Tree::new(&["o/flat/f3=old", "o/deep/1/other", "o/deep/2/2/2=old"]);
    let copy = Copy::over(&source, &base);
    copy.run(&["."], "/o/").unwrap();
    let mut copied = copy.upper.list();
    copied.retain(|line| line != "o dir 755");
    let wanted: Vec<String> = source.list().iter().map(|line| format!("o/{line}")).collect();
    assert_eq!(copied, wanted);
}
