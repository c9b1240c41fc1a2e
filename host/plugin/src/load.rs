//! What a component is, read from its bytes without compiling it: its imports (what it asks for),
//! its exports (what it is), its manifest.
//!
//! Invariant: imports are the request. Nothing a component says about itself elsewhere, in its
//! manifest say, adds to what it may do.

use serde::{Deserialize, Serialize};
use wasmparser::{Chunk, Encoding, Parser, Payload};
use wbuild_graph::{Failure, FailureKind};

use wbuild_api::extension::{Allowed, Origin};

use crate::PluginKind;
use crate::hermetic;
use crate::limits::Limits;

/// Most imports, and most exports, of a component.
const NAMES: usize = 1000;
/// Largest manifest, in bytes.
const MANIFEST_BYTES: usize = 64 << 10;
/// Custom section that holds the manifest, a JSON object.
const MANIFEST_SECTION: &str = "wbuild:manifest";

/// Names at the border of a component.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outline {
    /// Sorted.
    pub(crate) imports: Vec<String>,
    /// Sorted.
    pub(crate) exports: Vec<String>,
    pub(crate) manifest: Option<serde_json::Value>,
}

impl Outline {
    /// Reads the top level of the component; nested modules are skipped, the compiler checks them.
    pub(crate) fn read(name: &str, bytes: &[u8]) -> Result<Outline, Failure> {
        let invalid = |cause: String| {
            let mut failure =
                Failure::invalid(format!("{name} is not a valid WebAssembly component"));
            failure.causes.push(cause);
            failure
        };
        if !bytes.starts_with(b"\0asm") {
            return Err(invalid("it does not begin with the magic number of WebAssembly".into()));
        }
        let mut outline = Outline::default();
        let mut parser = Parser::new(0);
        let mut at = 0;
        loop {
            let rest = bytes.get(at..).unwrap_or_default();
            let chunk = parser.parse(rest, true).map_err(|e| invalid(e.to_string()))?;
            let Chunk::Parsed { consumed, payload } = chunk else {
                return Err(invalid("it ends in the middle of a section".into()));
            };
            at += consumed;
            match payload {
                Payload::Version { encoding: Encoding::Module, .. } => {
                    return Err(Failure::invalid(format!(
                        "{name} is a core WebAssembly module, not a component"
                    ))
                    .hint("link it with wasm-component-ld, or run `wasm-tools component new`"));
                }
                Payload::ModuleSection { unchecked_range, .. }
                | Payload::ComponentSection { unchecked_range, .. } => {
                    at = unchecked_range.end;
                    if at > bytes.len() {
                        return Err(invalid("it ends in the middle of a section".into()));
                    }
                }
                Payload::ComponentImportSection(section) => {
                    for import in section {
                        let import = import.map_err(|e| invalid(e.to_string()))?;
                        outline.imports.push(import.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(section) => {
                    for export in section {
                        let export = export.map_err(|e| invalid(e.to_string()))?;
                        outline.exports.push(export.name.name.to_owned());
                    }
                }
                Payload::CustomSection(section) if section.name() == MANIFEST_SECTION => {
                    if section.data().len() > MANIFEST_BYTES {
                        return Err(invalid("its manifest is too large".into()));
                    }
                    let manifest = serde_json::from_slice(section.data())
                        .map_err(|e| invalid(format!("its manifest is not JSON: {e}")))?;
                    outline.manifest = Some(manifest);
                }
                Payload::End(_) => break,
                _ => {}
            }
            if outline.imports.len() > NAMES || outline.exports.len() > NAMES {
                return Err(invalid(format!("it has more than {NAMES} imports or exports")));
            }
        }
        outline.imports.sort();
        outline.exports.sort();
        Ok(outline)
    }

    /// The kinds of plugin the component is.
    pub(crate) fn kinds(&self) -> Vec<PluginKind> {
        PluginKind::ALL.into_iter().filter(|kind| self.export_of(*kind).is_some()).collect()
    }

    fn export_of(&self, kind: PluginKind) -> Option<Interface<'_>> {
        let wanted = Contract::of(kind).export;
        self.exports
            .iter()
            .filter_map(|name| Interface::parse(name))
            .find(|export| export.path == wanted)
    }

    /// Whether an optional interface is exported, in a version that this crate binds. One of another
    /// version is an interface that the host does not know, which is no error.
    pub(crate) fn exports_interface(&self, path: &str) -> bool {
        self.exports
            .iter()
            .filter_map(|name| Interface::parse(name))
            .any(|export| export.path == path && version_verdict(export) == Verdict::Granted)
    }

    /// Whether a frontend answers questions about a definition.
    pub(crate) fn describes(&self) -> bool {
        self.exports_interface("wbuild:frontend/describe")
    }

    /// Whether it asks for WASI.
    pub(crate) fn hermetic(&self) -> bool {
        self.imports.iter().any(|name| name.starts_with("wasi:"))
    }

    /// Packages of the contract that the component speaks, with their versions; sorted.
    pub(crate) fn packages(&self) -> Vec<(String, String)> {
        let mut out: Vec<(String, String)> = self
            .imports
            .iter()
            .chain(&self.exports)
            .filter_map(|name| Interface::parse(name))
            .filter(|interface| interface.path.starts_with("wbuild:"))
            .filter_map(|interface| {
                let (package, _) = interface.path.split_once('/')?;
                Some((package.to_owned(), interface.version.to_owned()))
            })
            .collect();
        out.sort();
        out.dedup();
        out
    }

    /// Checks that the component is of this kind and asks for nothing this kind does not get.
    /// Answers the WIT version it speaks.
    pub(crate) fn check(
        &self,
        kind: PluginKind,
        name: &str,
        grants: &Grants,
    ) -> Result<String, Failure> {
        let contract = Contract::of(kind);
        let Some(export) = self.export_of(kind) else {
            let mut failure = Failure::invalid(format!("{name} is not a {kind}"))
                .hint(format!("a {kind} is a component of the world {}", contract.world));
            failure.causes.push(match self.kinds().first() {
                Some(other) => format!("it is a {other}"),
                None => format!("it does not export {}", contract.export),
            });
            return Err(failure);
        };
        let mut wrong = vec![(export, true)];
        wrong.extend(self.imports.iter().map(|name| match Interface::parse(name) {
            Some(interface) => (interface, false),
            None => (Interface { path: name, version: "" }, false),
        }));
        for (interface, is_export) in wrong {
            let verdict = if is_export {
                version_verdict(interface)
            } else {
                contract.import_verdict(interface, grants)
            };
            if let Some(failure) = verdict.failure(kind, name, interface, is_export) {
                return Err(failure);
            }
        }
        Ok(export.version.to_owned())
    }
}

/// What another process has read of a component: names, and the manifest as text.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Border {
    imports: Vec<String>,
    exports: Vec<String>,
    manifest: Option<String>,
}

impl Border {
    /// Reads a component.
    ///
    /// # Errors
    ///
    /// `Invalid` when it is none.
    pub fn read(name: &str, component: &[u8]) -> Result<Border, Failure> {
        let Outline { imports, exports, manifest } = Outline::read(name, component)?;
        Ok(Border { imports, exports, manifest: manifest.map(|value| value.to_string()) })
    }

