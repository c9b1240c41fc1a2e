//! The two levels of cache keys. Their encodings are frozen by golden vectors.

use wbuild_graph::encode::Encoder;
use wbuild_graph::{CacheKey, ContentDigest, Digest, Op, ResultId};

/// What fixes a source before it is fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// A manifest digest, a commit, a checksum, hashed together with what else matters.
    Digest(Digest),
    /// Nothing short of its content (a local directory): whoever reads it is keyed by what it reads.
    ByContent,
}

/// What is known of a vertex's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyInfo {
    /// None for a source keyed by content: it has no record of its own.
    pub key: Option<CacheKey>,
    /// No vertex below, this one included, ignores the cache: the key names the stored result.
    pub stable: bool,
}

/// What one input contributes to a definition key.
#[derive(Clone, Copy, Debug)]
pub(crate) enum DefinitionInput {
    Key(CacheKey, u32),
    Content(ContentDigest),
}

/// Key of a pinned source.
pub(crate) fn source_key(op: &Op, pin: &Digest) -> CacheKey {
    // The reference is left out: two names of one manifest are one source. What matters beside the
    // pin (platform, options) is the worker's to hash into it.
    let kind = match op {
        Op::Source(_) => "source",
        _ => "op",
    };
    CacheKey(Encoder::new("wbuild.source-key.v1").str(kind).digest(pin).finish())
}

pub(crate) fn definition_key(op: &Op, inputs: &[DefinitionInput]) -> CacheKey {
    let by_content: Vec<bool> =
        inputs.iter().map(|input| matches!(input, DefinitionInput::Content(_))).collect();
    let mut e = Encoder::new("wbuild.definition-key.v1");
    op.encode(&mut e, &by_content);
    e.list(inputs.iter(), |e, input| match input {
        DefinitionInput::Key(key, index) => {
            e.variant("key").digest(key.digest()).int(i64::from(*index));
        }
        DefinitionInput::Content(content) => {
            e.variant("content").digest(content.digest());
        }
    });
    CacheKey(e.finish())
}

/// What one input contributes to a result key.
#[derive(Clone, Copy, Debug)]
pub enum ResultInput {
    /// The whole result.
    Result(ResultId),
    /// What is read of it.
    Content(ContentDigest),
}

pub(crate) fn result_key(op: &Op, inputs: &[ResultInput]) -> CacheKey {
    let by_content: Vec<bool> =
        inputs.iter().map(|input| matches!(input, ResultInput::Content(_))).collect();
    let mut e = Encoder::new("wbuild.result-key.v1");
    op.encode(&mut e, &by_content);
    e.list(inputs.iter(), |e, input| match input {
        ResultInput::Result(id) => {
            e.variant("result").digest(id.digest());
        }
        ResultInput::Content(content) => {
            e.variant("content").digest(content.digest());
        }
    });
    CacheKey(e.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frozen: a change makes every stored record unreachable and needs new domain versions.
    #[test]
    fn golden_vectors() {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let op = Op::Merge;
        let key = CacheKey(digest("key"));
        let content = ContentDigest(digest("content"));
        let definition = [DefinitionInput::Key(key, 1), DefinitionInput::Content(content)];
        let result = [ResultInput::Result(ResultId(digest("id"))), ResultInput::Content(content)];
        let found = [
            source_key(&op, &digest("pin")).0.hex(),
            definition_key(&op, &definition).0.hex(),
            result_key(&op, &result).0.hex(),
        ];
        let golden = [
            "6978bd3095ee988b95afbd46613725704453cb9cf71739e44262524e1b26b00c",
            "a88f7774fdb11c56633b85446841708bab545a5253c50e7ea026522fc88f9ab4",
            "832877c4b8f80b3f61c18d17dba13f8c179fe098c293279aca286c7c31056251",
        ];
        assert_eq!(found, golden);
    }

    /// Each part of a key counts, and no two kinds of key meet. (Each field of an op: see the tests
    /// of the graph.)
    #[test]
    fn every_part_counts() {
        let digest = |text: &str| Digest::of(text.as_bytes());
        let key = |text: &str| DefinitionInput::Key(CacheKey(digest(text)), 0);
        let other_output = |text: &str| DefinitionInput::Key(CacheKey(digest(text)), 1);
        let read = |text: &str| DefinitionInput::Content(ContentDigest(digest(text)));
        let id = |text: &str| ResultInput::Result(ResultId(digest(text)));
        let content = |text: &str| ResultInput::Content(ContentDigest(digest(text)));
        let diff = Op::Diff { lower: None, upper: Some(0) };
        let source = Op::Source(wbuild_graph::op::SourceOp::Local(Default::default()));
        let keys = [
            source_key(&source, &digest("a")),
            source_key(&source, &digest("b")),
            definition_key(&Op::Merge, &[]),
            definition_key(&Op::Merge, &[key("a")]),
            definition_key(&Op::Merge, &[key("b")]),
            definition_key(&Op::Merge, &[other_output("a")]),
            definition_key(&Op::Merge, &[read("a")]),
            definition_key(&Op::Merge, &[read("b")]),
            definition_key(&Op::Merge, &[key("a"), key("b")]),
            definition_key(&Op::Merge, &[key("b"), key("a")]),
            definition_key(&Op::Merge, &[key("a"), key("a")]),
            definition_key(&diff, &[key("a")]),
            definition_key(&diff, &[read("a")]),
            result_key(&Op::Merge, &[]),
            result_key(&Op::Merge, &[id("a")]),
            result_key(&Op::Merge, &[id("b")]),
            result_key(&Op::Merge, &[content("a")]),
            result_key(&Op::Merge, &[content("b")]),
            result_key(&Op::Merge, &[id("a"), id("b")]),
            result_key(&Op::Merge, &[id("b"), id("a")]),
            result_key(&diff, &[id("a")]),
            result_key(&diff, &[content("a")]),
        ];
        let distinct: std::collections::HashSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
    }
}
