//! What a build of an Earthfile leaves behind: images of several targets, pushes and effects, and when.

use anyhow::{Context as _, Result, ensure};
use wbuild_tests::image::Image;
use wbuild_tests::registry::Registry;
use wbuild_tests::sandbox::Sandbox;

use crate::Test;
use crate::earthfile::{saved, target};

pub const TESTS: &[Test] = &[
    ("images_of_several_targets_are_pushed", images_of_several_targets_are_pushed),
    ("images_of_several_targets_in_one_archive", images_of_several_targets_in_one_archive),
    ("an_image_of_several_platforms", an_image_of_several_platforms),
    ("a_push_needs_something_to_push", a_push_needs_something_to_push),
    ("nothing_is_pushed_if_a_sibling_fails", nothing_is_pushed_if_a_sibling_fails),
    ("effects_come_last_and_every_time", effects_come_last_and_every_time),
    ("what_waits_is_there_before_the_rest", what_waits_is_there_before_the_rest),
    ("what_fails_in_try_leaves_what_is_saved", what_fails_in_try_leaves_what_is_saved),
    ("pipelines_leave_nothing_in_the_directory", pipelines_leave_nothing_in_the_directory),
];

/// A registry, and an Earthfile in which `REGISTRY` stands for it.
fn start(name: &str, file: &str) -> Result<(Sandbox, Registry)> {
    let sandbox = Sandbox::new(name)?;
    let registry = Registry::start(&sandbox.path("registry"), false)?;
    sandbox.write("Earthfile", &file.replace("REGISTRY", &registry.host()))?;
    Ok((sandbox, registry))
}

fn pulled(sandbox: &Sandbox, registry: &Registry, name: &str) -> Result<Image> {
    let layout = sandbox.path(name.replace(':', "-"));
    let _ = std::fs::remove_dir_all(&layout);
    registry.pull(name, &layout)?;
    Image::of_layout(&layout)
}

/// How many manifests were pushed by a tag.
fn pushes(registry: &Registry) -> Result<usize> {
    let requests = registry.requests()?;
    let tagged = |path: &str| path.contains("/manifests/") && !path.contains("sha256:");
    Ok(requests.iter().filter(|asked| asked.method == "PUT" && tagged(&asked.path)).count())
}

const TWO: &str = "VERSION 0.8\n\
    FROM base\n\
    all:\n    \
        BUILD +one\n    \
        BUILD +two --KIND=a\n    \
        BUILD +two --KIND=b\n\
    one:\n    \
        RUN echo one > /file\n    \
        SAVE ARTIFACT /file AS LOCAL saved\n    \
        SAVE IMAGE --push REGISTRY/one:1 REGISTRY/one:latest\n    \
        SAVE IMAGE REGISTRY/one:kept\n\
    two:\n    \
        ARG KIND\n    \
        RUN echo $KIND > /file\n    \
        SAVE IMAGE --push REGISTRY/two:$KIND\n";

fn images_of_several_targets_are_pushed() -> Result<()> {
    let (sandbox, registry) = start("earth-images", TWO)?;
    let notes = ["--push", "--metadata-file=notes.json"];
    target(&sandbox, &notes, "+all", &[])?.success()?;
    let (one, a, b) = (
        pulled(&sandbox, &registry, "one:1")?,
        pulled(&sandbox, &registry, "two:a")?,
        pulled(&sandbox, &registry, "two:b")?,
    );
    ensure!(pulled(&sandbox, &registry, "one:latest")?.digest == one.digest, "two images");
    ensure!(one.digest != a.digest && a.digest != b.digest, "the same images");
    ensure!(registry.manifest("one:kept").is_err(), "a name without --push was pushed");
    ensure!(pushes(&registry)? == 4, "{} names were pushed", pushes(&registry)?);
    // What is pushed does not keep files from their place.
    ensure!(saved(&sandbox, "saved")? == "one\n");
    let notes: serde_json::Value =
        serde_json::from_slice(&std::fs::read(sandbox.path("notes.json"))?)?;
    let images = notes["wbuild.images"].as_array().context("no images")?;
    let digest = |name: &str| {
        let of_name = images.iter().find(|image| image["names"].to_string().contains(name));
        of_name.and_then(|image| image["digest"].as_str().map(str::to_owned))
    };
    ensure!(images.len() == 3, "{notes}");
    ensure!(digest("one:1") == one.digest && digest("two:b") == b.digest, "{notes}");

    // An option for one image needs one.
    for option in [&["--push", "--iidfile=id"][..], &["-t", "x"]] {
        let run = target(&sandbox, option, "+all", &[])?.expect(1)?;
        run.says("by itself")?;
    }
    ensure!(!sandbox.path("id").exists(), "an id was written");
    let run = target(&sandbox, &["--iidfile=id", "-t", "x"], "+one", &[])?.success()?;
    run.never_says("error")?;
    ensure!(std::fs::read_to_string(sandbox.path("id"))? == one.config_digest);
    Ok(())
}

