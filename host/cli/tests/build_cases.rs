//! Command lines and what they resolve to. A case is a folder:
//!
//! - `args`: one argument a line; `$DIR` is the directory that all run in
//! - `env`: `NAME=VALUE` lines; may be missing
//! - `stdin`: what standard input holds; may be missing
//! - `expected.txt` or `error.txt`
//!
//! `expected.txt` holds what differs from `wbuild .`, one value a line; the case `bare` holds that.
//!
//! The directory holds the files of [`fixture`].

mod common;

use std::path::Path;

use serde_json::{Value, json};
use wbuild_cli::args::parse;
use wbuild_cli::environment::Environment;
use wbuild_cli::report::{Report, style::Style};
use wbuild_cli::resolve;
use wbuild_cli::session::RegistryHosts as _;
use wbuild_supply::PluginRef;

fn fixture(root: &Path) {
    for (name, content) in [
        ("Dockerfile", "FROM scratch\n"),
        ("Dockerfile.prod", "FROM scratch\n"),
        ("lower/dockerfile", "FROM scratch\n"),
        ("both/Dockerfile", "FROM scratch\n"),
        ("both/dockerfile", "FROM scratch\n"),
        ("other/Containerfile", "FROM scratch\n"),
        ("other/app.dockerfile", "FROM scratch\n"),
        ("other/Dockerfile.dockerignore", "x\n"),
        ("other/inside", "FROM scratch\n"),
        ("steps/Stepsfile", "from scratch\n"),
        ("earth/Earthfile", "VERSION 0.8\nt:\n    FROM scratch\n"),
        ("mono/.git/HEAD", "ref: refs/heads/main\n"),
        ("mono/Earthfile", "VERSION 0.8\n"),
        ("mono/services/api/Earthfile", "VERSION 0.8\n"),
        ("syntax/docker", "# syntax=docker/dockerfile:1-labs\nFROM scratch\n"),
        ("syntax/steps", "# check=skip=all\n# syntax=steps\nfrom scratch\n"),
        ("syntax/foreign", "#!/usr/bin/env wbuild\n// syntax = example.org/language:2 more\n"),
        ("syntax/json", "{\"syntax\": \"stepps\"}\n"),
        ("nothing/README", "\n"),
        ("layout/index.json", "{}"),
        ("registries/good.toml", "[registry.\"a.example\"]\nmirrors = [\"b.example/c\"]\n"),
        ("registries/unknown-key.toml", "[registry.\"a.example\"]\nmirror = [\"b.example\"]\n"),
        ("registries/no-host.toml", "[registry.\"https://a.example\"]\nhttp = true\n"),
        (
            "registries/no-mirror.toml",
            "[registry.\"a.example\"]\nmirrors = [\"b.example\", \"https://c.example\"]\n",
        ),
        ("registries/no-toml.toml", "# comment\n[registry\n"),
        (
            "registries/twice.toml",
            "[registry.\"docker.io\"]\n[registry.\"index.docker.io\"]\nhttp = true\n",
        ),
        ("config/good.toml", "[cache]\nmax = \"50GB\"\nmin-free = \"10%\"\n"),
        ("config/wrong.toml", "[cache]\nmax = \"50 GB\"\nmin-free = \"often\"\n"),
        ("token", "secret\n"),
        ("my.wasm", ""),
    ] {
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().expect("below the root")).expect("directory");
        std::fs::write(path, content).expect("file");
    }
    std::os::unix::fs::symlink("../Dockerfile.prod", root.join("nothing/link")).expect("link");
    std::os::unix::net::UnixListener::bind(root.join("agent")).expect("socket");
}

/// `a.b = value` lines, sorted.
fn flatten(path: &str, value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(object) if !object.is_empty() => {
            for (key, value) in object {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                flatten(&path, value, out);
            }
        }
        other => out.push(format!("{path} = {other}")),
    }
}

