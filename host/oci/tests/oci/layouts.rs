//! Image layouts: written, read again, and opened by other tools.

use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

use wbuild_graph::{Digest, Platform};
use wbuild_oci::layer::{CompressOptions, LayerBlob, LayerBuilder};
use wbuild_oci::layout::{
    BlobSource, Export, ExportImage, Layout, write_docker_tar, write_oci_dir, write_oci_tar,
};
use wbuild_oci::media::{Compression, MediaFamily};
use wbuild_oci::{Error, ErrorKind, Finish, ImageConfig, Reference, Result, Timestamp};

use crate::support::*;

/// Blobs in memory.
pub struct Blobs(pub Vec<(LayerBlob, Vec<u8>)>);

impl BlobSource for Blobs {
    fn open(&self, digest: &Digest) -> Result<Box<dyn Read + Send + '_>> {
        let found = self.0.iter().find(|(blob, _)| blob.digest.0 == *digest);
        let (_, bytes) = found.ok_or_else(|| Error::new(ErrorKind::NotFound, "no such blob"))?;
        Ok(Box::new(&bytes[..]))
    }
}

pub fn layer(name: &str, compression: Compression) -> (LayerBlob, Vec<u8>) {
    let mut builder =
        LayerBuilder::new(Vec::new(), &CompressOptions::new(compression)).expect("options");
    builder.append(&dir("etc").0, None).expect("memory");
    let mut entry = file(&format!("etc/{name}")).0;
    entry.size = name.len() as u64;
    builder.append(&entry, Some(&mut name.as_bytes())).expect("memory");
    let (bytes, blob) = builder.finish().expect("memory");
    (blob, bytes)
}

/// An image of `platform` over all of `blobs`.
pub fn image(platform: &str, blobs: &Blobs, family: MediaFamily) -> ExportImage {
    let platform: Platform = platform.parse().expect("platform");
    let diff_ids: Vec<_> = blobs.0.iter().map(|(blob, _)| blob.diff_id).collect();
    let created = Some(Timestamp::from_seconds(1_700_000_000));
    let with = Finish { diff_ids: &diff_ids, platform: &platform, created, cache: None };
    let config = ImageConfig::finish(
        br#"{"config":{"Env":["PATH=/bin"],"Cmd":["/bin/sh"]},"history":[{"created_by":"COPY x","comment":"test"}]}"#,
        &with,
    );
    let layers = blobs.0.iter().map(|(blob, _)| blob.descriptor(family)).collect();
    ExportImage::new(family, config.expect("fits"), layers)
}

pub fn two_layers() -> Blobs {
    Blobs(vec![layer("one", Compression::Gzip), layer("two", Compression::Gzip)])
}

pub fn names(list: &[&str]) -> Vec<Reference> {
    list.iter().map(|name| name.parse().expect("a name")).collect()
}

fn extract(tar: &[u8], to: &Path) {
    fs::create_dir(to).expect("fresh");
    let options = wbuild_oci::layer::UnpackOptions {
        dest: b"",
        ownership: wbuild_oci::layer::Ownership::Ignore,
        limits: wbuild_oci::layer::Limits::default(),
    };
    wbuild_oci::layer::unpack(tar, open_dir(to).as_fd(), &options).expect("own archive");
}

