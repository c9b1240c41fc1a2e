//! The plugins that come with wbuild, by kind and name.

use wbuild_bundled::{Bundled, Kind};
use wbuild_graph::Failure;
use wbuild_plugin::PluginKind;

use crate::suggest::nearest;

/// The kind as the bundle has it.
pub fn kind(kind: PluginKind) -> Kind {
    match kind {
        PluginKind::Frontend => Kind::Frontend,
        PluginKind::Runner => Kind::Runner,
        PluginKind::Cache => Kind::Cache,
    }
}

/// The names of a kind, the default first.
pub fn names(of: PluginKind) -> Vec<&'static str> {
    let all = wbuild_bundled::all().iter();
    all.filter(|bundled| bundled.kind == kind(of)).map(|bundled| bundled.name).collect()
}

/// The bundled plugin of a kind and name.
///
/// # Errors
///
/// There is none; the failure says which there are.
pub fn find(of: PluginKind, name: &str) -> Result<&'static Bundled, Failure> {
    wbuild_bundled::find(kind(of), name).ok_or_else(|| unknown(&of.to_string(), name, &names(of)))
}

/// What to say of a name that no plugin of the kind has.
pub fn unknown(kind: &str, name: &str, known: &[&str]) -> Failure {
    let failure = Failure::invalid(format!("there is no bundled {kind} named {name:?}"));
    let failure = match nearest(name, known.iter().copied()) {
        Some(near) => failure.hint(format!("did you mean {near:?}?")),
        None => failure,
    };
    let list = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    failure.hint(format!(
        "bundled: {list}; a component file is named by its path, e.g. ./{name}.wasm, one in a \
         registry oci://REGISTRY/NAME:TAG"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_list_the_known() {
        let failure = unknown("frontend", "dockerfle", &["dockerfile", "steps"]);
        assert_eq!(failure.hints[0], "did you mean \"dockerfile\"?");
        assert!(failure.hints[1].starts_with("bundled: dockerfile, steps;"));
        assert_eq!(unknown("runner", "zzz", &["native"]).hints.len(), 1);
    }
}
