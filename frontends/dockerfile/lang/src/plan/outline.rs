//! What a target takes from outside: arguments, secrets, agents, cache mounts.
//!
//! Each stage notes what it takes when it is lowered; for a target the notes of all stages that it is
//! made of are put together, in the order of the file.

use std::collections::{BTreeMap, BTreeSet};

use super::globals::Argument;
use super::stages::{Graph, Place};
use crate::Span;

/// Something that a target takes from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// `arg`, `secret`, `ssh` or `cache-mount`.
    pub kind: &'static str,
    /// Its name or id.
    pub name: String,
    /// What the comment above says of it.
    pub summary: String,
    /// The value that counts.
    pub default: Option<String>,
    /// The build fails without it.
    pub required: bool,
    /// Where it is asked for.
    pub at: Option<Span>,
}

/// What a stage takes.
#[derive(Clone, Debug, Default)]
pub(super) struct Taken {
    /// Names of arguments that the stage declares or its `FROM` uses.
    arguments: BTreeSet<String>,
    /// Those that it declares itself, and does not just take over from above the first `FROM`.
    own: BTreeMap<String, Parameter>,
    /// By kind and name.
    others: Parameters,
}

impl Taken {
    /// An argument is used. `own` is set unless it is that of above the first `FROM`.
    pub fn argument(&mut self, name: &str, own: Option<Argument>) {
        self.arguments.insert(name.to_owned());
        if let Some(argument) = own {
            self.own.insert(name.to_owned(), parameter(name, &argument));
        }
    }

    /// A mount asks for something. It is required if one of several says so.
    pub fn mount(&mut self, kind: &'static str, name: &str, required: bool, at: Span) {
        let parameter = Parameter {
            kind,
            name: name.to_owned(),
            summary: String::new(),
            default: None,
            required,
            at: Some(at),
        };
        add(&mut self.others, (kind, name.to_owned()), parameter);
    }
}

type Parameters = BTreeMap<(&'static str, String), Parameter>;

/// The first of several counts, and is required if any of them is.
fn add(all: &mut Parameters, key: (&'static str, String), parameter: Parameter) {
    let required = parameter.required;
    all.entry(key).or_insert(parameter).required |= required;
}

fn parameter(name: &str, argument: &Argument) -> Parameter {
    Parameter {
        kind: "arg",
        name: name.to_owned(),
        summary: argument.doc.clone().unwrap_or_default(),
        default: argument.value.clone(),
        required: false,
        at: argument.at,
    }
}

/// What the target of a graph takes. `taken` is by the stage's number.
pub(super) fn parameters(graph: &Graph, taken: &[Taken]) -> Vec<Parameter> {
    let mut found = Parameters::new();
    let mut visited = vec![false; taken.len()];
    // From the target outwards: what stands nearer to it counts.
    let mut open = vec![graph.target];
    while let Some(stage) = open.pop() {
        let Some(plan) = graph.stages[stage].as_ref() else { continue };
        if std::mem::replace(&mut visited[stage], true) {
            continue;
        }
        let mut names = taken[stage].arguments.clone();
        let line = &graph.lines[stage];
        let expansions = std::iter::once(&line.base).chain(&line.platform);
        names.extend(expansions.flatten().flat_map(|expansion| expansion.names().cloned()));
        // Defaults may be made of other arguments.
        let mut more: Vec<String> = names.iter().cloned().collect();
        while let Some(name) = more.pop() {
            let uses = graph.globals.arguments.get(&name).map(|argument| &argument.uses);
            for used in uses.into_iter().flatten() {
                if names.insert(used.clone()) {
                    more.push(used.clone());
                }
            }
        }
        for name in names {
            let global = graph.globals.arguments.get(&name);
            let argument = match (taken[stage].own.get(&name), global) {
                (Some(own), _) => own.clone(),
                (None, Some(global)) => parameter(&name, global),
                (None, None) => continue,
            };
            add(&mut found, ("arg", name), argument);
        }
        for (key, parameter) in &taken[stage].others {
            add(&mut found, key.clone(), parameter.clone());
        }
        let others = plan.places.values().rev().chain(std::iter::once(&plan.base));
        open.extend(others.filter_map(|place| match place {
            Place::Stage(stage) => Some(*stage),
            _ => None,
        }));
    }
    let mut parameters: Vec<Parameter> = found.into_values().collect();
    parameters.sort_by_key(|parameter| parameter.at);
    parameters
}
