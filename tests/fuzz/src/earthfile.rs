//! The Earthfile language: parsing, and printing what was parsed.

use std::path::Path;

use wbuild_earthfile::{parse, print};

use crate::source::Source;

/// The input is a file.
pub fn check(data: &[u8]) {
    let source = Source::new(7, data);
    let parsed = parse(7, data);
    assert_eq!(format!("{parsed:?}"), format!("{:?}", parse(7, data)), "it differs each time");
    source.check_diagnostics(&parsed.problems);
    if parsed.failed() {
        return;
    }
    let printed = print(&parsed.file);
    let again = parse(7, printed.as_bytes());
    assert!(!again.failed(), "{printed:?} cannot be read again: {:?}", again.problems);
    assert_eq!(print(&again.file), printed);
}

/// The case folders.
pub fn seeds() -> Vec<Vec<u8>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../frontends/earthfile/lang/tests");
    let mut files = Vec::new();
    for kind in ["parse", "errors"] {
        for case in std::fs::read_dir(root.join(kind)).expect("there are cases") {
            let case = case.expect("it can be listed").path();
            files.extend(
                ["Earthfile", "right"]
                    .iter()
                    .filter_map(|name| std::fs::read(case.join(name)).ok()),
            );
        }
    }
    files.sort();
    files
}
