//! Where results go. What would fail after the build is refused before it.

use std::path::Path;

use wbuild_api::request::{Entitlement, OutputDest, OutputKind, OutputSpec};
use wbuild_graph::Attrs;

use super::docker;
use crate::args::BuildArgs;
use crate::args::values::{AnnotationArg, OutputArg};
use crate::environment::Environment;
use crate::exit::Fault;

/// What `--output` asks for, and `--load`, which is `--output type=docker`.
pub fn wanted(args: &BuildArgs) -> Vec<OutputArg> {
    let loads = |output: &OutputArg| output.kind == OutputKind::Docker && output.dest.is_none();
    let mut outputs = args.outputs.clone();
    if args.load && !outputs.iter().any(loads) {
        let (kind, dest, attrs) = (OutputKind::Docker, None, Attrs::default());
        outputs.push(OutputArg { kind, dest, attrs });
    }
    outputs
}

/// Resolves `--output` and what belongs to it: `--push` is `push=true` of the outputs that are images,
/// or one of its own, and `--annotation` goes to every output that is an image.
pub fn resolve(
    args: &[OutputArg],
    push: bool,
    annotations: &[AnnotationArg],
    environment: &Environment,
) -> Result<Vec<OutputSpec>, Fault> {
    let mut outputs: Vec<OutputSpec> = Vec::new();
    for arg in args {
        let dest = destination(arg, environment)?;
        let taken = |known: &OutputSpec| dest != OutputDest::Nowhere && known.dest == dest;
        if outputs.iter().any(taken) {
            let shown = arg.dest.as_deref().unwrap_or("-");
            return Err(Fault::usage(format!("two outputs go to the same place: {shown}")));
        }
        outputs.push(OutputSpec { kind: arg.kind, dest, attrs: arg.attrs.clone() });
    }
    if push {
        let image = |output: &OutputSpec| output.kind == OutputKind::Image;
        if !outputs.iter().any(image) {
            let (kind, dest) = (OutputKind::Image, OutputDest::Nowhere);
            outputs.push(OutputSpec { kind, dest, attrs: Attrs::default() });
        }
        // The last value of a key counts.
        outputs.iter_mut().filter(|output| image(output)).for_each(|output| {
            output.attrs.push("push", "true");
        });
    }
    for output in &mut outputs {
        if output.kind.is_image() {
            output.attrs.0.extend(annotations.iter().flat_map(|arg| arg.attrs.clone()));
        }
    }
    Ok(outputs)
}

/// Refuses an output that removes what is in its directory, unless the directory lies below the one
/// that the client works in: elsewhere a slip of the hand would cost too much.
pub fn check_deleting(outputs: &[OutputSpec], environment: &Environment) -> Result<(), Fault> {
    let deletes = |output: &&OutputSpec| output.attrs.get("mode") == Some("delete");
    for output in outputs.iter().filter(deletes) {
        let OutputDest::Directory(directory) = &output.dest else { continue };
        // Where it leads, not what it is called; one that is not there holds nothing.
        let (Ok(real), Ok(here)) = (directory.canonicalize(), environment.cwd.canonicalize())
        else {
            continue;
        };
        if real == here || !real.starts_with(&here) {
            let shown = directory.display();
            let allowed = Entitlement::LocalDelete.as_str();
            return Err(Fault::usage(format!(
                "mode=delete would remove files from {shown}, which is not below this directory"
            ))
            .hint(format!("if that is wanted: --allow {allowed}")));
        }
    }
    Ok(())
}

/// What a definition saves for its directory, where nothing else was asked for. `context` is the main
/// context, if the definition may save files elsewhere in it.
pub fn saved_files(directory: &Path, context: Option<&Path>) -> OutputSpec {
    let mut attrs = Attrs::default();
    attrs.push("results", "files");
    if let Some(context) = context.and_then(Path::to_str) {
        attrs.push("context", context);
    }
    OutputSpec { kind: OutputKind::Local, dest: OutputDest::Directory(directory.to_owned()), attrs }
}

/// Whether an output goes to standard output, so that nothing else may.
pub fn uses_stdout(outputs: &[OutputSpec]) -> bool {
    outputs.iter().any(|output| output.dest == OutputDest::Stdout)
}

fn destination(arg: &OutputArg, environment: &Environment) -> Result<OutputDest, Fault> {
    let as_directory = match arg.kind {
        OutputKind::CacheOnly => {
            return match &arg.dest {
                None => Ok(OutputDest::Nowhere),
                Some(_) => Err(Fault::usage("an output of type=cacheonly has no dest")),
            };
        }
        OutputKind::Image => {
            return match &arg.dest {
                None => Ok(OutputDest::Nowhere),
                Some(_) => Err(Fault::usage("an output of type=image or registry has no dest")
                    .hint("for a file choose type=oci or type=docker")),
            };
        }
        OutputKind::Local => true,
        OutputKind::Oci | OutputKind::Docker => match arg.attrs.get("tar") {
            None | Some("true" | "1") => false,
            Some("false" | "0") if arg.kind == OutputKind::Oci => true,
            Some("false" | "0") => {
                return Err(Fault::usage("an output of type=docker is always a tar")
                    .hint("a directory is written by type=oci,tar=false,dest=DIR"));
            }
            Some(other) => {
                return Err(Fault::usage(format!(
                    "tar={other} of --output: expected true or false"
                )));
            }
        },
        OutputKind::Tar => false,
    };
    match (arg.dest.as_deref(), as_directory) {
        (None | Some("-"), true) => {
            let mut fault = Fault::usage("an output that is a directory needs a dest");
            fault = fault.hint("for example --output type=local,dest=out");
            Err(fault)
        }
        (None, false) if arg.kind == OutputKind::Docker => {
            docker::endpoint(environment).map(OutputDest::Daemon)
        }
        (None | Some("-"), false) if environment.stdout_terminal => {
            Err(Fault::usage("an archive is not written to a terminal")
                .hint("name a file: dest=FILE, or redirect standard output"))
        }
        (None | Some("-"), false) => Ok(OutputDest::Stdout),
        (Some(dest), as_directory) => path(dest, as_directory, arg.kind, environment),
    }
}

