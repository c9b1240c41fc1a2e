//! One target under libFuzzer: `WBUILD_FUZZ=parser wbuild-fuzz [OPTION|FOLDER…]`.
//!
//! With `WBUILD_FUZZ_SEEDS=FOLDER` writes the seeds of the target there and ends.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use wbuild_fuzz::Target;

fn chosen() -> &'static Target {
    static TARGET: OnceLock<&Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let name = std::env::var("WBUILD_FUZZ").expect("WBUILD_FUZZ names the target");
        let target = wbuild_fuzz::target(&name).expect("WBUILD_FUZZ is the name of a target");
        if let Some(folder) = std::env::var_os("WBUILD_FUZZ_SEEDS") {
            let folder = std::path::PathBuf::from(folder);
            for (number, seed) in (target.seeds)().into_iter().enumerate() {
                let file = folder.join(format!("seed-{number:04}"));
                std::fs::write(file, seed).expect("a seed can be written");
            }
            std::process::exit(0);
        }
        target
    })
}

fuzz_target!(init: { chosen(); }, |data: &[u8]| (chosen().check)(data));
