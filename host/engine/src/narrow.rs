//! What a frontend may use of what frontends may use: the images and the files of local contexts that
//! the user's policy leaves it.
//!
//! Enforced where the capabilities enter the job, below the recorder of memoised plans: so for every
//! version of the contract, for the frontends that it calls, and for a plan that is played back.
//!
//! Files are narrowed where they come in: a local source brings only what may be used, so it makes no
//! difference whether the frontend reads them itself or has a step do it.

use std::collections::{BTreeMap, HashSet};

use wbuild_api::extension::PluginIdentity;
use wbuild_api::names::NamePattern;
use wbuild_api::request::ContextSpec;
use wbuild_graph::op::SourceOp;
use wbuild_graph::{Attrs, Definition, Edge, Failure, FailureKind, NodeId, Op};
use wbuild_ignore::Matcher;
use wbuild_oci::reference::Reference;

use crate::source::local::MAIN_CONTEXT;

/// See the module. The default narrows nothing.
#[derive(Default)]
pub(crate) struct Narrowed {
    frontend: String,
    images: Option<Vec<NamePattern>>,
    /// Images that the client has named.
    named: Vec<String>,
    files: Option<(Vec<String>, Matcher)>,
}

impl Narrowed {
    /// What a frontend is left in this build.
    pub(crate) fn new(
        identity: &PluginIdentity,
        contexts: &BTreeMap<String, ContextSpec>,
    ) -> Result<Narrowed, Failure> {
        let PluginIdentity { name: frontend, allowed, .. } = identity;
        let wrong = |error: String| {
            Failure::invalid(format!("what the frontend {frontend} may use: {error}"))
        };
        let images = allowed.images.as_ref().map(|patterns| {
            patterns.iter().map(|text| NamePattern::new(text)).collect::<Result<Vec<_>, _>>()
        });
        let files = allowed.files.as_ref().map(|patterns| {
            let matcher = Matcher::new(patterns).map_err(|error| wrong(error.to_string()))?;
            Ok::<_, Failure>((patterns.clone(), matcher))
        });
        let files = files.transpose()?;
        let main = contexts.get(MAIN_CONTEXT);
        if files.is_some() && matches!(main, Some(ContextSpec::Git(_) | ContextSpec::Http(_))) {
            let message =
                format!("the frontend {frontend} may use some files of contexts, and not all");
            return Err(Failure::new(FailureKind::Denied, message)
                .hint("files are granted of local contexts only; get the context first"));
        }
        let named = contexts.values().filter_map(|spec| match spec {
            ContextSpec::Image(reference) => reference.parse().ok(),
            _ => None,
        });
        Ok(Narrowed {
            frontend: frontend.to_owned(),
            images: images.transpose().map_err(wrong)?,
            named: named.map(|reference: Reference| reference.name()).collect(),
            files,
        })
    }

    /// Whether an image may be used.
    pub(crate) fn image(&self, reference: &str, attrs: &Attrs) -> Result<(), Failure> {
        let Some(images) = &self.images else { return Ok(()) };
        // Layouts are those that the client has named.
        if attrs.get("store").is_some() {
            return Ok(());
        }
        let name = reference.parse::<Reference>()?.name();
        if self.named.contains(&name) || images.iter().any(|pattern| pattern.matches(&name)) {
            return Ok(());
        }
        let message = format!("the image {name} is not granted to the frontend {}", self.frontend);
        Err(Failure::new(FailureKind::Denied, message)
            .hint("the policy's entry for the frontend lists its images"))
    }

    /// Whether a node of another frontend's may be given to this one as a context. What was made of a
    /// directory can no longer be narrowed.
    pub(crate) fn given(
        &self,
        context: &str,
        graph: &Definition,
        root: Edge,
    ) -> Result<(), Failure> {
        if self.files.is_none() || !of_directory(graph, root.node) {
            return Ok(());
        }
        let message = format!(
            "the context {context:?} is made of a directory, of which the frontend {} may use some \
             files only",
            self.frontend
        );
        Err(Failure::new(FailureKind::Denied, message)
            .hint("whoever calls it has to hand the directory on as it is")
            .hint("or the policy's entry for the frontend says nothing of files"))
    }

