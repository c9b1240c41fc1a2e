//! Where plugins come from and what they are trusted with: registries, the lock, policies, signatures.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use wbuild_tests::registry::{Registry, Settings};
use wbuild_tests::run::{Run, Running};
use wbuild_tests::sandbox::Sandbox;
use wbuild_tests::skip;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("published_pinned_and_built_offline", published_pinned_and_built_offline),
    ("a_tag_that_moved", a_tag_that_moved),
    ("locks_that_lie", locks_that_lie),
    ("bytes_that_were_swapped", bytes_that_were_swapped),
    ("images_are_no_plugins", images_are_no_plugins),
    ("grants_without_a_terminal", grants_without_a_terminal),
    ("a_grant_on_a_terminal", a_grant_on_a_terminal),
    ("what_frontends_call", what_frontends_call),
    ("policies", policies),
    ("what_a_frontend_may_use", what_a_frontend_may_use),
    ("signatures", signatures),
    ("from_a_web_server", from_a_web_server),
    ("projects", projects),
    ("names_are_no_trust", names_are_no_trust),
    ("a_lock_that_cannot_be_written", a_lock_that_cannot_be_written),
];

/// A component that `cargo xtask guests` has made.
fn component(name: &str) -> Result<PathBuf> {
    let path = wbuild_tests::workspace().join(format!("target/guests/dist/{name}.wasm"));
    ensure!(path.is_file(), "{} is not there; run: cargo xtask guests", path.display());
    Ok(path)
}

/// A sandbox and a registry in it.
struct Place {
    sandbox: Sandbox,
    registry: Registry,
}

/// A definition of the bundled frontend `steps`, as another one reads it.
const STEPS: &str = "from scratch\ncopy data /data\n";

impl Place {
    fn new(name: &str) -> Result<Place> {
        let sandbox = Sandbox::with(name, &[("data", "content\n")])?;
        let registry = Registry::start(&sandbox.path("registry"), false)?;
        Ok(Place { sandbox, registry })
    }

    fn name(&self, name: &str) -> String {
        format!("oci://{}/{name}", self.registry.host())
    }

    /// Publishes a bundled component; its name by digest.
    fn publish(&self, what: &str, name: &str, more: &[&str]) -> Result<String> {
        self.publish_file(&component(what)?, name, more)
    }

    fn publish_file(&self, file: &Path, name: &str, more: &[&str]) -> Result<String> {
        let (file, to) = (file.display().to_string(), self.name(name));
        let args = [&["plugin", "publish", &file, &to], more].concat();
        let run = self.run("publisher", &args)?.success()?;
        Ok(run.text()?.trim().to_owned())
    }

    /// wbuild with a cache of its own for plugins, and a home.
    fn run(&self, who: &str, args: &[&str]) -> Result<Run> {
        let mut command = self.sandbox.wbuild(args)?;
        command.env("WBUILD_CACHE_DIR", self.sandbox.path(format!("{who}-cache")));
        Run::of(&mut command)
    }

    /// Builds a definition in the context, as somebody with a state and a cache of their own.
    fn build(&self, who: &str, args: &[&str]) -> Result<Run> {
        let mut command = self.sandbox.build_command(args)?;
        command
            .env("WBUILD_STATE_DIR", self.sandbox.path(format!("{who}-state")))
            .env("WBUILD_CACHE_DIR", self.sandbox.path(format!("{who}-cache")));
        Run::of(&mut command)
    }

    /// A definition that names its frontend.
    fn definition(&self, name: &str, rest: &str) -> Result<()> {
        let syntax = format!("# syntax={}/{name}\n", self.registry.host());
        self.sandbox.write("Dockerfile", &(syntax + rest))
    }

