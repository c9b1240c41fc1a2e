//! Base images from a real registry.

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wbuild_tests::base;
use wbuild_tests::image::Image;
use wbuild_tests::registry::{PASSWORD, Registry, Settings, USER};
use wbuild_tests::run::{DEADLINE, Run, Running};
use wbuild_tests::sandbox::Sandbox;
use wbuild_tests::wire::{Fault, Wire};

use crate::Test;

pub const TESTS: &[Test] = &[
    ("anonymous", anonymous),
    ("with_a_password", with_a_password),
    ("tags_move", tags_move),
    ("an_equal_image_under_another_manifest", an_equal_image_under_another_manifest),
    ("digests_are_verified", digests_are_verified),
    ("what_is_not_there", what_is_not_there),
    ("copying_from_an_image", copying_from_an_image),
    ("an_authority_of_its_own", an_authority_of_its_own),
    ("a_mirror", a_mirror),
    ("a_mirror_that_lacks_what_it_names", a_mirror_that_lacks_what_it_names),
    ("through_a_proxy", through_a_proxy),
    ("a_restart_in_the_middle_of_a_pull", a_restart_in_the_middle_of_a_pull),
    ("the_next_build_goes_on_where_one_was_killed", the_next_build_goes_on_where_one_was_killed),
    ("mistakes_in_the_configuration_are_shown", mistakes_in_the_configuration_are_shown),
];

/// A registry that holds the base image as `library/base:1`, and a sandbox that uses it.
fn start(name: &str, password: bool, file: &str) -> Result<(Sandbox, Registry, String)> {
    let layout = base::layout()?;
    let sandbox = Sandbox::new(name)?;
    let registry = Registry::start(&sandbox.path("registry"), password)?;
    registry.push(&format!("{}:latest", layout.display()), "library/base:1")?;
    let image = format!("{}/library/base", registry.host());
    sandbox.write("Dockerfile", &file.replace("IMAGE", &image))?;
    Ok((sandbox, registry, image))
}

fn anonymous() -> Result<()> {
    let (sandbox, registry, _) = start("anonymous", false, "FROM IMAGE:1\nRUN echo > /x\n")?;
    let (_, image) = sandbox.image("image", &[])?;
    ensure!(image.layers.len() == 2, "{:?}", image.layers);
    image.tree.get("/bin/busybox")?;
    // What is known needs no registry.
    drop(registry);
    let (run, _) = sandbox.image("image", &[])?;
    ensure!(run.end_of("RUN echo")? == "CACHED", "{}", run.stderr);
    Ok(())
}

fn with_a_password() -> Result<()> {
    let (sandbox, registry, _) = start("password", true, "FROM IMAGE:1\nRUN echo > /x\n")?;
    let build = |config: Option<String>| -> Result<Run> {
        let folder = sandbox.path("docker");
        std::fs::create_dir_all(&folder)?;
        if let Some(config) = config {
            std::fs::write(folder.join("config.json"), config)?;
        }
        let mut command = sandbox.build_command(&["-o=type=oci,tar=false,dest=image"])?;
        Run::of(command.env("DOCKER_CONFIG", &folder))
    };
    let login = |user: &str, password: &str| Some(login(&registry, user, password));
    let run = build(None)?.expect(1)?;
    run.says(&registry.host())?;
    let run = build(login(USER, "wrong horse"))?.expect(1)?;
    run.never_says("wrong horse")?;
    build(login(USER, PASSWORD))?.success()?;
    // As text, which comes before what the file says.
    build(login(USER, "wrong horse"))?;
    let mut command = sandbox.build_command(&["--pull", "--no-cache"])?;
    command.env("DOCKER_CONFIG", sandbox.path("docker"));
    command.env("DOCKER_AUTH_CONFIG", login(USER, PASSWORD).expect("a login"));
    Run::of(&mut command)?.success()?;
    Ok(())
}

/// Docker's configuration after a login.
fn login(registry: &Registry, user: &str, password: &str) -> String {
    let auth = STANDARD.encode(format!("{user}:{password}"));
    format!("{{\"auths\": {{\"{}\": {{\"auth\": \"{auth}\"}}}}}}", registry.host())
}

