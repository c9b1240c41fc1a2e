//! Measures a tree: `cargo run --release --example copy -- SOURCE WORK [ROUNDS]`.
//!
//! For each round, in turn and in milliseconds: a walk, the digest of everything without and with
//! an index, loading the index, the copy into an empty layer as from a context (hashed on the way)
//! and as from an image, and `cp -a` of the same tree. WORK should be on the same file system.

use std::path::Path;
use std::process::Command;
use std::sync::Mutex;
use std::time::Instant;

use wbuild_tree::{
    CopyOptions, DigestIndex, Filter, LayerWriter, Ownership, RelPath, Result, Root, SelectOptions,
    Selection, Source, SourceKind, Work, XattrKind, select, tree_digest, walk,
};

fn timed<T>(row: &mut String, name: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let result = work();
    let spent = begun.elapsed().as_secs_f64() * 1000.0;
    row.push_str(&format!(" {name} {spent:.1}"));
    result
}

fn copy(source: &Source<'_>, selection: &Selection, to: &Path) -> Result<u64> {
    std::fs::create_dir(to).expect("WORK is writable and has no leftovers");
    let upper = Root::open(to, "the layer")?;
    let mut layer = LayerWriter::new(upper, None, XattrKind::Trusted, Work::default())?;
    let report = layer.copy(source, selection, "/ctx/", &CopyOptions::default())?;
    layer.finish()?;
    Ok(report.entries)
}

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let (Some(from), Some(work_dir)) = (args.next(), args.next()) else {
        eprintln!("usage: copy SOURCE WORK [ROUNDS]");
        std::process::exit(2);
    };
    let rounds = args.next().and_then(|text| text.parse().ok()).unwrap_or(3);
    let root = Root::open(Path::new(&from), "the source")?;
    let filter = Filter::all();
    let context = Source { root: &root, filter: &filter, kind: SourceKind::Context };
    let image = Source { kind: SourceKind::Image, ..context };
    let options = SelectOptions { contents_only: true, into_dir: true, ..Default::default() };
    let work = Work::default();
    let mut made = Vec::new();
    let mut place = |round: usize, name: &str| {
        // What is written back while the next one is measured would be charged to it.
        rustix::fs::sync();
        let path = Path::new(&work_dir).join(format!("copy-bench-{round}-{name}"));
        made.push(path.clone());
        path
    };
    for round in 0..rounds {
        let mut row = String::new();
        let top = RelPath::root();
        let one = Work { threads: 1, ..Work::default() };
        timed(&mut row, "walk1", || walk(&root, &top, &[], &one))?;
        timed(&mut row, "walk", || walk(&root, &top, &[], &work))?;
        let index = Mutex::new(DigestIndex::new());
        let mut selection = select(&context, &["."], &options, &work)?;
        let first = timed(&mut row, "hash", || selection.digest(&context, Some(&index), &work))?;
        timed(&mut row, "image-digest", || tree_digest(&root, &top, Ownership::Kept, &work))?;
        let saved = index.into_inner().expect("not poisoned").encode();
        let again = timed(&mut row, "unchanged", || {
            let index =
                Mutex::new(timed(&mut String::new(), "", || DigestIndex::decode(saved.clone())));
            let mut selection = select(&context, &["."], &options, &work)?;
            selection.digest(&context, Some(&index), &work)
        })?;
        assert_eq!(first, again);
        timed(&mut row, "index-load", || DigestIndex::decode(saved.clone()));
        let to = place(round, "context");
        let entries = timed(&mut row, "copy-context", || copy(&context, &selection, &to))?;
        let selection = select(&image, &["."], &options, &work)?;
        let to = place(round, "image");
        timed(&mut row, "copy-image", || copy(&image, &selection, &to))?;
        let to = place(round, "cp");
        timed(&mut row, "cp-a", || {
            Command::new("cp").arg("-a").arg(&from).arg(&to).status().expect("cp is installed")
        });
        println!("{entries} entries:{row}");
    }
    // Only now: some file systems make files slowly for a while after many were removed.
    for path in made {
        std::fs::remove_dir_all(path).expect("made by this program");
    }
    Ok(())
}