    fn lock(&self) -> Result<String> {
        let path = self.sandbox.path("context/wbuild.lock");
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    fn policy(&self, text: &str) -> Result<String> {
        let path = self.sandbox.path("policy.toml");
        std::fs::write(&path, text)?;
        Ok(format!("--policy={}", path.display()))
    }
}

fn published_pinned_and_built_offline() -> Result<()> {
    let mut place = Place::new("published")?;
    let digest = place.publish("steps", "team/steps:1", &[])?;
    ensure!(digest.contains(":1@sha256:"), "{digest}");
    // The same again is the same.
    ensure!(place.publish("steps", "team/steps:1", &[])? == digest);
    let manifest = place.registry.manifest("team/steps:1")?;
    ensure!(manifest["config"]["mediaType"] == "application/vnd.wasm.config.v0+json", "{manifest}");
    ensure!(manifest["layers"][0]["mediaType"] == "application/wasm", "{manifest}");

    place.definition("team/steps:1", STEPS)?;
    // Nothing is pinned yet.
    let run = place.build("a", &["--locked"])?.expect(1)?;
    run.says("is not in wbuild.lock")?;
    ensure!(place.lock().is_err(), "nothing was written");
    let run = place.build("a", &["--offline"])?.expect(1)?;
    run.says("--offline forbids")?;
    let run = place.build("a", &["-o", "out"])?.success()?;
    run.says("pinned plugins")?;
    ensure!(std::fs::read_to_string(place.sandbox.path("out/data"))? == "content\n");
    let lock = place.lock()?;
    ensure!(lock.contains("team/steps:1") && lock.contains("wbuild:frontend/graph"), "{lock}");

    // What is pinned and here needs nobody; and the lock in the context changes no step.
    place.registry.stop()?;
    for args in [&[][..], &["--locked"], &["--offline"], &["--locked", "--offline"]] {
        let run = place.build("a", args)?.success()?;
        ensure!(run.end_of("copy data")? == "CACHED", "{}", run.stderr);
        run.never_says("pinned")?;
    }
    ensure!(place.lock()? == lock, "it is written only when it changes");
    // Somebody else has the lock and not the component.
    place.build("b", &["--offline"])?.expect(1)?.says("--offline forbids")?;
    place.registry.restart()?;
    place.build("b", &["--locked"])?.success()?;
    ensure!(place.lock()? == lock);
    place.registry.stop()?;
    place.build("b", &["--offline", "--locked"])?.success()?;
    Ok(())
}

fn a_tag_that_moved() -> Result<()> {
    let place = Place::new("moved")?;
    place.publish("steps", "team/f:1", &[])?;
    place.definition("team/f:1", STEPS)?;
    place.build("a", &[])?.success()?;
    let before = place.lock()?;
    // The tag leads to another frontend, which wants more and cannot read this at all.
    place.publish("earthfile", "team/f:1", &[])?;
    place.build("a", &[])?.success()?;
    place.build("b", &["--locked"])?.success()?;
    ensure!(place.lock()? == before, "the pin holds");

    let name = place.name("team/f:1");
    let context = place.sandbox.path("context");
    let update = |more: &[&str]| -> Result<Run> {
        let mut command = place.sandbox.wbuild(["plugin", "update", name.as_str()])?;
        command.args(more).current_dir(&context);
        Run::of(command.env("WBUILD_CACHE_DIR", place.sandbox.path("a-cache")))
    };
    let run = update(&[])?.expect(1)?;
    run.says("component")?;
    run.says("--yes does not ask")?;
    ensure!(place.lock()? == before, "nobody said yes");
    let run = update(&["--yes"])?.success()?;
    run.says("-> sha256:")?;
    run.says("+ import wbuild:frontend/nested")?;
    run.says("it wants to call other frontends")?;
    ensure!(place.lock()? != before);
    update(&["--yes"])?.success()?.says("up to date")?;
    let mut verify = place.sandbox.wbuild(["plugin", "verify", name.as_str()])?;
    let run = Run::of(verify.current_dir(&context))?.success()?;
    ensure!(run.text()?.contains("as wbuild.lock pins it"), "{}", run.text()?);
    place.build("a", &[])?.expect(1)?.says("is not granted what it wants")?;
    Ok(())
}

/// A lock comes with the project: it must not make a component answer to a name whose registry never
/// had it, though it is here.
fn locks_that_lie() -> Result<()> {
    let mut place = Place::new("lies")?;
    place.publish("steps", "evil/f:1", &[])?;
    place.publish("dockerfile", "good/f:1", &[])?;
    place.definition("evil/f:1", STEPS)?;
    place.build("a", &[])?.success()?;
    let lock = place.lock()?;
    let lie = lock.replace("/evil/f:1", "/good/f:1");
    ensure!(lie != lock);
    place.sandbox.write("wbuild.lock", &lie)?;
    place.definition("good/f:1", STEPS)?;
    let run = place.build("a", &[])?.expect(1)?;
    run.says("cannot fetch the plugin")?;
    place.registry.stop()?;
    place.build("a", &["--offline"])?.expect(1)?.says("is not here")?;
    for (text, says) in [("version = 2\n", "not known"), ("nonsense", "wbuild.lock is wrong")] {
        place.sandbox.write("wbuild.lock", text)?;
        place.build("a", &[])?.expect(1)?.says(says)?;
    }
    Ok(())
}

fn bytes_that_were_swapped() -> Result<()> {
    let place = Place::new("swapped")?;
    place.publish("steps", "team/steps:1", &[])?;
    place.definition("team/steps:1", STEPS)?;
    let wasm = std::fs::read(component("steps")?)?;
    // In the registry.
    let mut swapped = 0;
    for path in place.registry.blobs()? {
        let mut bytes = std::fs::read(&path)?;
        if bytes == wasm {
            *bytes.last_mut().expect("it is not empty") ^= 1;
            std::fs::write(&path, bytes)?;
            swapped += 1;
        }
    }
    ensure!(swapped == 1, "{swapped} blobs are the component");
    let run = place.build("a", &[])?.expect(1)?;
    run.says("digest")?;
    ensure!(place.lock().is_err(), "nothing is pinned");
    // In the cache of a user: it is fetched again.
    for path in place.registry.blobs()? {
        let mut bytes = std::fs::read(&path)?;
        if bytes.len() == wasm.len() {
            *bytes.last_mut().expect("it is not empty") ^= 1;
            std::fs::write(&path, bytes)?;
        }
    }
    place.build("a", &[])?.success()?;
    let kept = std::fs::read_dir(place.sandbox.path("a-cache/plugins"))?;
    for entry in kept {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wasm") {
            let mut bytes = std::fs::read(&path)?;
            *bytes.last_mut().expect("it is not empty") ^= 1;
            std::fs::write(&path, bytes)?;
        }
    }
    place.build("a", &["--offline"])?.expect(1)?.says("is not here")?;
    place.build("a", &[])?.success()?;
    place.build("a", &["--offline"])?.success()?;
    Ok(())
}

