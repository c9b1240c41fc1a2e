//! Build checks: what can be built but is doubtful.
//!
//! They go by the text of one file: nothing is run and no image is looked at, so what depends on
//! those (a variable that an image sets, a function of another file) is given the benefit of the
//! doubt. Rules about variables are in `variables`, those about what commands name in `calls`, the
//! others in `text`.
//!
//! Which rules run is set as in a Dockerfile: `# check=skip=Rule;error=true` right above VERSION for
//! the file, right above a command or a recipe for that alone.

mod calls;
mod environment;
mod text;
mod uses;
mod variables;

use std::collections::BTreeSet;

use wbuild_dockerfile::shared::{Linter, check_on_top};
use wbuild_dockerfile::{Failure, Severity};

use crate::Rule;
use crate::ast::{Earthfile, Recipe, Statement};
use crate::plan::host::DynamicHost;
use calls::Calls;
use environment::Environments;

/// Which rules run, and what they have found.
type Lint = Linter<Rule>;

/// A recipe, or the base.
#[derive(Clone, Copy, Debug)]
struct Body<'f> {
    recipe: Option<&'f Recipe>,
    statements: &'f [Statement],
}

/// The recipes of a file that one needs, with itself.
pub(crate) fn needed<'f>(file: &'f Earthfile, name: &str) -> BTreeSet<&'f str> {
    Calls::of(file).reached(name)
}

/// Looks at a file; at the recipes that a target needs, if one is named.
pub(crate) fn check(
    host: &mut dyn DynamicHost,
    file: &Earthfile,
    target: Option<&str>,
) -> Result<(), Failure> {
    let comments = file.version.as_ref().map_or(&[][..], |version| &version.comments);
    let mut problems = Vec::new();
    let settings = check_on_top(comments, &mut problems);
    if problems.iter().any(|problem| problem.severity == Severity::Error) {
        return Err(Failure::of(problems));
    }
    problems.into_iter().for_each(|problem| host.report(problem));
    let mut lint = Lint::of_file(host, settings);
    let calls = Calls::of(file);
    let wanted: Option<BTreeSet<&str>> = target.map(|name| calls.reached(name));
    let environments = Environments::of(file);
    text::file(file, &mut lint);
    calls.check_file(&mut lint);
    for (recipe, statements) in file.bodies() {
        if let (Some(recipe), Some(wanted)) = (recipe, &wanted)
            && !wanted.contains(recipe.name.as_str())
        {
            continue;
        }
        let body = Body { recipe, statements };
        text::body(file, body, &mut lint);
        calls.check_body(body, &mut lint);
        let handed_on = recipe.map_or_else(BTreeSet::new, |recipe| calls.handed_on(&recipe.name));
        variables::check(file, body, (&environments, handed_on), &mut lint);
    }
    lint.finish(host)
}
