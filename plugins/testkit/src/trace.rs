//! What a frontend asked and did, and what it was answered: recorded at the capabilities, whoever they
//! belong to, and answered again without them.
//!
//! Beside the memo of the engine, which keeps digests of answers to know whether they still hold: a
//! trace has the answers themselves, failures included, so that it stands alone.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use wbuild_api::extension::{NestedResult, PluginIdentity};
use wbuild_api::nodes;
use wbuild_api::texts::Texts;
use wbuild_graph::op::SourceOp;
use wbuild_graph::{Attrs, Definition, Edge, Failure, GraphLimits, NodeMeta, Op, SourceFile};

/// Version of the format.
pub(crate) const VERSION: u32 = 1;
/// Lists of numbers of this length are written as text, if they are one: they are bytes.
const BYTES: usize = 8;
/// By which text in their place is known.
const TEXT: &str = "$text";

/// What a frontend did, from its first question to its end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trace {
    /// Of the format.
    pub version: u32,
    /// Whose it is.
    pub frontend: PluginIdentity,
    /// In order.
    pub calls: Vec<Call>,
    /// How it ended; none if it did not.
    pub ended: Option<Result<(), Failure>>,
}

/// One call of a capability.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Interface and function of wit/frontend.
    pub call: String,
    /// Its arguments.
    pub args: Json,
    /// What it was answered.
    pub answer: Json,
}

impl Trace {
    /// As a file.
    pub fn to_json(&self) -> String {
        let mut value = serde_json::to_value(self).unwrap_or_default();
        pack(&mut value);
        let mut text = serde_json::to_string_pretty(&value).unwrap_or_default();
        text.push('\n');
        text
    }

    /// Reads a file.
    ///
    /// # Errors
    ///
    /// When it is no trace of a format that is known.
    pub fn from_json(text: &str) -> Result<Trace, Failure> {
        let bad = |error: serde_json::Error| Failure::invalid("it is no trace").cause(&error);
        let mut value: Json = serde_json::from_str(text).map_err(bad)?;
        if value["version"] != json!(VERSION) {
            let message = format!("it is no trace of version {VERSION}");
            return Err(Failure::unsupported(message));
        }
        unpack(&mut value);
        serde_json::from_value(value).map_err(bad)
    }

    /// The graph that was made, by the host that the calls were made of.
    ///
    /// # Errors
    ///
    /// When the calls make none.
    pub fn graph(&self) -> Result<Definition, Failure> {
        let mut graph = Definition::new("trace", GraphLimits::default());
        for (at, call) in self.calls.iter().enumerate() {
            let done = match call.call.as_str() {
                "nested.build" => {
                    fill(&mut graph, next_node(&self.calls, at))?;
                    continue;
                }
                "graph.insert" => {
                    let (op, inputs): (Op, Vec<Edge>) = args(call)?;
                    nodes::insert(&mut graph, op, inputs).map(drop)
                }
                "graph.annotate" => {
                    let (at, meta): (Edge, NodeMeta) = args(call)?;
                    graph.annotate(at.node, meta)
                }
                "graph.ignore-cache" => {
                    let (at,): (Edge,) = args(call)?;
                    graph.ignore_cache(at.node)
                }
                _ => Ok(()),
            };
            // What was refused is not in it, now as then.
            if done.is_err() != call.answer.get("Err").is_some() {
                return Err(Failure::invalid(format!("{} ended otherwise", call.shown())));
            }
        }
        Ok(graph)
    }

    /// The first call in which another trace differs, in words.
    pub fn difference(&self, other: &Trace) -> Option<String> {
        let mut pairs = self.calls.iter().zip(&other.calls).enumerate();
        if let Some((at, (one, two))) = pairs.find(|(_, (one, two))| one != two) {
            return Some(format!("call {}: {} and then {}", at + 1, one.shown(), two.shown()));
        }
        if self.calls.len() != other.calls.len() {
            let (one, two) = (self.calls.len(), other.calls.len());
            return Some(format!("{one} calls and then {two}"));
        }
        (self.ended != other.ended)
            .then(|| format!("ended with {:?} and then {:?}", self.ended, other.ended))
    }
}

impl Call {
    /// In a line.
    pub fn shown(&self) -> String {
        let cut = |value: &Json| {
            let text = value.to_string();
            match text.char_indices().nth(200) {
                Some((at, _)) => format!("{}…", &text[..at]),
                None => text,
            }
        };
        format!("{}{} -> {}", self.call, cut(&self.args), cut(&self.answer))
    }
}

