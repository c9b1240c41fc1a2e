//! What happens to a node of a frontend's before it is part of the graph, whoever the host is.

use std::collections::BTreeSet;

use wbuild_graph::op::{Network, Security};
use wbuild_graph::{Definition, Edge, Failure, FailureKind, Op};

use crate::request::{DefaultNetwork, Entitlement};

/// What a build may do, as far as it concerns nodes.
#[derive(Clone, Copy, Debug)]
pub struct Rights<'a> {
    /// What the caller granted.
    pub allow: &'a BTreeSet<Entitlement>,
    /// Network of steps that do not say otherwise.
    pub network: DefaultNetwork,
    /// The main context is a directory of the caller's.
    pub in_directory: bool,
}

impl Rights<'_> {
    /// Refuses what needs an entitlement nobody gave. The one place of this check.
    pub fn check(&self, op: &Op) -> Result<(), Failure> {
        let Op::Exec(exec) = op else {
            return Ok(());
        };
        let denied = |what: &str, option: &str| {
            Err(Failure::new(FailureKind::Denied, format!("{what} is not granted to this build"))
                .hint(format!("this version of wbuild has no way to grant {option}")))
        };
        if exec.security == Security::Insecure {
            return denied("a privileged process", "security.insecure");
        }
        if exec.security == Security::Client {
            let option = Entitlement::ClientExec;
            if !self.allow.contains(&option) {
                let message = "a process outside of any container, with the rights of the caller, is \
                               not granted to this build";
                return Err(Failure::new(FailureKind::Denied, message)
                    .hint(format!("if the definition is trusted: --allow {}", option.as_str())));
            }
            if !self.in_directory {
                let message = "a process of the caller's needs a context that is a directory";
                return Err(Failure::unsupported(message));
            }
        }
        if exec.network == Network::Host && self.network != DefaultNetwork::Host {
            return denied("the host's network", "network.host");
        }
        if exec.devices.iter().any(|(_, required)| *required) {
            return denied("a device", "device");
        }
        Ok(())
    }
}

/// Appends a node; its outputs.
pub fn insert(
    definition: &mut Definition,
    mut op: Op,
    inputs: Vec<Edge>,
) -> Result<Vec<Edge>, Failure> {
    let outputs = op.outputs();
    let client = matches!(&op, Op::Exec(exec) if exec.security == Security::Client);
    if client && let Op::Exec(exec) = &mut op {
        // It is run for what it does: two that say the same are not one.
        exec.attrs.push("client", definition.len().to_string());
    }
    let node = definition.insert(op, inputs)?;
    if client {
        definition.ignore_cache(node)?;
    }
    Ok((0..outputs).map(|index| Edge { node, index }).collect())
}

/// Whether two outputs are the same work.
pub fn same_work(definition: &mut Definition, at: Edge, other: Edge) -> Result<bool, Failure> {
    definition.check_edge(at)?;
    definition.check_edge(other)?;
    let same = definition.digest(at.node) == definition.digest(other.node);
    Ok(same && at.index == other.index)
}

/// Why a directory cannot be read.
pub fn no_such_context(name: &str) -> Failure {
    if name == "context" {
        return Failure::not_found("this build has no context to read files from")
            .hint("give a directory beside the definition, e.g. wbuild -f - .");
    }
    Failure::not_found(format!("there is no build context named {name:?}"))
        .hint(format!("give one with --build-context {name}=DIRECTORY"))
}