fn images_of_several_targets_in_one_archive() -> Result<()> {
    let sandbox = Sandbox::with("earth-archive", &[("Earthfile", &TWO.replace("REGISTRY", "r"))])?;
    let outputs = ["-o", "type=docker,dest=docker.tar", "-o", "type=oci,tar=false,dest=layout"];
    target(&sandbox, &outputs, "+all", &[])?.success()?;
    let (mut docker, mut layout): (Vec<Vec<String>>, Vec<Vec<String>>) = Default::default();
    for image in Image::all_of_docker_tar(&sandbox.path("docker.tar"))? {
        image.tree.get("/file")?;
        docker.push(image.names);
    }
    docker.sort();
    let want = [&["r/one:1", "r/one:latest", "r/one:kept"][..], &["r/two:a"], &["r/two:b"]];
    ensure!(docker == want, "{docker:?}");
    for image in Image::all_of_layout(&sandbox.path("layout"))? {
        layout.push(image.names);
    }
    layout.sort();
    let name = |name: &str| format!("docker.io/r/{name}");
    let want = ["one:1", "one:kept", "one:latest", "two:a", "two:b"];
    for (names, want) in layout.iter().zip(want) {
        let (_, tag) = want.split_once(':').expect("it has a tag");
        ensure!(*names == [name(want), tag.to_owned()], "{names:?}, not {want}");
    }
    ensure!(layout.len() == want.len(), "{layout:?}");
    // Nothing of the files of these images can go to one directory.
    let without = TWO.replace("REGISTRY", "r").replace("SAVE ARTIFACT", "#");
    sandbox.write("Earthfile", &without)?;
    let run = target(&sandbox, &["-o", "files"], "+all", &[])?.expect(1)?;
    run.says("build one of these by itself: +one, +two --KIND=a, +two --KIND=b")
}

fn an_image_of_several_platforms() -> Result<()> {
    let file = "VERSION 0.8\n\
        FROM scratch\n\
        all:\n    \
            BUILD --platform=linux/amd64 --platform=linux/arm64 +image\n    \
            BUILD +single\n\
        image:\n    \
            COPY Earthfile /\n    \
            SAVE IMAGE --push REGISTRY/image:1\n\
        single:\n    \
            FROM --platform=linux/arm64 scratch\n    \
            COPY Earthfile /other\n    \
            SAVE IMAGE --push --no-manifest-list REGISTRY/single:1\n";
    let (sandbox, registry) = start("earth-platforms", file)?;
    target(&sandbox, &["--push"], "+all", &[])?.success()?;
    let index = registry.manifest("image:1")?;
    let platform = |at: usize| index["manifests"][at]["platform"]["architecture"].clone();
    ensure!(platform(0) == "amd64" && platform(1) == "arm64", "{index}");
    let manifest = registry.manifest("single:1")?;
    ensure!(manifest["layers"].is_array(), "{manifest}");
    ensure!(pulled(&sandbox, &registry, "single:1")?.config["architecture"] == "arm64");
    let docker = ["-o", "type=docker,dest=image.tar"];
    target(&sandbox, &docker, "+all", &[])?.expect(1)?.says("holds images for one platform")
}

fn a_push_needs_something_to_push() -> Result<()> {
    let file = "VERSION 0.8\n\
        FROM base\n\
        kept:\n    \
            RUN echo ran-\"it\"\n    \
            SAVE IMAGE kept\n";
    let sandbox = Sandbox::with(
        "earth-nothing",
        &[("Earthfile", file), ("Dockerfile", "FROM base\nRUN echo ran-\"it\"\n")],
    )?;
    for run in [target(&sandbox, &["--push"], "+kept", &[])?, sandbox.build(&["--push"])?] {
        let run = run.expect(1)?;
        run.says("there is nowhere to push it")?;
        run.never_says("ran-it")?;
    }
    Ok(())
}