    /// What it says, within the bounds of what is read here: the process that has read it may be in
    /// the component's hands.
    pub(crate) fn believed(self) -> Option<Outline> {
        let Border { mut imports, mut exports, manifest } = self;
        // Written anew, a manifest may be longer: what it escapes, another has not escaped.
        let short = manifest.as_ref().is_none_or(|text| text.len() <= 6 * MANIFEST_BYTES);
        if imports.len() > NAMES || exports.len() > NAMES || !short {
            return None;
        }
        let manifest = manifest.map(|text| serde_json::from_str(&text)).transpose().ok()?;
        imports.sort();
        exports.sort();
        Some(Outline { imports, exports, manifest })
    }
}

/// `namespace:package/interface@version`, split.
#[derive(Clone, Copy, Debug)]
struct Interface<'a> {
    path: &'a str,
    version: &'a str,
}

impl<'a> Interface<'a> {
    fn parse(name: &'a str) -> Option<Self> {
        let (path, version) = name.split_once('@').unwrap_or((name, ""));
        path.contains('/').then_some(Interface { path, version })
    }
}

impl std::fmt::Display for Interface<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.version.is_empty() {
            f.write_str(self.path)
        } else {
            write!(f, "{}@{}", self.path, self.version)
        }
    }
}

/// Version of all packages that this crate binds. Within a track (`0.1`) the linker tells what is
/// missing.
pub(crate) const WIT_VERSION: (u64, u64, u64) = (0, 1, 0);

