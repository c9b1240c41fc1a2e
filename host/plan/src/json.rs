//! Plans as JSON. What is read is a claim: it may have been written by anybody.

use serde_json::Value;
use wbuild_graph::{Attrs, Failure, FailureKind};

use crate::{Plan, VERSION, fields};

/// The largest plan that is read, in bytes.
pub const MAX_PLAN: u64 = 256 << 20;

impl Plan {
    /// The plan as text, with a line feed at its end.
    pub fn to_json(&self) -> String {
        let mut text = serde_json::to_string_pretty(self).expect("keys are strings, so it is JSON");
        text.push('\n');
        text
    }

    /// Reads a plan.
    ///
    /// # Errors
    ///
    /// `Invalid` if it is none, or refers to nodes that it does not have; `Unsupported` if it has
    /// another version; `Limit`.
    pub fn from_json(data: &[u8]) -> Result<Plan, Failure> {
        if data.len() as u64 > MAX_PLAN {
            let message = format!("the plan has more than {MAX_PLAN} bytes");
            return Err(Failure::new(FailureKind::Limit, message));
        }
        let not_one = |error: serde_json::Error| Failure::invalid("this is no plan").cause(&error);
        #[derive(serde::Deserialize)]
        struct Head {
            version: u32,
        }
        let Head { version } = serde_json::from_slice(data).map_err(not_one)?;
        if version != VERSION {
            let message = format!("the plan has version {version}, this program knows {VERSION}");
            return Err(Failure::unsupported(message).hint("plan the definition anew"));
        }
        let plan: Plan = serde_json::from_slice(data).map_err(not_one)?;
        plan.check()?;
        Ok(plan)
    }

    fn check(&self) -> Result<(), Failure> {
        let mut last = None;
        for (at, node) in self.nodes.iter().enumerate() {
            if last.is_some_and(|last| last >= node.id) {
                return Err(Failure::invalid(format!("the node {} is not in order", node.id)));
            }
            last = Some(node.id);
            for input in &node.inputs {
                let earlier = &self.nodes[..at];
                if earlier.binary_search_by_key(&input.node, |node| node.id).is_err() {
                    let message = format!(
                        "the node {} has the input {}, which is not there",
                        node.id, input.node
                    );
                    return Err(Failure::invalid(message));
                }
            }
        }
        for root in self.results.roots() {
            if self.node(root.node).is_none() {
                return Err(Failure::invalid(format!(
                    "a result is of the node {}, which is not there",
                    root.node
                )));
            }
        }
        Ok(())
    }
}

/// `KEY=VALUE` of each attribute.
pub fn attrs(attrs: &Attrs) -> Vec<String> {
    fields::pairs(&attrs.0)
}

/// The config of an image, as it was yielded.
pub fn config(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
}