fn images_are_no_plugins() -> Result<()> {
    let place = Place::new("images")?;
    place.sandbox.write("Plain", "FROM base\n")?;
    let image = format!("type=image,name={}/team/image:1,push=true", place.registry.host());
    place.build("a", &["-f", "context/Plain", "-o", &image])?.success()?;
    place.definition("team/image:1", "FROM scratch\n")?;
    let run = place.build("a", &[])?.expect(1)?;
    run.says("is a container image, not a WebAssembly component")?;
    run.says("BuildKit")?;
    place.definition("team/nothing:1", "FROM scratch\n")?;
    place.build("a", &[])?.expect(1)?.says("cannot fetch the plugin")?;
    // What docker publishes its own frontend in needs nobody.
    place
        .sandbox
        .write("Dockerfile", "# syntax=docker/dockerfile:1.7\nFROM scratch\nCOPY data /\n")?;
    place.build("a", &["--offline", "--locked"])?.success()?.says("stands for")?;
    ensure!(place.lock().is_err());
    Ok(())
}

fn grants_without_a_terminal() -> Result<()> {
    let place = Place::new("grants")?;
    let digest = wbuild_digest(&component("hostile-nested")?)?;
    place.publish("hostile-nested", "team/nested:1", &[])?;
    place.definition("team/nested:1", "anything\n")?;
    let run = place.build("a", &[])?.expect(1)?;
    run.says("is not granted what it wants")?;
    run.says("call other frontends")?;
    run.says(&format!("match = \"{digest}\"\n"))?;
    run.says("nested = true")?;
    ensure!(place.lock().is_err(), "nothing is pinned that may not run");
    // The lines that it says do it.
    let policy = place.policy(&format!("[[plugin]]\nmatch = \"{digest}\"\nnested = true\n"))?;
    let run = place.build("a", &[&policy])?;
    run.never_says("is not granted what it wants")?;
    place.lock()?;
    // By path it is the same component.
    let path = format!("--frontend={}", component("hostile-nested")?.display());
    place.build("a", &[&path])?.expect(1)?.says("is not granted what it wants")?;
    // A project grants nothing.
    place.sandbox.write("wbuild.toml", "[frontend.x]\nsource = \"x.wasm\"\nnested = true\n")?;
    place.build("a", &[])?.expect(1)?.says("unknown field `nested`")?;
    Ok(())
}

fn wbuild_digest(path: &Path) -> Result<String> {
    let run = Run::of(std::process::Command::new("sha256sum").arg(path))?.success()?;
    let hex = run.text()?.split_whitespace().next().context("a digest")?.to_owned();
    Ok(format!("sha256:{hex}"))
}

