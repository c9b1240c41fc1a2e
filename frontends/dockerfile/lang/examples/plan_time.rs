//! How long a build takes from the file to the last node: `cargo run --release --example plan_time`.
//!
//! Prints the best of five for files of doubling length; it should double with them. The build holds
//! the parsing, and the recorder's own pretty-printing of the result.

#[path = "../tests/support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::time::{Duration, Instant};

fn main() {
    for lines in [1_000, 2_000, 4_000, 8_000] {
        // Nothing that a check finds: showing that takes the recorder far longer.
        let mut text = String::from("FROM scratch\nENV U=u\n");
        for line in 0..lines / 2 {
            let before = line.max(1) - 1;
            writeln!(text, "ENV V{line}=${{U:-x}}y\"$PATH\"\nLABEL l{line}=$V{before}")
                .expect("a String takes all");
        }
        let (mut parse, mut build) = (Duration::MAX, Duration::MAX);
        for _ in 0..5 {
            let start = Instant::now();
            let parsed = wbuild_dockerfile::parse(0, text.as_bytes());
            parse = parse.min(start.elapsed());
            assert!(!parsed.failed());
            let recorder = support::recorder::Recorder::new(text.clone().into_bytes(), "");
            let start = Instant::now();
            let out = recorder.run();
            build = build.min(start.elapsed());
            assert!(out.contains("result"));
        }
        println!("{lines} lines: parse {parse:?}, build {build:?}");
    }
}
