//! A component that was made for any released version of the contract is linked by this host.
//!
//! For each world of each version below `wit/frozen` a component is made that imports every function
//! of the world, as those of JavaScript and Python do, and exports what the world wants. It must be
//! instantiated.

mod common;

use std::path::{Path, PathBuf};

use wbuild_plugin::{Grants, PluginKind};
use wit_component::{ComponentEncoder, StringEncoding, dummy_module, embed_component_metadata};
use wit_parser::{ManglingAndAbi, Resolve};

/// In an order in which each uses only earlier ones.
const PACKAGES: [&str; 4] = ["types", "frontend", "runner", "cache"];

/// The worlds of a version with a component for each: its name, and whether it is a plugin.
fn components(version: &Path) -> Vec<(String, Option<PluginKind>, Vec<u8>)> {
    let mut resolve = Resolve::default();
    let mut worlds = Vec::new();
    for package in PACKAGES {
        let path = version.join(package).join(format!("{package}.wit"));
        let text = std::fs::read_to_string(&path).expect("the package");
        let id = resolve.push_str(&path, &text).expect("it is WIT");
        let of_package = resolve.packages[id].worlds.values();
        worlds.extend(of_package.map(|world| (package, *world)));
    }
    let component = |(package, world): (&str, _)| {
        let abi = ManglingAndAbi::Standard32;
        let mut module = dummy_module(&resolve, world, abi);
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false)
            .expect("embedded");
        let mut encoder = ComponentEncoder::default();
        let encoder = encoder.validate(true).module(&module).expect("a module");
        let bytes = encoder.encode().expect("a component");
        let kind = match package {
            _ if resolve.worlds[world].exports.is_empty() => None,
            "frontend" => Some(PluginKind::Frontend),
            "runner" => Some(PluginKind::Runner),
            "cache" => Some(PluginKind::Cache),
            other => panic!("{other} has a world that exports"),
        };
        (format!("{package}/{}", resolve.worlds[world].name), kind, bytes)
    };
    worlds.into_iter().map(component).collect()
}

fn versions() -> Vec<PathBuf> {
    let frozen = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../wit/frozen");
    let entries = std::fs::read_dir(frozen).expect("wit/frozen");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

#[tokio::test]
async fn every_world_of_every_released_version_is_linked() {
    let host = common::host();
    let mut plugins = 0;
    for version in versions() {
        for (world, kind, bytes) in components(&version) {
            let Some(kind) = kind else { continue };
            let name = format!("{} of {}", world, version.display());
            let plugin = host.load(&name, bytes).expect("it is a component");
            let plugin = plugin.granted(Grants { nested: true, ..Grants::default() });
            let info = plugin.inspect().await.expect("it is described");
            assert_eq!(info.kinds, [kind], "{name}");
            if let Some(refusal) = info.refusal {
                panic!("{name}: {refusal} {:?}", refusal.causes);
            }
            assert!(info.instantiate_time.is_some(), "{name}");
            plugins += 1;
        }
    }
    assert!(plugins >= 5, "frontend, frontend-describe, frontend-full, runner and cache");
}
