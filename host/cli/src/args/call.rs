//! `--call`: what the frontend is asked instead of building.

use std::str::FromStr;

use wbuild_api::describe::Query;
use wbuild_graph::Attrs;

use super::csv::{self, OneOf};

/// `--call METHOD[,format=FORMAT][,ignorestatus=true][,KEY=VALUE…]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallArg {
    /// What is asked.
    pub method: Method,
    /// How the answer is written.
    pub format: Format,
    /// End with 0 whatever a check has found.
    pub ignore_status: bool,
}

/// What a frontend can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Method {
    /// To build, as without `--call`.
    Build,
    /// Whether anything is doubtful.
    Check,
    /// What a target takes.
    Outline,
    /// What can be built.
    Targets,
    /// Which methods there are.
    Describe,
    /// A method of the frontend's own.
    Other {
        /// Its name.
        name: String,
        /// What it gets.
        args: Attrs,
    },
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// The methods that have names here, as buildx calls them; those of BuildKit are known too.
const METHODS: [&str; 5] = ["build", "check", "outline", "targets", "subrequests.describe"];

impl Method {
    fn of_name(name: &str) -> Self {
        match name.strip_prefix("frontend.").unwrap_or(name) {
            "build" => Method::Build,
            "check" | "lint" => Method::Check,
            "outline" => Method::Outline,
            "targets" => Method::Targets,
            "describe" | "subrequests.describe" => Method::Describe,
            // Names of a frontend's own methods are handed on as they are.
            _ => Method::Other { name: name.to_owned(), args: Attrs::default() },
        }
    }

    /// The question; none to build.
    pub fn query(&self, target: Option<&str>) -> Option<Query> {
        let target = target.map(str::to_owned);
        Some(match self {
            Method::Build => return None,
            Method::Check => Query::Check { target },
            Method::Outline => Query::Outline { target },
            Method::Targets => Query::Targets,
            Method::Describe => Query::Methods,
            Method::Other { name, args } => {
                Query::Call { method: name.clone(), target, args: args.clone() }
            }
        })
    }
}

impl FromStr for CallArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut method = None;
        let mut call =
            CallArg { method: Method::Build, format: Format::Text, ignore_status: false };
        let mut args = Attrs::default();
        for field in csv::fields(text)? {
            let Some((key, value)) = field.split_once('=') else {
                if method.replace(Method::of_name(field.trim())).is_some() || field.is_empty() {
                    return Err(format!("expected one method, then KEY=VALUE; found {field:?}"));
                }
                continue;
            };
            match key.trim() {
                "format" => call.format = format(value)?,
                "ignorestatus" => call.ignore_status = truth(value)?,
                key => args.push(key, value),
            }
        }
        call.method = method.ok_or_else(|| format!("a method is missing: {}", OneOf(&METHODS)))?;
        match &mut call.method {
            Method::Other { args: known, .. } => *known = args,
            _ => {
                if let Some((key, _)) = args.iter().next() {
                    return Err(format!(
                        "unknown key {key:?}; expected {}",
                        OneOf(&["format", "ignorestatus"])
                    ));
                }
            }
        }
        Ok(call)
    }
}

impl CallArg {
    /// `--check`.
    pub fn check() -> Self {
        CallArg { method: Method::Check, format: Format::Text, ignore_status: false }
    }
}

fn format(text: &str) -> Result<Format, String> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err(format!("unknown format {text:?}; expected {}", OneOf(&["text", "json"]))),
    }
}

/// Yes or no, in the words that Go's flag parser has for them.
fn truth(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_and_keys() {
        let call = |method, format, ignore_status| Some(CallArg { method, format, ignore_status });
        let other = |name: &str, args: &[(&str, &str)]| Method::Other {
            name: name.to_owned(),
            args: Attrs(args.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()),
        };
        for (text, want) in [
            ("build", call(Method::Build, Format::Text, false)),
            ("check", call(Method::Check, Format::Text, false)),
            ("lint", call(Method::Check, Format::Text, false)),
            ("frontend.lint", call(Method::Check, Format::Text, false)),
            ("outline,format=json", call(Method::Outline, Format::Json, false)),
            ("frontend.outline,format=text", call(Method::Outline, Format::Text, false)),
            ("frontend.targets", call(Method::Targets, Format::Text, false)),
            ("describe", call(Method::Describe, Format::Text, false)),
            ("subrequests.describe", call(Method::Describe, Format::Text, false)),
            ("frontend.subrequests.describe", call(Method::Describe, Format::Text, false)),
            ("format=json,check,ignorestatus=true", call(Method::Check, Format::Json, true)),
            ("check,ignorestatus=0", call(Method::Check, Format::Text, false)),
            ("convertllb", call(other("convertllb", &[]), Format::Text, false)),
            (
                "frontend.x,a=b=c,\"d=e,f\",format=json",
                call(other("frontend.x", &[("a", "b=c"), ("d", "e,f")]), Format::Json, false),
            ),
            ("", None),
            ("format=json", None),
            ("check,outline", None),
            ("check,", None),
            ("check,color=red", None),
            ("check,format=yaml", None),
            ("check,ignorestatus=maybe", None),
            ("check,ignorestatus", None),
        ] {
            let got: Result<CallArg, String> = text.parse();
            match want {
                Some(want) => assert_eq!(got, Ok(want), "{text}"),
                None => assert!(got.is_err(), "{text}: {got:?}"),
            }
        }
    }
}