/// What one kind of plugin exports and may import.
struct Contract {
    world: &'static str,
    export: &'static str,
    imports: &'static [&'static str],
    /// What it gets besides only if it was granted.
    withheld: &'static [&'static str],
}

/// What a plugin is trusted with. Who loads it decides; the default is what one gets that nobody knows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// A frontend may call other frontends: `wbuild:frontend/nested`.
    pub nested: bool,
    /// Where it comes from.
    pub origin: Origin,
    /// What it is narrowed to.
    pub allowed: Allowed,
    /// Limits in place of those that its host has for one kind.
    pub limits: Option<(PluginKind, Limits)>,
}

impl Grants {
    /// The limits of the plugin as one kind, where the host has `usual`.
    pub(crate) fn limits(&self, kind: PluginKind, usual: Limits) -> Limits {
        match self.limits {
            Some((of, limits)) if of == kind => limits,
            _ => usual,
        }
    }

    fn cover(&self, path: &str) -> bool {
        path == NESTED && self.nested
    }
}

const NESTED: &str = "wbuild:frontend/nested";

const TYPES: [&str; 2] = ["wbuild:types/types", "wbuild:types/log"];

impl Contract {
    fn of(kind: PluginKind) -> Contract {
        match kind {
            PluginKind::Frontend => Contract {
                world: "wbuild:frontend/frontend",
                export: "wbuild:frontend/build",
                imports: &[
                    "wbuild:frontend/graph",
                    "wbuild:frontend/inspect",
                    "wbuild:frontend/request",
                    "wbuild:frontend/diagnostics",
                    "wbuild:frontend/results",
                ],
                withheld: &[NESTED],
            },
            PluginKind::Runner => Contract {
                world: "wbuild:runner/runner",
                export: "wbuild:runner/planner",
                imports: &["wbuild:runner/machine", "wbuild:runner/process", "wbuild:runner/plan"],
                withheld: &[],
            },
            PluginKind::Cache => Contract {
                world: "wbuild:cache/remote-cache",
                export: "wbuild:cache/backend",
                // What is granted by the last two is decided for each backend: see `CacheHost`.
                imports: &[
                    "wbuild:cache/kv",
                    "wbuild:cache/blobs",
                    "wbuild:cache/repository",
                    "wbuild:cache/http",
                ],
                withheld: &[],
            },
        }
    }

    fn import_verdict(&self, interface: Interface<'_>, grants: &Grants) -> Verdict {
        let path = interface.path;
        if hermetic::offers(path, interface.version) {
            return Verdict::Granted;
        }
        let withheld = self.withheld.contains(&path);
        if withheld && !grants.cover(path) {
            return Verdict::Withheld;
        }
        if withheld || TYPES.contains(&path) || self.imports.contains(&path) {
            return version_verdict(interface);
        }
        let others = PluginKind::ALL.into_iter().map(Contract::of);
        if others.into_iter().any(|c| c.imports.contains(&path) || c.withheld.contains(&path)) {
            return Verdict::OtherKind;
        }
        let packages = ["wbuild:types/", "wbuild:frontend/", "wbuild:runner/", "wbuild:cache/"];
        if packages.iter().any(|package| path.starts_with(package)) {
            return Verdict::Newer;
        }
        Verdict::Foreign
    }
}

