//! Contexts that change, and what is remembered of those that do not.

use std::fs;
use std::sync::Mutex;

use wbuild_tree::{
    Cancel, DigestIndex, Filter, Ownership, RelPath, Root, Source, SourceKind, TreeError, Work,
    select, tree_digest,
};

use crate::support::*;

struct Context {
    root: Root,
    filter: Filter,
}

impl Context {
    fn of(tree: &Tree) -> Context {
        Context { root: tree.root("the build context"), filter: Filter::all() }
    }

    fn source(&self) -> Source<'_> {
        Source { root: &self.root, filter: &self.filter, kind: SourceKind::Context }
    }

    fn digest(&self, index: Option<&Mutex<DigestIndex>>) -> String {
        let work = Work::default();
        let mut selection = select(&self.source(), &["."], &plain(), &work).unwrap();
        selection.digest(&self.source(), index, &work).unwrap().to_string()
    }
}

/// Files old enough to be remembered.
fn settle() {
    std::thread::sleep(std::time::Duration::from_millis(80));
}

#[test]
fn an_unchanged_context_is_not_read_again() {
    let tree = Tree::new(&["a=1", "d/b=2", "d/e/c=3"]);
    let context = Context::of(&tree);
    settle();
    let index = Mutex::new(DigestIndex::new());
    let first = context.digest(Some(&index));
    assert_eq!(first, context.digest(None));
    let saved = index.into_inner().unwrap();
    assert!(saved.is_changed());
    assert_eq!(saved.len(), 3);

    let index = Mutex::new(DigestIndex::decode(saved.encode()));
    assert_eq!(context.digest(Some(&index)), first);
    // Nothing new was learnt, so nothing was hashed.
    assert!(!index.lock().unwrap().is_changed());

    tree.add("d/b=X");
    settle();
    let changed = context.digest(Some(&index));
    assert_ne!(changed, first);
    assert_eq!(changed, context.digest(None));
    let index = index.into_inner().unwrap();
    assert!(index.is_changed());
    assert_eq!(DigestIndex::decode(index.encode()).len(), 3);
}

#[test]
fn a_change_that_restores_size_and_mtime_is_seen() {
    let tree = Tree::new(&["a=1"]);
    tree.set_mtime("a", 1_000_000);
    let context = Context::of(&tree);
    settle();
    let index = Mutex::new(DigestIndex::new());
    let first = context.digest(Some(&index));
    tree.add("a=2");
    tree.set_mtime("a", 1_000_000);
    assert_ne!(context.digest(Some(&index)), first);
}

#[test]
fn a_file_just_written_is_hashed_every_time() {
    let tree = Tree::new(&[]);
    let context = Context::of(&tree);
    let index = Mutex::new(DigestIndex::new());
    // Writes within one tick of the clock leave the same times.
    let mut seen = std::collections::BTreeSet::new();
    for n in 0..200 {
        fs::write(tree.path("f"), format!("{n:03}")).unwrap();
        seen.insert(context.digest(Some(&index)));
    }
    assert_eq!(seen.len(), 200);
}

#[test]
fn a_file_that_changes_between_hashing_and_copying_is_a_failure() {
    type Change = fn(&Tree);
    let changes: [(&str, Change); 6] = [
        ("rewritten", |tree| tree.add("d/b=9")),
        ("grown", |tree| tree.add("d/b=longer than it was")),
        ("cut", |tree| tree.add("d/b=")),
        ("removed", |tree| fs::remove_file(tree.path("d/b")).unwrap()),
        ("made a link", |tree| {
            fs::remove_file(tree.path("d/b")).unwrap();
            tree.add("d/b->a");
        }),
        ("directory moved", |tree| {
            fs::rename(tree.path("d"), tree.path("x")).unwrap();
            tree.add("d->x");
        }),
    ];
    for (what, change) in changes {
        let tree = Tree::new(&["d/a=1", "d/b=2"]);
        let copy = Copy::new(&tree);
        let work = Work::default();
        let error = copy.with_source(|source| {
            let mut selection = select(source, &["."], &plain(), &work).unwrap();
            selection.digest(source, None, &work).unwrap();
            change(&tree);
            copy.writer().copy(source, &selection, "/o/", &copy.options).unwrap_err()
        });
        let TreeError::Changed { path, .. } = &error else { panic!("{what}: {error}") };
        assert!(path == "d/b" || path == "d", "{what}: {path}");
        let failure: wbuild_graph::Failure = error.into();
        assert_eq!(failure.kind, wbuild_graph::FailureKind::Changed);
    }
}