fn a_grant_on_a_terminal() -> Result<()> {
    let script = skip::need_program("script")?;
    let place = Place::new("terminal")?;
    let wasm = component("hostile-nested")?;
    place.sandbox.write("Dockerfile", "anything\n")?;
    let option = format!("--frontend={}", wasm.display());
    let at_terminal = |answer: &str| -> Result<Run> {
        let build = place.sandbox.build_command(&[&option])?;
        let words = std::iter::once(build.get_program()).chain(build.get_args());
        let words: Vec<String> =
            words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
        let mut command = std::process::Command::new(&script);
        command.args(["-qec", &words.join(" "), "/dev/null"]).env_clear();
        command.envs(build.get_envs().filter_map(|(key, value)| Some((key, value?))));
        command.env("TERM", "dumb").env("SHELL", "/bin/sh").current_dir(place.sandbox.folder());
        Running::start_with_input(&mut command, answer.as_bytes())?
            .wait(wbuild_tests::run::DEADLINE)
    };
    let grants = place.sandbox.path("home/.config/wbuild/grants.toml");
    let run = at_terminal("n\n")?;
    let shown = run.text()?;
    ensure!(shown.contains("Grant it that?") && shown.contains("call other frontends"), "{shown}");
    ensure!(shown.contains("is not granted what it wants") && !grants.exists(), "{shown}");
    let run = at_terminal("y\n")?;
    ensure!(!run.text()?.contains("is not granted what it wants"), "{}", run.text()?);
    let kept = std::fs::read_to_string(&grants)?;
    ensure!(kept.contains("nested") && kept.contains(&wbuild_digest(&wasm)?), "{kept}");
    // It is not asked again, with or without a terminal.
    let run = place.sandbox.build(&[&option])?;
    run.never_says("is not granted what it wants")?;
    Ok(())
}

/// A called frontend comes by the same way as any other: names, the lock, the policy, signatures.
fn what_frontends_call() -> Result<()> {
    let mut place = Place::new("called")?;
    place.publish("steps", "team/steps:1", &[])?;
    place.publish("hostile-nested", "team/caller:1", &[])?;
    place.sandbox.write("Dockerfile", "from scratch\nworkdir /a\n")?;
    let (caller, called) = (component("hostile-nested")?, place.name("team/steps:1"));
    let caller = format!("--frontend={}", caller.display());
    let digest = wbuild_digest(&component("hostile-nested")?)?;
    let grant = format!("[[plugin]]\nmatch = \"{digest}\"\nnested = true\n");
    let may_call = place.policy(&grant)?;
    let build = |place: &Place, name: &str, more: &[&str]| {
        let argument = format!("self={name}");
        let args = [&["--build-arg", &argument, &caller], more].concat();
        place.build("a", &args)
    };
    // The caller drops what it gets, so that the build ends in this once the call has ended well.
    let called_it = |run: Run| -> Result<Run> {
        let run = run.expect(1)?;
        run.says("the frontend yielded nothing")?;
        Ok(run)
    };
    called_it(build(&place, "steps", &[&may_call])?)?;
    called_it(build(&place, "builtin:steps", &[&may_call])?)?;
    build(&place, "step", &[&may_call])?.expect(1)?.says("did you mean")?;

    // What the text invents is not even asked for.
    let run = build(&place, &called, &[&may_call])?.expect(1)?;
    run.says("neither the project nor the policy names")?;
    run.says("[frontend.NAME]")?;
    build(&place, "/etc/passwd", &[&may_call])?.expect(1)?.says("files are not called so")?;
    let host = place.registry.host();
    let asked = |place: &Place| -> Result<usize> {
        let all = place.registry.requests()?;
        Ok(all.iter().filter(|request| request.method == "GET").count())
    };
    ensure!(asked(&place)? == 0, "{} requests", asked(&place)?);
    ensure!(place.lock().is_err(), "nothing is pinned");

    // The project names it: pinned, and from then on without a network.
    place.sandbox.write("wbuild.toml", &format!("[frontend.ours]\nsource = \"{called}\"\n"))?;
    let run = build(&place, "ours", &[&may_call, "--locked"])?.expect(1)?;
    run.says("is not in wbuild.lock")?;
    build(&place, "ours", &[&may_call, "--offline"])?.expect(1)?.says("--offline forbids")?;
    called_it(build(&place, "ours", &[&may_call])?)?.says("pinned plugins")?;
    ensure!(place.lock()?.contains("team/steps:1"), "{}", place.lock()?);
    place.registry.stop()?;
    for name in ["ours", &called] {
        let run = called_it(build(&place, name, &[&may_call, "--locked", "--offline"])?)?;
        run.never_says("pinned")?;
    }
    place.registry.restart()?;

    // What is called needs a grant of its own, whatever its caller has; and a project gives none.
    std::fs::copy(component("earthfile")?, place.sandbox.path("context/own.wasm"))?;
    let projects =
        format!("[frontend.ours]\nsource = \"{called}\"\n[frontend.own]\nsource = \"own.wasm\"\n");
    place.sandbox.write("wbuild.toml", &projects)?;
    let run = build(&place, "own", &[&may_call])?.expect(1)?;
    run.says("own.wasm is not granted what it wants")?;
    // The policy is about it as about any other.
    let entry = |more: &str| format!("{grant}[[plugin]]\nmatch = \"oci://{host}/team/*\"\n{more}");
    let run = build(&place, "ours", &[&place.policy(&entry("allow = false\n"))?])?.expect(1)?;
    run.says("the policy does not allow the plugin")?;
    let low = place.policy(&entry("limits = { memory = \"64KiB\" }\n"))?;
    let args = ["--build-arg", "self=ours", &caller, &low];
    place.build("limited", &args)?.expect(1)?.says("needs more than 64 KiB of memory")?;
    let signed = "[keys]\nteam = \"RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3\"\n";
    let signed = format!("{signed}{}", entry("signed-by = [\"team\"]\n"));
    let run = build(&place, "ours", &[&place.policy(&signed)?])?.expect(1)?;
    run.says("needs a signature of team")?;
    // By its reference, where the user names it and no project does.
    place.sandbox.write("wbuild.toml", "")?;
    std::fs::remove_file(place.sandbox.path("context/wbuild.lock"))?;
    let run = called_it(build(&place, &called, &[&place.policy(&entry(""))?])?)?;
    run.says("pinned plugins")?;
    Ok(())
}

