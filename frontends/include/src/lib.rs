//! `include`: Dockerfiles with one more instruction, and an example of a language on top of another.
//!
//! `INCLUDE path` stands for the instructions of a file of the context, wherever it is included from;
//! such a file may include others. What an instruction of an included file does, and what is wrong
//! with it, is shown in that file.
//!
//! The language itself is the library `wbuild-dockerfile`, so that nothing has to be granted: calling
//! the bundled frontend by `nested` would be less code here, and something that users are asked about
//! (`plugins/examples/many` does it). [`expand`] does the work and calls no host; the rest is how the
//! parts are joined.

#[path = "../../dockerfile/component/src/bridge.rs"]
mod bridge;
#[path = "../../dockerfile/component/src/convert.rs"]
mod convert;
mod expand;

mod bindings {
    // Generated: the component ABI is made of raw pointers.
    #![allow(unsafe_code, missing_docs)]
    wit_bindgen::generate!({
        path: ["../../wit/types", "../../wit/frontend"],
        world: "wbuild:frontend/frontend-describe",
        generate_all,
    });
    export!(Component with_types_in self);
    use super::Component;
}

use bindings::exports::wbuild::frontend::{build, describe};
use bindings::wbuild::types::types as wit;
use bridge::{Attrs, Bridge};
use convert::failure_out;
use expand::Expanded;
use wbuild_dockerfile::describe as lang;
use wbuild_dockerfile::{Failure, Host as _, LocalSource, Span, parse};

/// Name of the main context.
const CONTEXT: &str = "context";
/// What the texts are written in.
const LANGUAGE: &str = "dockerfile";

/// The host, whose definition is the text without `INCLUDE` lines.
fn included() -> Result<Bridge, Failure> {
    let mut bridge = Bridge::default();
    let mut file = bridge.definition()?;
    let source = bridge.add_source(&file.name, LANGUAGE, &file.data)?;
    let escape = parse(source, &file.data).file.directives.escape;
    let mut expanded = Expanded::default();
    let mut above = vec![
        file.attrs
            .iter()
            .find(|(key, _)| key == "path")
            .map_or_else(|| file.name.clone(), |(_, path)| path.clone()),
    ];
    expanded.add(source, &file.data, escape, &mut above, &mut |path| read(&mut bridge, path))?;
    if expanded.text != file.data {
        let generated = bridge.add_source(&file.name, LANGUAGE, &expanded.text)?;
        for (range, original) in expanded.parts {
            let (start, end) = (range.start as u32, range.end as u32);
            bridge.map_source(Span { source: generated, start, end }, original)?;
        }
        file.data = expanded.text;
        bridge.definition = Some(file);
    }
    Ok(bridge)
}

/// A file of the main context, registered as a source.
fn read(bridge: &mut Bridge, path: &str) -> Result<Option<(Vec<u8>, u32)>, Failure> {
    let ready = bridge.context(CONTEXT, None)?.and_then(|context| context.root);
    let tree = match ready {
        Some(root) => root,
        None => {
            let include = vec![path.to_owned()];
            let local = LocalSource { name: CONTEXT.to_owned(), include, exclude: Vec::new() };
            let tree = bridge.local(&local)?;
            let hidden = vec![("hidden".to_owned(), "true".to_owned())];
            bridge.annotate(tree, &format!("load {path}"), &[], &hidden);
            tree
        }
    };
    let Some(data) = bridge.read_file(tree, path)? else { return Ok(None) };
    let source = bridge.add_source(path, LANGUAGE, &data)?;
    Ok(Some((data, source)))
}

struct Component;

impl build::Guest for Component {
    fn build() -> Result<(), wit::Failure> {
        included().and_then(|mut bridge| wbuild_dockerfile::build(&mut bridge)).map_err(failure_out)
    }
}

impl describe::Guest for Component {
    fn targets(_opts: Attrs) -> Result<Vec<describe::Target>, wit::Failure> {
        let targets = included().and_then(|mut bridge| lang::targets(&mut bridge));
        Ok(targets.map_err(failure_out)?.into_iter().map(convert::target_out).collect())
    }

    fn parameters(
        target: Option<String>,
        _opts: Attrs,
    ) -> Result<Vec<describe::Parameter>, wit::Failure> {
        let target = target.as_deref();
        let found = included().and_then(|mut bridge| lang::parameters(&mut bridge, target));
        Ok(found.map_err(failure_out)?.into_iter().map(convert::parameter_out).collect())
    }

    fn check(target: Option<String>, _opts: Attrs) -> Result<(), wit::Failure> {
        let target = target.as_deref();
        included().and_then(|mut bridge| lang::check(&mut bridge, target)).map_err(failure_out)
    }

    fn methods() -> Result<Vec<describe::Method>, wit::Failure> {
        let method = |(name, summary)| describe::Method { name, summary, attrs: Vec::new() };
        Ok(lang::methods().into_iter().map(method).collect())
    }

    fn call(method: String, _: Option<String>, _args: Attrs) -> Result<String, wit::Failure> {
        lang::call(&method).map_err(failure_out)
    }
}
