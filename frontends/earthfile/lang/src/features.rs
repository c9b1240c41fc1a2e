//! What the VERSION of a file switches on.

use std::collections::BTreeSet;

use wbuild_dockerfile::{Diagnostic, Span};

use crate::Code;

/// Versions of the language that are supported, by their number behind `0.`.
pub const VERSIONS: [u32; 3] = [6, 7, 8];

/// Features with the version that has them by default; none for those that are experimental.
const FEATURES: [(&str, Option<u32>); 47] = [
    ("allow-privileged-from-dockerfile", None),
    ("arg-scope-and-set", Some(8)),
    ("build-auto-skip", None),
    ("cache-persist-option", Some(8)),
    ("check-duplicate-images", Some(7)),
    ("ci-arg", Some(7)),
    ("earthly-ci-runner-arg", None),
    ("earthly-git-author-args", Some(7)),
    ("earthly-git-author-individual-args", None),
    ("earthly-locally-arg", Some(7)),
    ("earthly-version-arg", Some(7)),
    ("exec-after-parallel", Some(5)),
    ("explicit-global", Some(7)),
    ("for-in", Some(6)),
    ("git-commit-author-timestamp", Some(7)),
    ("git-refs", Some(8)),
    ("global-cache", Some(8)),
    ("new-platform", Some(7)),
    ("no-implicit-ignore", Some(6)),
    ("no-network", Some(8)),
    ("no-tar-build-output", Some(7)),
    ("no-use-registry-for-with-docker", None),
    ("parallel-load", Some(5)),
    ("pass-args", Some(8)),
    ("raw-output", None),
    ("referenced-save-only", Some(6)),
    ("require-force-for-unsafe-saves", Some(6)),
    ("run-with-aws", None),
    ("run-with-aws-oidc", None),
    ("save-artifact-keep-own", Some(7)),
    ("shell-out-anywhere", Some(7)),
    ("try", None),
    ("use-cache-command", Some(7)),
    ("use-chmod", Some(7)),
    ("use-copy-include-patterns", Some(6)),
    ("use-copy-link", Some(7)),
    ("use-docker-ignore", Some(8)),
    ("use-function-keyword", Some(8)),
    ("use-host-command", Some(7)),
    ("use-no-manifest-list", Some(7)),
    ("use-pipelines", Some(7)),
    ("use-project-secrets", Some(7)),
    ("use-registry-for-with-docker", Some(5)),
    ("use-visited-upfront-hash-collection", Some(8)),
    ("wait-block", Some(7)),
    ("wildcard-builds", None),
    ("wildcard-copy", None),
];

/// Every feature that there is.
pub fn names() -> impl Iterator<Item = &'static str> {
    FEATURES.iter().map(|(name, _)| *name)
}

/// The version that has a feature by default.
pub fn since(name: &str) -> Option<u32> {
    FEATURES.iter().find(|(feature, _)| *feature == name)?.1
}

/// The features that are on in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features(BTreeSet<&'static str>);

impl Features {
    /// Those of a version.
    pub fn of(version: u32) -> Features {
        let on = FEATURES.iter().filter(|(_, since)| since.is_some_and(|since| since <= version));
        Features(on.map(|(name, _)| *name).collect())
    }

    /// Switches one on or off. False if there is none of this name.
    pub fn set(&mut self, name: &str, on: bool) -> bool {
        let Some(name) = names().find(|feature| *feature == name) else { return false };
        if on {
            self.0.insert(name);
        } else {
            self.0.remove(name);
        }
        true
    }

    /// Whether one is on.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }
}

/// Says that something needs a feature that the file does not have.
pub fn needed(what: &str, feature: &str, at: Span) -> Diagnostic {
    let message = format!("{what} needs the feature `{feature}`");
    let help = match since(feature) {
        Some(version) => {
            format!("write `VERSION 0.{version}`, or add `--{feature}` to the file's VERSION")
        }
        None => format!("add it to the file's VERSION: `VERSION --{feature} 0.8`"),
    };
    Diagnostic::error(Code::FeatureNeeded, at, message).help(help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_add_features() {
        assert!(!Features::of(6).has("wait-block") && Features::of(7).has("wait-block"));
        assert!(!Features::of(7).has("pass-args") && Features::of(8).has("pass-args"));
        let mut features = Features::of(8);
        assert!(!features.has("try") && features.set("try", true) && features.has("try"));
        assert!(features.set("pass-args", false) && !features.has("pass-args"));
        assert!(!features.set("nonsense", true));
    }
}