#[test]
fn a_file_that_never_stops_growing_ends_in_an_error_and_not_in_a_hang() {
    let tree = Tree::new(&["log="]);
    let context = Context::of(&tree);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use std::io::Write;
            let mut file = fs::OpenOptions::new().append(true).open(tree.path("log")).unwrap();
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                file.write_all(&[0; 4096]).unwrap();
                if file.metadata().unwrap().len() > 4 << 20 {
                    break;
                }
            }
        });
        let begun = std::time::Instant::now();
        let work = Work::default();
        let mut selection = select(&context.source(), &["log"], &plain(), &work).unwrap();
        // Either it was caught at a moment of rest, or the error says what happened.
        match selection.digest(&context.source(), None, &work) {
            Ok(_) => {}
            Err(error) => assert!(matches!(error, TreeError::Changed { .. }), "{error}"),
        }
        assert!(begun.elapsed().as_secs() < 5);
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
    });
}

#[test]
fn a_cancelled_operation_ends() {
    let tree = Tree::new(&["a", "b"]);
    let context = Context::of(&tree);
    let cancel = Cancel::new();
    let work = Work { cancel: cancel.clone(), ..Work::default() };
    let mut selection = select(&context.source(), &["."], &plain(), &work).unwrap();
    cancel.cancel();
    let error = selection.digest(&context.source(), None, &work).unwrap_err();
    assert_eq!(error, TreeError::Cancelled);
    let failure: wbuild_graph::Failure = error.into();
    assert_eq!(failure.kind, wbuild_graph::FailureKind::Cancelled);
}

#[test]
fn trees_have_the_digest_of_what_is_in_them() {
    let one = Tree::new(&["755 d/", "644 d/a=1", "755 d/s/", "644 d/s/b=2", "d/l->a"]);
    let two = Tree::new(&["d/l->a", "755 d/s/", "644 d/s/b=2", "644 d/a=1"]);
    two.add("755 d/");
    let digest = |tree: &Tree, path: &str| {
        let path = RelPath::clean(path).unwrap();
        let root = tree.root("the tree");
        tree_digest(&root, &path, Ownership::Kept, &Work { threads: 3, ..Work::default() }).unwrap()
    };
    assert_eq!(digest(&one, "d"), digest(&two, "d"));
    assert_eq!(digest(&one, "d/a"), digest(&two, "d/a"));
    assert_ne!(digest(&one, "d/a"), digest(&two, "d/s/b"));
    two.add("700 d/");
    assert_ne!(digest(&one, "d"), digest(&two, "d"));
    let missing = tree_digest(
        &one.root("the tree"),
        &RelPath::clean("nope").unwrap(),
        Ownership::Kept,
        &Work::default(),
    );
    assert!(matches!(missing, Err(TreeError::Missing(_))));
}

#[test]
fn followed_paths_bring_their_links() {
    let tree =
        Tree::new(&["a->b/l", "b/l->../c[1]/f", "c[1]/f", "out->/etc/passwd", "x->y", "y->x"]);
    let root = tree.root("the build context");
    let patterns = wbuild_tree::follow_patterns(&root, &["a", "out", "x", "nope", "*.c"]).unwrap();
    assert_eq!(patterns, ["*.c", "a", "b/l", "c\\[1\\]/f", "nope", "out", "x"],);
    let filter = Filter::new(&patterns, &[]).unwrap();
    assert!(filter.selects(&RelPath::clean("c[1]/f").unwrap()));
}
