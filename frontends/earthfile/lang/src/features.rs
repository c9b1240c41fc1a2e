//! What the VERSION of a file switches on.

use std::collections::BTreeSet;

use wbuild_dockerfile::{Diagnostic, Span};

use crate::Code;

/// Versions of the language that are supported, by their number behind `0.`.
pub const VERSIONS: [u32; 4] = [5, 6, 7, 8];

/// Features with the version that has them by default; none for those that are experimental.
const FEATURES: &[(&str, Option<u32>)] = &[
    ("allow-privileged-from-dockerfile", None),
    ("allow-without-earthly-labels", None),
    ("arg-scope-and-set", Some(8)),
    ("build-auto-skip", None),
    ("cache-persist-option", Some(8)),
    ("check-duplicate-images", Some(7)),
    ("ci-arg", Some(7)),
    ("docker-cache", None),
    ("earthly-ci-runner-arg", None),
    ("earthly-git-author-args", Some(7)),
    ("earthly-git-author-individual-args", None),
    ("earthly-locally-arg", Some(7)),
    ("earthly-version-arg", Some(7)),
    ("exec-after-parallel", Some(5)),
    ("explicit-global", Some(7)),
    ("for-in", Some(6)),
    ("git-author-email-name-args", None),
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

/// The name of something that the builder knows, without what all these names begin with.
pub(crate) fn fact(name: &str) -> Option<&str> {
    name.strip_prefix("EARTHLY_").or_else(|| name.strip_prefix("EARTH_"))
}

/// The feature without which the builder does not set an argument.
pub fn of_argument(name: &str) -> Option<&'static str> {
    if name.starts_with("NATIVE") {
        return is_built_in(name).then_some("new-platform");
    }
    Some(match fact(name)? {
        "BUILD_SHA" | "VERSION" => "earthly-version-arg",
        "CI" => "ci-arg",
        "CI_RUNNER" => "earthly-ci-runner-arg",
        "GIT_AUTHOR" | "GIT_CO_AUTHORS" => "earthly-git-author-args",
        "GIT_COMMIT_AUTHOR_TIMESTAMP" => "git-commit-author-timestamp",
        "GIT_REFS" => "git-refs",
        "LOCALLY" => "earthly-locally-arg",
        "PUSH" => "wait-block",
        _ => return None,
    })
}

/// Whether the builder sets an argument of this name, perhaps with a feature.
pub fn is_built_in(name: &str) -> bool {
    const BUILDER: [&str; 10] = [
        "BUILD_SHA",
        "CI",
        "CI_RUNNER",
        "LOCALLY",
        "PUSH",
        "SOURCE_DATE_EPOCH",
        "TARGET",
        "TARGET_NAME",
        "VERSION",
        "TARGET_TAG",
    ];
    let platform = ["TARGET", "NATIVE", "USER"].iter().find_map(|of| name.strip_prefix(of));
    matches!(platform, Some("PLATFORM" | "OS" | "ARCH" | "VARIANT"))
        || fact(name).is_some_and(|fact| {
            BUILDER.contains(&fact)
                || ["GIT_", "TARGET_PROJECT", "TARGET_TAG_"].iter().any(|of| fact.starts_with(of))
        })
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

    /// Switches one on. False if there is none of this name.
    pub fn add(&mut self, name: &str) -> bool {
        let known = names().find(|feature| *feature == name);
        known.is_some_and(|name| {
            self.0.insert(name);
            true
        })
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
        assert!(!features.has("try") && features.add("try") && features.has("try"));
        assert!(!features.add("nonsense"));
        assert_eq!(of_argument("EARTHLY_GIT_REFS"), Some("git-refs"));
        assert_eq!(of_argument("EARTH_CI"), Some("ci-arg"));
        assert_eq!(of_argument("NATIVEOS"), Some("new-platform"));
        for name in ["EARTHLY_TARGET", "CI", "NATIVE", "TARGETOS"] {
            assert_eq!(of_argument(name), None, "{name}");
        }
        assert!(is_built_in("EARTHLY_CI") && is_built_in("USEROS") && !is_built_in("USERNAME"));
    }
}
