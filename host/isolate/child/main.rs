//! The program whose children are tested.

mod liar;
mod probes;

use std::ffi::OsString;

fn main() {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let code = match args.first().and_then(|first| first.to_str()) {
        Some("plugin") => wbuild_isolate::child_main(&args[1..]),
        Some(liar) if liar.starts_with("liar-") => liar::main(&liar["liar-".len()..]),
        Some("probe") => probes::main(&args[1..]),
        _ => 2,
    };
    std::process::exit(code);
}
