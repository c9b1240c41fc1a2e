//! Times lists of many patterns against many paths: `cargo run --release --example speed`.
//!
//! Every path is decided from the root down, as a walk does once for each directory and file.

use std::time::Instant;

use wbuild_ignore::Matcher;

const PATTERNS: usize = 10_000;
const PATHS: usize = 100_000;

/// A pattern by its number.
type Form = fn(usize) -> String;

fn main() {
    let lists: [(&str, Form); 10] = [
        ("literal paths", |n| format!("src/module{n}/target")),
        ("names anywhere", |n| format!("**/generated{n}.rs")),
        ("numbered **/g1*.x", |n| format!("**/g{n}*.x")),
        ("below directories", |n| format!("vendor{n}/**/*.o")),
        ("text in the middle", |n| format!("**/*part-{n}-*")),
        ("with !", |n| if n == 0 { "*".into() } else { format!("!src/m{n}*/keep") }),
        ("the same **/g*.x", |_| "**/g*.x".into()),
        ("alike, none matches", |n| {
            let class = |digit| format!("[{digit}z]");
            let classes: String = format!("{n:04}").chars().map(class).collect();
            format!("**/h{classes}*.x")
        }),
        ("stars", |n| format!("{}b{}", "*a".repeat(1 + n % 8), n % 10)),
        ("inner double stars", |n| format!("{}b{}", "s**".repeat(1 + n % 8), n % 10)),
    ];
    let paths: Vec<String> = (0..PATHS)
        .map(|n| format!("src/module{}/aaaaaaaa/g{}file.x", n % 1000, n % 20_000))
        .collect();
    println!("{PATTERNS} patterns, time for {PATHS} paths:");
    for (name, pattern) in lists {
        let patterns: Vec<String> = (0..PATTERNS).map(pattern).collect();
        let begun = Instant::now();
        let matcher = Matcher::new(&patterns).expect("well formed");
        let compiled = begun.elapsed();
        // Lists that take long are extrapolated from fewer paths.
        let mut count = 0;
        let begun = Instant::now();
        let mut matched = 0;
        while count < PATHS && (count % 64 != 0 || begun.elapsed().as_secs() < 5) {
            matched += usize::from(matcher.decide(paths[count].as_bytes()).matched);
            count += 1;
        }
        let seconds = begun.elapsed().as_secs_f64() * PATHS as f64 / count as f64;
        println!(
            "{name:20} {seconds:9.2} s   compiled in {compiled:.1?}, {matched} of {count} match"
        );
    }
}