/// How many nodes there are after a call of other frontends. Those that they made are not in the trace,
/// but what comes after is numbered with them: as the next node that was made says, or else what the
/// call yielded.
pub(crate) fn next_node(calls: &[Call], at: usize) -> usize {
    let made = |call: &Call| {
        let is_one = call.call == "graph.insert";
        let outputs = is_one.then(|| call.answer.get("Ok").cloned()).flatten()?;
        let outputs: Vec<Edge> = serde_json::from_value(outputs).ok()?;
        Some(outputs.first()?.node.0 as usize)
    };
    if let Some(next) = calls[at + 1..].iter().find_map(made) {
        return next;
    }
    let results: Vec<Result<NestedResult, Failure>> =
        serde_json::from_value(calls[at].answer.clone()).unwrap_or_default();
    let roots = results.iter().flatten().flat_map(|result| {
        let images = result.images.iter().filter_map(|image| image.root);
        images.chain(result.files.iter().map(|files| files.root))
    });
    roots.map(|root| root.node.0 as usize + 1).max().unwrap_or_default()
}

/// How many sources there are after a call of other frontends, in the same way.
pub(crate) fn next_source(calls: &[Call], at: usize) -> usize {
    let added = |call: &Call| {
        let is_one = call.call == "diagnostics.add-source";
        is_one.then(|| call.answer.get("Ok")?.as_u64()).flatten()
    };
    let next = calls[at + 1..].iter().find_map(added).unwrap_or_default();
    usize::try_from(next).unwrap_or_default()
}

/// Adds sources in place of those that called frontends registered.
pub(crate) fn fill_sources(texts: &mut Texts, sources: usize) -> Result<(), Failure> {
    while texts.sources().len() < sources {
        let name = format!("source {} of a called frontend", texts.sources().len());
        texts.add(SourceFile { name, language: String::new(), text: b""[..].into() })?;
    }
    Ok(())
}

/// Adds nodes in place of those that called frontends made.
pub(crate) fn fill(graph: &mut Definition, nodes: usize) -> Result<(), Failure> {
    while graph.len() < nodes {
        // Each is work of its own.
        let identifier = format!("frontend:///{}", graph.len());
        let (platform, attrs) = (None, Attrs::default());
        let op = Op::Source(SourceOp::Other { identifier, platform, attrs });
        nodes::insert(graph, op, Vec::new())?;
    }
    Ok(())
}

fn args<T: DeserializeOwned>(call: &Call) -> Result<T, Failure> {
    serde_json::from_value(call.args.clone())
        .map_err(|error| Failure::invalid(format!("{} is malformed", call.call)).cause(&error))
}

/// Writes bytes that are text as text.
fn pack(value: &mut Json) {
    match value {
        Json::Array(items) => {
            let byte = |item: &Json| item.as_u64().and_then(|number| u8::try_from(number).ok());
            let bytes: Option<Vec<u8>> = match items.len() >= BYTES {
                true => items.iter().map(byte).collect(),
                false => None,
            };
            match bytes.and_then(|bytes| String::from_utf8(bytes).ok()) {
                Some(text) => *value = json!({ TEXT: text }),
                None => items.iter_mut().for_each(pack),
            }
        }
        Json::Object(fields) => fields.values_mut().for_each(pack),
        _ => {}
    }
}

fn unpack(value: &mut Json) {
    match value {
        Json::Object(fields) if fields.len() == 1 && fields.contains_key(TEXT) => {
            if let Some(text) = fields[TEXT].as_str() {
                *value = text.bytes().map(Json::from).collect();
            }
        }
        Json::Object(fields) => fields.values_mut().for_each(unpack),
        Json::Array(items) => items.iter_mut().for_each(unpack),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_text_are_written_as_text_and_come_back() {
        for value in [
            json!({"data": "hello world".bytes().collect::<Vec<u8>>()}),
            json!([
                [1, 2, 3],
                (0..20).collect::<Vec<_>>(),
                vec![255; 9],
                vec!["x"; 9],
                vec![300; 9]
            ]),
        ] {
            let mut packed = value.clone();
            pack(&mut packed);
            assert_ne!(packed, value);
            unpack(&mut packed);
            assert_eq!(packed, value);
        }
    }
}
