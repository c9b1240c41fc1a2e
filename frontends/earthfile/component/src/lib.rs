//! The Earthfile frontend as a component.
//!
//! All that is about the language lives in `wbuild-earthfile`, which knows nothing of WebAssembly.
//! This crate is its [`DynamicHost`] over the plugin interface; what that has in common with the host
//! of Dockerfiles is the same source.

#[path = "../../../dockerfile/component/src/bridge.rs"]
mod bridge;
#[path = "../../../dockerfile/component/src/convert.rs"]
mod convert;

mod bindings {
    // Generated: the component ABI is made of raw pointers.
    #![allow(unsafe_code, missing_docs)]
    wit_bindgen::generate!({
        path: ["../../../wit/types", "../../../wit/frontend"],
        world: "wbuild:frontend/frontend-full",
        generate_all,
    });
    export!(Component with_types_in self);
    use super::Component;
}

use bindings::exports::wbuild::frontend::{build, describe};
use bindings::wbuild::frontend::{graph, inspect, nested, results};
use bindings::wbuild::types::types as wit;
use bridge::{Attrs, Bridge, output_in, output_out};
use convert::{failure_in, failure_out, platform_out, span_out};
use wbuild_dockerfile::{Failure, Output, Platform};
use wbuild_earthfile::describe as lang;
use wbuild_earthfile::{DynamicHost, NestedBuild, NestedImage, Outcome};

struct Component;

impl build::Guest for Component {
    fn build() -> Result<(), wit::Failure> {
        wbuild_earthfile::build(&mut Bridge::default()).map_err(failure_out)
    }
}

impl describe::Guest for Component {
    fn targets(_opts: Attrs) -> Result<Vec<describe::Target>, wit::Failure> {
        let targets = lang::targets(&mut Bridge::default()).map_err(failure_out)?;
        Ok(targets.into_iter().map(convert::target_out).collect())
    }

    fn parameters(
        target: Option<String>,
        _opts: Attrs,
    ) -> Result<Vec<describe::Parameter>, wit::Failure> {
        let found =
            lang::parameters(&mut Bridge::default(), target.as_deref()).map_err(failure_out)?;
        Ok(found.into_iter().map(convert::parameter_out).collect())
    }

    fn check(target: Option<String>, _opts: Attrs) -> Result<(), wit::Failure> {
        lang::check(&mut Bridge::default(), target.as_deref()).map_err(failure_out)
    }

    fn methods() -> Result<Vec<describe::Method>, wit::Failure> {
        let method = |(name, summary)| describe::Method { name, summary, attrs: Vec::new() };
        Ok(lang::methods().into_iter().map(method).collect())
    }

    fn call(method: String, _: Option<String>, _args: Attrs) -> Result<String, wit::Failure> {
        lang::call(&method).map_err(failure_out)
    }
}

impl DynamicHost for Bridge {
    fn evaluate(&mut self, at: &[Output]) -> Vec<Result<(), Failure>> {
        let nodes: Vec<graph::Output> = at.iter().copied().map(output_out).collect();
        let answers = inspect::evaluate(&nodes).into_iter();
        answers.map(|answer| answer.map_err(failure_in)).collect()
    }

    fn local_after(&mut self, name: &str, after: Option<Output>) -> Result<Output, Failure> {
        let source = graph::LocalSource::new(name);
        if let Some(after) = after {
            source.after(output_out(after));
        }
        graph::local(source).map(output_in).map_err(failure_in)
    }

    fn outcome(&mut self, at: Output) -> Result<Outcome, Failure> {
        let outcome = inspect::outcome_of(output_out(at)).map_err(failure_in)?;
        let read = |stream: &str| -> Result<Vec<u8>, Failure> {
            let size = outcome.size(stream).map_err(failure_in)?;
            outcome.read(stream, 0, size).map_err(failure_in)
        };
        Ok(Outcome {
            code: outcome.exit_code(),
            stdout: read("stdout")?,
            truncated: outcome.truncated("stdout").map_err(failure_in)?,
            stderr: read("stderr")?,
        })
    }