fn policies() -> Result<()> {
    let place = Place::new("policies")?;
    place.publish("steps", "team/steps:1", &[])?;
    place.definition("team/steps:1", STEPS)?;
    let refused = |run: Run| -> Result<()> {
        run.expect(1)?.says("the policy does not allow the plugin")?;
        ensure!(place.lock().is_err(), "nothing is pinned");
        Ok(())
    };
    let deny = place.policy("default = \"deny\"\n")?;
    refused(place.build("a", &[&deny])?)?;
    // Nobody is even asked for it.
    let asked = place.registry.requests()?;
    let asked = asked.iter().filter(|request| request.method == "GET").count();
    ensure!(asked == 0, "{asked} requests");
    let host = place.registry.host();
    let entry = format!("[[plugin]]\nmatch = \"oci://{host}/team/*\"\n");
    refused(place.build("a", &[&place.policy(&format!("{entry}allow = false\n"))?])?)?;
    let digest = format!("[[plugin]]\nmatch = \"sha256:{}\"\n", "0".repeat(64));
    refused(place.build("a", &[&place.policy(&format!("default = \"deny\"\n{digest}"))?])?)?;
    let allow = place.policy(&format!("default = \"deny\"\n{entry}"))?;
    place.build("a", &[&allow])?.success()?;
    // What comes with wbuild is not forbidden by default, and can be.
    place.sandbox.write("Dockerfile", "FROM scratch\nCOPY data /\n")?;
    place.build("a", &[&deny])?.success()?;
    let none = place.policy("[[plugin]]\nmatch = \"builtin:dockerfile\"\nallow = false\n")?;
    place.build("a", &[&none])?.expect(1)?.says("does not allow the plugin builtin:dockerfile")?;
    let wrong = place.policy("[[plugin]]\nmatch = \"steps\"\n")?;
    let run = place.build("a", &[&wrong])?.expect(1)?;
    run.says("policy.toml:2:9")?;
    // By the environment, too.
    place.sandbox.write("policy2.toml", "[[plugin]]\nmatch = \"builtin:*\"\nallow = false\n")?;
    let mut command = place.sandbox.build_command(&[])?;
    let run = Run::of(command.env("WBUILD_POLICY", "context/policy2.toml"))?.expect(1)?;
    run.says("does not allow")?;
    // Limits.
    let low = format!("{entry}limits = {{ memory = \"64KiB\" }}\n");
    place.definition("team/steps:1", STEPS)?;
    let run = place.build("limited", &[&place.policy(&low)?])?.expect(1)?;
    run.says("needs more than 64 KiB of memory")?;
    run.says("limits = { memory = … }")?;
    let policy = place.policy(&format!("{entry}limits = {{ memory = \"1GiB\" }}\n"))?;
    let name = place.name("team/steps:1");
    let seen =
        place.run("a", &["plugin", "inspect", &policy, "--json", &name])?.success()?.json()?;
    ensure!(seen["here"]["limits"][0]["value"] == "1024 MiB", "{seen}");
    ensure!(seen["here"]["limits"][0]["from"] == "policy", "{seen}");
    let text = place.run("a", &["plugin", "inspect", &policy, &name])?.success()?;
    for part in ["it needs no grant", "policy", "1024 MiB", "default"] {
        ensure!(text.text()?.contains(part), "no {part:?} in\n{}", text.text()?);
    }
    Ok(())
}

