//! Components out of core modules, and the manifest inside of a component.

use std::path::Path;

use serde_json::Value;
use wbuild_graph::Failure;
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// Custom section that holds the manifest, a JSON object.
const MANIFEST_SECTION: &str = "wbuild:manifest";

/// Makes a component of a core module that was compiled for a world of the packages in `wit`. It
/// imports what the module uses of that world, and nothing else.
pub fn componentise(module: &[u8], wit: &Path, world: &str) -> Result<Vec<u8>, Failure> {
    let failed = |what: &str, error: &dyn std::fmt::Display| {
        let mut failure = Failure::invalid(what.to_owned());
        failure.causes.push(format!("{error:#}"));
        failure
    };
    let mut resolve = Resolve::default();
    let (package, _) = resolve
        .push_dir(wit)
        .map_err(|error| failed(&format!("cannot read the WIT in {}", wit.display()), &error))?;
    let world = resolve.select_world(&[package], Some(world)).map_err(|error| {
        failed(&format!("there is no world {world} in {}", wit.display()), &error)
    })?;
    let mut module = module.to_vec();
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)
        .map_err(|error| failed("cannot describe the module", &error))?;
    ComponentEncoder::default()
        .module(&module)
        .and_then(|encoder| encoder.validate(true).encode())
        .map_err(|error| failed("the module does not fit its world", &error))
}

/// The component with this manifest. One that it has stays in front and is no more the last.
pub fn with_manifest(component: &[u8], manifest: &Value) -> Vec<u8> {
    let json = manifest.to_string();
    let mut content = Vec::with_capacity(json.len() + MANIFEST_SECTION.len() + 2);
    leb128(MANIFEST_SECTION.len(), &mut content);
    content.extend_from_slice(MANIFEST_SECTION.as_bytes());
    content.extend_from_slice(json.as_bytes());
    let mut out = component.to_vec();
    out.push(0); // a custom section
    leb128(content.len(), &mut out);
    out.extend_from_slice(&content);
    out
}

/// A number as WebAssembly writes it.
fn leb128(mut value: usize, out: &mut Vec<u8>) {
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return out.push(byte);
        }
        out.push(byte | 0x80);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_written_as_in_webassembly() {
        for (value, want) in
            [(0, &[0x00][..]), (127, &[0x7f]), (128, &[0x80, 0x01]), (624_485, &[0xe5, 0x8e, 0x26])]
        {
            let mut out = Vec::new();
            leb128(value, &mut out);
            assert_eq!(out, want, "{value}");
        }
    }

    #[test]
    fn the_manifest_is_a_section_of_its_own() {
        let out = with_manifest(b"\0asm", &json!({ "name": "x" }));
        let section = &out[4..];
        assert_eq!((section[0], section[1] as usize), (0, section.len() - 2));
        assert!(section.ends_with(br#"wbuild:manifest{"name":"x"}"#), "{section:?}");
    }
}
