//! Platforms: parsing, normalising, matching.
//!
//! The textual form is `os/architecture[/variant]` (OCI image index, "platform"); normalisation
//! follows what the tools of the field agree on: `x86_64` is `amd64`, `aarch64` is `arm64`,
//! `arm64/v8` has no variant, `arm` without one is `v7`, `amd64/v1` has none.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Where an image runs, normalised.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// E.g. `linux`.
    pub os: String,
    /// E.g. `amd64`.
    pub architecture: String,
    /// E.g. `v7`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// Windows build number and the like.
    #[serde(default, rename = "os.version", skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Required features.
    #[serde(default, rename = "os.features", skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
}

/// Why a text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid platform {}: {reason}", crate::quoted(.text))]
pub struct ParsePlatformError {
    text: String,
    reason: &'static str,
}

impl Platform {
    /// A normalised platform.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.map(str::to_ascii_lowercase).filter(|v| !v.is_empty());
        let (architecture, variant) = match (architecture.as_str(), variant.as_deref()) {
            ("x86_64" | "x86-64" | "amd64", None | Some("v1")) => ("amd64", None),
            ("x86_64" | "x86-64" | "amd64", Some(v)) => ("amd64", Some(v)),
            ("i386" | "i486" | "i586" | "i686", _) => ("386", None),
            ("aarch64" | "arm64", None | Some("8" | "v8")) => ("arm64", None),
            ("aarch64" | "arm64", Some(v)) => ("arm64", Some(v)),
            ("armhf", _) => ("arm", Some("v7")),
            ("armel", _) => ("arm", Some("v6")),
            ("arm", None | Some("7")) => ("arm", Some("v7")),
            ("arm", Some("5")) => ("arm", Some("v5")),
            ("arm", Some("6")) => ("arm", Some("v6")),
            ("arm", Some("8")) => ("arm", Some("v8")),
            (other, v) => (other, v),
        };
        Platform {
            os,
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
            os_version: None,
            os_features: Vec::new(),
        }
    }

    /// The platform this program was compiled for.
    pub fn host() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86" => "386",
            "powerpc64" => "ppc64le",
            other => other,
        };
        Platform::new(std::env::consts::OS, architecture, None)
    }

    /// Whether an image made for `self` runs where `wanted` is asked for, best first: 0 is exact,
    /// larger is a lower variant that still runs. `None`: it does not.
    pub fn rank_for(&self, wanted: &Platform) -> Option<u32> {
        if self.os != wanted.os || self.architecture != wanted.architecture {
            return None;
        }
        let level = |p: &Platform| match (p.architecture.as_str(), p.variant.as_deref()) {
            ("amd64", None) => Some(1),
            ("arm64", None) => Some(8),
            (_, Some(v)) => v.strip_prefix('v').and_then(|n| n.parse::<u32>().ok()),
            (_, None) => None,
        };
        if self.variant == wanted.variant {
            return Some(0);
        }
        match (level(self), level(wanted)) {
            (Some(have), Some(want)) if have <= want => Some(want - have),
            _ => None,
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = |reason| ParsePlatformError { text: text.to_owned(), reason };
        let well_formed = |part: &str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        let parts: Vec<&str> = text.split('/').collect();
        if !parts.iter().all(|part| well_formed(part)) {
            return Err(error("expected os/architecture[/variant], e.g. linux/arm64"));
        }
        match parts[..] {
            ["local"] => Ok(Platform::host()),
            [one] if matches!(one, "linux" | "windows" | "darwin" | "freebsd") => {
                let host = Platform::host();
                Ok(Platform::new(one, &host.architecture, host.variant.as_deref()))
            }
            [arch] => {
                let platform = Platform::new("linux", arch, None);
                let known = [
                    "amd64", "arm64", "arm", "386", "riscv64", "ppc64le", "s390x", "mips64le",
                    "loong64", "wasm",
                ];
                if known.contains(&platform.architecture.as_str()) {
                    Ok(platform)
                } else {
                    Err(error("neither an operating system nor an architecture that is known"))
                }
            }
            [os, arch] => Ok(Platform::new(os, arch, None)),
            [os, arch, variant] => Ok(Platform::new(os, arch, Some(variant))),
            _ => Err(error("expected os/architecture[/variant], e.g. linux/arm64")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_normalises() {
        for (text, want) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/arm64/v8", "linux/arm64"),
            ("aarch64", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("armhf", "linux/arm/v7"),
            ("linux/i686", "linux/386"),
            ("macos/arm64", "darwin/arm64"),
        ] {
            assert_eq!(text.parse::<Platform>().expect(text).to_string(), want, "{text}");
        }
        for bad in ["", "/", "linux/", "a/b/c/d", "toaster", "linux/am d64"] {
            assert!(bad.parse::<Platform>().is_err(), "{bad}");
        }
    }

    #[test]
    fn ranks_variants() {
        let p = |text: &str| text.parse::<Platform>().expect(text);
        assert_eq!(p("linux/arm/v7").rank_for(&p("linux/arm/v7")), Some(0));
        assert_eq!(p("linux/arm/v6").rank_for(&p("linux/arm/v7")), Some(1));
        assert_eq!(p("linux/arm/v7").rank_for(&p("linux/arm/v6")), None);
        assert_eq!(p("linux/amd64").rank_for(&p("linux/amd64/v3")), Some(2));
        assert_eq!(p("linux/386").rank_for(&p("linux/amd64")), None);
    }
}
