//! `wbuild plugin new`.

use std::path::PathBuf;

use wbuild_author::{Kind, Language, template};
use wbuild_cli::args::{NewArgs, PluginKind, PluginLanguage};
use wbuild_cli::exit::{Exit, Fault};
use wbuild_cli::terminal;

/// Runs the command.
pub fn run(args: &NewArgs) -> Result<Exit, Fault> {
    let kind = match args.kind {
        PluginKind::Frontend => Kind::Frontend,
        PluginKind::Runner => Kind::Runner,
        PluginKind::Cache => Kind::Cache,
    };
    let language = match args.lang {
        PluginLanguage::Rust => Language::Rust,
        PluginLanguage::Js => Language::Js,
        PluginLanguage::Python => Language::Python,
        PluginLanguage::C => Language::C,
    };
    let folder = args.dir.clone().unwrap_or_else(|| PathBuf::from(&args.name));
    let files = template::write_project(&folder, &args.name, kind, language)?;
    let shown = folder.display();
    terminal::eprint(&format!(
        "{} files in {shown}; begin with {shown}/README.md\nbuild it with: wbuild plugin build {shown}\n",
        files.len()
    ));
    Ok(Exit::Success)
}