fn nothing_is_pushed_if_a_sibling_fails() -> Result<()> {
    let file = "VERSION 0.8\n\
        FROM base\n\
        all:\n    \
            BUILD +good\n    \
            BUILD +bad\n\
        good:\n    \
            SAVE IMAGE --push REGISTRY/good:1\n    \
            RUN --push echo effect-\"good\"\n\
        bad:\n    \
            RUN sleep 1 && exit 3\n";
    let (sandbox, registry) = start("earth-sibling", file)?;
    let run = target(&sandbox, &["--push"], "+all", &[])?.expect(1)?;
    run.says("Earthfile:10")?;
    run.never_says("effect-good")?;
    ensure!(pushes(&registry)? == 0, "it was pushed");
    target(&sandbox, &["--push"], "+good", &[])?.success()?.says("effect-good")?;
    ensure!(pushes(&registry)? == 1, "it was not pushed");
    Ok(())
}

fn effects_come_last_and_every_time() -> Result<()> {
    let file = "VERSION 0.8\n\
        FROM base\n\
        all:\n    \
            BUILD +below\n    \
            ARG EARTHLY_PUSH\n    \
            RUN echo \"push is $EARTHLY_PUSH\" > /said\n    \
            SAVE ARTIFACT /said AS LOCAL said\n    \
            SAVE IMAGE --push REGISTRY/all:1\n    \
            RUN --push wget -q -O - http://REGISTRY/v2/all/tags/list && echo first >> /effects\n    \
            RUN --push echo second >> /effects && cat /said /effects && test ! -e /third\n    \
            RUN echo third > /third && test ! -e /effects\n\
        below:\n    \
            RUN --push echo effect-\"below\"\n";
    let (sandbox, registry) = start("earth-effects", file)?;
    let run = target(&sandbox, &[], "+all", &[])?.success()?;
    run.never_says("effect-below")?;
    ensure!(saved(&sandbox, "said")? == "push is false\n" && pushes(&registry)? == 0);
    for frontend in ["frontend      run", "frontend      not run"] {
        let run = target(&sandbox, &["--push", "--stats"], "+all", &[])?.success()?;
        run.says(frontend)?;
        ensure!(saved(&sandbox, "said")? == "push is true\n");
        // In the order of the commands, after the push.
        let text = &run.stderr;
        let order =
            ["push ", "effect-below", "\"tags\":[\"1\"]", "push is true", "first", "second"];
        let mut rest = &text[..];
        for word in order {
            let at =
                rest.find(word).with_context(|| format!("no {word} behind the rest: {text}"))?;
            rest = &rest[at + word.len()..];
        }
    }
    // An effect alone needs no image.
    let run = target(&sandbox, &["--push"], "+below", &[])?.success()?;
    run.says("effect-below")?;
    run.never_says("export image")?;
    // The third step is part of the image, effects are not.
    let image = pulled(&sandbox, &registry, "all:1")?;
    ensure!(image.tree.get("/effects").is_err() && image.tree.get("/third").is_err());
    let broken = std::fs::read_to_string(sandbox.path("context/Earthfile"))?;
    sandbox.write("Earthfile", &broken.replace("echo effect-\"below\"", "exit 7"))?;
    let run = target(&sandbox, &["--push"], "+all", &[])?.expect(1)?;
    run.says("exit code: 7")?;
    run.says("Earthfile:13")?;
    run.never_says("\"tags\"")
}

