//! `wbuild imagetools` with a real registry, and what others make of what it has joined.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use wbuild_tests::image::{Image, sha256};
use wbuild_tests::registry::{PASSWORD, Registry, Request, Settings};
use wbuild_tests::run::Run;
use wbuild_tests::sandbox::Sandbox;

use crate::Test;
use crate::pushing::write_credentials;

pub const TESTS: &[Test] = &[
    ("images_of_two_machines_are_joined", images_of_two_machines),
    ("within_a_registry_blobs_are_mounted", within_a_registry),
    ("another_registry_gets_what_it_lacks", another_registry),
    ("attestations_stay_with_their_image", attestations),
    ("appending_and_annotations", appending),
    ("what_is_shown_of_an_image", shown),
    ("what_cannot_be_joined", wrong_sources),
    ("a_platform_that_is_not_there", no_such_platform),
];

const AMD64: &str = "linux/amd64";
const ARM64: &str = "linux/arm64";

/// A sandbox with a definition whose images differ by platform, and a registry.
fn start(name: &str) -> Result<(Sandbox, Registry)> {
    let sandbox = Sandbox::with(
        name,
        &[
            ("Dockerfile", "FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /which\n"),
            ("amd64", "amd64\n"),
            ("arm64", "arm64\n"),
        ],
    )?;
    let registry = Registry::start(&sandbox.path("registry"), false)?;
    Ok((sandbox, registry))
}

/// Builds for one platform as a machine of its own would, and pushes without a tag; the digest.
fn build_part(sandbox: &Sandbox, name: &str, platform: &str, file: &str) -> Result<String> {
    let output = format!("-o=type=image,name={name},push=true,push-by-digest=true");
    let (platform, state) = (format!("--platform={platform}"), format!("--state-dir=state-{file}"));
    let metadata = format!("--metadata-file={file}");
    sandbox.build(&[&output, &platform, &state, &metadata])?.success()?;
    let written: Value = serde_json::from_slice(&std::fs::read(sandbox.path(file))?)?;
    let digest = written["containerimage.digest"].as_str().context("a digest")?;
    Ok(digest.to_owned())
}

fn create(sandbox: &Sandbox, args: &[&str]) -> Result<Run> {
    let args = ["imagetools", "create", "--progress=plain"].iter().chain(args).copied();
    sandbox.run(args)
}

/// The platforms of an index and their digests, as skopeo reads it.
fn listed(registry: &Registry, name: &str) -> Result<Vec<(String, String)>> {
    let index = registry.manifest(name)?;
    let manifests = index["manifests"].as_array().with_context(|| format!("no index: {index}"))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let entry = |entry: &Value| {
        let platform = &entry["platform"];
        let name = format!("{}/{}", text(&platform["os"]), text(&platform["architecture"]));
        (name, text(&entry["digest"]))
    };
    Ok(manifests.iter().map(entry).collect())
}

fn images_of_two_machines() -> Result<()> {
    let (sandbox, registry) = start("join")?;
    let name = format!("{}/team/app", registry.host());
    let amd64 = build_part(&sandbox, &name, AMD64, "amd64.json")?;
    let arm64 = build_part(&sandbox, &name, ARM64, "arm64.json")?;
    let tag = format!("-t={name}:1");
    let files = ["-f=amd64.json", "-f=arm64.json", "--metadata-file=joined.json"];
    let run = create(&sandbox, &[&[&*tag][..], &files].concat())?.success()?;
    run.says("push ")?;
    let want = [(AMD64.to_owned(), amd64.clone()), (ARM64.to_owned(), arm64.clone())];
    ensure!(listed(&registry, "team/app:1")? == want, "{:?}", listed(&registry, "team/app:1")?);

    let written: Value = serde_json::from_slice(&std::fs::read(sandbox.path("joined.json"))?)?;
    ensure!(written["image.name"] == format!("{name}:1"), "{written}");
    let digest = written["containerimage.descriptor"]["digest"].as_str().context("a digest")?;
    registry.manifest(&format!("team/app@{digest}"))?;

    for (architecture, manifest) in [("amd64", &amd64), ("arm64", &arm64)] {
        let layout = sandbox.path(format!("pulled-{architecture}"));
        registry.pull_for(architecture, "team/app:1", &layout)?;
        let image = Image::of_layout(&layout)?;
        ensure!(image.digest.as_ref() == Some(manifest), "{:?}", image.digest);
        ensure!(image.config["architecture"] == architecture, "{}", image.config);
        image.tree.get("/which")?;
        // And it is a base like any other.
        sandbox.write("onto", &format!("FROM {name}:1\n"))?;
        let platform = format!("--platform=linux/{architecture}");
        let output = format!("--output=out-{architecture}");
        sandbox.build(&["-f=context/onto", &platform, &output])?.success()?;
        let which = std::fs::read_to_string(sandbox.path(format!("out-{architecture}/which")))?;
        ensure!(which.trim() == architecture, "{which}");
    }
    // Neither order nor the way sources are written matters to what is in it; bare digests are looked
    // for in the one repository there is.
    create(&sandbox, &[&format!("-t={name}:2"), &amd64, &arm64])?.success()?;
    create(&sandbox, &[&format!("-t={name}:3"), &format!("{name}@{amd64}"), &arm64])?.success()?;
    for other in ["2", "3"] {
        let (one, two) =
            (registry.manifest("team/app:1")?, registry.manifest(&format!("team/app:{other}"))?);
        ensure!(one == two, "{one}\n{two}");
    }
    Ok(())
}

