//! Questions about a file that is not built (wit/frontend, interface `describe`).

use wbuild_dockerfile::Failure;
use wbuild_dockerfile::describe::{Parameter, Target};

use crate::ast::{Kind, Recipe, Statement, documented};
use crate::flags::Flags;
use crate::plan::host::DynamicHost;
use crate::plan::read;

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
/// file. What targets that it needs take is not among it.
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
        let recipe = file.targets.iter().find(|recipe| recipe.name.as_str() == name);
        let Some(recipe) = recipe else {
            return Err(Failure::new("not-found", format!("there is no target `{name}`")));
        };
        collect(&recipe.body, &mut found);
    }
    for parameter in &mut found {
        let given = host.opt(&format!("build-arg:{}", parameter.name));
        if parameter.kind == "arg" && given.is_some() {
            parameter.default = given;
        }
    }
    Ok(found)
}

/// Says what is wrong with the file. What is doubtful is not looked for yet.
pub fn check(host: &mut dyn DynamicHost) -> Result<(), Failure> {
    read(host)?;
    Err(Failure::new(
        "unsupported",
        "looking for what is doubtful in an Earthfile is not supported yet",
    ))
}

/// What commands take from outside.
pub(crate) fn collect(statements: &[Statement], found: &mut Vec<Parameter>) {
    for statement in statements {
        match &statement.kind {
            Kind::Arg { flags, assign } => {
                let name = assign.name.as_str().to_owned();
                if found.iter().any(|known| known.kind == "arg" && known.name == name) {
                    continue;
                }
                found.push(Parameter {
                    kind: "arg",
                    summary: documented(&statement.comments, &name).unwrap_or_default(),
                    default: assign.value.as_ref().map(|value| value.as_str().to_owned()),
                    required: flags.get("required").is_some(),
                    at: Some(statement.span),
                    name,
                });
            }
            Kind::Run(run) => secrets(&run.flags, statement, found),
            Kind::If { branches, otherwise } => {
                for branch in branches {
                    secrets(&branch.condition.flags, statement, found);
                    collect(&branch.body, found);
                }
                collect(otherwise.as_deref().unwrap_or_default(), found);
            }
            Kind::For { body, .. } | Kind::Wait(body) | Kind::With { body, .. } => {
                collect(body, found);
            }
            Kind::Try { body, finally } => {
                collect(body, found);
                collect(finally, found);
            }
            _ => {}
        }
    }
}

fn secrets(flags: &Flags, statement: &Statement, found: &mut Vec<Parameter>) {
    for value in flags.list("secret") {
        let id = value
            .split_once('=')
            .map_or(value.as_str(), |(_, id)| &value[value.len() - id.len()..]);
        let name = id.strip_prefix("+secrets/").unwrap_or(id).to_owned();
        if found.iter().any(|known| known.kind == "secret" && known.name == name) {
            continue;
        }
        found.push(Parameter {
            kind: "secret",
            name,
            summary: String::new(),
            default: None,
            required: true,
            at: Some(statement.span),
        });
    }
}
