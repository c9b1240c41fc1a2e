//! The test kit with components, as a program that embeds it has them; on every system that wasmtime knows.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use wbuild_api::extension::Frontend;
use wbuild_plugin::{PluginHost, PluginHostOptions};
use wbuild_testkit::cases;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The cases that the same frontends pass natively, where they are compiled into their tests.
#[test]
fn components_do_what_is_expected_of_them() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("an executor");
    let folder = tempfile::tempdir().expect("a directory");
    let host = PluginHost::new(PluginHostOptions::new(folder.path().join("code")));
    for (name, place) in [("steps", "frontends/steps"), ("include", "frontends/include")] {
        let component = root().join(format!("target/guests/dist/{name}.wasm"));
        let plugin = host.load(name, component.as_path()).expect("run: cargo xtask guests");
        let frontend: Arc<dyn Frontend> = plugin.frontend().expect("a frontend");
        let folders = cases::folders(&root().join(place).join("tests/cases")).expect("cases");
        assert!(folders.len() > 1, "{name}");
        for folder in folders {
            let outcome = runtime.block_on(cases::run(&folder, &frontend, false));
            assert_eq!(outcome.problem, None, "{name}: {}", outcome.name);
        }
    }
}