fn describe(build: &resolve::Build) -> Vec<String> {
    let shown = |names: &[PluginRef]| names.iter().map(|name| name.shown()).collect::<Vec<_>>();
    let directories: serde_json::Map<_, _> = build
        .lends
        .directories
        .iter()
        .map(|(name, dir)| (name.clone(), json!([dir.path, dir.shown])))
        .collect();
    let mirrors = ["a.example", "docker.io"]
        .map(|host| build.lends.registries.host(host).expect("no file is read").mirrors.join(" "));
    let value = json!({
        "request": build.request,
        "lends": {
            "directories": directories,
            "secrets": format!("{:?}", build.lends.secrets),
            "agents": build.lends.agents,
            "docker_config": build.lends.docker_config,
            "registries": mirrors,
            "proxies": [
                &build.lends.proxies.https,
                &build.lends.proxies.http,
                &build.lends.proxies.except,
            ],
            "archive": build.lends.archive.as_ref().map(Vec::len),
        },
        "frontend": build.frontend.as_ref().map(PluginRef::shown),
        "runners": shown(&build.runners),
        "caches": shown(&build.caches),
        "remotes": build.remotes.iter().map(|(at, name)| json!([at, name.plugin.shown()])).collect::<Vec<_>>(),
        "supply": json!({
            "locked": build.supply.locked,
            "offline": build.supply.offline,
            "private": build.supply.private,
            "policy": build.supply.policy,
        }),
        "state_dir": build.state_dir,
        "limits": format!("{:?}", build.kept.limits),
        "runtime": build.runtime,
        "record_aliases": build.record_aliases,
        "wait": build.wait,
        "call": build.call.as_ref().map(|call| format!("{call:?}")),
        "remarks": build.remarks,
        "display": format!("{:?}", build.display),
        "full_warnings": build.full_warnings,
        "notes": format!("{:?}", build.notes),
    });
    let mut lines = Vec::new();
    flatten("", &value, &mut lines);
    lines.sort();
    lines
}

#[test]
fn command_lines() {
    let root = tempfile::tempdir().expect("temporary directory");
    fixture(root.path());
    let hide = |text: &str| text.replace(root.path().to_str().expect("UTF-8"), "$DIR");
    let run = |args: &str, env: &str, stdin: &str| {
        let mut vars: Vec<(&str, &str)> = vec![("HOME", "/home/user")];
        vars.extend(env.lines().filter_map(|line| line.split_once('=')));
        let environment = Environment::of_parts(root.path(), &vars);
        let args = args.replace("$DIR", root.path().to_str().expect("UTF-8"));
        let argv = std::iter::once("wbuild").chain(args.lines()).map(Into::into);
        let cli = parse(argv).unwrap_or_else(|error| panic!("{args}: {error}"));
        let build = match &cli.command {
            None => &cli.build,
            Some(wbuild_cli::args::Command::Build(build)) => build,
            Some(other) => panic!("{args}: {other:?}"),
        };
        resolve::build(build, &environment, &mut stdin.as_bytes())
    };
    let bare = describe(&run(".", "", "").expect("wbuild ."));
    let mut goldens = common::Goldens::default();
    for case in common::cases("build") {
        let optional = |name: &str| std::fs::read_to_string(case.join(name)).unwrap_or_default();
        let args = common::read(&case, "args");
        match run(&args, &optional("env"), &optional("stdin")) {
            Ok(build) => {
                assert!(!case.join("error.txt").exists(), "{} succeeds", case.display());
                let lines = describe(&build);
                let is_bare = case.ends_with("bare");
                let new = lines.iter().filter(|line| is_bare || !bare.contains(line));
                let text: String = new.map(|line| format!("{line}\n")).collect();
                goldens.check(&case.join("expected.txt"), &hide(&text));
            }
            Err(fault) => {
                assert!(!case.join("expected.txt").exists(), "{}: {fault}", case.display());
                let sources = &fault.sources;
                let report = Report { style: Style::new(false), sources, output_was_shown: true };
                let text = report.failure(&fault.failure, None);
                let text = format!("{text}exit {}\n", fault.exit.code());
                goldens.check(&case.join("error.txt"), &hide(&text));
            }
        }
    }
}