#[test]
fn what_is_written_is_read() {
    let temp = tempfile::tempdir().expect("temp");
    let blobs = two_layers();
    let amd = image("linux/amd64", &blobs, MediaFamily::Oci);
    let arm = image("linux/arm64", &blobs, MediaFamily::Oci);
    let host: Platform = "linux/amd64".parse().expect("platform");
    for (n, images) in [vec![amd.clone()], vec![amd.clone(), arm.clone()]].into_iter().enumerate() {
        let several = images.len() > 1;
        let export = Export::new(
            MediaFamily::Oci,
            images,
            names(&["app:v1", "reg.example:5000/x/app"]),
            None,
        )
        .expect("export");
        assert_eq!(export.root().is_index(), several);
        let tar = write_oci_tar(&[&export], &blobs, Vec::new()).expect("written");
        assert!(
            tar == write_oci_tar(&[&export], &blobs, Vec::new()).expect("written"),
            "same bytes every time"
        );
        let (from_tar, from_dir) =
            (temp.path().join(format!("tar{n}")), temp.path().join(format!("dir{n}")));
        extract(&tar, &from_tar);
        fs::create_dir(&from_dir).expect("fresh");
        write_oci_dir(&[&export], &blobs, open_dir(&from_dir).as_fd()).expect("written");
        for path in [from_tar, from_dir] {
            let layout = Layout::open_path(&path).expect("a layout");
            assert_eq!(layout.index().manifests.len(), 2);
            for name in [
                "v1",
                "latest",
                "docker.io/library/app:v1",
                "app:v1",
                "reg.example:5000/x/app:latest",
            ] {
                let found =
                    layout.resolve(Some(name), &host).unwrap_or_else(|e| panic!("{name}: {e}"));
                assert_eq!(found.digest, export.root().digest, "{name}");
            }
            let by_digest = export.images()[0].manifest.to_bytes();
            let digest = Digest::of(&by_digest).to_string();
            let found = layout.resolve(Some(&digest), &host).expect("by digest");
            let meta = layout.image(&found, &host).expect("an image");
            assert_eq!(meta.config, amd.config);
            assert_eq!(meta.manifest_bytes, by_digest);
            for (descriptor, (_, bytes)) in meta.manifest.layers.iter().zip(&blobs.0) {
                let mut got = Vec::new();
                layout.blob(descriptor).expect("there").read_to_end(&mut got).expect("intact");
                assert_eq!(&got, bytes);
            }
            if several {
                let arm64 = "linux/arm64".parse().expect("platform");
                let meta = layout.image(export.root(), &arm64).expect("the other");
                assert_eq!(meta.config, arm.config);
            }
            let error = layout.resolve(Some("v2"), &host).expect_err("no such name");
            assert_eq!(error.kind(), ErrorKind::NotFound);
            let s390x = "linux/s390x".parse().expect("platform");
            assert_eq!(
                layout.image(export.root(), &s390x).expect_err("other machine").kind(),
                ErrorKind::NotFound
            );
        }
    }
}

#[test]
fn a_layout_is_added_to() {
    let temp = tempfile::tempdir().expect("temp");
    let dir = open_dir(temp.path());
    let host: Platform = "linux/amd64".parse().expect("platform");
    let (old, new) = (
        Blobs(vec![layer("old", Compression::Gzip)]),
        Blobs(vec![layer("new", Compression::Zstd)]),
    );
    for (blobs, list) in [(&old, &["app:v1", "app:v2"][..]), (&new, &["app:v2", "app:v3"])] {
        let export = Export::new(
            MediaFamily::Oci,
            vec![image("linux/amd64", blobs, MediaFamily::Oci)],
            names(list),
            None,
        );
        write_oci_dir(&[&export.expect("export")], blobs, dir.as_fd()).expect("written");
    }
    let layout = Layout::open_path(temp.path()).expect("a layout");
    assert_eq!(layout.index().manifests.len(), 3);
    for (tag, blobs) in [("v1", &old), ("v2", &new), ("v3", &new)] {
        let found = layout.resolve(Some(tag), &host).expect(tag);
        let meta = layout.image(&found, &host).expect(tag);
        assert_eq!(meta.manifest.layers[0].digest, blobs.0[0].0.digest.0, "{tag}");
    }
    // A blob that rotted is written anew.
    let path = temp.path().join("blobs/sha256").join(old.0[0].0.digest.0.hex());
    fs::write(&path, b"rotten").expect("own file");
    let export = Export::new(
        MediaFamily::Oci,
        vec![image("linux/amd64", &old, MediaFamily::Oci)],
        vec![],
        None,
    )
    .expect("export");
    write_oci_dir(&[&export], &old, dir.as_fd()).expect("written");
    assert_eq!(fs::read(&path).expect("there"), old.0[0].1);
    assert!(!describe(temp.path()).iter().any(|line| line.contains(".partial")));
}

