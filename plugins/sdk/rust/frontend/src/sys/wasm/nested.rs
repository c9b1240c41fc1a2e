//! The import that asks for a grant. A component has it only if its author calls what is here: the
//! linker drops imports that nothing uses.

use wbuild_api::extension::{FilesResult, ImageResult, NestedBuild, NestedResult};
use wbuild_graph::{Attrs, Failure};
use wbuild_guest::wasm::{failure_in, platform_in, platform_out, span_out};

use super::{edge_in, edge_out};

/// Generated: the component ABI is made of raw pointers.
#[allow(unsafe_code, missing_docs, clippy::all)]
mod bindings {
    wit_bindgen::generate!({
        path: ["../../../../wit/types", "../../../../wit/frontend"],
        inline: "
            package wbuild:sdk-nested;
            world calls { import wbuild:frontend/nested@0.1.0; }
        ",
        with: {
            "wbuild:types/types@0.1.0": wbuild_guest::wasm::wit,
            "wbuild:frontend/graph@0.1.0": super::super::bindings::wbuild::frontend::graph,
            "wbuild:frontend/nested@0.1.0": generate,
        },
    });
}

use bindings::wbuild::frontend::nested;

/// `nested.build`, with the builders `nested.nested-build`
pub fn nested_build(requests: Vec<NestedBuild>) -> Vec<Result<NestedResult, Failure>> {
    let requests = requests.iter().map(request_out).collect();
    let answers = nested::build(requests).into_iter();
    answers.map(|answer| Ok(result_in(&answer.map_err(failure_in)?))).collect()
}

fn request_out(request: &NestedBuild) -> nested::NestedBuild {
    let out = nested::NestedBuild::new(&request.frontend);
    if let Some((name, data)) = &request.definition {
        out.definition(name, data);
    }
    for (name, context) in &request.contexts {
        out.context(name, edge_out(context.root), context.config.as_deref());
    }
    request.handed_on.iter().for_each(|name| out.hand_on(name));
    request.targets.iter().for_each(|name| out.target(name));
    request.platforms.iter().for_each(|platform| out.platform(&platform_out(platform)));
    if !request.options.is_empty() {
        out.options(&request.options.0);
    }
    request.asked_at.iter().for_each(|at| out.asked_at(span_out(*at)));
    out
}

fn result_in(result: &nested::NestedResult) -> NestedResult {
    let image = |image: nested::NestedImage| ImageResult {
        name: image.name,
        platform: Some(platform_in(image.platform)),
        root: image.root.map(edge_in),
        config: image.config,
        attrs: Attrs(image.attrs),
    };
    let files = |files: nested::NestedFiles| FilesResult {
        name: files.name,
        platform: Some(platform_in(files.platform)),
        root: edge_in(files.root),
        path: files.path,
        attrs: Attrs(files.attrs),
    };
    NestedResult {
        images: result.images().into_iter().map(image).collect(),
        files: result.files().into_iter().map(files).collect(),
    }
}
