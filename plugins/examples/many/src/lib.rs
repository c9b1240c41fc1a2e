//! `many`: the images of a repository in one file, and an example of a frontend that calls another.
//!
//! ```text
//! # image  its Dockerfile           build arguments
//! api      services/api/Dockerfile  VERSION=2
//! web      services/web/Dockerfile
//! ```
//!
//! Every line is built by the frontend for Dockerfiles, all of them beside each other, with the
//! contexts as the caller has them. A target is the name of a line; without one all are built. If it
//! is one alone, it is the image that the caller's names are for; several have their names as titles.

use wbuild_frontend::{Build, Call, Error, Line, Result, ResultExt as _};

wbuild_frontend::frontend!(build);

/// The frontend that does the work, whatever a project calls so.
const DOCKERFILE: &str = "builtin:dockerfile";
/// Largest Dockerfile, in bytes.
const DOCKERFILE_BYTES: usize = 1 << 20;

fn build(build: &Build) -> Result<()> {
    let source = build.definition("")?;
    let lines = source.lines();
    let wanted = wanted(&lines, &build.targets())?;
    let context = build.context_of("context", None)?.unwrap_or_default();
    let contexts = build.context_names();
    let call = |line: &&Line| {
        let mut words = line.split_whitespace().skip(1);
        let path = words.next().ok_or_else(|| {
            Error::invalid("an image without a Dockerfile")
                .at(line.at)
                .help("NAME DOCKERFILE [ARG=VALUE…]")
        })?;
        let text = context.read(path, DOCKERFILE_BYTES).at(line.at)?;
        let text = text.ok_or_else(|| Error::invalid(format!("there is no {path}")).at(line.at))?;
        let mut call = Call::new(DOCKERFILE).definition(path, text).at(line.at);
        call = contexts.iter().fold(call, |call, name| call.hand_on(whole(name)));
        for word in words {
            let Some((name, value)) = word.split_once('=') else {
                return Err(Error::invalid(format!("{word} is no ARG=VALUE")).at(line.at));
            };
            call = call.arg(name, value);
        }
        Ok(call)
    };
    let calls = wanted.iter().map(call).collect::<Result<Vec<Call>>>()?;
    let called = Call::all(calls).into_iter().collect::<Result<Vec<_>>>()?;
    for (line, called) in wanted.iter().zip(&called) {
        for platform in build.platforms() {
            let base = called.image(&platform).at(line.at)?;
            let image = build.image(&base.state, &base.config).platform(&platform);
            match wanted.len() {
                1 => image.done()?,
                _ => image.name(name(line)).attr("annotation", title(line)).done()?,
            }
        }
    }
    Ok(())
}

/// The name of a context, which may be there for one platform only: `name::platform`.
fn whole(context: &str) -> &str {
    context.split_once("::").map_or(context, |(name, _)| name)
}

fn name(line: &Line) -> &str {
    line.split_whitespace().next().unwrap_or_default()
}

/// By what several in one layout are told apart: what they are called is for the caller to say.
fn title(line: &Line) -> String {
    format!("org.opencontainers.image.title={}", name(line))
}

/// The lines of the targets, or all.
fn wanted<'a>(lines: &'a [Line], targets: &[String]) -> Result<Vec<&'a Line>> {
    let images =
        || lines.iter().filter(|line| !matches!(name(line).chars().next(), None | Some('#')));
    if targets.is_empty() {
        return Ok(images().collect());
    }
    let find = |target: &String| {
        images().find(|line| name(line) == target).ok_or_else(|| {
            let names: Vec<&str> = images().map(name).collect();
            Error::invalid(format!("there is no image {target}")).help(names.join(", "))
        })
    };
    targets.iter().map(find).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        wbuild_testkit::cases::check("tests/cases", super::frontend());
    }
}
