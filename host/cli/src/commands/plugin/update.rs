//! `wbuild plugin update`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use wbuild_cli::args::UpdateArgs;
use wbuild_cli::environment::Environment;
use wbuild_cli::exit::{Exit, Fault};
use wbuild_cli::resolve::Lends;
use wbuild_cli::resolve::plugins::Supply;
use wbuild_cli::terminal;
use wbuild_plugin::PluginKind;
use wbuild_supply::{Ask as _, PluginRef, Update};

use crate::plugins::{self, AtTerminal};

/// Looks for newer versions, shows what would change, asks, and pins.
pub fn update(args: &UpdateArgs, environment: &Environment) -> Result<Exit, Fault> {
    let mut options = args.plugins.clone();
    if std::mem::take(&mut options.locked) {
        return Err(Fault::usage("--locked forbids to change the lock"));
    }
    let supply = Supply::of(Some(&environment.cwd), &options, false)?;
    let lends = Lends::to_registries(args.registry_config.as_deref(), environment)?;
    let supplier = plugins::supplier(&supply, &lends, environment)?;
    let mut wanted: BTreeMap<PluginRef, PluginKind> = BTreeMap::new();
    if args.names.is_empty() {
        for (source, _) in supplier.locked() {
            // What it is shows when it is fetched.
            wanted.extend(PluginRef::remote(&source)?.map(|source| (source, PluginKind::Frontend)));
        }
        // Also what the project names and no build has used yet.
        let aliases = supplier.project().into_iter().flat_map(|project| project.aliases());
        let aliases = aliases.map(|alias| (alias.source.clone(), alias.kind));
        wanted.extend(aliases.filter(|(source, _)| matches!(source, PluginRef::Registry(_))));
        if wanted.is_empty() {
            terminal::eprint(
                "wbuild.lock pins no plugin; a build with one does, and so does \
                 wbuild plugin update oci://REGISTRY/NAME:TAG\n",
            );
            return Ok(Exit::Success);
        }
    }
    for name in &args.names {
        let (kind, reference) = supply.any(name, environment)?;
        let (source, _) = supplier.resolve(kind, &reference)?;
        if !matches!(source, PluginRef::Registry(_)) {
            return Err(Fault::input(format!("{source} is not pinned by a lock"))
                .hint("only plugins of registries are"));
        }
        wanted.insert(source, kind);
    }
    let mut updates = Vec::new();
    for (source, kind) in &wanted {
        updates.push(plugins::now(supplier.newest(*kind, source))?);
    }
    updates.retain(|update| update.before.as_ref() != Some(&update.after));
    if updates.is_empty() {
        terminal::eprint("everything is up to date\n");
        return Ok(Exit::Success);
    }
    let ask = AtTerminal::new(environment);
    for update in &updates {
        let text = describe(update);
        terminal::eprint(&terminal::plain(&text));
        let yes = args.yes
            || match ask.ask("Pin this? [y/N] ")? {
                Some(answer) => answer,
                None => {
                    return Err(Fault::input("nobody answered whether to pin it")
                        .hint("--yes does not ask"));
                }
            };
        if yes {
            supplier.accept(update);
        }
    }
    if let Some(note) = supplier.save_lock() {
        terminal::eprint(&format!("{note}\n"));
    }
    Ok(Exit::Success)
}

/// What becomes of a reference, line by line.
fn describe(update: &Update) -> String {
    let Update { source, before, after, decision } = update;
    let mut out = format!("{source}\n");
    let mut line = |name: &str, old: Option<String>, new: String| {
        let _ = match old {
            Some(old) if old == new => writeln!(out, "  {name:<10}{new} (as before)"),
            Some(old) => writeln!(out, "  {name:<10}{old}\n  {:<10}-> {new}", ""),
            None => writeln!(out, "  {name:<10}{new}"),
        };
    };
    let of = |get: &dyn Fn(&wbuild_supply::Locked) -> String| before.as_ref().map(get);
    line("component", of(&|locked| locked.component.to_string()), after.component.to_string());
    line("manifest", of(&|locked| locked.manifest.to_string()), after.manifest.to_string());
    let signer = |locked: &wbuild_supply::Locked| {
        locked.signer.clone().unwrap_or_else(|| "(none wanted)".to_owned())
    };
    line("signer", of(&signer), signer(after));
    let old: BTreeSet<&String> = before.iter().flat_map(|locked| &locked.imports).collect();
    let new: BTreeSet<&String> = after.imports.iter().collect();
    for import in new.difference(&old) {
        let _ = writeln!(out, "  + import {import}");
    }
    for import in old.difference(&new) {
        let _ = writeln!(out, "  - import {import}");
    }
    for (want, why) in &decision.wants {
        let _ = match why {
            Some(why) => writeln!(out, "  it may {}: {why}", want.words()),
            None => writeln!(out, "  it wants to {}: a build asks before", want.words()),
        };
    }
    out
}
