//! Files from a real web server.

use anyhow::{Result, ensure};
use wbuild_tests::httpd::Httpd;
use wbuild_tests::image::sha256;
use wbuild_tests::sandbox::Sandbox;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("a_file", a_file),
    ("checksums", checksums),
    ("archives", archives),
    ("contexts", contexts),
    ("this_machine_is_not_reached_unasked", this_machine_is_not_reached_unasked),
    ("what_is_not_there", what_is_not_there),
];

const ALLOW: &str = "--allow=network.private";

/// A server that offers `files/`, and a sandbox whose Dockerfile has its address for `URL`.
fn start(name: &str, files: &[(&str, &str)], file: &str) -> Result<(Sandbox, Httpd)> {
    let sandbox = Sandbox::new(name)?;
    std::fs::create_dir_all(sandbox.path("context/files"))?;
    for (name, content) in files {
        sandbox.write(&format!("files/{name}"), content)?;
    }
    let server = Httpd::start(&sandbox.path("context/files"))?;
    sandbox.write("Dockerfile", &file.replace("URL/", &server.url("")))?;
    Ok((sandbox, server))
}

fn a_file() -> Result<()> {
    let (sandbox, server) = start(
        "a-file",
        &[("tool.sh", "one"), ("other", "two")],
        "FROM base\n\
         ADD URL/tool.sh /dir/\n\
         ADD --chmod=755 --chown=7:8 URL/other /named\n\
         RUN cat /dir/tool.sh /named\n",
    )?;
    let (_, image) = sandbox.image("image", &[ALLOW])?;
    let listing = image.tree.listing();
    for (path, mode, owner) in [("/dir/tool.sh", 0o600, (0, 0)), ("/named", 0o755, (7, 8))] {
        let entry = image.tree.get(path)?;
        ensure!(entry.mode == mode, "{listing}");
        ensure!((entry.uid, entry.gid) == owner, "{listing}");
    }
    // Unchanged: asked about, not fetched.
    let (run, again) = sandbox.image("image", &[ALLOW])?;
    ensure!(run.end_of("RUN cat")? == "CACHED", "{}", run.stderr);
    run.never_says("fetch http")?;
    ensure!(again.digest == image.digest, "another image");
    // Only what follows from another file is made anew.
    sandbox.write("files/other", "three, and longer")?;
    let (run, _) = sandbox.image("image", &[ALLOW])?;
    ensure!(run.end_of("ADD http://127.0.0.1")? == "CACHED", "{}", run.stderr);
    run.says("onethree, and longer")?;
    // The same content with a new date is the same file.
    sandbox.write("files/other", "three, and longer")?;
    let (run, _) = sandbox.image("image", &[ALLOW])?;
    ensure!(run.end_of("RUN cat")? == "CACHED", "{}", run.stderr);
    drop(server);
    Ok(())
}

fn checksums() -> Result<()> {
    let right = sha256(b"content");
    let wrong = sha256(b"another");
    let (sandbox, server) = start(
        "checksums",
        &[("f", "content")],
        &format!("FROM scratch\nADD --checksum={right} URL/f /f\n"),
    )?;
    sandbox.image("image", &[ALLOW])?;
    // With a checksum that is known no server is needed.
    drop(server);
    let (run, _) = sandbox.image("image", &[ALLOW])?;
    ensure!(run.end_of("ADD --checksum")? == "CACHED", "{}", run.stderr);

    let server = Httpd::start(&sandbox.path("context/files"))?;
    let file = format!("FROM scratch\nADD --checksum={wrong} {} /f\n", server.url("f"));
    sandbox.write("Dockerfile", &file)?;
    let run = sandbox.build(&[ALLOW])?.expect(1)?;
    run.says(&right)?;
    run.says(&wrong)?;
    run.says("Dockerfile:2")?;
    Ok(())
}

fn contexts() -> Result<()> {
    let (sandbox, server) = start(
        "contexts",
        &[("tree/in", "inside")],
        "FROM scratch\nCOPY in /main\nCOPY --from=other in /other\nCOPY --from=other / /whole/\n",
    )?;
    pack(&sandbox)?;
    let url = server.url("a.tar.gz");
    let other = server.url("tree/in");
    let dest = sandbox.path("image");
    let output = format!("-o={}", dest.display());
    let context = format!("--build-context=other={other}");
    let file = sandbox.path("context/Dockerfile");
    let args = ["build", ALLOW, &context, "-f", &file.display().to_string(), &output, &url];
    sandbox.run(args)?.success()?;
    for path in ["main", "other", "whole/in"] {
        ensure!(std::fs::read_to_string(dest.join(path))? == "inside", "{path}");
    }
    Ok(())
}

/// Packs `files/tree` as `files/a.tar.gz`.
fn pack(sandbox: &Sandbox) -> Result<()> {
    let archive = sandbox.path("context/files/a.tar.gz");
    let packed = std::process::Command::new("tar")
        .arg("-czf")
        .arg(&archive)
        .args(["-C".as_ref(), sandbox.path("context/files/tree").as_os_str()])
        .arg("in")
        .status()?;
    ensure!(packed.success(), "tar failed");
    Ok(())
}

fn archives() -> Result<()> {
    let (sandbox, _server) = start(
        "archives",
        &[("tree/in", "inside")],
        "FROM scratch\nADD URL/a.tar.gz /kept/\nADD --unpack URL/a.tar.gz /unpacked/\n",
    )?;
    pack(&sandbox)?;
    let (_, image) = sandbox.image("image", &[ALLOW])?;
    image.tree.get("/kept/a.tar.gz")?;
    image.tree.get("/unpacked/in")?;
    Ok(())
}

fn this_machine_is_not_reached_unasked() -> Result<()> {
    let (sandbox, _server) =
        start("not-reached", &[("f", "canary")], "FROM scratch\nADD URL/f /f\n")?;
    let run = sandbox.build(&[])?.expect(1)?;
    run.says("--allow network.private")?;
    run.says("Dockerfile:2")?;
    Ok(())
}

fn what_is_not_there() -> Result<()> {
    let (sandbox, _server) = start("not-there", &[], "FROM scratch\nADD URL/none /f\n")?;
    let run = sandbox.build(&[ALLOW])?.expect(1)?;
    run.says("404")?;
    run.says("/none")?;
    run.says("Dockerfile:2")?;
    Ok(())
}