fn version_verdict(interface: Interface<'_>) -> Verdict {
    let mut numbers = interface.version.split('.').map(str::parse::<u64>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Verdict::Newer;
    };
    match (major, minor).cmp(&(WIT_VERSION.0, WIT_VERSION.1)) {
        std::cmp::Ordering::Equal => Verdict::Granted,
        std::cmp::Ordering::Less => Verdict::Older,
        std::cmp::Ordering::Greater => Verdict::Newer,
    }
}

/// What becomes of an import or of the export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Granted,
    Withheld,
    OtherKind,
    Newer,
    Older,
    Foreign,
}

impl Verdict {
    fn failure(
        self,
        kind: PluginKind,
        name: &str,
        interface: Interface<'_>,
        is_export: bool,
    ) -> Option<Failure> {
        let verb = if is_export { "exports" } else { "imports" };
        let (major, minor, patch) = WIT_VERSION;
        let failure = match self {
            Verdict::Granted => return None,
            Verdict::Withheld => Failure::new(
                FailureKind::Denied,
                format!("the {kind} {name} asks for {interface}, which is not granted"),
            )
            .hint("the policy for plugins grants it: nested = true"),
            Verdict::OtherKind => Failure::new(
                FailureKind::Denied,
                format!("the {kind} {name} asks for {interface}, which a {kind} does not get"),
            ),
            Verdict::Newer | Verdict::Older => {
                let (word, remedy) = if self == Verdict::Newer {
                    ("a newer", "update wbuild, or use an older version of the plugin")
                } else {
                    ("an older", "use a newer version of the plugin")
                };
                let mut failure =
                    Failure::unsupported(format!("the {kind} {name} needs {word} wbuild"))
                        .hint(remedy);
                failure.causes.push(format!(
                    "it {verb} {interface}; this wbuild offers version {major}.{minor}.{patch}"
                ));
                failure
            }
            Verdict::Foreign => Failure::new(
                FailureKind::Denied,
                format!("the {kind} {name} imports {interface}, which wbuild does not offer"),
            )
            .hint(
                "plugins get wbuild's own interfaces, and WASI 0.2 without anything of the system \
                 behind it; nothing else",
            ),
        };
        Some(failure.attr("plugin", name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn none() -> Grants {
        Grants::default()
    }

    fn outline(imports: &[&str], exports: &[&str]) -> Outline {
        Outline {
            imports: imports.iter().map(|s| (*s).to_owned()).collect(),
            exports: exports.iter().map(|s| (*s).to_owned()).collect(),
            manifest: None,
        }
    }

    #[test]
    fn a_frontend_that_asks_for_what_frontends_get_passes() {
        let good = outline(
            &["wbuild:types/types@0.1.0", "wbuild:types/log@0.1.0", "wbuild:frontend/graph@0.1.7"],
            &["wbuild:frontend/build@0.1.2", "wbuild:frontend/describe@0.1.0", "exports"],
        );
        assert_eq!(good.check(PluginKind::Frontend, "f", &none()).expect("fits"), "0.1.2");
        assert_eq!(good.kinds(), [PluginKind::Frontend]);
        assert!(good.describes());
        for export in ["wbuild:frontend/describe@0.2.0", "wbuild:frontend/describe-more@0.1.0"] {
            let other = outline(&[], &["wbuild:frontend/build@0.1.0", export]);
            assert!(!other.describes(), "{export}");
            other.check(PluginKind::Frontend, "f", &none()).expect("it can build all the same");
        }
        let packages: Vec<String> =
            good.packages().into_iter().map(|(p, v)| format!("{p}@{v}")).collect();
        assert_eq!(
            packages,
            [
                "wbuild:frontend@0.1.0",
                "wbuild:frontend@0.1.2",
                "wbuild:frontend@0.1.7",
                "wbuild:types@0.1.0"
            ]
        );
    }

    #[test]
    fn every_wrong_border_has_its_message() {
        let build = "wbuild:frontend/build@0.1.0";
        let cases: [(&[&str], &[&str], &str); 9] = [
            (&[], &["run"], "x is not a frontend: it does not export wbuild:frontend/build"),
            (&[], &["wbuild:runner/planner@0.1.0"], "x is not a frontend: it is a runner"),
            (
                &[],
                &["wbuild:frontend/build@0.2.0"],
                "the frontend x needs a newer wbuild: it exports wbuild:frontend/build@0.2.0; \
                 this wbuild offers version 0.1.0",
            ),
            (
                &[],
                &["wbuild:frontend/build@0.0.9"],
                "the frontend x needs an older wbuild: it exports wbuild:frontend/build@0.0.9; \
                 this wbuild offers version 0.1.0",
            ),
            (
                &["wbuild:frontend/telepathy@0.1.0"],
                &[build],
                "the frontend x needs a newer wbuild: it imports wbuild:frontend/telepathy@0.1.0; \
                 this wbuild offers version 0.1.0",
            ),
            (
                &["wbuild:frontend/nested@0.1.0"],
                &[build],
                "the frontend x asks for wbuild:frontend/nested@0.1.0, which is not granted",
            ),
            (
                &["wbuild:cache/kv@0.1.0"],
                &[build],
                "the frontend x asks for wbuild:cache/kv@0.1.0, which a frontend does not get",
            ),
            (
                &["wasi:cli/stdout@0.3.0"],
                &[build],
                "the frontend x imports wasi:cli/stdout@0.3.0, which wbuild does not offer",
            ),
            (
                &["something"],
                &[build],
                "the frontend x imports something, which wbuild does not offer",
            ),
        ];
        for (imports, exports, message) in cases {
            let failure = outline(imports, exports)
                .check(PluginKind::Frontend, "x", &none())
                .expect_err("must be refused");
            assert_eq!(failure.to_string(), message);
        }
    }

    #[test]
    fn a_grant_is_for_one_interface_of_a_version_that_is_bound() {
        let check = |import: &str, grants: &Grants| {
            outline(&[import], &["wbuild:frontend/build@0.1.0"])
                .check(PluginKind::Frontend, "x", grants)
                .map_err(|failure| failure.kind)
        };
        let nested = &Grants { nested: true, ..none() };
        assert_eq!(check("wbuild:frontend/nested@0.1.0", nested), Ok("0.1.0".to_owned()));
        assert_eq!(check("wbuild:frontend/nested@0.1.0", &none()), Err(FailureKind::Denied));
        assert_eq!(check("wbuild:frontend/nested@0.2.0", nested), Err(FailureKind::Unsupported));
        assert_eq!(check("wbuild:cache/kv@0.1.0", nested), Err(FailureKind::Denied));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_have_an_answer(
            bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200),
        ) {
            let mut component = b"\0asm\x0d\0\x01\0".to_vec();
            component.extend(bytes);
            let _ = Outline::read("x", &component);
        }
    }

    #[test]
    fn bytes_that_are_no_component_are_told_apart() {
        let cases: [(&[u8], &str); 4] = [
            (b"", "is not a valid WebAssembly component: it does not begin with"),
            (b"#!/bin/sh\n", "is not a valid WebAssembly component: it does not begin with"),
            (b"\0asm\x01\0\0\0", "is a core WebAssembly module, not a component"),
            (b"\0asm\x0d\0\x01\0\x07", "is not a valid WebAssembly component: "),
        ];
        for (bytes, message) in cases {
            let failure = Outline::read("x", bytes).expect_err("must be refused").to_string();
            assert!(failure.contains(message), "{failure}");
        }
        assert!(Outline::read("x", b"\0asm\x0d\0\x01\0").is_ok(), "an empty component is one");
    }
}