fn path(
    dest: &str,
    as_directory: bool,
    kind: OutputKind,
    environment: &Environment,
) -> Result<OutputDest, Fault> {
    let path = environment.absolute(Path::new(dest));
    let found = std::fs::metadata(&path).ok();
    if as_directory {
        return match found {
            Some(found) if !found.is_dir() => {
                Err(Fault::input(format!("cannot write to the directory {dest}: it is a file")))
            }
            _ => Ok(OutputDest::Directory(path)),
        };
    }
    if dest.ends_with('/') || found.is_some_and(|found| found.is_dir()) {
        let fault = Fault::input(format!("cannot write the file {dest}: it is a directory"));
        return Err(match kind {
            OutputKind::Oci => fault.hint("add tar=false for an image layout in a directory"),
            _ => fault.hint("name a file in it, e.g. dest=DIR/image.tar"),
        });
    }
    match path.parent() {
        Some(parent) if !parent.is_dir() => Err(Fault::input(format!(
            "cannot write the file {dest}: the directory {} does not exist",
            parent.display()
        ))),
        _ => Ok(OutputDest::File(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations() {
        let dir = tempfile::tempdir().expect("temporary directory");
        std::fs::create_dir(dir.path().join("d")).expect("directory");
        std::fs::write(dir.path().join("f"), "").expect("file");
        let mut env = Environment::of_parts(dir.path(), &[]);
        let at = |name: &str| dir.path().join(name);
        for (text, want) in [
            ("d", OutputDest::Directory(at("d"))),
            ("new", OutputDest::Directory(at("new"))),
            ("-", OutputDest::Stdout),
            ("type=tar", OutputDest::Stdout),
            ("type=oci,dest=x.tar", OutputDest::File(at("x.tar"))),
            ("type=oci,dest=f", OutputDest::File(at("f"))),
            ("type=oci,tar=false,dest=d", OutputDest::Directory(at("d"))),
            ("type=docker,dest=-", OutputDest::Stdout),
            ("type=docker", OutputDest::Daemon("unix:///var/run/docker.sock".to_owned())),
            ("type=docker,dest=d/x", OutputDest::File(at("d/x"))),
            ("type=cacheonly", OutputDest::Nowhere),
            ("type=registry,name=a", OutputDest::Nowhere),
        ] {
            let got = resolve(&[text.parse().expect(text)], false, &[], &env).expect(text);
            assert_eq!(got[0].dest, want, "{text}");
        }
        for bad in [
            "f",
            "type=local",
            "type=local,dest=-",
            "type=oci,dest=d",
            "type=oci,dest=d/",
            "type=oci,dest=no/x",
            "type=oci,tar=maybe,dest=x",
            "type=docker,tar=false,dest=d",
            "type=cacheonly,dest=x",
            "type=image,dest=x",
        ] {
            assert!(resolve(&[bad.parse().expect(bad)], false, &[], &env).is_err(), "{bad}");
        }
        std::os::unix::fs::symlink("..", dir.path().join("d/up")).expect("link");
        for (dest, fine) in
            [("d", true), ("new", true), ("d/up", false), (".", false), ("..", false), ("/", false)]
        {
            let arg = format!("type=local,mode=delete,dest={dest}").parse().expect(dest);
            let outputs = resolve(&[arg], false, &[], &env).expect(dest);
            assert_eq!(check_deleting(&outputs, &env).is_ok(), fine, "{dest}");
        }
        let twice = ["-".parse().expect("tar"), "type=oci,dest=-".parse().expect("oci")];
        assert!(resolve(&twice, false, &[], &env).is_err());
        let two = ["type=oci,dest=-".parse().expect("oci"), "d".parse().expect("local")];
        let annotation = "index:a=b".parse().expect("annotation");
        let got = resolve(&two, true, &[annotation], &env).expect("three outputs");
        let index = Some("b");
        let seen: Vec<_> = got
            .iter()
            .map(|o| (o.kind, o.attrs.get("push"), o.attrs.get("annotation-index.a")))
            .collect();
        let expected = [
            (OutputKind::Oci, None, index),
            (OutputKind::Local, None, None),
            (OutputKind::Image, Some("true"), index),
        ];
        assert_eq!(seen, expected);
        env.stdout_terminal = true;
        assert!(resolve(&["-".parse().expect("tar")], false, &[], &env).is_err());
    }
}
