//! `wbuild-wild FOLDER…`: what becomes of the Dockerfiles below the folders.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use wbuild_fuzz::wild::{Outcome, examine, find};

fn main() {
    let mut files = Vec::new();
    for folder in std::env::args_os().skip(1) {
        find(Path::new(&folder), &mut files);
    }
    // The same file is in many packages.
    let mut known: BTreeMap<Vec<u8>, PathBuf> = BTreeMap::new();
    for file in &files {
        let text = std::fs::read(file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        known.entry(text).or_insert_with(|| file.clone());
    }
    let mut by_name: Vec<_> = known.iter().map(|(text, file)| (file, text)).collect();
    by_name.sort();
    let mut refused = 0;
    for (file, text) in by_name {
        if let Outcome::Refused(why) = examine(text) {
            refused += 1;
            println!("=== {}\n{}\n", file.display(), why.trim_end());
        }
    }
    let different = known.len();
    println!(
        "{} files, {different} different ones: {} built, {refused} refused",
        files.len(),
        different - refused
    );
}
