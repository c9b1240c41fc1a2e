//! Platforms as Dockerfiles write them: `linux/arm64`, `linux/arm/v7`, `arm64`, `linux`.

use std::fmt;

/// Where a stage's image runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Platform {
    /// E.g. `linux`.
    pub os: String,
    /// E.g. `amd64`.
    pub architecture: String,
    /// E.g. `v7`.
    pub variant: Option<String>,
    /// Windows build number and the like.
    pub os_version: Option<String>,
    /// Required features.
    pub os_features: Vec<String>,
}

impl Platform {
    /// A platform by the common names: `x86_64` is `amd64`, `arm` without a variant is `v7`.
    pub fn new(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            os => os.to_owned(),
        };
        let architecture = architecture.to_ascii_lowercase();
        let variant = variant.map(str::to_ascii_lowercase).filter(|variant| !variant.is_empty());
        let (architecture, variant) = match (architecture.as_str(), variant.as_deref()) {
            ("x86_64" | "x86-64" | "amd64", None | Some("v1")) => ("amd64", None),
            ("x86_64" | "x86-64", variant) => ("amd64", variant),
            ("i386" | "i486" | "i586" | "i686", _) => ("386", None),
            ("aarch64" | "arm64", None | Some("8" | "v8")) => ("arm64", None),
            ("aarch64", variant) => ("arm64", variant),
            ("armhf", _) => ("arm", Some("v7")),
            ("armel", _) => ("arm", Some("v6")),
            ("arm", None | Some("7")) => ("arm", Some("v7")),
            ("arm", Some("5")) => ("arm", Some("v5")),
            ("arm", Some("6")) => ("arm", Some("v6")),
            ("arm", Some("8")) => ("arm", Some("v8")),
            other => other,
        };
        Platform {
            os,
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
            os_version: None,
            os_features: Vec::new(),
        }
    }

    /// Reads a platform. What is left out is taken from `default`.
    pub fn parse(text: &str, default: &Platform) -> Option<Platform> {
        let parts: Vec<&str> = text.split('/').collect();
        let (os, version) = match parts[0].split_once('(') {
            Some((os, rest)) => (os, Some(rest.strip_suffix(')')?)),
            None => (parts[0], None),
        };
        let well_formed = |part: &&str| {
            !part.is_empty()
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-'))
        };
        if !well_formed(&os) || !parts[1..].iter().all(well_formed) {
            return None;
        }
        let known_os = [
            "aix",
            "android",
            "darwin",
            "dragonfly",
            "freebsd",
            "hurd",
            "illumos",
            "ios",
            "js",
            "linux",
            "macos",
            "nacl",
            "netbsd",
            "openbsd",
            "plan9",
            "solaris",
            "wasip1",
            "windows",
            "zos",
        ];
        let mut platform = match parts[1..] {
            [] if known_os.contains(&os.to_ascii_lowercase().as_str()) => {
                Platform::new(os, &default.architecture, default.variant.as_deref())
            }
            [] => {
                let platform = Platform::new(&default.os, os, None);
                let known = [
                    "386",
                    "amd64",
                    "amd64p32",
                    "arm",
                    "arm64",
                    "arm64be",
                    "armbe",
                    "loong64",
                    "mips",
                    "mips64",
                    "mips64le",
                    "mips64p32",
                    "mips64p32le",
                    "mipsle",
                    "ppc",
                    "ppc64",
                    "ppc64le",
                    "riscv",
                    "riscv64",
                    "s390",
                    "s390x",
                    "sparc",
                    "sparc64",
                    "wasm",
                ];
                known.contains(&platform.architecture.as_str()).then_some(platform)?
            }
            [architecture] => Platform::new(os, architecture, None),
            [architecture, variant] => Platform::new(os, architecture, Some(variant)),
            _ => return None,
        };
        platform.os_version = version.map(str::to_owned);
        Some(platform)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.os)?;
        if let Some(version) = &self.os_version {
            write!(f, "({version})")?;
        }
        write!(f, "/{}", self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_normalises() {
        let default = Platform::new("linux", "amd64", None);
        for (text, expect) in [
            ("linux/amd64", Some("linux/amd64")),
            ("linux/x86_64", Some("linux/amd64")),
            ("linux/amd64/v3", Some("linux/amd64/v3")),
            ("linux/arm64/v8", Some("linux/arm64")),
            ("linux/arm", Some("linux/arm/v7")),
            ("arm64", Some("linux/arm64")),
            ("linux", Some("linux/amd64")),
            ("windows(10.0.17763)/amd64", Some("windows(10.0.17763)/amd64")),
            ("nonsense", None),
            ("", None),
            ("linux/", None),
            ("linux/a/b/c", None),
            ("linux(1/amd64", None),
        ] {
            let got = Platform::parse(text, &default).map(|platform| platform.to_string());
            assert_eq!(got.as_deref(), expect, "{text}");
        }
    }
}
