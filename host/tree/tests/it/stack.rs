//! Layers over a stack of others: what is in which layer makes no difference to what is seen.

use proptest::prelude::*;
use wbuild_tree::{
    Base, LayerWriter, LinkOptions, MkdirOptions, RemoveOptions, Root, Work, WriteOptions,
};

use crate::support::{Tree, at, ids, mounted_stack, xattr_kind};

/// One action on a layer.
#[derive(Clone, Debug)]
enum Act {
    Write(String),
    Mkdir(String),
    Remove(String),
    /// Removed and made anew as an empty directory: it hides what is below.
    Empty(String),
    Link(String, String),
}

fn act() -> impl Strategy<Value = Act> {
    // Few names, so that the same ones are met again; links lead to directories, too.
    let path = || "[abl](/[abl]){0,2}";
    prop_oneof![
        3 => path().prop_map(Act::Write),
        3 => path().prop_map(Act::Mkdir),
        3 => path().prop_map(Act::Remove),
        2 => path().prop_map(Act::Empty),
        1 => (path(), "/?[ab](/b)?").prop_map(|(path, target)| Act::Link(path, target)),
    ]
}

/// Carries an action out, and says whether it worked.
fn run(writer: &mut LayerWriter, act: &Act, number: usize) -> bool {
    let (uid, gid) = ids();
    let timestamp = Some(at(50));
    match act {
        Act::Write(path) => {
            let data = format!("{number}");
            let options = WriteOptions { mode: 0o640, uid, gid, timestamp, follow_links: true };
            writer.write_file(path, data.as_bytes(), &options).is_ok()
        }
        Act::Mkdir(path) => {
            let options = MkdirOptions { mode: 0o750, uid, gid, parents: true, timestamp };
            writer.make_dir(path, &options).is_ok()
        }
        Act::Remove(path) => writer.remove(path, &RemoveOptions::default()).is_ok(),
        Act::Empty(path) => {
            run(writer, &Act::Remove(path.clone()), number);
            run(writer, &Act::Mkdir(path.clone()), number)
        }
        Act::Link(path, target) => {
            let options = LinkOptions { uid, gid, timestamp };
            writer.make_link(path, target, &options).is_ok()
        }
    }
}

/// The path of the layer before it must not make one too long that is not.
#[test]
fn paths_may_be_as_long_over_a_layer_as_without_one() {
    let deep = vec!["d".repeat(203); 20].join("/");
    let (uid, gid) = ids();
    let options = WriteOptions { mode: 0o640, uid, gid, timestamp: None, follow_links: true };
    let mut stack: Vec<Tree> = Vec::new();
    for name in ["first", "other"] {
        let upper = Tree::new(&[]);
        let base = (!stack.is_empty()).then(|| {
            let root = Root::open("/".as_ref(), "the layers").unwrap();
            let path = |tree: &Tree| tree.dir.path().strip_prefix("/").unwrap().to_owned();
            Base::stack(root, stack.iter().rev().map(|tree| path(tree).display().to_string()))
        });
        let root = upper.root("a layer");
        let mut layer = LayerWriter::new(root, base, xattr_kind(), Work::default()).unwrap();
        let path = format!("{deep}/{name}");
        assert!(path.len() > 4060 && path.len() <= 4095, "{}", path.len());
        layer.write_file(&path, b"", &options).unwrap();
        layer.finish().unwrap();
        stack.push(upper);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// The same actions on layers over each other, and on one directory with nothing below: both
    /// look the same, the layers as the kernel merges them.
    #[test]
    fn a_stack_of_layers_is_the_tree_that_they_make(
        layers in prop::collection::vec(prop::collection::vec(act(), 1..6), 2..6),
    ) {
        let whole = Tree::new(&[]);
        let mut stack: Vec<Tree> = Vec::new();
        let mut number = 0;
        for actions in &layers {
            let upper = Tree::new(&[]);
            let base = (!stack.is_empty()).then(|| {
                let root = Root::open("/".as_ref(), "the layers").unwrap();
                let path = |tree: &Tree| tree.dir.path().strip_prefix("/").unwrap().to_owned();
                Base::stack(root, stack.iter().rev().map(|tree| path(tree).display().to_string()))
            });
            let open = |base, tree: &Tree| {
                LayerWriter::new(tree.root("a layer"), base, xattr_kind(), Work::default()).unwrap()
            };
            let (mut layer, mut model) = (open(base, &upper), open(None, &whole));
            for act in actions {
                number += 1;
                let worked = run(&mut layer, act, number);
                prop_assert_eq!(worked, run(&mut model, act, number), "{:?}", act);
            }
            layer.finish().unwrap();
            model.finish().unwrap();
            stack.push(upper);
        }
        let below: Vec<&Tree> = stack[..stack.len() - 1].iter().rev().collect();
        let nothing = Tree::new(&[]);
        let below = if below.is_empty() { vec![&nothing] } else { below };
        let top = stack.last().unwrap();
        if let Some(seen) = mounted_stack("a_stack_of_layers", &below, top) {
            prop_assert_eq!(seen, whole.list());
        }
    }
}
