//! Merge and diff: layers on top of each other, without touching a file.

use std::sync::Arc;

use wbuild_graph::Failure;
use wbuild_graph::op::Input;

use crate::solved::{Output, Solved, Tree};

fn tree(inputs: &[Output], index: usize) -> Result<&Arc<Tree>, Failure> {
    match inputs.get(index) {
        Some(Output::Tree(tree)) => Ok(tree),
        Some(Output::Local(_)) => Err(Failure::unsupported(
            "a local directory has no layers to merge: copy from it first",
        )),
        None => Err(Failure::internal("an op refers to an input it does not have")),
    }
}

/// Stacks the inputs' layers in order.
pub(crate) fn run(inputs: &[Output]) -> Result<Arc<Solved>, Failure> {
    let mut layers = Vec::new();
    for index in 0..inputs.len() {
        layers.extend(tree(inputs, index)?.layers.iter().cloned());
    }
    Ok(Solved::tree(Tree::new(layers)))
}

/// What `upper` has on top of `lower`. Only where `upper` was built on `lower`, which is what
/// frontends ask for; a comparison of unrelated trees would have to read both.
pub(crate) fn diff(
    lower: Option<Input>,
    upper: Option<Input>,
    inputs: &[Output],
) -> Result<Arc<Solved>, Failure> {
    let layers = |input: Option<Input>| match input {
        None => Ok(&[][..]),
        Some(input) => tree(inputs, input as usize).map(|tree| &tree.layers[..]),
    };
    let (below, all) = (layers(lower)?, layers(upper)?);
    let facts_agree = |(a, b): (&Arc<crate::solved::Layer>, &Arc<crate::solved::Layer>)| {
        let (a, b) = (a.facts(), b.facts());
        a.snapshot.is_some() && a.snapshot == b.snapshot
            || a.diff_id.is_some() && a.diff_id == b.diff_id
    };
    if below.len() > all.len() || !below.iter().zip(all).all(facts_agree) {
        return Err(Failure::unsupported(
            "this version of wbuild can only take the difference of a tree and one it was built on",
        ));
    }
    Ok(Solved::tree(Tree::new(all[below.len()..].to_vec())))
}
