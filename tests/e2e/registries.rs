//! Base images from a real registry.

use anyhow::{Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wbuild_tests::base;
use wbuild_tests::image::Image;
use wbuild_tests::registry::{PASSWORD, Registry, USER};
use wbuild_tests::run::Run;
use wbuild_tests::sandbox::Sandbox;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("anonymous", anonymous),
    ("with_a_password", with_a_password),
    ("tags_move", tags_move),
    ("an_equal_image_under_another_manifest", an_equal_image_under_another_manifest),
    ("digests_are_verified", digests_are_verified),
    ("what_is_not_there", what_is_not_there),
    ("copying_from_an_image", copying_from_an_image),
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
    let login = |user: &str, password: &str| {
        let auth = STANDARD.encode(format!("{user}:{password}"));
        Some(format!("{{\"auths\": {{\"{}\": {{\"auth\": \"{auth}\"}}}}}}", registry.host()))
    };
    let run = build(None)?.expect(1)?;
    run.says(&registry.host())?;
    let run = build(login(USER, "wrong horse"))?.expect(1)?;
    run.never_says("wrong horse")?;
    build(login(USER, PASSWORD))?.success()?;
    Ok(())
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