fn what_a_frontend_may_use() -> Result<()> {
    let place = Place::new("narrowed")?;
    place.publish("steps", "team/steps:1", &[])?;
    place.sandbox.write("secret", "hidden\n")?;
    let host = place.registry.host();
    let rule = |more: &str| {
        place.policy(&format!("[[plugin]]\nmatch = \"oci://{host}/team/steps\"\n{more}"))
    };
    place.definition("team/steps:1", "from scratch\ncopy data /data\ncopy secret /secret\n")?;
    let all = place.policy("")?;
    place.build("a", &[&all])?.success()?;
    // A plan that was made when more was allowed does not count.
    let files = rule("files = [\"data\"]\n")?;
    let run = place.build("a", &[&files])?.expect(1)?;
    run.says("secret")?;
    place.definition("team/steps:1", STEPS)?;
    place.build("a", &[&files])?.success()?;

    place.definition("team/steps:1", "from base\ncopy data /data\n")?;
    // The client has named that image itself.
    place.build("a", &[&rule("images = []\n")?])?.success()?;
    let image = format!("type=image,name={host}/team/image:1,push=true");
    place.build("a", &[&all, "-o", &image])?.success()?;
    place.definition("team/steps:1", &format!("from {host}/team/image:1\n"))?;
    let run = place.build("a", &[&rule("images = [\"docker.io/**\"]\n")?])?.expect(1)?;
    run.says("is not granted to the frontend")?;
    place.build("a", &[&rule(&format!("images = [\"{host}/team/*\"]\n"))?])?.success()?;
    Ok(())
}

fn signatures() -> Result<()> {
    let minisign = skip::need_program("minisign")?;
    let mut place = Place::new("signatures")?;
    let key = |name: &str| -> Result<String> {
        let at = |suffix: &str| place.sandbox.path(format!("{name}.{suffix}"));
        let mut command = std::process::Command::new(&minisign);
        command.args(["-G", "-W", "-p"]).arg(at("pub")).arg("-s").arg(at("key"));
        Run::of(&mut command)?.success()?;
        let text = std::fs::read_to_string(at("pub"))?;
        Ok(text.lines().last().context("a key")?.to_owned())
    };
    let (team, other) = (key("team")?, key("other")?);
    let host = place.registry.host();
    let wanted = place.policy(&format!(
        "[keys]\nteam = \"{team}\"\nother = \"{other}\"\n\
         [[plugin]]\nmatch = [\"oci://{host}/team/*\", \"/**\"]\nsigned-by = [\"team\"]\n"
    ))?;
    place.publish("steps", "team/steps:1", &[])?;
    place.definition("team/steps:1", STEPS)?;
    let run = place.build("a", &[&wanted])?.expect(1)?;
    run.says("needs a signature of team, and has none")?;
    run.says("there is no signature with it")?;
    ensure!(place.lock().is_err());
    // By another key.
    let sign = |name: &str| place.sandbox.path(format!("{name}.key")).display().to_string();
    place.publish("steps", "team/steps:1", &["--sign", &sign("other")])?;
    place.build("a", &[&wanted])?.expect(1)?.says("signed with other keys")?;
    // By the right one; the other stays.
    let published = place.publish("steps", "team/steps:1", &["--sign", &sign("team")])?;
    place.build("a", &[&wanted])?.success()?;
    ensure!(place.lock()?.contains("signer = \"team\""), "{}", place.lock()?);
    let run = place.run("b", &["plugin", "verify", &wanted, &published])?.success()?;
    ensure!(run.text()?.contains("signed by  team"), "{}", run.text()?);
    // Offline, by what was kept.
    place.registry.stop()?;
    place.build("a", &[&wanted, "--offline", "--locked"])?.success()?;
    // Kept signatures are claims like any other.
    let folder = place.sandbox.path("a-cache/plugins");
    for entry in std::fs::read_dir(&folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let mut note: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
            note["signatures"] = serde_json::Value::Array(Vec::new());
            std::fs::write(&path, serde_json::to_vec(&note)?)?;
        }
    }
    let run = place.build("a", &[&wanted, "--offline"])?.expect(1)?;
    run.says("needs a signature of team")?;
    place.registry.restart()?;
    place.build("a", &[&wanted])?.success()?;

    // Of a file, as the tool itself writes it.
    let wasm = place.sandbox.path("mine.wasm");
    std::fs::copy(component("steps")?, &wasm)?;
    let option = format!("--frontend={}", wasm.display());
    place.build("a", &[&wanted, &option])?.expect(1)?.says("its signature lies beside it")?;
    let mut command = std::process::Command::new(&minisign);
    command.args(["-S", "-s", &sign("team"), "-m"]).arg(&wasm);
    Run::of(&mut command)?.success()?;
    place.build("a", &[&wanted, &option])?.success()?;
    let mut bytes = std::fs::read(&wasm)?;
    bytes.extend_from_slice(b"\0\x02\x01x");
    std::fs::write(&wasm, bytes)?;
    place.build("a", &[&wanted, &option])?.expect(1)?.says("one of them was changed")?;

    // And ours is one for the tool.
    let mut command = place.sandbox.wbuild(["plugin", "inspect", "--json", &published])?;
    let seen = Run::of(command.env("WBUILD_CACHE_DIR", place.sandbox.path("a-cache")))?;
    ensure!(seen.success()?.json()?["source"] == published.as_str());
    let ours = place.registry.blobs()?.into_iter().find(|path| {
        std::fs::read(path).is_ok_and(|bytes| {
            bytes.starts_with(b"untrusted comment: signature of a wbuild plugin")
                && Run::of(
                    std::process::Command::new(&minisign)
                        .args(["-V", "-P", &team, "-x"])
                        .arg(path)
                        .arg("-m")
                        .arg(component("steps").unwrap_or_default()),
                )
                .is_ok_and(|run| run.code == 0)
        })
    });
    ensure!(ours.is_some(), "minisign does not accept our signature");
    Ok(())
}

