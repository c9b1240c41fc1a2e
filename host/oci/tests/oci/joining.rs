//! Joining images into an index: `tests/cases/join`, a file a case.
//!
//! ```text
//! part NAME [index]
//!   PLATFORM|- WORD [docker|nested|MEDIA/TYPE] [KEY=VALUE…]
//! ---
//! oci|docker, and the entries; or error: MESSAGE
//! ```
//!
//! WORD is the content; `@WORD` stands for its digest.

use std::path::Path;

use wbuild_graph::{Digest, Platform};
use wbuild_oci::ErrorKind;
use wbuild_oci::join::{Part, PartContent, check_size, join};
use wbuild_oci::media::{
    DOCKER_MANIFEST, Descriptor, Index, MAX_INDEX_ENTRIES, MediaFamily, OCI_INDEX, OCI_MANIFEST,
};

fn digest(word: &str) -> String {
    Digest::of(word.as_bytes()).to_string()
}

/// `@WORD` as the digest of WORD.
fn expand(text: &str) -> String {
    match text.strip_prefix('@') {
        Some(word) => digest(word),
        None => text.to_owned(),
    }
}

fn entry(line: &str) -> Descriptor {
    let mut words = line.split_whitespace();
    let platform = words.next().expect("a platform");
    let word = words.next().expect("a content");
    let mut descriptor = Descriptor::of(OCI_MANIFEST, word.as_bytes());
    if platform != "-" {
        let (name, version) = match platform.split_once('@') {
            Some((name, version)) => (name, Some(version.to_owned())),
            None => (platform, None),
        };
        let mut parts = name.split('/');
        let (os, architecture) = (parts.next().expect("os"), parts.next().expect("architecture"));
        let platform = Platform::new(os, architecture, parts.next());
        descriptor = descriptor.with_platform(&platform);
        descriptor.platform.as_mut().expect("it was set").os_version = version;
    }
    for word in words {
        match (word, word.split_once('=')) {
            ("docker", _) => descriptor.media_type = DOCKER_MANIFEST.to_owned(),
            ("nested", _) => descriptor.media_type = OCI_INDEX.to_owned(),
            (_, Some((key, value))) => descriptor = descriptor.annotate(key, expand(value)),
            (media_type, None) => descriptor.media_type = media_type.to_owned(),
        }
    }
    descriptor
}

fn parts(text: &str) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("part ") {
            let (name, content) = match name.strip_suffix(" index") {
                Some(name) => (name, PartContent::Index(Vec::new())),
                None => {
                    let nothing = Descriptor::of(OCI_MANIFEST, b"");
                    (name, PartContent::Image(Box::new(nothing)))
                }
            };
            parts.push(Part { name: name.to_owned(), content });
            continue;
        }
        match &mut parts.last_mut().expect("a part").content {
            PartContent::Image(image) => **image = entry(line),
            PartContent::Index(list) => list.push(entry(line)),
        }
    }
    parts
}

/// The index as its case has it.
fn expected(text: &str) -> Index {
    let mut lines = text.lines();
    let family = match lines.next() {
        Some("docker") => MediaFamily::Docker,
        _ => MediaFamily::Oci,
    };
    Index::new(family, lines.map(entry).collect())
}

#[test]
fn cases() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/join");
    let mut count = 0;
    for file in std::fs::read_dir(folder).expect("the folder of cases") {
        let path = file.expect("a file").path();
        let text = std::fs::read_to_string(&path).expect("a case");
        let (input, want) = text.split_once("---\n").expect("--- in a case");
        let made = join(&parts(input));
        let shown = path.display();
        match (made, want.trim_end().strip_prefix("error: ")) {
            (Err(error), Some(message)) => {
                let message: Vec<String> = message
                    .split(' ')
                    .map(|word| match word.strip_suffix(',') {
                        Some(word) if word.starts_with('@') => expand(word) + ",",
                        _ => expand(word),
                    })
                    .collect();
                assert_eq!(error.to_string(), message.join(" "), "{shown}");
            }
            (Err(error), None) => panic!("{shown}: {error}"),
            (Ok(index), Some(_)) => panic!("{shown}: {index:?}"),
            (Ok(index), None) => assert_eq!(index, expected(want), "{shown}"),
        }
        count += 1;
    }
    assert!(count > 10, "{count} cases");
}

#[test]
fn an_index_has_limits() {
    let image = |at: usize| Part {
        name: at.to_string(),
        content: PartContent::Index(vec![Descriptor::of(OCI_MANIFEST, &at.to_le_bytes())]),
    };
    let many: Vec<Part> = (0..=MAX_INDEX_ENTRIES).map(image).collect();
    assert_eq!(join(&many).expect_err("too many").kind(), ErrorKind::Limit);
    let mut index = join(&many[..2]).expect("two are not too many");
    let long = "x".repeat(5 << 20);
    index.annotations.get_or_insert_default().insert("note".to_owned(), long);
    assert_eq!(check_size(&index).expect_err("too large").kind(), ErrorKind::Limit);
}
