//! `wbuild plugin publish`, `verify` and `warm`.

use wbuild_cli::args::{PluginNameArgs, PublishArgs, WarmArgs};
use wbuild_cli::config::read_file;
use wbuild_cli::environment::{Environment, vars};
use wbuild_cli::exit::{Exit, Fault};
use wbuild_cli::resolve::Lends;
use wbuild_cli::resolve::plugins::{Supply, reaches_private};
use wbuild_cli::terminal;
use wbuild_graph::Failure;
use wbuild_oci::Timestamp;
use wbuild_supply::PluginRef;
use wbuild_supply::publish::{Publication, Published, SigningKey};

use super::Named;
use crate::plugins;

/// Puts a component into a registry.
pub fn publish(args: &PublishArgs, environment: &Environment) -> Result<Exit, Fault> {
    let shown = args.to.to_string_lossy();
    let to = match shown.starts_with("oci://") {
        true => PluginRef::parse(&args.to, &environment.cwd).map_err(Fault::misnamed)?,
        false => PluginRef::Named(shown.into_owned()),
    };
    let PluginRef::Registry(to) = to else {
        return Err(Fault::usage(format!("{to} is no place in a registry"))
            .hint("expected oci://REGISTRY/NAME:TAG"));
    };
    if to.digest().is_some() {
        return Err(Fault::usage("a digest cannot be chosen").hint("leave out what follows the @"));
    }
    let key = match &args.sign {
        Some(path) => {
            let failed = || Fault::input(format!("cannot read the key {}", path.display()));
            let bytes =
                read_file(&environment.absolute(path)).map_err(|error| failed().cause(&error))?;
            Some(String::from_utf8(bytes).map_err(|error| failed().cause(&error))?)
        }
        None => None,
    };
    let epoch = match environment.var(vars::SOURCE_DATE_EPOCH)? {
        Some(text) => text.parse().map_err(|_| {
            Fault::usage(format!("{} is no number of seconds: {text:?}", vars::SOURCE_DATE_EPOCH))
        })?,
        None => 0,
    };
    let lends = Lends::to_registries(args.registry_config.as_deref(), environment)?;
    let supplier = plugins::supplier(&Supply::default(), &lends, environment)?;
    let path = environment.absolute(&args.file);
    let plugin = supplier.host().load(&args.file.display().to_string(), path.as_path())?;
    super::tell_changes(&path);
    let published: Published = plugins::now(async {
        let what = Publication {
            plugin: &plugin,
            to: &to,
            created: Timestamp::from_seconds(epoch),
            key: key.as_deref().map(|text| SigningKey { text, password: &password }),
        };
        wbuild_supply::publish::publish(supplier.fetcher().client(), what).await
    })?;
    let signed = if published.signed { ", signed" } else { "" };
    terminal::eprint(&format!("published the component {}{signed}\n", published.component));
    terminal::print(format!("oci://{}\n", published.reference).as_bytes())?;
    Ok(Exit::Success)
}

/// The password of a key: asked for at a terminal, else a line of standard input.
fn password() -> Result<String, Failure> {
    terminal::eprint("Password of the key: ");
    let failed = |error| Failure::invalid("cannot read the password").cause(&error);
    let password = terminal::read_hidden().map_err(failed)?;
    terminal::eprint("\n");
    Ok(password)
}

/// Fetches a plugin and says whether it may be used.
pub fn verify(args: &PluginNameArgs, environment: &Environment) -> Result<Exit, Fault> {
    let named = Named::new(args, environment)?;
    let supplied = plugins::now(named.supplier.look_at(named.kind, &named.reference))?;
    let decision = &supplied.decision;
    if args.json {
        return super::super::print_json(&serde_json::json!({
            "source": supplied.source.to_string(),
            "component": supplied.plugin.digest(),
            "manifest": decision.manifest,
            "signer": decision.signer,
        }));
    }
    let mut text = format!("{}\ncomponent  {}\n", supplied.source, supplied.plugin.digest());
    if let Some(manifest) = decision.manifest {
        let reference = supplied.source.to_string();
        let pinned = named.supplier.locked().iter().any(|(source, _)| *source == reference);
        let how = if pinned { ", as wbuild.lock pins it" } else { "" };
        text.push_str(&format!("manifest   {manifest}{how}\n"));
    }
    text.push_str(&match &decision.signer {
        Some(signer) => format!("signed by  {signer}\n"),
        None => "signed by  (the policy wants no signature of it)\n".to_owned(),
    });
    terminal::print(text.as_bytes())?;
    Ok(Exit::Success)
}

/// Fetches and compiles plugins.
pub fn warm(args: &WarmArgs, environment: &Environment) -> Result<Exit, Fault> {
    let supply = Supply::of(Some(&environment.cwd), &args.plugins, reaches_private(&args.allow))?;
    let mut named = Vec::new();
    for name in &args.names {
        named.push(supply.any(name, environment)?);
    }
    let lends = Lends::to_registries(args.registry_config.as_deref(), environment)?;
    let supplier = plugins::supplier(&supply, &lends, environment)?;
    let mut lines = String::new();
    plugins::now(async {
        for (kind, reference) in &named {
            // What it is granted is decided when it is used.
            let supplied = supplier.look_at(*kind, reference).await?;
            lines.extend(supplied.notes.iter().map(|note| format!("note: {note}\n")));
            let plugins = std::slice::from_ref(&supplied.plugin);
            let took = supplier.host().warm(plugins).await?;
            let how = match took[..] {
                [Some(took)] => format!("compiled in {} ms", took.as_millis()),
                _ => "compiled before".to_owned(),
            };
            lines.push_str(&format!("{} {how}\n", supplied.source));
        }
        Ok(())
    })?;
    terminal::eprint(&lines);
    Ok(Exit::Success)
}
