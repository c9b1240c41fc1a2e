//! How long a build takes from the file to the last node: `cargo run --release --example plan_time`.
//!
//! Prints the time of files of doubling length; it should double with them.

#[path = "../tests/support/mod.rs"]
mod support;

use std::fmt::Write as _;
use std::time::Instant;

fn main() {
    for lines in [200, 2_000, 4_000, 8_000] {
        let mut text = String::from("FROM scratch\n");
        for line in 0..lines / 2 {
            let before = line.max(1) - 1;
            writeln!(text, "ENV V{line}=${{V{before}:-x}}y\"$PATH\"\nLABEL l{line}=$V{before}")
                .expect("a String takes all");
        }
        // Values of their neighbours would grow with every line.
        let text = text.replace("${V", "${U");
        let start = Instant::now();
        let parsed = wbuild_dockerfile::parse(0, text.as_bytes());
        let parse = start.elapsed();
        assert!(!parsed.failed());
        let start = Instant::now();
        let out = support::recorder::Recorder::new(text.into_bytes(), "").run();
        println!(
            "{lines} lines: parse {parse:?}, build {:?} ({} bytes)",
            start.elapsed(),
            out.len()
        );
    }
}