    fn require(&mut self, at: Output) -> Result<(), Failure> {
        results::require(output_out(at)).map_err(failure_in)
    }

    fn nested(&mut self, builds: &[NestedBuild]) -> Vec<Result<Vec<NestedImage>, Failure>> {
        let requests = builds.iter().map(nested_build).collect();
        let image = |image: nested::NestedImage| NestedImage {
            root: image.root.map(output_in),
            config: image.config,
        };
        let answers = nested::build(requests).into_iter();
        answers
            .map(|answer| {
                let result = answer.map_err(failure_in)?;
                Ok(result.images().into_iter().map(image).collect())
            })
            .collect()
    }

    fn directories(
        &mut self,
        at: Output,
        path: &str,
        pattern: &str,
    ) -> Result<Vec<String>, Failure> {
        let opts = vec![("pattern".to_owned(), pattern.to_owned())];
        let mut names = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let limit = 1000;
            let answer = inspect::read_dir(output_out(at), path, after.as_deref(), limit, &opts);
            let entries = match answer {
                Ok(entries) => entries,
                Err(failure) if failure.kind == "not-found" => return Ok(names),
                Err(failure) => return Err(failure_in(failure)),
            };
            let full = entries.len() == limit as usize;
            after = entries.last().map(|entry| entry.path.clone());
            let directories =
                entries.into_iter().filter(|entry| entry.kind == inspect::EntryKind::Directory);
            names.extend(directories.map(|entry| entry.path));
            if !full {
                return Ok(names);
            }
        }
    }

    fn repository_facts(&mut self, url: &str, reference: &str) -> Result<Attrs, Failure> {
        let (kind, url) = ("git".to_owned(), url.to_owned());
        let attrs = vec![("facts".to_owned(), "true".to_owned())];
        let reference = reference.to_owned();
        let request = inspect::SourceRequest { kind, url, reference, attrs };
        let answer = inspect::resolve_sources(&[request]).into_iter().next();
        let missing = || Failure::new("internal", "the host did not answer for a repository");
        Ok(answer.ok_or_else(missing)?.map_err(failure_in)?.attrs)
    }

    fn files(&mut self, name: &str, root: Output, directory: &str) -> Result<(), Failure> {
        let mut attrs = Attrs::new();
        if !directory.is_empty() {
            attrs.push(("dest".to_owned(), directory.to_owned()));
        }
        results::files(name, None, output_out(root), "/", &attrs).map_err(failure_in)
    }

    fn image_result(
        &mut self,
        name: &str,
        platform: &Platform,
        root: Option<Output>,
        config: &str,
        attrs: &[(String, String)],
    ) -> Result<(), Failure> {
        let (platform, root) = (platform_out(platform), root.map(output_out));
        results::image(name, Some(&platform), root, config, attrs).map_err(failure_in)
    }

    fn effect(&mut self, name: &str, at: Output) -> Result<(), Failure> {
        results::effect(name, output_out(at)).map_err(failure_in)
    }

    fn fail_after(&mut self, at: Output) -> Result<(), Failure> {
        results::fail_after(output_out(at)).map_err(failure_in)
    }

    fn publish(&mut self, names: &[String]) -> Result<(), Failure> {
        results::publish(names).map_err(failure_in)
    }

    fn same_work(&mut self, at: Output, other: Output) -> Result<bool, Failure> {
        graph::same_work(output_out(at), output_out(other)).map_err(failure_in)
    }
}

fn nested_build(build: &NestedBuild) -> nested::NestedBuild {
    let request = nested::NestedBuild::new(&build.frontend);
    let (name, data) = &build.definition;
    request.definition(name, data);
    request.context("context", output_out(build.context), None);
    build.handed_on.iter().for_each(|name| request.hand_on(name));
    if let Some(target) = &build.target {
        request.target(target);
    }
    request.platform(&platform_out(&build.platform));
    request.options(&build.options);
    request.asked_at(span_out(build.asked_at));
    request
}
