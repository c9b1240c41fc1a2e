//! Which steps see programs of other architectures: those with an image of such a platform among what
//! their files come from. They get emulators, whatever platform they are for themselves.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use wbuild_graph::op::SourceOp;
use wbuild_graph::{Definition, NodeId, Op, Platform, VertexDigest};

type Platforms = Arc<BTreeSet<Platform>>;

/// By vertex, where there are any.
#[derive(Default)]
pub(crate) struct Foreign(Mutex<HashMap<VertexDigest, Platforms>>);

impl Foreign {
    /// Foreign platforms that files of the vertex's inputs are of.
    pub(crate) fn of(&self, vertex: VertexDigest) -> Option<Platforms> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&vertex).cloned()
    }

    /// Notes nodes whose inputs were noted before, or are among them.
    pub(crate) fn note(&self, definition: &mut Definition, mut nodes: Vec<NodeId>) {
        // An input is an earlier node.
        nodes.sort_unstable();
        let native = Platform::host().architecture;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for id in nodes {
            let mut platforms: Option<Platforms> = None;
            if let Op::Source(SourceOp::Image { platform, .. }) = &definition.vertex(id).op
                && platform.architecture != native
            {
                platforms = Some(Arc::new(BTreeSet::from([platform.clone()])));
            }
            if !known.is_empty() {
                let inputs: Vec<NodeId> =
                    definition.vertex(id).inputs.iter().map(|input| input.node).collect();
                for input in inputs {
                    let Some(more) = known.get(&definition.digest(input)) else { continue };
                    match &mut platforms {
                        None => platforms = Some(Arc::clone(more)),
                        Some(have) if !more.is_subset(have) => {
                            Arc::make_mut(have).extend(more.iter().cloned());
                        }
                        Some(_) => {}
                    }
                }
            }
            if let Some(platforms) = platforms {
                known.insert(definition.digest(id), platforms);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use wbuild_graph::{Attrs, Edge};

    use super::*;

    #[test]
    fn what_comes_of_foreign_images_is_known_downstream() {
        let mut definition = Definition::default();
        let image = |architecture: &str, definition: &mut Definition| {
            let op = Op::Source(SourceOp::Image {
                reference: architecture.to_owned(),
                platform: Platform::new("linux", architecture, None),
                attrs: Attrs::default(),
            });
            Edge { node: definition.insert(op, Vec::new()).expect("a node"), index: 0 }
        };
        let own = Platform::host().architecture;
        let (home, arm, risc) = (
            image(&own, &mut definition),
            image("arm", &mut definition),
            image("riscv64", &mut definition),
        );
        let merged = |inputs: Vec<_>, definition: &mut Definition| Edge {
            node: definition.insert(Op::Merge, inputs).expect("a node"),
            index: 0,
        };
        let pure = merged(vec![home, home], &mut definition);
        let mixed = merged(vec![pure, arm], &mut definition);
        let both = merged(vec![mixed, risc], &mut definition);
        let foreign = Foreign::default();
        let nodes = [both, mixed, pure, risc, arm, home].map(|edge| edge.node).to_vec();
        foreign.note(&mut definition, nodes);
        for (edge, want) in
            [(home, None), (pure, None), (arm, Some(1)), (mixed, Some(1)), (both, Some(2))]
        {
            let digest = definition.digest(edge.node);
            assert_eq!(foreign.of(digest).map(|platforms| platforms.len()), want);
        }
    }
}