fn tags_move() -> Result<()> {
    let (sandbox, registry, _) = start("tags-move", false, "FROM IMAGE:1\nRUN cat /etc/group\n")?;
    let (_, first) = sandbox.image("image", &[])?;
    // Another image under the same tag.
    let other = Sandbox::with(
        "tags-move-other",
        &[("Dockerfile", "FROM base\nRUN echo new:x:77: >> /etc/group\n")],
    )?;
    other.image("other", &["-t=other:latest"])?;
    registry.push(&format!("{}:latest", other.path("other").display()), "library/base:1")?;
    let (run, second) = sandbox.image("image", &["--pull"])?;
    ensure!(run.end_of("RUN cat")? == "DONE", "{}", run.stderr);
    run.says("new:x:77")?;
    ensure!(second.digest != first.digest, "the old image was used");
    Ok(())
}

fn an_equal_image_under_another_manifest() -> Result<()> {
    let (sandbox, registry, _) = start("equal-image", false, "FROM IMAGE:1\nRUN echo > /x\n")?;
    let (_, first) = sandbox.image("image", &[])?;
    // The same config and files; the manifest and the types of the layers are docker's.
    let base = format!("{}:latest", base::layout()?.display());
    registry.push_as("v2s2", &base, "library/base:1")?;
    let (run, second) = sandbox.image("image", &["--pull"])?;
    ensure!(run.end_of("RUN echo")? == "CACHED", "{}", run.stderr);
    ensure!(second.config == first.config, "another config");
    // What is written is of one family, whatever the base is in.
    for image in [&first, &second] {
        let oci = |kind: &String| kind.starts_with("application/vnd.oci.image.layer.");
        ensure!(image.media_types.iter().all(oci), "{:?}", image.media_types);
    }
    Ok(())
}

fn digests_are_verified() -> Result<()> {
    let (sandbox, registry, image) = start("digests", false, "FROM IMAGE:1\nRUN echo > /x\n")?;
    let base = Image::of_layout(&base::layout()?)?;
    let digest = base.digest.expect("a layout says it");
    // With a digest the tag says nothing.
    for name in [format!("{image}@{digest}"), format!("{image}:no-such-tag@{digest}")] {
        sandbox.write("Dockerfile", &format!("FROM {name}\nRUN echo > /x\n"))?;
        let (_, built) = sandbox.image("image", &[])?;
        ensure!(built.layers[..1] == base.layers[..], "{name}: another base");
    }
    // Another content under that digest is not taken.
    let hex = digest.strip_prefix("sha256:").expect("its algorithm");
    let store = sandbox.path("registry/data/docker/registry/v2/blobs/sha256");
    let blob = store.join(&hex[..2]).join(hex).join("data");
    let manifest = std::fs::read_to_string(&blob)?;
    std::fs::write(&blob, manifest.replacen('{', "{ ", 1))?;
    let other = Sandbox::with(
        "digests-other",
        &[("Dockerfile", &format!("FROM {image}@{digest}\nRUN echo > /x\n"))],
    )?;
    other.build(&[])?.expect(1)?.says(&image)?;
    drop(registry);
    Ok(())
}

fn what_is_not_there() -> Result<()> {
    let (sandbox, registry, image) = start("not-there", false, "FROM IMAGE:2\nRUN true\n")?;
    let run = sandbox.build(&[])?.expect(1)?;
    run.says(&format!("{image}:2"))?;
    run.says("Dockerfile:1")?;
    drop(registry);
    sandbox.write("Dockerfile", &format!("FROM {image}:3\nRUN true\n"))?;
    let run = sandbox.build(&[])?.expect(1)?;
    run.says(&format!("{image}:3"))?;
    Ok(())
}

fn copying_from_an_image() -> Result<()> {
    let file = "FROM scratch\nCOPY --from=IMAGE:1 /bin/busybox /sh\n";
    let (sandbox, _registry, _) = start("copy-from-image", false, file)?;
    let (_, image) = sandbox.image("image", &[])?;
    image.tree.get("/sh")?;
    Ok(())
}

/// Writes the registry configuration of a sandbox's user.
fn configure(sandbox: &Sandbox, text: &str) -> Result<()> {
    let folder = sandbox.path("home/.config/wbuild");
    std::fs::create_dir_all(&folder)?;
    Ok(std::fs::write(folder.join("registries.toml"), text)?)
}

