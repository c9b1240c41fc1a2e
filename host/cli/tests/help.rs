//! The help is part of the interface: what it says is pinned.

mod common;

use std::path::Path;

use wbuild_cli::args::{command, parse};

#[test]
fn help_of_every_command() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/help");
    let mut goldens = common::Goldens::default();
    for words in [
        &["-h"][..],
        &["--help"],
        &["build", "-h"],
        &["build", "--help"],
        &["plan", "--help"],
        &["plan", "diff", "--help"],
        &["explain", "--help"],
        &["du", "--help"],
        &["prune", "--help"],
        &["fsck", "--help"],
        &["doctor", "--help"],
        &["imagetools", "--help"],
        &["imagetools", "inspect", "--help"],
        &["imagetools", "create", "--help"],
        &["plugin", "--help"],
        &["plugin", "inspect", "--help"],
        &["plugin", "list", "--help"],
        &["plugin", "new", "--help"],
        &["plugin", "build", "--help"],
        &["plugin", "run", "--help"],
        &["plugin", "test", "--help"],
        &["plugin", "trace", "--help"],
        &["plugin", "publish", "--help"],
        &["plugin", "verify", "--help"],
        &["plugin", "warm", "--help"],
        &["plugin", "update", "--help"],
    ] {
        let argv = std::iter::once("wbuild").chain(words.iter().copied()).map(Into::into);
        let error = parse(argv).expect_err("help comes as an error");
        assert_eq!(error.exit_code(), 0, "{words:?}");
        let text = error.render().to_string();
        goldens.check(&root.join(format!("{}.txt", words.join("_"))), &text);
        assert!(text.lines().all(|line| line.chars().count() <= 100), "{words:?} is too wide");
    }
}

#[test]
fn usage_errors_end_with_2() {
    for words in [
        &[][..],
        &["--no-such-option", "."],
        &["--platform", "linux/am d64", "."],
        &["--jobs", "0", "."],
        &["--output", "type=flying", "."],
        &["--sbom", "."],
        &["--allow", "network.everything", "."],
        &["--allow", "security.insecure", "."],
        &["prune", "--filter", "until=soon"],
        &["prune", "--filter", "descripton=x"],
        &["prune", "--max-used-space", "much"],
        &["du", "--filter", "type=layer"],
        &["--cache-max", "much", "."],
        &["--cache-max", "0", "."],
        &["plan", "--format", "yaml", "."],
        &["plan", "diff", "a"],
        &["plan", "diff", "a", "b", "c"],
        &["plugin"],
        &["plugin", "inspect"],
        &["plugin", "new", "x"],
        &["plugin", "new", "x", "--lang", "cobol"],
        &["plugin", "run"],
        &["plugin", "trace"],
        &["imagetools"],
        &["imagetools", "inspect"],
        &["imagetools", "inspect", "a", "--raw", "--json"],
        &["imagetools", "inspect", "a", "--format", "{{.Name"],
        &["imagetools", "create", "--prefer-index=maybe", "a"],
        &["du", "x"],
        &[".", "."],
    ] {
        let argv = std::iter::once("wbuild").chain(words.iter().copied()).map(Into::into);
        let error = parse(argv).expect_err(&words.join(" "));
        assert_eq!(error.exit_code(), 2, "{words:?}: {error}");
    }
}

#[test]
fn the_parser_is_consistent() {
    command().debug_assert();
}
