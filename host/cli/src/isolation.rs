//! `--isolate-plugins`.

use clap::ValueEnum;
use wbuild::plugins::Isolate;

/// Which plugins run in a process of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum IsolatePlugins {
    /// Every plugin
    All,
    /// Every plugin that does not come with wbuild
    Untrusted,
    /// None
    None,
}

impl From<IsolatePlugins> for Isolate {
    fn from(choice: IsolatePlugins) -> Self {
        match choice {
            IsolatePlugins::All => Isolate::All,
            IsolatePlugins::Untrusted => Isolate::Untrusted,
            IsolatePlugins::None => Isolate::None,
        }
    }
}