/// Wherever an image is, it says what it has.
fn no_such_platform() -> Result<()> {
    let (sandbox, registry) = start("no-platform")?;
    let name = format!("{}/team/app", registry.host());
    let amd64 = build_part(&sandbox, &name, AMD64, "amd64.json")?;
    let arm64 = build_part(&sandbox, &name, ARM64, "arm64.json")?;
    create(&sandbox, &[&format!("-t={name}:1"), &amd64, &arm64])?.success()?;
    create(&sandbox, &[&format!("-t={name}:one"), &arm64])?.success()?;
    for (platform, layout) in [(ARM64, "single"), (&*format!("{AMD64},{ARM64}"), "index")] {
        let output = format!("-o=type=oci,tar=false,dest={layout}");
        sandbox.build(&[&output, &format!("--platform={platform}")])?.success()?;
    }
    let single = format!("{name}@{arm64}");
    for (from, says) in [
        (format!("{name}:1"), "it has linux/amd64, linux/arm64;"),
        (format!("{name}:one"), "it has linux/arm64;"),
        (single, "is an image for linux/arm64, not for linux/s390x"),
        ("single".to_owned(), "is an image for linux/arm64, not for linux/s390x"),
        ("index".to_owned(), "it has linux/amd64, linux/arm64;"),
    ] {
        let contexts = ["single", "index"];
        let contexts = contexts.map(|name| format!("--build-context={name}=oci-layout://{name}"));
        let platform = "--platform=linux/s390x";
        for (file, args) in [
            (format!("FROM {from}\n"), vec![platform]),
            (format!("FROM --platform=linux/s390x {from}\n"), vec![]),
            (format!("FROM scratch\nCOPY --from={from} /which /\n"), vec![platform]),
        ] {
            sandbox.write("onto", &file)?;
            let mut all = vec!["-f=context/onto", &contexts[0], &contexts[1]];
            all.extend(args);
            sandbox.build(&all)?.expect(1)?.says(says)?;
        }
    }
    Ok(())
}

fn within_a_registry() -> Result<()> {
    let (sandbox, mut registry) = start("join-mount")?;
    let host = registry.host();
    let amd64 = build_part(&sandbox, &format!("{host}/team/amd64"), AMD64, "amd64.json")?;
    let arm64 = build_part(&sandbox, &format!("{host}/team/arm64"), ARM64, "arm64.json")?;
    registry.restart()?;
    let tags = [format!("-t={host}/team/app:1"), format!("-t={host}/team/app:latest")];
    create(&sandbox, &[&tags[0], &tags[1], "-f=amd64.json", "-f=arm64.json"])?.success()?;
    let requests = registry.requests()?;
    let mounted = |r: &&Request| r.method == "POST" && r.path.contains("mount=");
    // A layer and a config of each.
    ensure!(requests.iter().filter(mounted).count() == 4, "{requests:?}");
    let sent = |r: &Request| r.method == "PATCH" || r.method == "PUT" && r.path.contains("/blobs/");
    ensure!(!requests.iter().any(sent), "{requests:?}");
    for tag in ["1", "latest"] {
        let want = [(AMD64.to_owned(), amd64.clone()), (ARM64.to_owned(), arm64.clone())];
        ensure!(listed(&registry, &format!("team/app:{tag}"))? == want, "{tag}");
    }
    registry.pull("team/app:latest", &sandbox.path("pulled"))
}