#[test]
fn damaged_blobs_are_not_exported_or_read() {
    let temp = tempfile::tempdir().expect("temp");
    let good = two_layers();
    let export = Export::new(
        MediaFamily::Oci,
        vec![image("linux/amd64", &good, MediaFamily::Oci)],
        names(&["a"]),
        None,
    )
    .expect("export");
    type Damage = fn(&mut Vec<u8>);
    let damage: [(&str, Damage); 3] = [
        ("flipped", |b| b[20] ^= 1),
        ("shorter", |b| b.truncate(b.len() - 1)),
        ("longer", |b| b.push(0)),
    ];
    for (name, damage) in damage {
        let mut blobs = two_layers();
        damage(&mut blobs.0[1].1);
        let error = write_oci_tar(&[&export], &blobs, std::io::sink()).expect_err(name);
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{name}: {error}");
        let dir = temp.path().join(name);
        fs::create_dir(&dir).expect("fresh");
        let error = write_oci_dir(&[&export], &blobs, open_dir(&dir).as_fd()).expect_err(name);
        assert_eq!(error.kind(), ErrorKind::Mismatch, "{name}: {error}");
        assert!(!dir.join("index.json").exists(), "{name}: nothing may refer to it");

        write_oci_dir(&[&export], &good, open_dir(&dir).as_fd()).expect("written");
        let descriptor = &export.images()[0].manifest.layers[1];
        fs::write(dir.join("blobs/sha256").join(descriptor.digest.hex()), &blobs.0[1].1)
            .expect("own file");
        let layout = Layout::open_path(&dir).expect("a layout");
        let read = layout.blob(descriptor).and_then(|mut blob| {
            let copied = std::io::copy(&mut blob, &mut std::io::sink());
            copied.map(drop).map_err(|e| e.downcast::<Error>().expect("our own error"))
        });
        assert_eq!(read.expect_err(name).kind(), ErrorKind::Mismatch);
    }
}

