//! Questions about a file that is not built (wit/frontend, interface `describe`).

use wbuild_dockerfile::Failure;
use wbuild_dockerfile::describe::{Parameter, Target, answer};
use wbuild_dockerfile::suggest::did_you_mean;

use crate::ast::{Earthfile, Kind, Mount, Recipe, Statement, documented};
use crate::flags::{Flags, switch};
use crate::plan::host::DynamicHost;
use crate::plan::read;
use crate::{Rule, lint};

/// What a recipe begins with, as written.
fn base(statements: &[Statement]) -> Option<(String, Option<String>)> {
    statements.iter().find_map(|statement| match &statement.kind {
        Kind::From { flags, base, .. } => {
            let platform = flags.value("platform").map(|platform| platform.as_str().to_owned());
            Some((base.as_str().to_owned(), platform))
        }
        _ => None,
    })
}

/// The targets, in the order of the file.
pub fn targets(host: &mut dyn DynamicHost) -> Result<Vec<Target>, Failure> {
    let (_, file) = read(host)?;
    let below = base(&file.base);
    let target = |recipe: &Recipe| {
        let (base, platform) = base(&recipe.body).or_else(|| below.clone()).unwrap_or_default();
        Target {
            name: recipe.name.as_str().to_owned(),
            summary: recipe.doc().unwrap_or_default(),
            is_default: false,
            at: recipe.name.span(),
            base,
            platform,
        }
    };
    Ok(file.targets.iter().map(target).collect())
}

/// What a target takes from outside, in the order of its commands, after what holds for the whole
/// file; behind it what recipes of the file take that it needs. An argument of a function is given by
/// who calls it, so it is none of these.
pub fn parameters(
    host: &mut dyn DynamicHost,
    target: Option<&str>,
) -> Result<Vec<Parameter>, Failure> {
    let (_, file) = read(host)?;
    let mut found = Vec::new();
    collect(&file.base, &mut found);
    if let Some(name) = target {
        let name = name.strip_prefix('+').unwrap_or(name);
        // Perhaps with the path of an artifact.
        let name = name.split('/').next().unwrap_or(name);
        if name != "base" {
            collect(&recipe(&file, name)?.body, &mut found);
        }
        let needed = lint::needed(&file, name);
        for recipe in file.targets.iter().chain(&file.functions) {
            if !needed.contains(recipe.name.as_str()) {
                continue;
            }
            let mut own = Vec::new();
            collect(&recipe.body, &mut own);
            own.retain(|parameter| recipe.marker.is_none() || parameter.kind != "arg");
            own.into_iter().for_each(|parameter| add(&mut found, parameter));
        }
    }
    for parameter in &mut found {
        let given = host.opt(&format!("build-arg:{}", parameter.name));
        if parameter.kind == "arg" && given.is_some() {
            parameter.default = given;
        }
    }
    Ok(found)
}

/// Reports what is doubtful: in the whole file, or in what a target of it needs if one is named.
pub fn check(host: &mut dyn DynamicHost, target: Option<&str>) -> Result<(), Failure> {
    let (_, file) = read(host)?;
    let target = target.map(|name| name.strip_prefix('+').unwrap_or(name));
    let target = target.map(|name| name.split('/').next().unwrap_or(name));
    if let Some(name) = target.filter(|name| *name != "base") {
        recipe(&file, name)?;
    }
    lint::check(host, &file, target)
}

/// Names of further methods, which are those of Dockerfiles.
pub use wbuild_dockerfile::describe::methods;

/// The answer of a further method, as JSON.
pub fn call(method: &str) -> Result<String, Failure> {
    answer::<Rule>(method)
}

/// A target by its name.
fn recipe<'f>(file: &'f Earthfile, name: &str) -> Result<&'f Recipe, Failure> {
    file.targets.iter().find(|recipe| recipe.name.as_str() == name).ok_or_else(|| {
        let names: Vec<&str> = file.targets.iter().map(|recipe| recipe.name.as_str()).collect();
        let hint = did_you_mean(name, names.iter().copied()).unwrap_or_else(|| match names.len() {
            0 => "the Earthfile has no targets".to_owned(),
            1..=20 => format!("the targets are {}", names.join(", ")),
            _ => "`--call=targets` lists those that there are".to_owned(),
        });
        let attrs = vec![("hint".to_owned(), hint)];
        Failure { attrs, ..Failure::new("not-found", format!("there is no target `{name}`")) }
    })
}

/// The first of several of a kind and name counts, and is required if one of them is.
fn add(found: &mut Vec<Parameter>, parameter: Parameter) {
    let same =
        |known: &&mut Parameter| known.kind == parameter.kind && known.name == parameter.name;
    match found.iter_mut().find(same) {
        Some(known) => known.required |= parameter.required,
        None => found.push(parameter),
    }
}

/// What commands take from outside.
pub(crate) fn collect(statements: &[Statement], found: &mut Vec<Parameter>) {
    for statement in statements {
        statement.walk(&mut |statement| match &statement.kind {
            Kind::Arg { flags, assign } => {
                let name = assign.name.as_str().to_owned();
                let required = flags.get("required").is_some_and(|flag| {
                    flag.value.as_ref().is_none_or(|value| switch(value) != Some(false))
                });
                add(
                    found,
                    Parameter {
                        kind: "arg",
                        summary: documented(&statement.comments, &name).unwrap_or_default(),
                        default: assign.value.as_ref().map(|value| value.as_str().to_owned()),
                        required,
                        at: Some(statement.span),
                        name,
                    },
                );
            }
            Kind::Run(run) => process(&run.flags, &run.mounts, statement, found),
            Kind::If { branches, .. } => {
                for branch in branches {
                    let run = &branch.condition;
                    process(&run.flags, &run.mounts, statement, found);
                }
            }
            Kind::For { flags, mounts, .. } => process(flags, mounts, statement, found),
            Kind::Cache { flags, path } => {
                taken("cache-mount", flags.value("id").unwrap_or(path), false, statement, found);
            }
            _ => {}
        });
    }
}

/// What a process takes.
fn process(flags: &Flags, mounts: &[Mount], statement: &Statement, found: &mut Vec<Parameter>) {
    for value in flags.list("secret") {
        let id = value
            .split_once('=')
            .map_or_else(|| value.as_str().to_owned(), |(_, id)| id.as_str().to_owned());
        taken("secret", id.strip_prefix("+secrets/").unwrap_or(&id), true, statement, found);
    }
    if flags.get("ssh").is_some() {
        taken("ssh", "default", true, statement, found);
    }
    for mount in mounts {
        let field = |name: &str| {
            let found = mount.fields.iter().rev().find(|(field, _)| *field == name);
            found.map_or("", |(_, value)| value.as_str())
        };
        let id = field("id");
        match field("type") {
            "cache" => {
                let name = if id.is_empty() { field("target") } else { id };
                taken("cache-mount", name, false, statement, found);
            }
            "secret" => {
                let id = id.strip_prefix("+secrets/").unwrap_or(id);
                taken("secret", id, true, statement, found);
            }
            _ => {}
        }
    }
}

fn taken(
    kind: &'static str,
    name: &str,
    required: bool,
    statement: &Statement,
    found: &mut Vec<Parameter>,
) {
    // An empty name switches a secret off.
    if name.is_empty() {
        return;
    }
    let (name, summary, at) = (name.to_owned(), String::new(), Some(statement.span));
    add(found, Parameter { kind, name, summary, default: None, required, at });
}