fn another_registry() -> Result<()> {
    let (sandbox, registry) = start("join-elsewhere")?;
    let locked = Settings { password: true, ..Settings::default() };
    let other = Registry::with(&sandbox.path("other"), locked)?;
    let host = registry.host();
    let amd64 = build_part(&sandbox, &format!("{host}/team/app"), AMD64, "amd64.json")?;
    let arm64 = build_part(&sandbox, &format!("{host}/team/app"), ARM64, "arm64.json")?;
    let tag = format!("-t={}/copy/app:1", other.host());
    // It is for the client to know the password; nothing is named there without it.
    let run = create(&sandbox, &[&tag, "-f=amd64.json", "-f=arm64.json"])?.expect(1)?;
    run.says(&other.host())?;
    let auth = sandbox.path("docker");
    write_credentials(&auth, &other.host(), PASSWORD)?;
    let args = ["imagetools", "create", &tag, "-f=amd64.json", "-f=arm64.json"];
    Run::of(sandbox.wbuild(args)?.env("DOCKER_CONFIG", &auth))?.success()?;
    other.pull("copy/app:1", &sandbox.path("pulled"))?;
    let images = Image::all_of_layout(&sandbox.path("pulled"))?;
    let digests: Vec<&str> = images.iter().filter_map(|image| image.digest.as_deref()).collect();
    ensure!(digests == [amd64, arm64], "{digests:?}");
    Ok(())
}

