//! `wbuild plugin build`.

use serde_json::json;
use wbuild_author::{Kind, Project};
use wbuild_cli::args::PluginBuildArgs;
use wbuild_cli::environment::Environment;
use wbuild_cli::exit::{Exit, Fault};
use wbuild_cli::{terminal, units};
use wbuild_graph::Failure;
use wbuild_plugin::{PluginInfo, PluginKind};

use crate::plugins;

/// Runs the command.
pub fn run(args: &PluginBuildArgs, environment: &Environment) -> Result<Exit, Fault> {
    let project = Project::read(&args.dir)?;
    let component = make(&project)?;
    let shown = args.dir.join(component.strip_prefix(&project.folder).unwrap_or(&component));
    let shown = shown.strip_prefix(".").unwrap_or(&shown).display().to_string();
    // What the user would have to grant is no mistake of the author's.
    let plugin = plugins::host(environment).load(&shown, component.as_path())?.calling();
    let info = plugins::now(plugin.inspect())?;
    accept(&project, &shown, &info)?;
    if args.json {
        return super::super::print_json(&json!({
            "path": component,
            "kind": project.kind,
            "language": project.language,
            "size_bytes": info.size,
            "digest": info.digest,
            "imports": info.imports,
            "exports": info.exports,
            "manifest": info.manifest,
        }));
    }
    let mut text = format!(
        "{shown}\n  {} in {}, {}\n  {}\n  imports:\n",
        project.kind,
        project.language,
        units::size(info.size),
        info.digest
    );
    for import in &info.imports {
        text.push_str(&format!("    {}\n", terminal::plain(import)));
    }
    if info.imports.iter().any(|import| import.starts_with("wbuild:frontend/nested@")) {
        text.push_str("  it calls other frontends, which its users have to grant: nested = true\n");
    }
    terminal::print(text.as_bytes())?;
    Ok(Exit::Success)
}

/// Builds the component, and says what takes long.
pub fn make(project: &Project) -> Result<std::path::PathBuf, Failure> {
    wbuild_author::build::build(project, &mut |what| terminal::eprint(&format!("{what}\n")))
}

/// Refuses what could not be used. The loader has judged imports and sizes already.
fn accept(project: &Project, shown: &str, info: &PluginInfo) -> Result<(), Failure> {
    if let Some(refusal) = &info.refusal {
        return Err(refusal.clone());
    }
    let kind = match project.kind {
        Kind::Frontend => PluginKind::Frontend,
        Kind::Runner => PluginKind::Runner,
        Kind::Cache => PluginKind::Cache,
    };
    if info.kinds.contains(&kind) {
        return Ok(());
    }
    let kinds: Vec<String> = info.kinds.iter().map(ToString::to_string).collect();
    let is = if kinds.is_empty() { "no plugin at all".to_owned() } else { kinds.join(" and ") };
    Err(Failure::invalid(format!("{shown} is to be a {} and is {is}", project.kind))
        .hint("the key kind of wbuild-plugin.toml and what the code exports do not agree"))
}
