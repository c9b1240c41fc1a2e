//! `cargo xtask`: see `cargo xtask help`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use xtask::{guests, reference, wit, workspace_root};

const HELP: &str = "\
usage: cargo xtask <command>

  guests [NAME...]        compile the guests (all, or the named ones) to components and put them
                          into target/guests/dist/<name>.wasm
      --install-target    where the toolchain has no wasm32-unknown-unknown: add it with
                          `rustup target add` (else a private toolchain is made in target/)
      --bless             write the components' import lists to host/xtask/imports.golden
  guests --check          say whether target/guests/dist is up to date; exit 1 if it is not
  wit                     check that wit/CHANGES.md lists the WIT files as they are
  wit WHAT-CHANGED        add a line to the newest entry of wit/CHANGES.md, renew its hashes and
                          the pages of wit/reference
  wit --reference         renew the pages of wit/reference only
  wit --copy PACKAGE DIR  write wit/PACKAGE with what it uses to DIR, in the layout (deps/) that
                          other languages' tools want
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<ExitCode> {
    let root = workspace_root();
    match args.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        Some(("guests", rest)) => {
            let mut options = guests::Options::default();
            let mut check = false;
            for arg in rest {
                match arg.as_str() {
                    "--check" => check = true,
                    "--bless" => options.bless = true,
                    "--install-target" => options.install_target = true,
                    flag if flag.starts_with('-') => bail!("unknown option {flag}\n\n{HELP}"),
                    name => options.only.push(name.to_owned()),
                }
            }
            if check {
                let stale = guests::check(&root, &options)?;
                for line in &stale {
                    eprintln!("{line}");
                }
                if !stale.is_empty() {
                    eprintln!("run: cargo xtask guests");
                    return Ok(ExitCode::FAILURE);
                }
                eprintln!("the guests are up to date");
            } else {
                guests::build(&root, &options)?;
            }
        }
        Some(("wit", [])) => wit::check(&root)?,
        Some(("wit", [flag, package, folder])) if flag == "--copy" => {
            wit::copy(&root, package, folder.as_ref())?;
        }
        Some(("wit", [flag])) if flag == "--reference" => reference::write(&root)?,
        Some(("wit", [text])) if !text.starts_with('-') => {
            wit::record(&root, text)?;
            reference::write(&root)?;
        }
        Some(("help" | "--help" | "-h", _)) | None => print!("{HELP}"),
        Some((command, _)) => bail!("cannot make sense of `{command}` here\n\n{HELP}"),
    }
    Ok(ExitCode::SUCCESS)
}