/// Writes a blob of a layout; its descriptor.
fn blob(layout: &Path, media_type: &str, bytes: &[u8]) -> Result<Value> {
    let digest = sha256(bytes);
    let folder = layout.join("blobs/sha256");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(digest.trim_start_matches("sha256:")), bytes)?;
    Ok(json!({ "mediaType": media_type, "digest": digest, "size": bytes.len() }))
}

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// A layout with an index of one image and its attestation, as BuildKit writes them.
fn attested(layout: &Path, architecture: &str) -> Result<()> {
    let document = |value: Value| serde_json::to_vec(&value).context("it is JSON");
    let manifest = |config: Value, layers: Value| {
        document(
            json!({ "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers }),
        )
    };
    let config = json!({
        "os": "linux", "architecture": architecture, "rootfs": { "type": "layers", "diff_ids": [] },
    });
    let config = blob(layout, CONFIG, &document(config)?)?;
    let mut image = blob(layout, MANIFEST, &manifest(config, json!([]))?)?;
    image["platform"] = json!({ "os": "linux", "architecture": architecture });
    let statement =
        document(json!({ "_type": "https://in-toto.io/Statement/v0.1", "of": architecture }))?;
    let diff = sha256(&statement);
    let statement = blob(layout, "application/vnd.in-toto+json", &statement)?;
    let config = json!({
        "os": "unknown", "architecture": "unknown",
        "rootfs": { "type": "layers", "diff_ids": [diff] },
    });
    let config = blob(layout, CONFIG, &document(config)?)?;
    let mut attestation = blob(layout, MANIFEST, &manifest(config, json!([statement]))?)?;
    attestation["platform"] = json!({ "os": "unknown", "architecture": "unknown" });
    attestation["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": image["digest"],
    });
    let index = |list: Value| {
        document(json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": list }))
    };
    let root = blob(layout, INDEX, &index(json!([image, attestation]))?)?;
    std::fs::write(layout.join("index.json"), index(json!([root]))?)?;
    std::fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    Ok(())
}

fn attestations() -> Result<()> {
    let (sandbox, registry) = start("join-attested")?;
    let name = format!("{}/team/app", registry.host());
    for architecture in ["amd64", "arm64"] {
        attested(&sandbox.path(architecture), architecture)?;
    }
    // Through the registry, and from there again.
    let tag = format!("-t={name}:amd64");
    create(&sandbox, &[&tag, "oci-layout://amd64"])?.success()?;
    let tag = format!("-t={name}:1");
    create(&sandbox, &[&tag, &format!("{name}:amd64"), "oci-layout://arm64"])?.success()?;
    let index = registry.manifest("team/app:1")?;
    let entries = index["manifests"].as_array().context("entries")?;
    ensure!(entries.len() == 4, "{index}");
    for pair in entries.chunks(2) {
        let about = &pair[1]["annotations"]["vnd.docker.reference.digest"];
        ensure!(*about == pair[0]["digest"], "{index}");
    }
    registry.pull("team/app:1", &sandbox.path("pulled"))?;
    let run = sandbox.run(["imagetools", "inspect", &format!("{name}:1")])?.success()?;
    let text = run.text()?;
    for line in [
        "  Platform:    unknown/unknown\n",
        "    vnd.docker.reference.type:   attestation-manifest\n",
    ] {
        ensure!(text.contains(line), "{text}");
    }
    Ok(())
}

fn appending() -> Result<()> {
    let (sandbox, registry) = start("join-append")?;
    let name = format!("{}/team/app", registry.host());
    let amd64 = build_part(&sandbox, &name, AMD64, "amd64.json")?;
    let arm64 = build_part(&sandbox, &name, ARM64, "arm64.json")?;
    let tag = format!("-t={name}:1");
    // One image is made an index, unless it is only to have another name.
    create(&sandbox, &[&tag, "-f=amd64.json"])?.success()?;
    ensure!(listed(&registry, "team/app:1")? == [(AMD64.to_owned(), amd64.clone())], "one");
    let plain = format!("-t={name}:plain");
    create(&sandbox, &[&plain, "--prefer-index=false", "-f=amd64.json"])?.success()?;
    ensure!(registry.manifest("team/app:plain")?["config"].is_object(), "a manifest");

    let annotations = [
        "--annotation=index:of=all",
        "--annotation=manifest-descriptor[linux/arm64]:of=arm",
        "--annotation=manifest-descriptor:each=one",
    ];
    let args = [&["--append", &*tag, "-f=arm64.json"][..], &annotations].concat();
    let dry = create(&sandbox, &[&args[..], &["--dry-run"]].concat())?.success()?;
    ensure!(listed(&registry, "team/app:1")?.len() == 1, "a dry run pushed");
    create(&sandbox, &args)?.success()?;
    let index = registry.manifest("team/app:1")?;
    ensure!(index == dry.json()?, "{index}");
    ensure!(index["annotations"] == json!({ "of": "all" }), "{index}");
    let entries = &index["manifests"];
    ensure!(
        entries[0]["digest"] == amd64.as_str() && entries[1]["digest"] == arm64.as_str(),
        "{index}"
    );
    ensure!(entries[0]["annotations"] == json!({ "each": "one" }), "{index}");
    ensure!(entries[1]["annotations"] == json!({ "each": "one", "of": "arm" }), "{index}");
    // A descriptor says what is to stand in the index.
    let said = json!({
        "digest": amd64, "platform": { "os": "linux", "architecture": "amd64", "variant": "v3" },
        "annotations": { "a": "b" },
    });
    create(&sandbox, &[&format!("-t={name}:2"), &said.to_string()])?.success()?;
    let index = registry.manifest("team/app:2")?;
    ensure!(index["manifests"][0]["platform"]["variant"] == "v3", "{index}");
    ensure!(index["manifests"][0]["annotations"]["a"] == "b", "{index}");
    Ok(())
}

fn shown() -> Result<()> {
    let (sandbox, registry) = start("inspect")?;
    let name = format!("{}/team/app:1", registry.host());
    let platforms = format!("--platform={AMD64},{ARM64}");
    let layout = "-o=type=oci,tar=false,dest=layout";
    sandbox.build(&[&format!("-t={name}"), &platforms, layout, "--push"])?.success()?;
    let inspect =
        |args: &[&str]| sandbox.run(["imagetools", "inspect"].iter().chain(args).copied());
    let raw = inspect(&[&name, "--raw"])?.success()?;
    let digest = sha256(&raw.stdout);
    ensure!(raw.json()? == registry.manifest("team/app:1")?, "{:?}", raw.stdout);
    let entries = listed(&registry, "team/app:1")?;
    let mut want =
        format!("Name:      {name}\nMediaType: {INDEX}\nDigest:    {digest}\n\nManifests:\n");
    for (at, (platform, digest)) in entries.iter().enumerate() {
        let gap = if at > 0 { "\n" } else { "" };
        want.push_str(&format!(
            "{gap}  Name:      {name}@{digest}\n  MediaType: {MANIFEST}\n  Platform:  {platform}\n"
        ));
    }
    let text = inspect(&[&name])?.success()?;
    ensure!(text.text()? == want, "{}", text.text()?);
    let value = inspect(&[&name, "--json"])?.success()?.json()?;
    ensure!(value["name"] == name.as_str() && value["manifest"]["digest"] == digest, "{value}");
    ensure!(value["manifest"]["manifests"].as_array().is_some_and(|all| all.len() == 2), "{value}");
    // Configs are fetched where a format asks for them.
    let format = "--format={{range .Image}}{{println .Architecture}}{{end}}";
    ensure!(inspect(&[&name, format])?.success()?.text()? == "amd64\narm64\n", "configs");
    let format = "--format={{.Manifest.Digest}}";
    ensure!(inspect(&[&name, format])?.success()?.text()? == format!("{digest}\n"), "digest");
    let one = format!("{name}@{}", entries[1].1);
    let value = inspect(&[&one, "--format={{json .}}"])?.success()?.json()?;
    ensure!(value["image"]["architecture"] == "arm64", "{value}");
    inspect(&[&name, "--format={{.Nme}}"])?.expect(2)?.says("there is no .Nme")?;
    // A layout is read the same way.
    let text = inspect(&["oci-layout://layout"])?.success()?;
    ensure!(text.text()?.contains(&format!("Digest:    {digest}\n")), "{}", text.text()?);
    let arm = format!("oci-layout://layout@{}", entries[1].1);
    ensure!(text.text()?.contains(&format!("Name:      {arm}\n")), "{}", text.text()?);
    inspect(&[&arm])?.success()?;
    // It takes no more than a manifest may have.
    let huge = sandbox.path("huge");
    let root = blob(&huge, INDEX, &vec![b' '; 5 << 20])?;
    let index = json!({ "schemaVersion": 2, "manifests": [root] });
    std::fs::write(huge.join("index.json"), index.to_string())?;
    std::fs::write(huge.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)?;
    inspect(&["oci-layout://huge"])?.expect(1)?.says("is larger than")
}

fn wrong_sources() -> Result<()> {
    let (sandbox, registry) = start("join-wrong")?;
    let name = format!("{}/team/app", registry.host());
    let amd64 = build_part(&sandbox, &name, AMD64, "amd64.json")?;
    let image = registry.manifest(&format!("team/app@{amd64}"))?;
    let config = image["config"]["digest"].as_str().context("a config")?;
    sandbox.write("Dockerfile", "FROM scratch\nCOPY arm64 /other\n")?;
    let again = build_part(&sandbox, &name, AMD64, "again.json")?;
    let tag = format!("-t={name}:1");
    let unknown = sha256(b"unknown");
    let sized = json!({ "digest": amd64, "size": 1 }).to_string();
    let typed = json!({ "digest": amd64, "mediaType": INDEX }).to_string();
    let other = format!("{}/team/other:1", registry.host());
    for (args, code, says) in [
        (&[&*tag, &*unknown][..], 1, &*unknown),
        (&[&tag, &amd64, &again], 1, "both have an image for linux/amd64"),
        (&[&tag, config], 1, config),
        (&[&tag, &sized], 1, "the size"),
        (&[&tag, &typed], 1, "the media type"),
        (&[&tag, "sha256:12"], 2, "sha256:12"),
        (&[&tag, "{\"size\": 1}"], 1, "it has no digest"),
        (&[&tag, "-f=absent.json"], 1, "absent.json"),
        (&[&tag, &other], 1, "team/other"),
        (&[&tag, "-t=other.example/app", &amd64], 1, "any of several repositories"),
        (&[&tag, "--append", &amd64], 1, "team/app:1"),
        (&[&tag, "--annotation=a=b", &amd64], 1, "level manifest"),
        (&[&tag, "--annotation=index-descriptor:a=b", &amd64], 1, "level index-descriptor"),
        (&[&format!("{tag}@{amd64}"), &amd64], 2, "which a push cannot choose"),
        (&[&amd64], 2, "-t REGISTRY/NAME:TAG"),
        (&[&tag], 2, "nothing to join"),
    ] {
        let run = create(&sandbox, args)?.expect(code)?;
        run.says(says)?;
    }
    let pushed = |r: &Request| r.method == "PUT" && r.path.ends_with("/manifests/1");
    ensure!(!registry.requests()?.iter().any(pushed), "something was pushed");
    Ok(())
}
