//! Builds described in YAML, for tools that emit data: stages with steps, images and artifacts. JSON
//! is YAML, so a tool may write that.
//!
//! ```text
//! bytes ─ node ─► nodes with places ─ check ─► a valid document ─ lower ─► Dockerfile (ast) ─► Host
//!                                       ▲
//!                                    schema (one table: keys, types, the page, the JSON Schema)
//! ```
//!
//! A document becomes what the Dockerfile language makes graphs of, so that contexts, ignore files,
//! arguments, platforms, mounts, images and the names of steps are the same in both. Places are those
//! of the YAML.
//!
//! Invariants:
//!
//! - Pure: no I/O, no clock, nothing of WebAssembly.
//! - Scalars are text as it is written: `1.10` is no number, `no` is no boolean.
//! - What is not in the [`schema`] is an error with its place; keys that begin with `x-` are anybody's.
//! - Aliases cost what they stand for, and what a document comes to is limited.

mod check;
mod code;
mod lower;
mod node;
pub mod schema;
mod text;

use wbuild_dockerfile::ast::Dockerfile;
use wbuild_dockerfile::describe::{Parameter, Target};
use wbuild_dockerfile::shared::Foreign;
use wbuild_dockerfile::{DefinitionFile, Failure, Host};

pub use code::Code;

/// A document that was read.
struct Read {
    source: u32,
    definition: DefinitionFile,
    lowered: lower::Lowered,
}

/// Reads what the host has.
fn read(host: &mut dyn Host) -> Result<Read, Failure> {
    let definition = host.definition()?;
    let source = host.add_source(&definition.name, "yaml", &definition.data)?;
    let root = node::parse(source, &definition.data)?;
    let problems = check::document(&root);
    if !problems.is_empty() {
        return Err(Failure::of(problems));
    }
    let lowered = lower::document(&root).map_err(Failure::of)?;
    Ok(Read { source, definition, lowered })
}

impl Read {
    fn foreign(&self) -> Foreign<'_> {
        Foreign {
            source: self.source,
            definition: &self.definition,
            file: self.lowered.file.clone(),
            default: self.lowered.default.clone(),
        }
    }
}

/// Builds what the host asks for.
pub fn build(host: &mut dyn Host) -> Result<(), Failure> {
    read(host)?.foreign().build(host)
}

/// Reports what is doubtful: in all stages, or in those that the target needs if one is named.
pub fn check(host: &mut dyn Host, target: Option<&str>) -> Result<(), Failure> {
    read(host)?.foreign().check(host, target)
}

/// What a target takes from outside.
pub fn parameters(host: &mut dyn Host, target: Option<&str>) -> Result<Vec<Parameter>, Failure> {
    read(host)?.foreign().parameters(host, target)
}

/// Stages and artifacts, in the order of the document.
pub fn targets(host: &mut dyn Host) -> Result<Vec<Target>, Failure> {
    let Read { lowered, .. } = read(host)?;
    let Dockerfile { stages, .. } = lowered.file;
    let last = stages.last().and_then(|stage| stage.folded_name()).unwrap_or_default();
    let default = lowered.default.unwrap_or(last);
    let target = |stage: wbuild_dockerfile::ast::Stage| {
        let name = stage.folded_name().unwrap_or_default();
        Target {
            is_default: name == default.to_lowercase(),
            name,
            at: stage.span,
            base: stage.base.as_str().to_owned(),
            platform: stage.platform.map(|platform| platform.as_str().to_owned()),
            summary: stage.doc.unwrap_or_default(),
        }
    };
    Ok(stages.into_iter().map(target).collect())
}
