//! Questions about a definition that are answered without building it: what editors and
//! `--check`, `--call` ask. Mirrors wit/frontend, interface `describe`.

use serde::{Deserialize, Serialize};
use wbuild_graph::{Attrs, Failure, SourceMap, Span};

use crate::event::BuildStats;

/// A question. Targets are named as for a build; none = the definition's default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "query")]
pub enum Query {
    /// Is anything doubtful in it? The findings are reported as diagnostics.
    Check {
        /// What would be built.
        target: Option<String>,
    },
    /// What can be built?
    Targets,
    /// What does a target take from outside?
    Outline {
        /// Which.
        target: Option<String>,
    },
    /// Which methods of its own does the frontend have?
    Methods,
    /// One of those methods.
    Call {
        /// Its name.
        method: String,
        /// What would be built.
        target: Option<String>,
        /// In its own words.
        args: Attrs,
    },
}

/// The answer to the [`Query`] of the same name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "query")]
pub enum Description {
    /// Everything has been looked at and reported.
    Check,
    /// In the order of the definition.
    Targets {
        /// The targets.
        targets: Vec<Target>,
    },
    /// See [`Outline`].
    Outline(Outline),
    /// In the frontend's order.
    Methods {
        /// The methods.
        methods: Vec<MethodInfo>,
    },
    /// JSON of a schema that the method documents.
    Call {
        /// As the frontend wrote it; not checked.
        output: String,
    },
}

/// A method of the frontend's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodInfo {
    /// For [`Query::Call`].
    pub name: String,
    /// What it answers; may be empty.
    pub summary: String,
}

/// What a target is and what it takes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outline {
    /// None: the frontend does not list the target that was asked for.
    pub target: Option<Target>,
    /// In the order of the definition.
    pub parameters: Vec<Parameter>,
}

/// Something that can be built by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// May be empty for the default.
    pub name: String,
    /// What its author says of it; may be empty.
    pub summary: String,
    /// Built when no target is named.
    pub is_default: bool,
    /// Where it is defined.
    pub at: Option<Span>,
    /// Keys: `base`, `platform`.
    pub attrs: Attrs,
}

/// Something that a target takes from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parameter {
    /// `arg`, `secret`, `ssh`, `cache-mount`, or another word of the frontend's.
    pub kind: String,
    /// Its name, or id.
    pub name: String,
    /// What its author says of it; may be empty.
    pub summary: String,
    /// Value if none is given.
    pub default: Option<String>,
    /// The build fails without it.
    pub required: bool,
    /// Where it is used or declared.
    pub at: Option<Span>,
    /// Open for later.
    pub attrs: Attrs,
}

/// An answer, with what is needed to show it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DescribeReport {
    /// The answer.
    pub description: Description,
    /// Sources that the answer and the messages point into.
    pub sources: SourceMap,
    /// Numbers.
    pub stats: BuildStats,
}

impl Query {
    /// What is asked, as the end of "it cannot …".
    pub fn purpose(&self) -> String {
        match self {
            Query::Check { .. } => "check a definition".to_owned(),
            Query::Targets => "list targets".to_owned(),
            Query::Outline { .. } => "list what a target takes".to_owned(),
            Query::Methods => "list methods".to_owned(),
            Query::Call { method, .. } => format!("answer {method:?}"),
        }
    }

    /// The failure of a frontend that answers no questions at all.
    pub fn unsupported(&self, frontend: &str) -> Failure {
        Failure::unsupported(format!("the frontend {frontend} cannot {}", self.purpose()))
            .attr("plugin", frontend)
            .hint("it can only build: it has no export wbuild:frontend/describe")
    }
}
