//! What a component asks for and offers: the names of its imports and exports.
//!
//! The import list is the proof of a plugin's sandbox, so it is read from the finished binary,
//! by a validating parser, and not from anything that the binary says about itself.

use anyhow::{Context as _, Result, bail};
use wasmparser::{Parser, Payload, Validator};

/// The interfaces at the border of a component, each list sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surface {
    /// What the host must provide.
    pub imports: Vec<String>,
    /// What the host may call.
    pub exports: Vec<String>,
}

/// The part that a component can play for wbuild.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Exports `wbuild:frontend/build`.
    Frontend,
    /// Exports `wbuild:runner/planner`.
    Runner,
    /// Exports `wbuild:cache/backend`.
    Cache,
}

impl Role {
    /// The export that makes a component one of this role, without version.
    fn export(self) -> &'static str {
        match self {
            Role::Frontend => "wbuild:frontend/build",
            Role::Runner => "wbuild:runner/planner",
            Role::Cache => "wbuild:cache/backend",
        }
    }
}

impl Surface {
    /// Validates `bytes` and reads the top level of the component.
    pub fn read(bytes: &[u8]) -> Result<Surface> {
        Validator::new().validate_all(bytes).context("not valid WebAssembly")?;
        let mut surface = Surface::default();
        // Nested modules and components bring their own sections, which are not the border.
        let mut depth = 0u32;
        for payload in Parser::new(0).parse_all(bytes) {
            match payload? {
                Payload::Version { encoding: wasmparser::Encoding::Module, .. } if depth == 0 => {
                    bail!("a core module, not a component")
                }
                Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
                Payload::End(_) if depth > 0 => depth -= 1,
                Payload::ComponentImportSection(section) if depth == 0 => {
                    for import in section {
                        surface.imports.push(import?.name.name.to_owned());
                    }
                }
                Payload::ComponentExportSection(section) if depth == 0 => {
                    for export in section {
                        surface.exports.push(export?.name.name.to_owned());
                    }
                }
                _ => {}
            }
        }
        surface.imports.sort();
        surface.exports.sort();
        Ok(surface)
    }

    /// The roles this component can play.
    pub fn roles(&self) -> Vec<Role> {
        [Role::Frontend, Role::Runner, Role::Cache]
            .into_iter()
            .filter(|role| self.exports.iter().any(|name| interface_of(name) == role.export()))
            .collect()
    }

    /// The imports that no wbuild host provides: everything outside the `wbuild` namespace.
    pub fn foreign_imports(&self) -> impl Iterator<Item = &str> {
        self.imports.iter().map(String::as_str).filter(|name| !name.starts_with("wbuild:"))
    }
}

/// An interface name without its version.
fn interface_of(name: &str) -> &str {
    name.split_once('@').map_or(name, |(interface, _)| interface)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Appends a section: id, length, contents (all short enough for one-byte lengths).
    fn section(bytes: &mut Vec<u8>, id: u8, contents: &[u8]) {
        bytes.push(id);
        bytes.push(u8::try_from(contents.len()).expect("test sections are short"));
        bytes.extend_from_slice(contents);
    }

    /// A component that imports an empty instance under each name.
    fn importing(names: &[&str]) -> Vec<u8> {
        let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
        // One type: an instance type without declarations.
        section(&mut bytes, 7, &[1, 0x42, 0]);
        let mut imports = vec![u8::try_from(names.len()).expect("few")];
        for name in names {
            imports.push(0);
            imports.push(u8::try_from(name.len()).expect("short"));
            imports.extend_from_slice(name.as_bytes());
            // An instance of type 0.
            imports.extend_from_slice(&[5, 0]);
        }
        section(&mut bytes, 10, &imports);
        bytes
    }

    #[test]
    fn lists_the_imports_of_the_top_level_sorted() {
        let bytes = importing(&["wbuild:types/log@0.1.0", "wasi:io/poll@0.2.0"]);
        let surface = Surface::read(&bytes).expect("valid");
        assert_eq!(surface.imports, ["wasi:io/poll@0.2.0", "wbuild:types/log@0.1.0"]);
        assert_eq!(surface.foreign_imports().collect::<Vec<_>>(), ["wasi:io/poll@0.2.0"]);
        assert!(surface.roles().is_empty());
    }

    #[test]
    fn does_not_mistake_the_imports_of_a_nested_component_for_its_own() {
        let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
        section(&mut bytes, 4, &importing(&["wasi:io/poll@0.2.0"]));
        section(&mut bytes, 7, &[1, 0x42, 0]);
        let mut imports = vec![1, 0, 22];
        imports.extend_from_slice(b"wbuild:types/log@0.1.0");
        imports.extend_from_slice(&[5, 0]);
        section(&mut bytes, 10, &imports);
        let surface = Surface::read(&bytes).expect("valid");
        assert_eq!(surface.imports, ["wbuild:types/log@0.1.0"]);
    }

    #[test]
    fn refuses_what_is_no_component() {
        let module = Surface::read(b"\0asm\x01\0\0\0").expect_err("a core module");
        assert!(module.to_string().contains("core module"), "{module}");
        let mut cut = importing(&["wbuild:types/log@0.1.0"]);
        cut.pop();
        for bytes in [&b""[..], b"#!/bin/sh", &cut] {
            assert!(Surface::read(bytes).is_err());
        }
    }

    #[test]
    fn roles_do_not_depend_on_the_version() {
        let surface =
            |export: &str| Surface { exports: vec![export.to_owned()], ..Surface::default() };
        assert_eq!(surface("wbuild:frontend/build@0.1.7").roles(), [Role::Frontend]);
        assert_eq!(surface("wbuild:runner/planner@0.1.0").roles(), [Role::Runner]);
        assert_eq!(surface("wbuild:cache/backend@0.1.0").roles(), [Role::Cache]);
        assert_eq!(surface("wbuild:cache/backends@0.1.0").roles(), []);
    }
}