fn an_authority_of_its_own() -> Result<()> {
    let sandbox = Sandbox::new("authority")?;
    let settings = Settings { password: true, tls: true };
    let registry = Registry::with(&sandbox.path("registry"), settings)?;
    registry.push(&format!("{}:latest", base::layout()?.display()), "library/base:1")?;
    let host = registry.host();
    sandbox.write("Dockerfile", &format!("FROM {host}/library/base:1\nRUN echo > /x\n"))?;
    std::fs::create_dir_all(sandbox.path("home/.docker"))?;
    let config = sandbox.path("home/.docker/config.json");
    std::fs::write(config, login(&registry, USER, PASSWORD))?;
    // A registry on this machine is asked without TLS unless the configuration speaks of it.
    configure(&sandbox, &format!("[registry.\"{host}\"]\nhttp = false\n"))?;
    let run = sandbox.build(&[])?.expect(1)?;
    run.says("certificate")?;
    run.says(&host)?;
    // Paths are seen from where the file lies.
    std::fs::copy(registry.authority(), sandbox.path("home/ca.pem"))?;
    configure(&sandbox, &format!("[registry.\"{host}\"]\nca = [\"../../ca.pem\"]\n"))?;
    let (_, image) = sandbox.image("image", &[])?;
    ensure!(image.layers.len() == 2, "{:?}", image.layers);
    // By option, and without a look at the certificate.
    std::fs::remove_dir_all(sandbox.path("home/.config"))?;
    std::fs::write(sandbox.path("own.toml"), format!("[registry.\"{host}\"]\ninsecure = true\n"))?;
    sandbox.build(&["--pull", "--registry-config=own.toml"])?.success()?;
    Ok(())
}

fn a_mirror() -> Result<()> {
    let (sandbox, mut registry, image) = start("mirror", false, "FROM IMAGE:1\nRUN echo > /x\n")?;
    let mirror = Registry::start(&sandbox.path("mirror"), false)?;
    mirror.push(&format!("{}:latest", base::layout()?.display()), "copy/of/library/base:1")?;
    let (origin, place) = (registry.host(), format!("{}/copy/of", mirror.host()));
    // The first of the mirrors does not answer, and the registry is not needed.
    registry.stop()?;
    configure(
        &sandbox,
        &format!("[registry.\"{origin}\"]\nmirrors = [\"127.0.0.1:9\", \"{place}\"]\n"),
    )?;
    let (run, first) = sandbox.image("image", &["--pull"])?;
    run.says(&image)?;
    ensure!(first.layers.len() == 2, "{:?}", first.layers);
    // The pin is that of the name, wherever it came from.
    drop(mirror);
    registry.restart()?;
    let (run, second) = sandbox.image("image", &["--pull"])?;
    ensure!(run.end_of("RUN echo")? == "CACHED", "{}", run.stderr);
    ensure!(second.digest == first.digest, "another image");
    // Nothing is here, no mirror answers: it comes from the registry.
    sandbox.run(["prune", "--all", "--force"])?.success()?;
    sandbox.image("image", &[])?;
    Ok(())
}

fn a_mirror_that_lacks_what_it_names() -> Result<()> {
    let file = "FROM IMAGE:1\nRUN cat /etc/group\n";
    let (sandbox, registry, _) = start("mirror-lacks", false, file)?;
    let other = Sandbox::with(
        "mirror-lacks-other",
        &[("Dockerfile", "FROM base\nRUN echo new:x:77: >> /etc/group\n")],
    )?;
    other.image("other", &["-t=other:latest"])?;
    let mirror = Registry::start(&sandbox.path("mirror"), false)?;
    mirror.push(&format!("{}:latest", other.path("other").display()), "library/base:1")?;
    // Its manifests are left, and nothing of what they name.
    let blobs = sandbox.path("mirror/data/docker/registry/v2/blobs/sha256");
    let find = ["-type", "f", "!", "-exec", "grep", "-q", "schemaVersion", "{}", ";", "-delete"];
    Run::of(std::process::Command::new("find").arg(blobs).args(find))?.success()?;
    let (origin, place) = (registry.host(), mirror.host());
    configure(&sandbox, &format!("[registry.\"{origin}\"]\nmirrors = [\"{place}\"]\n"))?;
    // What the mirror said of the tag is forgotten with it.
    let (run, image) = sandbox.image("image", &[])?;
    run.never_says("new:x:77")?;
    ensure!(image.layers[..1] == Image::of_layout(&base::layout()?)?.layers[..], "another base");
    Ok(())
}

