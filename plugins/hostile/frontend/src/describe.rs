//! What it answers when it is asked about a definition.

use crate::bindings::exports::wbuild::frontend::describe::{Guest, Method, Parameter, Target};
use crate::bindings::wbuild::frontend::request;
use crate::bindings::wbuild::types::types::{Attrs, Failure, Span};
use crate::{Hostile, MIB, diagnostic, failure, report, spin};

const MANY: usize = 20_000;

fn behaviour() -> String {
    request::opt("behaviour").unwrap_or_else(|| "ok".to_owned())
}

/// What every function does first.
fn misbehave() -> Result<(), Failure> {
    match behaviour().as_str() {
        "fail" => {
            let kind = request::opt("kind").unwrap_or_else(|| "invalid".to_owned());
            Err(failure(&kind, "failed as it was told to"))
        }
        "trap" => panic!("a hostile frontend gives up"),
        "spin" => {
            spin();
            Ok(())
        }
        _ => Ok(()),
    }
}

/// As many answers as it is told to give, with such texts.
fn repeated<T: Clone>(make: impl Fn(String) -> T) -> Vec<T> {
    match behaviour().as_str() {
        "huge-answer" => vec![make("x".repeat(96 * MIB))],
        "many-answers" => vec![make("x".to_owned()); MANY],
        "long-texts" => vec![make("x".repeat(MIB))],
        _ => vec![make("x".to_owned())],
    }
}

fn span() -> Option<Span> {
    let forged = behaviour() == "forged-span";
    forged.then_some(Span { source: 4_000_000_000, start: 3, end: 1 })
}

impl Guest for Hostile {
    fn targets(_: Attrs) -> Result<Vec<Target>, Failure> {
        misbehave()?;
        Ok(repeated(|name| Target {
            summary: name.clone(),
            name,
            is_default: true,
            at: span(),
            attrs: Vec::new(),
        }))
    }

    fn parameters(_: Option<String>, _: Attrs) -> Result<Vec<Parameter>, Failure> {
        misbehave()?;
        Ok(repeated(|name| Parameter {
            kind: "arg".to_owned(),
            summary: name.clone(),
            name,
            value: None,
            required: false,
            at: span(),
            attrs: Vec::new(),
        }))
    }

    fn check(_: Option<String>, _: Attrs) -> Result<(), Failure> {
        misbehave()?;
        let spans: Vec<Span> = span().into_iter().collect();
        for message in repeated(|message| message) {
            report(&diagnostic(&message, &spans));
        }
        Ok(())
    }

    fn methods() -> Result<Vec<Method>, Failure> {
        misbehave()?;
        Ok(repeated(|name| Method { summary: name.clone(), name, attrs: Vec::new() }))
    }

    fn call(method: String, _: Option<String>, args: Attrs) -> Result<String, Failure> {
        misbehave()?;
        let output = match behaviour().as_str() {
            "huge-answer" => "x".repeat(96 * MIB),
            _ => format!("{method} {args:?}"),
        };
        Ok(output)
    }
}
