//! Questions about a file that is not built (wit/frontend, interface `describe`).

use serde_json::json;

use crate::plan::host::Host;
use crate::plan::{self, Scope};
use crate::suggest::closest;
use crate::{CheckRule, Failure, Rule, Span};

pub use crate::plan::outline::Parameter;

/// The rules of the build checks: a list of objects with `name`, `summary`, `experimental` and, if
/// the project has an address, `url`.
const RULES: &str = "rules";

/// A stage, as something that can be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name; empty if it has none.
    pub name: String,
    /// What the comment above says of it.
    pub summary: String,
    /// It is built if none is named.
    pub is_default: bool,
    /// Its `FROM`.
    pub at: Span,
    /// What it starts from, as written.
    pub base: String,
    /// Its platform, as written.
    pub platform: Option<String>,
}

/// The stages, in the order of the file.
pub fn targets(host: &mut dyn Host) -> Result<Vec<Target>, Failure> {
    let (_, _, parsed) = plan::read(host)?;
    if parsed.failed() {
        return Err(Failure::of(parsed.problems));
    }
    let last = parsed.file.stages.len().saturating_sub(1);
    let target = |(index, stage): (usize, crate::ast::Stage)| Target {
        name: stage.folded_name().unwrap_or_default(),
        is_default: index == last,
        at: stage.span,
        base: stage.base.as_str().to_owned(),
        platform: stage.platform.map(|platform| platform.as_str().to_owned()),
        summary: stage.doc.unwrap_or_default(),
    };
    Ok(parsed.file.stages.into_iter().enumerate().map(target).collect())
}

/// What a target takes from outside, in the order of the file.
pub fn parameters(host: &mut dyn Host, target: Option<&str>) -> Result<Vec<Parameter>, Failure> {
    plan::parameters(host, target)
}

/// Reports what is doubtful: in all stages, or in those that the target needs if one is named.
pub fn check(host: &mut dyn Host, target: Option<&str>) -> Result<(), Failure> {
    plan::linted(host, Scope { target, all: true }).map(drop)
}

/// Further methods: names, and what they answer.
pub fn methods() -> Vec<(String, String)> {
    vec![(RULES.to_owned(), "List the rules of `--check`".to_owned())]
}

/// The answer of a further method, as JSON.
pub fn call(method: &str) -> Result<String, Failure> {
    answer::<Rule>(method)
}

/// The answer of a further method of a language with these rules.
pub fn answer<R: CheckRule>(method: &str) -> Result<String, Failure> {
    if method != RULES {
        let known = methods();
        let close = closest(method, known.iter().map(|(name, _)| name.as_str()));
        let hint = match close {
            Some(name) => format!("did you mean {name}?"),
            None => format!(
                "it knows {}",
                known.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
            ),
        };
        let failure = Failure::new("unsupported", format!("there is no method {method:?}"));
        let attrs = vec![("hint".to_owned(), hint)];
        return Err(Failure { attrs, ..failure });
    }
    let rule = |rule: &R| {
        let mut object = json!({
            "name": rule.name(),
            "summary": rule.summary(),
            "experimental": rule.experimental(),
        });
        if let Some(url) = rule.url() {
            object["url"] = url.into();
        }
        object
    };
    Ok(R::ALL.iter().map(rule).collect::<serde_json::Value>().to_string())
}