/// A registry with TLS serves a component at a URL, as any web server could.
fn from_a_web_server() -> Result<()> {
    let sandbox = Sandbox::with("web", &[("data", "content\n"), ("Dockerfile", STEPS)])?;
    let settings = Settings { tls: true, ..Settings::default() };
    let registry = Registry::with(&sandbox.path("registry"), settings)?;
    let host = registry.host();
    let config =
        format!("[registry.\"{host}\"]\nhttp = false\nca = [{:?}]\n", registry.authority());
    std::fs::write(sandbox.path("registries.toml"), config)?;
    let file = component("steps")?.display().to_string();
    let to = format!("oci://{host}/team/steps:1");
    let with = "--registry-config=registries.toml";
    sandbox.run(["plugin", "publish", with, &file, &to])?.success()?;
    let digest = wbuild_digest(&component("steps")?)?;
    let url = format!("https://{host}/v2/team/steps/blobs/{digest}");
    let build = |frontend: &str, more: &[&str]| -> Result<Run> {
        let args = [&["--frontend", frontend][..], more].concat();
        let mut command = sandbox.build_command(&args)?;
        command.env("WBUILD_CACHE_DIR", sandbox.path("own-cache"));
        Run::of(command.env("SSL_CERT_FILE", registry.authority()))
    };
    let allow = "--allow=network.private";
    build(&url, &[allow])?.expect(2)?.says("#sha256:")?;
    let named = format!("{url}#{digest}");
    build(&named, &[])?.expect(1)?.says("--allow network.private")?;
    let other = format!("{url}#sha256:{}", "0".repeat(64));
    build(&other, &[allow])?.expect(1)?.says("cannot fetch the plugin")?;
    build(&named, &["--offline", allow])?.expect(1)?.says("--offline forbids")?;
    build(&named, &[allow])?.success()?;
    build(&named, &["--offline", "--locked"])?.success()?;
    ensure!(!sandbox.path("context/wbuild.lock").exists(), "its name is its pin");
    Ok(())
}

