//! Which plugins run in a process of their own.

use clap::ValueEnum;
use wbuild_supply::PluginRef;

/// `--isolate-plugins`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IsolatePlugins {
    /// Every plugin
    All,
    /// Every plugin that does not come with wbuild
    Untrusted,
    /// None
    None,
}

/// Where a plugin comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It is part of this program.
    Bundled,
    /// A file that the user names.
    File,
    /// A registry, a server, or a file that a project names.
    Remote,
}

impl Origin {
    /// That of a plugin which was asked for as `name` and is `source`.
    pub fn of(name: &PluginRef, source: &PluginRef) -> Origin {
        match source {
            PluginRef::Bundled(_) | PluginRef::Named(_) => Origin::Bundled,
            // Files of the project came with it.
            PluginRef::File { .. } if matches!(name, PluginRef::Named(_)) => Origin::Remote,
            PluginRef::File { .. } => Origin::File,
            PluginRef::Registry(_) | PluginRef::Web(_) => Origin::Remote,
        }
    }
}

/// Whether a plugin runs in a process of its own. Without a choice that is what came from elsewhere:
/// a file was put where it is by somebody who could as well have run it.
pub fn isolated(choice: Option<IsolatePlugins>, origin: Origin) -> bool {
    match choice {
        Some(IsolatePlugins::All) => true,
        Some(IsolatePlugins::Untrusted) => origin != Origin::Bundled,
        Some(IsolatePlugins::None) => false,
        None => origin == Origin::Remote,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_isolated() {
        use IsolatePlugins::*;
        let origins = [Origin::Bundled, Origin::File, Origin::Remote];
        for (choice, wanted) in [
            (Option::None, [false, false, true]),
            (Some(All), [true, true, true]),
            (Some(Untrusted), [false, true, true]),
            (Some(None), [false, false, false]),
        ] {
            assert_eq!(origins.map(|origin| isolated(choice, origin)), wanted, "{choice:?}");
        }
    }
}
