//! Layers that leave the contents of large files where they are.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use wbuild_tree::{LentFiles, Result, TreeError, Work, layer_digest};

use crate::support::*;

/// As large as a file has to be.
fn large(seed: u8) -> Vec<u8> {
    (0..400_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed).collect()
}

fn write(tree: &Tree, path: &str, data: &[u8]) {
    fs::create_dir_all(tree.path(path).parent().unwrap()).unwrap();
    fs::write(tree.path(path), data).unwrap();
}

/// A copy that lends, or one that does not.
fn copy(copy: &Copy<'_>, paths: &[&str], target: &str, lends: bool) -> Result<LentFiles> {
    let mut selection = copy.selection(paths)?;
    copy.with_source(|source| {
        selection.digest(source, None, &Work::default())?;
        let mut writer = copy.writer();
        if lends {
            writer.lend();
        }
        writer.copy(source, &selection, target, &copy.options)?;
        writer.finish()
    })
}

fn rel(path: &str) -> wbuild_tree::RelPath {
    wbuild_tree::RelPath::clean(path).unwrap()
}

fn read(lent: &LentFiles, context: &Tree, path: &str) -> std::io::Result<Vec<u8>> {
    let mut data = Vec::new();
    let context = context.root("the build context");
    lent.open(&rel(path), &context).unwrap().expect("it is lent").read_to_end(&mut data)?;
    Ok(data)
}

#[test]
fn a_filled_layer_is_the_layer() {
    let context = Tree::new(&["d/small=s", "d/sub/", "d/link->big"]);
    write(&context, "d/big", &large(1));
    write(&context, "d/sub/closed", &large(2));
    write(&context, "d/setid", &large(3));
    for (path, mode) in [("d/sub/closed", 0o444), ("d/setid", 0o4755)] {
        fs::set_permissions(context.path(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    context.set_mtime("d/big", 1_000);
    let (whole, lending) = (Copy::new(&context), Copy::new(&context));
    assert!(copy(&whole, &["d"], "/x/", false).unwrap().is_empty());
    let lent = copy(&lending, &["d"], "/x/", true).unwrap();
    assert_eq!(lending.upper.meta("x/big").blocks(), 0, "nothing was written");
    assert_eq!(lending.upper.meta("x/big").size(), 400_000);
    assert_eq!(lending.upper.text("x/small"), "s", "small files are there");
    let digest = |upper: &Tree| layer_digest(&upper.root("it"), xattr_kind(), &Work::default());
    let root = lending.upper.root("the new layer");
    let told = lent.layer_digest(&root, xattr_kind(), &Work::default()).unwrap();
    assert_eq!(told, digest(&whole.upper).unwrap());
    assert_eq!(read(&lent, &context, "x/sub/closed").unwrap(), large(2));
    let source = context.root("the build context");
    assert!(lent.open(&rel("x/small"), &source).unwrap().is_none());
    lent.fill(&root, &source, &Work::default()).unwrap();
    assert_eq!(lending.upper.list(), whole.upper.list());
    assert_eq!(lending.upper.meta("x/big").mtime(), 1_000);
    assert_eq!(digest(&lending.upper).unwrap(), told);
}

#[test]
fn what_replaces_a_lent_file_stays() {
    let context = Tree::new(&["b/f=small", "b/g=s"]);
    write(&context, "a/f", &large(1));
    write(&context, "a/g", &large(2));
    write(&context, "c/g", &large(3));
    let lending = Copy::new(&context);
    let lent = copy(&lending, &["a", "b", "c"], "/x/", true).unwrap();
    let source = context.root("the build context");
    assert!(lent.open(&rel("x/f"), &source).unwrap().is_none());
    assert_eq!(read(&lent, &context, "x/g").unwrap(), large(3));
    lent.fill(&lending.upper.root("it"), &source, &Work::default()).unwrap();
    assert_eq!(lending.upper.text("x/f"), "small");
    assert_eq!(fs::read(lending.upper.path("x/g")).unwrap(), large(3));
}

#[test]
fn other_names_and_images_are_copied() {
    let context = Tree::new(&[]);
    write(&context, "a", &large(1));
    fs::hard_link(context.path("a"), context.path("b")).unwrap();
    let linked = Copy::new(&context);
    assert!(copy(&linked, &["."], "/", true).unwrap().is_empty());
    assert_eq!(linked.upper.meta("a").ino(), linked.upper.meta("b").ino());
    assert_eq!(fs::read(linked.upper.path("b")).unwrap(), large(1));
    let image = Copy::image(&context);
    assert!(copy(&image, &["."], "/", true).unwrap().is_empty());
}

#[test]
fn a_change_is_noticed() {
    type Change = fn(&Tree);
    let changes: [(&str, Change); 6] = [
        ("other bytes", |tree| write(tree, "f", &large(9))),
        ("shorter", |tree| write(tree, "f", &large(1)[..300_000])),
        ("longer", |tree| write(tree, "f", &[&large(1)[..], b"x"].concat())),
        ("gone", |tree| fs::remove_file(tree.path("f")).unwrap()),
        ("a link", |tree| {
            fs::rename(tree.path("f"), tree.path("g")).unwrap();
            std::os::unix::fs::symlink("g", tree.path("f")).unwrap();
        }),
        ("a directory", |tree| {
            fs::remove_file(tree.path("f")).unwrap();
            fs::create_dir(tree.path("f")).unwrap();
        }),
    ];
    for (name, change) in changes {
        let context = Tree::new(&[]);
        write(&context, "f", &large(1));
        let lending = Copy::new(&context);
        let lent = copy(&lending, &["f"], "/f", true).unwrap();
        change(&context);
        let source = context.root("the build context");
        let filled = lent.fill(&lending.upper.root("it"), &source, &Work::default());
        assert!(matches!(filled, Err(TreeError::Changed { .. })), "{name}: {filled:?}");
        let opened = lent.open(&rel("f"), &source);
        let error = match opened {
            Err(error) => error,
            Ok(reader) => {
                let error = reader.unwrap().read_to_end(&mut Vec::new()).unwrap_err();
                match error.downcast::<TreeError>() {
                    Ok(error) => error,
                    // Read before it was looked at: a directory.
                    Err(error) => panic!("{name}: {error}"),
                }
            }
        };
        assert!(matches!(error, TreeError::Changed { .. }), "{name}: {error}");
    }
}
