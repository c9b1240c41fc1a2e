//! Interface `describe`, which a frontend may export.

use wasmtime::Store;
use wbuild_api::describe::{Description, MethodInfo, Outline, Parameter, Query, Target};
use wbuild_graph::{Attrs, Failure};

use super::State;
use crate::bounds::{ANSWERS, attrs as attrs_in, text as text_in};
use crate::guest::Caller;
use crate::v0_1::types::{failure_in, span_in, wit};

/// Generated from `wit/frontend`; what it imports is that of the world `frontend`.
#[allow(missing_docs, unsafe_code, clippy::all)]
mod bindings {
    wasmtime::component::bindgen!({
        path: ["../../wit/types", "../../wit/frontend"],
        world: "wbuild:frontend/frontend-describe",
        exports: { default: async },
        with: {
            "wbuild:types/types": crate::v0_1::types::bindings::wbuild::types::types,
            "wbuild:types/log": crate::v0_1::types::bindings::wbuild::types::log,
            "wbuild:frontend/graph": crate::v0_1::frontend::bindings::wbuild::frontend::graph,
            "wbuild:frontend/inspect": crate::v0_1::frontend::bindings::wbuild::frontend::inspect,
            "wbuild:frontend/request": crate::v0_1::frontend::bindings::wbuild::frontend::request,
            "wbuild:frontend/diagnostics":
                crate::v0_1::frontend::bindings::wbuild::frontend::diagnostics,
            "wbuild:frontend/results": crate::v0_1::frontend::bindings::wbuild::frontend::results,
        },
    });
}

use bindings::FrontendDescribe;
pub(crate) use bindings::FrontendDescribePre;
use bindings::exports::wbuild::frontend::describe as guest;

/// Asks a fresh instance.
pub(crate) async fn ask(
    caller: &Caller,
    store: &mut Store<State>,
    instance: &FrontendDescribe,
    query: Query,
) -> Result<Description, Failure> {
    let guest = instance.wbuild_frontend_describe();
    Ok(match query {
        Query::Check { target } => {
            flat(caller.call(guest.call_check(store, target.as_deref(), &Vec::new())).await)?;
            Description::Check
        }
        Query::Targets => {
            let targets = flat(caller.call(guest.call_targets(store, &Vec::new())).await)?;
            Description::Targets { targets: targets_in(caller, targets)? }
        }
        Query::Outline { target } => {
            let wanted = target.as_deref();
            let parameters =
                flat(caller.call(guest.call_parameters(&mut *store, wanted, &Vec::new())).await)?;
            within(caller, parameters.len(), "parameters")?;
            let parameters = parameters.into_iter().map(parameter_in).collect();
            let targets = flat(caller.call(guest.call_targets(store, &Vec::new())).await)?;
            let target = asked_for(targets_in(caller, targets)?, wanted);
            Description::Outline(Outline { target, parameters })
        }
        Query::Methods => {
            let methods = flat(caller.call(guest.call_methods(store)).await)?;
            within(caller, methods.len(), "methods")?;
            let method_in = |method: guest::Method| MethodInfo {
                name: text_in(method.name),
                summary: text_in(method.summary),
            };
            let methods = methods.into_iter().map(method_in).collect();
            Description::Methods { methods }
        }
        Query::Call { method, target, args } => {
            let call = guest.call_call(store, &method, target.as_deref(), &args.0);
            Description::Call { output: flat(caller.call(call).await)? }
        }
    })
}

/// The target of a name, or the default one. Some languages tell `a` from `A` and others do not: what
/// is written alike comes first.
fn asked_for(targets: Vec<Target>, wanted: Option<&str>) -> Option<Target> {
    let place = match wanted {
        Some(name) => targets
            .iter()
            .position(|target| target.name == name)
            .or_else(|| targets.iter().position(|target| target.name.eq_ignore_ascii_case(name))),
        None => targets.iter().position(|target| target.is_default),
    };
    place.and_then(|place| targets.into_iter().nth(place))
}

/// What ended the guest and what it answers are failures alike.
fn flat<T>(answer: Result<Result<T, wit::Failure>, Failure>) -> Result<T, Failure> {
    answer?.map_err(failure_in)
}

fn within(caller: &Caller, count: usize, what: &str) -> Result<(), Failure> {
    if count > ANSWERS {
        return Err(caller.too_many(count, what, ANSWERS));
    }
    Ok(())
}

fn targets_in(caller: &Caller, targets: Vec<guest::Target>) -> Result<Vec<Target>, Failure> {
    within(caller, targets.len(), "targets")?;
    let target_in = |target: guest::Target| Target {
        name: text_in(target.name),
        summary: text_in(target.summary),
        is_default: target.is_default,
        at: target.at.map(span_in),
        attrs: attrs_in(Attrs(target.attrs)),
    };
    Ok(targets.into_iter().map(target_in).collect())
}

fn parameter_in(parameter: guest::Parameter) -> Parameter {
    Parameter {
        kind: text_in(parameter.kind),
        name: text_in(parameter.name),
        summary: text_in(parameter.summary),
        default: parameter.value.map(text_in),
        required: parameter.required,
        at: parameter.at.map(span_in),
        attrs: attrs_in(Attrs(parameter.attrs)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_written_alike_come_first() {
        let target = |name: &str, is_default| Target {
            name: name.to_owned(),
            is_default,
            ..Target::default()
        };
        let targets = || vec![target("Build", false), target("build", true), target("last", false)];
        for (wanted, found) in [
            (Some("build"), Some("build")),
            (Some("Build"), Some("Build")),
            (Some("BUILD"), Some("Build")),
            (Some("LAST"), Some("last")),
            (Some("other"), None),
            (None, Some("build")),
        ] {
            let got = asked_for(targets(), wanted).map(|target| target.name);
            assert_eq!(got.as_deref(), found, "{wanted:?}");
        }
    }
}
