//! Secrets: their values are nowhere but in the steps that get them, and count only if asked to.

use anyhow::{Result, ensure};
use wbuild_tests::machine;
use wbuild_tests::run::Run;
use wbuild_tests::sandbox::Sandbox;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("values_are_nowhere", values_are_nowhere),
    ("keyed_values_count", keyed_values_count),
    ("keyed_values_count_for_those_who_get_them", keyed_values_count_for_those_who_get_them),
];

const VALUE: &str = "Canary/of+a secret:0123456789~abcdefgh";

/// A value as it could be written down.
fn forms(value: &str) -> Result<Vec<String>> {
    let hex: String = value.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![value.to_owned(), hex.to_uppercase(), hex];
    // In the middle of other text the same bytes have one of three codes, but for the ends.
    for before in 0..3 {
        let text = format!("{}{value}", "x".repeat(before));
        let script = "printf %s \"$1\" | base64 -w0";
        let mut command = std::process::Command::new("sh");
        let run = Run::of(command.args(["-c", script, "sh", &text]))?.success()?;
        let code = run.text()?.trim_end_matches('=');
        ensure!(code.len() > 24, "base64 does not work: {code}");
        forms.push(code[4..code.len() - 4].to_owned());
    }
    // As JSON holds bytes.
    let json = serde_json::to_string(value.as_bytes())?;
    forms.push(json.trim_matches(['[', ']']).to_owned());
    Ok(forms)
}

fn values_are_nowhere() -> Result<()> {
    let file = |end: &str| {
        format!(
            "FROM base\n\
             RUN --mount=type=secret,id=file,target=/s --mount=type=secret,id=var,env=VAR \
                 test \"$(cat /s)\" = \"$VAR\" && test -n \"$VAR\" && echo good > /x; {end}\n"
        )
    };
    let sandbox = Sandbox::with("secret-canary", &[("Dockerfile", &file("true"))])?;
    std::fs::write(sandbox.path("secret"), VALUE)?;
    let build = |secret: &str, args: &[&str]| -> Result<Run> {
        let secrets = [
            format!("--secret=id=file,src=secret{secret}"),
            format!("--secret=id=var,env=V{secret}"),
        ];
        let args: Vec<&str> =
            secrets.iter().map(String::as_str).chain(args.iter().copied()).collect();
        Run::of(sandbox.build_command(&args)?.env("V", VALUE))
    };
    let forms = forms(VALUE)?;
    for (end, secret, code) in [
        ("true", "", 0),
        ("exit 1", "", 1),
        ("true", ",key=hash", 0),
        ("exit 1", ",key=hash", 1),
        ("exit 2", ",key=hash", 1),
    ] {
        sandbox.write("Dockerfile", &file(end))?;
        let output = "--output=type=oci,dest=image.tar";
        let run = build(secret, &["--explain", "--progress=plain", output])?.expect(code)?;
        for form in &forms {
            run.never_says(form)?;
            let found = machine::files_with(&sandbox.path("state"), form)?;
            ensure!(found.is_empty(), "{form} is in {found}");
        }
    }
    // The search finds what is there.
    std::fs::write(sandbox.path("state/contexts/here"), format!("a {VALUE} b"))?;
    let found = machine::files_with(&sandbox.path("state"), &forms[0])?;
    ensure!(found.contains("contexts/here"), "the search is blind");
    Ok(())
}

fn keyed_values_count() -> Result<()> {
    let sandbox = Sandbox::with(
        "secret-keyed",
        &[(
            "Dockerfile",
            "FROM base\nRUN --mount=type=secret,id=file,target=/s wc -c < /s > /x\n\
             RUN --mount=type=secret,id=var,env=VAR echo ${#VAR} > /y\n\
             RUN echo after > /z\n",
        )],
    )?;
    let build = |file: &str, variable: &str, keyed: &str| -> Result<[String; 3]> {
        std::fs::write(sandbox.path("secret"), file)?;
        let args = [
            format!("--secret=id=file,src=secret{keyed}"),
            format!("--secret=id=var,env=V{keyed}"),
        ];
        let mut command = sandbox.build_command(&[&args[0], &args[1]])?;
        let run = Run::of(command.env("V", variable))?.success()?;
        Ok([run.end_of("id=file")?, run.end_of("id=var")?, run.end_of("echo after")?])
    };
    let (keyed, done, cached) = (",key=hash", "DONE", "CACHED");
    for (file, variable, keyed, expected) in [
        ("one", "one", "", [done, done, done]),
        ("two", "two", "", [cached, cached, cached]),
        // The key is another one with a hash in it; what comes of it is the same.
        ("one", "one", keyed, [done, done, cached]),
        ("one", "one", keyed, [cached, cached, cached]),
        ("six", "one", keyed, [done, cached, cached]),
        ("six", "seven", keyed, [cached, done, done]),
        ("one", "one", keyed, [cached, cached, cached]),
        ("other", "other", ",key=none", [cached, cached, cached]),
    ] {
        let ends = build(file, variable, keyed)?;
        ensure!(ends == expected, "{file} {variable} {keyed}: {ends:?}, expected {expected:?}");
    }
    // The reason is known, the value is not.
    build("changed", "one", keyed)?;
    let run = sandbox.run(["explain", "id=file"])?.success()?;
    let text = run.text()?;
    ensure!(text.contains("secret file has changed (the value is not shown)"), "{text}");
    Ok(())
}

fn keyed_values_count_for_those_who_get_them() -> Result<()> {
    let sandbox = Sandbox::with(
        "secret-others",
        &[(
            "Dockerfile",
            "FROM base AS with\nRUN --mount=type=secret,id=key,target=/s test -e /s && echo 1 > /x\n\
             FROM base AS without\nRUN echo 2 > /y\n\
             FROM base\nCOPY --from=with /x /x\nCOPY --from=without /y /y\n",
        )],
    )?;
    for (value, expected) in [("one", ["DONE", "DONE"]), ("two", ["DONE", "CACHED"])] {
        std::fs::write(sandbox.path("secret"), value)?;
        let run = sandbox.build(&["--secret=id=key,src=secret,key=hash"])?.success()?;
        let ends = [run.end_of("id=key")?, run.end_of("RUN echo 2")?];
        ensure!(ends == expected, "{value}: {ends:?}");
    }
    // A secret that is not there cannot be hashed.
    std::fs::remove_file(sandbox.path("secret"))?;
    sandbox.build(&["--secret=id=key,src=secret,key=hash"])?.expect(1)?.says("secret \"key\"")?;
    sandbox.build(&["--secret=id=key,src=secret,key=value"])?.expect(2)?.says("key=hash")
}