fn what_waits_is_there_before_the_rest() -> Result<()> {
    let file = "VERSION 0.8\n\
        FROM base\n\
        all:\n    \
            WAIT\n        \
                BUILD +image\n        \
                RUN echo early > /early\n        \
                SAVE ARTIFACT /early AS LOCAL early\n        \
                RUN --push echo effect-\"early\"\n    \
            END\n    \
            RUN --no-cache wget -q -O - http://REGISTRY/v2/image/tags/list && echo ran-\"after\"\n    \
            SAVE ARTIFACT /early AS LOCAL late\n    \
            BUILD +image\n    \
            RUN cat /missing\n\
        image:\n    \
            SAVE IMAGE --push REGISTRY/image:1\n    \
            SAVE ARTIFACT /etc/passwd AS LOCAL of-image\n";
    let (sandbox, registry) = start("earth-wait", file)?;
    let run = target(&sandbox, &["--push"], "+all", &[])?.expect(1)?;
    run.says("Earthfile:13")?;
    for word in ["effect-early", "\"tags\":[\"1\"]", "ran-after"] {
        run.says(word)?;
    }
    let at = |word: &str| run.stderr.find(word);
    ensure!(at("effect-early") < at("ran-after"), "{}", run.stderr);
    ensure!(saved(&sandbox, "early")? == "early\n" && !sandbox.path("context/late").exists());
    ensure!(sandbox.path("context/of-image").exists(), "not all of the target was saved");
    // What was left behind is not left behind again.
    let fixed = std::fs::read_to_string(sandbox.path("context/Earthfile"))?;
    sandbox.write("Earthfile", &fixed.replace("cat /missing", "true"))?;
    let run = target(&sandbox, &["--push"], "+all", &[])?.success()?;
    let push = format!(" push {}/image:1\n", registry.host());
    ensure!(run.stderr.matches(&push).count() == 1, "{}", run.stderr);
    ensure!(run.stderr.matches("effect-early").count() == 1, "{}", run.stderr);
    ensure!(saved(&sandbox, "late")? == "early\n");
    // An archive is written once, with everything.
    let archive = ["-o", "type=docker,dest=image.tar"];
    target(&sandbox, &archive, "+all", &[])?.success()?;
    let image = Image::of_docker_tar(&sandbox.path("image.tar"))?;
    ensure!(image.names == [format!("{}/image:1", registry.host())], "{:?}", image.names);
    Ok(())
}

fn what_fails_in_try_leaves_what_is_saved() -> Result<()> {
    let file = "VERSION --try 0.8\n\
        FROM base\n\
        all:\n    \
            BUILD +test\n    \
            RUN echo ran-\"after\"\n    \
            SAVE IMAGE --push REGISTRY/all:1\n\
        test:\n    \
            COPY code /code\n    \
            TRY\n        \
                RUN echo \"about $(cat /code)\" > /report && echo said-\"it\" && exit $(cat /code)\n    \
            FINALLY\n        \
                SAVE ARTIFACT /report AS LOCAL report\n        \
                SAVE ARTIFACT /missing* AS LOCAL missing\n    \
            END\n";
    let (sandbox, registry) = start("earth-try", file)?;
    sandbox.write("code", "3")?;
    // What has failed is tried again.
    for _ in 0..2 {
        let _ = std::fs::remove_file(sandbox.path("context/report"));
        let run = target(&sandbox, &["--push"], "+all", &[])?.expect(1)?;
        run.says("exit code: 3")?;
        run.says("Earthfile:10")?;
        run.says("said-it")?;
        run.never_says("ran-after")?;
        ensure!(saved(&sandbox, "report")? == "about 3\n");
    }
    ensure!(pushes(&registry)? == 0, "it was pushed");
    sandbox.write("code", "0")?;
    let right = file.replace("        SAVE ARTIFACT /missing* AS LOCAL missing\n", "");
    sandbox.write("Earthfile", &right.replace("REGISTRY", &registry.host()))?;
    target(&sandbox, &["--push"], "+all", &[])?.success()?.says("ran-after")?;
    ensure!(saved(&sandbox, "report")? == "about 0\n" && pushes(&registry)? == 1);
    target(&sandbox, &["--push"], "+all", &[])?.success()?.never_says("said-it")
}

fn pipelines_leave_nothing_in_the_directory() -> Result<()> {
    let file = "VERSION 0.8\n\
        FROM base\n\
        ci:\n    \
            ARG EARTHLY_CI\n    \
            RUN echo \"ci is $EARTHLY_CI\" > /said && cat /said\n    \
            SAVE ARTIFACT /said AS LOCAL said\n";
    let sandbox = Sandbox::with("earth-ci", &[("Earthfile", file)])?;
    target(&sandbox, &["--ci"], "+ci", &[])?.success()?.says("ci is true")?;
    ensure!(!sandbox.path("context/said").exists(), "it was saved");
    target(&sandbox, &["--ci", "-o", "out"], "+ci", &[])?.success()?;
    ensure!(std::fs::read_to_string(sandbox.path("out/said"))? == "ci is true\n");
    target(&sandbox, &[], "+ci", &[])?.success()?;
    ensure!(saved(&sandbox, "said")? == "ci is false\n");
    Ok(())
}