fn projects() -> Result<()> {
    let place = Place::new("projects")?;
    place.publish("steps", "team/steps:1", &[])?;
    std::fs::create_dir(place.sandbox.path("context/tools"))?;
    std::fs::copy(component("native")?, place.sandbox.path("context/tools/mine.wasm"))?;
    let source = place.name("team/steps:1");
    place.sandbox.write(
        "wbuild.toml",
        &format!(
            "[frontend.ours]\nsource = \"{source}\"\nfiles = [\"*.steps\"]\n\
             [runner.mine]\nsource = \"tools/mine.wasm\"\n\
             [cache.team]\nsource = \"builtin:local\"\nconfig = {{ dest = \"cache\", mode = \"max\" }}\n"
        ),
    )?;
    place.sandbox.write("a.steps", "from base\ncopy data /data\nrun cat /data\n")?;
    place.sandbox.write("Dockerfile", "FROM base\nCOPY data /data\n")?;
    place.build("a", &["--runner", "mine", "-f", "context/a.steps"])?.success()?;
    ensure!(place.lock()?.contains("team/steps:1"));
    place.build("a", &["-f", "context/Dockerfile"])?.success()?;
    place.build("a", &["--frontend", "ours", "-f", "context/a.steps"])?.success()?;
    place.build("a", &["--frontend", "builtin:steps", "-f", "context/a.steps"])?.success()?;
    place.build("a", &["--frontend", "theirs"])?.expect(2)?.says("no bundled frontend")?;
    // A project may not send the user's results anywhere.
    let run = place.build("a", &["--cache-to", "type=team"])?.expect(1)?;
    run.says("use the directory")?;
    ensure!(!place.sandbox.path("context/cache").exists());
    let run = place.build("a", &["--cache-to", "type=team,dest=elsewhere"])?.success()?;
    run.never_says("directory")?;
    ensure!(place.sandbox.path("elsewhere/index.json").exists(), "what the user says is done");
    let context = place.sandbox.path("context");
    let mut command = place.sandbox.wbuild(["plugin", "list", "--json"])?;
    let list = Run::of(command.current_dir(&context))?.success()?.json()?;
    let ours = list.as_array().context("a list")?.iter().find(|row| row["name"] == "ours");
    ensure!(ours.is_some_and(|row| row["source"] == source.as_str()), "{list}");
    Ok(())
}

/// Some things are for what comes with wbuild. A project may call its own plugins as it likes.
fn names_are_no_trust() -> Result<()> {
    let place = Place::new("names")?;
    std::fs::copy(component("dockerfile")?, place.sandbox.path("context/own.wasm"))?;
    for (section, says) in [("runner.qemu", "bundled runner"), ("cache.registry", "bundled cache")]
    {
        place.sandbox.write("wbuild.toml", &format!("[{section}]\nsource = \"own.wasm\"\n"))?;
        place.sandbox.write("Dockerfile", "FROM scratch\n")?;
        place.build("a", &[])?.expect(1)?.says(says)?;
    }
    // Only what comes with wbuild may say where images are pushed to, with the user's credentials.
    std::fs::copy(component("earthfile")?, place.sandbox.path("context/own.wasm"))?;
    place.sandbox.write("wbuild.toml", "[frontend.earthfile]\nsource = \"own.wasm\"\n")?;
    let own = place.sandbox.path("context/own.wasm");
    let policy = format!("[[plugin]]\nmatch = {:?}\nnested = true\n", own.canonicalize()?);
    let policy = place.policy(&policy)?;
    let host = place.registry.host();
    let file = format!(
        "VERSION 0.8\nall:\n\tFROM scratch\n\tCOPY data /\n\tSAVE IMAGE --push {host}/stolen:1\n"
    );
    place.sandbox.write("Earthfile", &file)?;
    let args = ["-f", "context/Earthfile", "--target", "all", "--push"];
    let args = [&args[..], &["--frontend", "earthfile", &policy]].concat();
    let run = place.build("a", &args)?.expect(1)?;
    run.says("which is not granted")?;
    ensure!(place.registry.manifest("stolen:1").is_err(), "nothing was pushed");
    let args = [&args[..], &["--frontend", "builtin:earthfile"]].concat();
    place.build("a", &args)?.success()?;
    place.registry.manifest("stolen:1")?;
    Ok(())
}

fn a_lock_that_cannot_be_written() -> Result<()> {
    let place = Place::new("readonly")?;
    place.publish("steps", "team/steps:1", &[])?;
    place.definition("team/steps:1", STEPS)?;
    // A directory stands where the file would.
    std::fs::create_dir_all(place.sandbox.path("context/wbuild.lock/x"))?;
    let run = place.build("a", &[])?;
    ensure!(run.code == 1, "a lock that cannot be read is an error: {}", run.stderr);
    std::fs::remove_dir_all(place.sandbox.path("context/wbuild.lock"))?;
    let mut command = std::process::Command::new("chattr");
    let context = place.sandbox.path("context");
    let made = Run::of(command.arg("+i").arg(&context));
    if !made.is_ok_and(|run| run.code == 0) {
        return Ok(());
    }
    let run = place.build("a", &[]);
    Run::of(std::process::Command::new("chattr").arg("-i").arg(&context))?.success()?;
    run?.success()?.says("plugins are not pinned")?;
    Ok(())
}
