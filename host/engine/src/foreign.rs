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
    /// Foreign platforms that files of the vertex's inputs are of, without those of the architecture
    /// that the vertex is for itself.
    pub(crate) fn of(&self, vertex: VertexDigest, own: &Platform) -> Platforms {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(all) = known.get(&vertex) else { return Platforms::default() };
        let others = all.iter().filter(|platform| platform.architecture != own.architecture);
        Arc::new(others.cloned().collect())
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
        let mut of = |edge: Edge, own: &str| -> Vec<String> {
            let own = Platform::new("linux", own, None);
            let platforms = foreign.of(definition.digest(edge.node), &own);
            platforms.iter().map(|platform| platform.architecture.clone()).collect()
        };
        for (edge, want) in [
            (home, vec![]),
            (pure, vec![]),
            (arm, vec!["arm"]),
            (mixed, vec!["arm"]),
            (both, vec!["arm", "riscv64"]),
        ] {
            assert_eq!(of(edge, &Platform::host().architecture), want);
        }
        // A step of such a platform has them anyway.
        assert_eq!(of(arm, "arm"), Vec::<String>::new());
        assert_eq!(of(both, "arm"), ["riscv64"]);
    }
}