#[test]
fn layouts_that_must_be_refused() {
    let temp = tempfile::tempdir().expect("temp");
    let secret = temp.path().join("secret");
    fs::write(&secret, br#"{"schemaVersion":2,"manifests":[]}"#).expect("temp");
    let marker = r#"{"imageLayoutVersion":"1.0.0"}"#;
    let index = r#"{"schemaVersion":2,"manifests":[]}"#;
    let huge = format!("{index}{}", " ".repeat(4 << 20));
    for (name, marker, index) in [
        ("no marker", None, Some(index)),
        ("no index", Some(marker), None),
        ("another version", Some(r#"{"imageLayoutVersion":"2.0.0"}"#), Some(index)),
        ("no version", Some("{}"), Some(index)),
        ("no json", Some(marker), Some("x")),
        ("image as index", Some(marker), Some(r#"{"schemaVersion":2,"config":{},"layers":[]}"#)),
        ("huge index", Some(marker), Some(&huge)),
        ("index elsewhere", Some(marker), Some("link")),
        ("index is a pipe", Some(marker), Some("pipe")),
    ] {
        let dir = temp.path().join(name);
        fs::create_dir(&dir).expect("fresh");
        if let Some(marker) = marker {
            fs::write(dir.join("oci-layout"), marker).expect("fresh");
        }
        match index {
            None => {}
            Some("link") => {
                std::os::unix::fs::symlink(&secret, dir.join("index.json")).expect("fresh")
            }
            Some("pipe") => {
                let mode = rustix::fs::Mode::from_raw_mode(0o600);
                rustix::fs::mkfifoat(rustix::fs::CWD, dir.join("index.json"), mode).expect("fresh");
            }
            Some(index) => fs::write(dir.join("index.json"), index).expect("fresh"),
        }
        assert!(Layout::open_path(&dir).is_err(), "{name}");
    }
}

#[test]
fn a_blob_is_a_file_of_the_layout() {
    let temp = tempfile::tempdir().expect("temp");
    let dir = temp.path().join("layout");
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).expect("fresh");
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("fresh");
    fs::write(dir.join("index.json"), r#"{"schemaVersion":2,"manifests":[]}"#).expect("fresh");
    let outside = temp.path().join("outside");
    fs::write(&outside, "blob").expect("temp");
    let digest = Digest::of(b"blob");
    let place = blobs.join(digest.hex());
    let layout = Layout::open_path(&dir).expect("a layout");
    for name in ["link", "pipe", "directory"] {
        match name {
            "link" => std::os::unix::fs::symlink(&outside, &place).expect("fresh"),
            "pipe" => {
                let mode = rustix::fs::Mode::from_raw_mode(0o600);
                rustix::fs::mkfifoat(rustix::fs::CWD, &place, mode).expect("fresh");
            }
            _ => fs::create_dir(&place).expect("fresh"),
        }
        let error = BlobSource::open(&layout, &digest).err().expect(name);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{name}: {error}");
        let _ = fs::remove_file(&place);
    }
}

#[test]
fn several_images_are_written_together() {
    let temp = tempfile::tempdir().expect("temp");
    let blobs = two_layers();
    let export = |platforms: &[&str], tags: &[&str]| {
        let images = platforms.iter().map(|platform| image(platform, &blobs, MediaFamily::Oci));
        Export::new(MediaFamily::Oci, images.collect(), names(tags), None).expect("export")
    };
    let one = export(&["linux/amd64"], &["app:v1", "app:v2"]);
    let other = export(&["linux/arm64"], &["app:arm"]);
    let index = export(&["linux/amd64", "linux/arm64"], &["app:all"]);
    let all = [&one, &other, &index];
    let (from_tar, from_dir) = (temp.path().join("tar"), temp.path().join("dir"));
    let tar = write_oci_tar(&all, &blobs, Vec::new()).expect("written");
    extract(&tar, &from_tar);
    fs::create_dir(&from_dir).expect("fresh");
    write_oci_dir(&all, &blobs, open_dir(&from_dir).as_fd()).expect("written");
    for path in [from_tar, from_dir] {
        let layout = fs::read(path.join("index.json")).expect("an index");
        let layout: serde_json::Value = serde_json::from_slice(&layout).expect("JSON");
        let entries = layout["manifests"].as_array().expect("entries");
        let found: Vec<_> = entries
            .iter()
            .map(|entry| {
                let name = &entry["annotations"]["org.opencontainers.image.ref.name"];
                (name.as_str().expect("a name"), entry["digest"].as_str().expect("a digest"))
            })
            .collect();
        let digest = |export: &Export| export.root().digest.to_string();
        let (one, other, index) = (digest(&one), digest(&other), digest(&index));
        assert_eq!(found, [("v1", &*one), ("v2", &one), ("arm", &other), ("all", &index)]);
        for (_, digest) in found {
            let hex = digest.strip_prefix("sha256:").expect("sha256");
            assert!(path.join("blobs/sha256").join(hex).exists(), "{digest}");
        }
    }
    let docker = write_docker_tar(&[&one, &other], &blobs, Vec::new()).expect("written");
    let path = temp.path().join("docker");
    extract(&docker, &path);
    let manifest = fs::read(path.join("manifest.json")).expect("a list");
    let manifest: serde_json::Value = serde_json::from_slice(&manifest).expect("JSON");
    assert_eq!(manifest[0]["RepoTags"], serde_json::json!(["app:v1", "app:v2"]));
    assert_eq!(manifest[1]["RepoTags"], serde_json::json!(["app:arm"]));
    assert_eq!(manifest.as_array().map(Vec::len), Some(2));
    let error = write_docker_tar(&[&one, &index], &blobs, std::io::sink()).expect_err("an index");
    assert_eq!(error.kind(), ErrorKind::Unsupported);
}

#[test]
fn other_tools_open_what_is_written() {
    let temp = tempfile::tempdir().expect("temp");
    let at = |name: &str| temp.path().join(name).to_str().expect("utf-8").to_owned();
    let test = "other_tools_open_what_is_written";
    let blobs = two_layers();
    let host = Platform::host().to_string();
    let export = Export::new(
        MediaFamily::Oci,
        vec![image(&host, &blobs, MediaFamily::Oci)],
        names(&["app:v1"]),
        Some(1_700_000_000),
    )
    .expect("export");
    fs::create_dir(at("layout")).expect("fresh");
    write_oci_dir(&[&export], &blobs, open_dir(Path::new(&at("layout"))).as_fd()).expect("written");
    fs::write(at("oci.tar"), write_oci_tar(&[&export], &blobs, Vec::new()).expect("written"))
        .expect("temp");
    fs::write(at("docker.tar"), write_docker_tar(&[&export], &blobs, Vec::new()).expect("written"))
        .expect("temp");
    let docker = Export::new(
        MediaFamily::Docker,
        vec![image(&host, &blobs, MediaFamily::Docker)],
        names(&["app:v1"]),
        None,
    )
    .expect("export");
    fs::write(
        at("docker2.tar"),
        write_docker_tar(&[&docker], &blobs, Vec::new()).expect("written"),
    )
    .expect("temp");

    for (n, source) in [
        format!("oci:{}:v1", at("layout")),
        format!("oci-archive:{}:v1", at("oci.tar")),
        format!("docker-archive:{}:app:v1", at("docker.tar")),
        format!("docker-archive:{}:docker.io/library/app:v1", at("docker2.tar")),
        format!("docker-archive:{}", at("docker.tar")),
    ]
    .iter()
    .enumerate()
    {
        let to = at(&format!("copy{n}"));
        let Some(output) =
            run("skopeo", &["--insecure-policy", "copy", "-q", source, &format!("dir:{to}")])
        else {
            return skip(test, "there is no skopeo");
        };
        assert_ran(&format!("skopeo copy {source}"), &output);
        let config = export.images()[0].config.bytes();
        let copied =
            fs::read(format!("{to}/{}", Digest::of(config).hex())).expect("the config arrives");
        assert_eq!(copied, config);
    }

    let bundle = at("bundle");
    let source = format!("{}:v1", at("layout"));
    let Some(output) = run("umoci", &["unpack", "--rootless", "--image", &source, &bundle]) else {
        return skip(test, "there is no umoci");
    };
    assert_ran("umoci unpack", &output);
    assert_eq!(fs::read(format!("{bundle}/rootfs/etc/one")).expect("unpacked"), b"one");
    assert_eq!(fs::read(format!("{bundle}/rootfs/etc/two")).expect("unpacked"), b"two");
    let output = run("umoci", &["stat", "--json", "--image", &source]).expect("there a moment ago");
    assert_ran("umoci stat", &output);

    let two = vec![
        image("linux/amd64", &blobs, MediaFamily::Oci),
        image("linux/arm64", &blobs, MediaFamily::Oci),
    ];
    let several = Export::new(MediaFamily::Oci, two, names(&["multi:v1"]), None).expect("export");
    assert_eq!(
        write_docker_tar(&[&several], &blobs, std::io::sink()).expect_err("one only").kind(),
        ErrorKind::Unsupported
    );
    fs::write(at("multi.tar"), write_oci_tar(&[&several], &blobs, Vec::new()).expect("written"))
        .expect("temp");
    let to = at("multi");
    let args = [
        "--insecure-policy",
        "copy",
        "-q",
        "--all",
        &format!("oci-archive:{}:v1", at("multi.tar")),
        &format!("dir:{to}"),
    ];
    assert_ran("skopeo copy --all", &run("skopeo", &args).expect("there a moment ago"));
}