fn through_a_proxy() -> Result<()> {
    // A registry takes requests as a proxy gets them, so it can be one that knows its own content only.
    let file = "FROM base.test/library/base:1\nADD http://files.test/v2/_catalog /catalog\n";
    let (sandbox, registry, _) = start("proxy", false, file)?;
    configure(&sandbox, "[registry.\"base.test\"]\nhttp = true\n")?;
    let build = |exception: &str| -> Result<Run> {
        let mut command = sandbox.build_command(&["-o=type=local,dest=out", "--pull"])?;
        command.env("HTTP_PROXY", format!("http://{}", registry.host()));
        command.env("no_proxy", exception);
        Run::of(&mut command)
    };
    build("elsewhere.test")?.success()?;
    let catalog = std::fs::read_to_string(sandbox.path("out/catalog"))?;
    ensure!(catalog.contains("library/base"), "{catalog}");
    // Nobody else knows the names.
    build("base.test")?.expect(1)?.says("base.test")?;
    Ok(())
}

/// Bytes of the layer that takes its time.
const LARGE: u64 = 48 << 20;

/// A registry with an image of one large layer behind a slow wire, and a sandbox that uses it.
fn slowly(name: &str) -> Result<(Sandbox, Registry, Wire)> {
    let maker = Sandbox::with(
        &format!("{name}-maker"),
        &[(
            "Dockerfile",
            "FROM base\nRUN dd if=/dev/urandom of=/large bs=1048576 count=48 2>/dev/null\n",
        )],
    )?;
    maker.image("image", &["-t=large:latest"])?;
    let sandbox = Sandbox::new(name)?;
    let registry = Registry::start(&sandbox.path("registry"), false)?;
    registry.push(&format!("{}:latest", maker.path("image").display()), "large:1")?;
    let address = registry.host().parse().expect("an address");
    let wire = Wire::new(address, vec![Fault::Slow(8 << 10); 1000]);
    let file = format!("FROM {}/large:1\nRUN cat /large | wc -c\n", wire.address);
    sandbox.write("Dockerfile", &file)?;
    Ok((sandbox, registry, wire))
}

/// Waits until a part of the layer has come.
fn until_begun(build: &mut Running, wire: &Wire) -> Result<()> {
    let deadline = std::time::Instant::now() + DEADLINE;
    while wire.carried() < LARGE / 3 {
        ensure!(!build.has_ended()?, "it has ended: {}", build.stderr_so_far());
        ensure!(std::time::Instant::now() < deadline, "{}", build.stderr_so_far());
        std::thread::sleep(std::time::Duration::from_millis(2));
    }
    Ok(())
}

fn a_restart_in_the_middle_of_a_pull() -> Result<()> {
    let (sandbox, mut registry, wire) = slowly("restart")?;
    let mut build = sandbox.start_build(&[])?;
    until_begun(&mut build, &wire)?;
    registry.restart()?;
    ensure!(!build.has_ended()?, "it was faster than the registry");
    build.wait(DEADLINE)?.success()?.says(&LARGE.to_string())?;
    ensure!(wire.carried() < LARGE + LARGE / 3, "{} bytes for {LARGE}", wire.carried());
    Ok(())
}

fn the_next_build_goes_on_where_one_was_killed() -> Result<()> {
    let (sandbox, _registry, wire) = slowly("go-on")?;
    let mut build = sandbox.start_build(&[])?;
    until_begun(&mut build, &wire)?;
    build.signal(rustix::process::Signal::KILL)?;
    build.wait(DEADLINE)?.expect(137)?;
    let before = wire.carried();
    let begun = || -> Result<bool> {
        Ok(sandbox.run(["du"])?.success()?.text()?.contains("begun download"))
    };
    ensure!(begun()?, "nothing was left");
    sandbox.build(&[])?.success()?.says(&LARGE.to_string())?;
    let again = wire.carried() - before;
    // A third is here, but for what was in the buffers of all that lies between.
    ensure!(again < LARGE - LARGE / 5, "{again} bytes for the rest of {LARGE}");
    ensure!(!begun()?, "the beginning stays beside the whole");
    Ok(())
}

fn mistakes_in_the_configuration_are_shown() -> Result<()> {
    let (sandbox, _registry, image) = start("mistakes", false, "FROM IMAGE:1\nRUN echo > /x\n")?;
    let host = image.split('/').next().expect("a host");
    configure(&sandbox, &format!("[registry.\"{host}\"]\nmirror = [\"a.example\"]\n"))?;
    let run = sandbox.build(&[])?.expect(1)?;
    run.says("registries.toml:2")?;
    configure(&sandbox, &format!("[registry.\"{host}\"]\nca = [\"none.pem\"]\n"))?;
    let run = sandbox.build(&[])?.expect(1)?;
    run.says("none.pem")?;
    run.says(host)?;
    Ok(())
}