    /// Leaves of an op what may be used.
    pub(crate) fn op(&self, op: &mut Op) -> Result<(), Failure> {
        match op {
            Op::Source(SourceOp::Image { reference, attrs, .. }) => self.image(reference, attrs),
            Op::Source(SourceOp::Local(local)) => {
                let Some((patterns, matcher)) = &self.files else { return Ok(()) };
                // What links lead to would come in by another name.
                local.follow.clear();
                if local.include.is_empty() {
                    local.include.clone_from(patterns);
                    return Ok(());
                }
                for include in &local.include {
                    let above = literal(include);
                    if above.is_empty() || !matcher.decide(above.as_bytes()).matched {
                        let message = format!(
                            "{include} of the context is not granted to the frontend {}",
                            self.frontend
                        );
                        return Err(Failure::new(FailureKind::Denied, message)
                            .hint("the policy's entry for the frontend lists its files"));
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// Whether a directory of the client's is in what a node is made of.
fn of_directory(graph: &Definition, node: NodeId) -> bool {
    let (mut seen, mut left) = (HashSet::from([node]), vec![node]);
    while let Some(node) = left.pop() {
        let vertex = graph.vertex(node);
        if matches!(vertex.op, Op::Source(SourceOp::Local(_))) {
            return true;
        }
        left.extend(vertex.inputs.iter().map(|edge| edge.node).filter(|node| seen.insert(*node)));
    }
    false
}

/// The path above everything that a pattern can match: it is granted if that is. Empty for the root,
/// and for what leads out of it.
fn literal(pattern: &str) -> String {
    let pattern = pattern.trim().trim_start_matches('/');
    let mut parts = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => return String::new(),
            part if part.contains(['*', '?', '[', '\\', '!']) => break,
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wbuild_api::extension::Allowed;
    use wbuild_graph::op::LocalSource;

    use super::*;

    fn identity(allowed: Allowed) -> PluginIdentity {
        let digest = wbuild_graph::Digest::of(b"f");
        PluginIdentity { allowed, ..PluginIdentity::bundled("f", digest, "0.1.0") }
    }

    fn narrowed(images: Option<&[&str]>, files: Option<&[&str]>) -> Narrowed {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let allowed =
            Allowed { images: images.map(list), files: files.map(list), tools: Vec::new() };
        let image = ContextSpec::Image("own.example/base:1".into());
        Narrowed::new(&identity(allowed), &[("base".to_owned(), image)].into()).expect("patterns")
    }

    #[test]
    fn images() {
        let some = narrowed(Some(&["docker.io/library/*"]), None);
        for (name, granted) in [
            ("alpine:3", true),
            ("docker.io/library/alpine", true),
            ("team/alpine", false),
            ("evil.example/library/alpine", false),
            ("own.example/base:2", true),
            ("UPPER", false),
        ] {
            assert_eq!(some.image(name, &Attrs::default()).is_ok(), granted, "{name}");
        }
        assert!(narrowed(None, None).image("team/alpine", &Attrs::default()).is_ok());
        assert!(narrowed(Some(&[]), None).image("alpine", &Attrs::default()).is_err());
    }

    fn local(include: &[&str]) -> Op {
        Op::Source(SourceOp::Local(LocalSource {
            name: "context".into(),
            include: include.iter().map(|text| (*text).to_owned()).collect(),
            exclude: Vec::new(),
            follow: vec!["link".into()],
            attrs: Attrs::default(),
        }))
    }

    #[test]
    fn files() {
        let some = narrowed(None, Some(&["src", "*.mod"]));
        let mut op = local(&[]);
        some.op(&mut op).expect("what may be used of everything");
        let Op::Source(SourceOp::Local(source)) = &op else { panic!("it is local") };
        assert_eq!(
            (&source.include[..], source.follow.len()),
            (&["src".into(), "*.mod".into()][..], 0)
        );
        for (include, granted) in [
            (&["src"][..], true),
            (&["/src/"], true),
            (&["./src/a/*.c"], true),
            (&["src/**"], true),
            (&["go.mod"], true),
            (&["src", "go.sum"], false),
            (&["*.mod"], false),
            (&["**"], false),
            (&["."], false),
            (&["src/../secret"], false),
            (&["srcs"], false),
            (&["s[r]c"], false),
        ] {
            assert_eq!(some.op(&mut local(include)).is_ok(), granted, "{include:?}");
        }
        assert!(narrowed(None, None).op(&mut local(&["**"])).is_ok());
    }

    #[test]
    fn contexts_that_are_not_here_cannot_be_narrowed() {
        let allowed = Allowed { files: Some(vec!["src".into()]), ..Allowed::default() };
        let context = ContextSpec::Git("https://e.example/x.git".into());
        let contexts = [(MAIN_CONTEXT.to_owned(), context)].into();
        assert!(Narrowed::new(&identity(allowed), &contexts).is_err());
    }

    proptest! {
        #[test]
        fn what_comes_in_was_granted(
            include in "[a-c*?./]{1,8}",
            path in "[a-c]{1,2}(/[a-c]{1,2}){0,2}",
        ) {
            let granted = narrowed(None, Some(&["a", "b/c"]));
            if granted.op(&mut local(&[&include])).is_ok()
                && let Ok(asked) = Matcher::new(&[&include])
                && asked.decide(path.as_bytes()).matched
            {
                let may = Matcher::new(&["a", "b/c"]).expect("patterns");
                prop_assert!(may.decide(path.as_bytes()).matched, "{} by {}", path, include);
            }
        }
    }
}
