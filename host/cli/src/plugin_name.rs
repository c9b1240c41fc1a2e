//! How a plugin is named on the command line: a bundled name or the path of a component file.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::exit::Fault;
use crate::isolation::Origin;
use crate::suggest::nearest;

/// Which plugin is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PluginName {
    /// Part of this program.
    Bundled(String),
    /// A component file; absolute.
    File {
        /// As written.
        shown: String,
        /// Where it is.
        path: PathBuf,
    },
}

impl PluginName {
    /// Reads a name: one with a `/` or that ends in `.wasm` is a path.
    pub fn parse(text: &OsStr, cwd: &Path) -> Result<Self, Fault> {
        let shown = text.to_string_lossy();
        if shown.is_empty() {
            return Err(Fault::usage("the name of a plugin is empty"));
        }
        if shown.contains('/') || shown.ends_with(".wasm") {
            return Ok(PluginName::File { path: cwd.join(text), shown: shown.into_owned() });
        }
        Ok(PluginName::Bundled(shown.into_owned()))
    }

    /// Where the plugin comes from.
    pub fn origin(&self) -> Origin {
        match self {
            PluginName::Bundled(_) => Origin::Bundled,
            PluginName::File { .. } => Origin::File,
        }
    }

    /// As the user knows it.
    pub fn shown(&self) -> &str {
        match self {
            PluginName::Bundled(name) => name,
            PluginName::File { shown, .. } => shown,
        }
    }
}

/// The names of the bundled frontends, the default first.
pub fn frontends() -> Vec<&'static str> {
    let all = wbuild_bundled::all().iter();
    all.filter(|bundled| bundled.kind == wbuild_bundled::Kind::Frontend)
        .map(|bundled| bundled.name)
        .collect()
}

/// What to say of a name that no bundled plugin of the kind has.
pub fn unknown(kind: &str, name: &str, known: &[&str]) -> Fault {
    let fault = Fault::usage(format!("there is no bundled {kind} named {name:?}"));
    let fault = match nearest(name, known.iter().copied()) {
        Some(near) => fault.hint(format!("did you mean {near:?}?")),
        None => fault,
    };
    let list = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    fault
        .hint(format!("bundled: {list}; a component file is named by its path, e.g. ./{name}.wasm"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_and_names() {
        let parse = |text: &str| PluginName::parse(OsStr::new(text), Path::new("/w"));
        assert_eq!(parse("steps").expect("name"), PluginName::Bundled("steps".into()));
        for (text, path) in
            [("x.wasm", "/w/x.wasm"), ("./x", "/w/./x"), ("/abs/p.wasm", "/abs/p.wasm")]
        {
            let want = PluginName::File { shown: text.into(), path: path.into() };
            assert_eq!(parse(text).expect(text), want);
        }
        assert_eq!(parse("").expect_err("empty").exit, crate::exit::Exit::Usage);
    }

    #[test]
    fn unknown_names_list_the_known() {
        let fault = unknown("frontend", "dockerfle", &["dockerfile", "steps"]);
        assert_eq!(fault.failure.hints[0], "did you mean \"dockerfile\"?");
        assert!(fault.failure.hints[1].starts_with("bundled: dockerfile, steps;"));
        assert_eq!(unknown("runner", "zzz", &["native"]).failure.hints.len(), 1);
    }
}
