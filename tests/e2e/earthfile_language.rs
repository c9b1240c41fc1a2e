//! What Earthfiles mean: versions, variables, caches, loops, and what is doubtful about them.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use wbuild_tests::run::Run;
use wbuild_tests::sandbox::Sandbox;

use crate::Test;

pub const TESTS: &[Test] = &[
    ("what_is_doubtful_is_told", what_is_doubtful_is_told),
    ("files_of_version_6_are_built", files_of_version_6_are_built),
    ("variables_hold_to_the_end_of_a_recipe", variables_hold_to_the_end_of_a_recipe),
    ("caches_become_part_of_the_image", caches_become_part_of_the_image),
    ("loops_go_through_patterns", loops_go_through_patterns),
    ("artifacts_keep_what_flags_say", artifacts_keep_what_flags_say),
    ("artifacts_are_called_as_they_are_saved", artifacts_are_called_as_they_are_saved),
    ("patterns_match_something", patterns_match_something),
    ("deep_files_do_not_crash", deep_files_do_not_crash),
];

/// Asks about or builds the context, with `base` as an image of its name.
fn wbuild(sandbox: &Sandbox, options: &[&str], context: &str) -> Result<Run> {
    let base = wbuild_tests::base::layout()?;
    let mut command = sandbox.wbuild(["--progress=plain"])?;
    command
        .arg(format!("--build-context=base=oci-layout://{}", base.display()))
        .args(options)
        .arg(context);
    Run::of(&mut command)
}

fn saved(sandbox: &Sandbox, path: &str) -> Result<String> {
    let path = sandbox.path(Path::new("context").join(path));
    std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn what_is_doubtful_is_told() -> Result<()> {
    let file = "VERSION 0.8\n\
        FROM base\n\
        # build makes the program\n\
        build:\n    \
            # mode is dev or release\n    \
            ARG --required mode\n    \
            RUN --secret TOKEN make $mode\n\
        all:\n    \
            BUILD +build --mood=release\n\
        other:\n    \
            ENTRYPOINT run it\n";
    let sandbox = Sandbox::with("earth-check", &[("Earthfile", file)])?;
    let check = |options: &[&str], context: &str| -> Result<String> {
        let run = wbuild(&sandbox, options, context)?.expect(1)?;
        Ok(run.text()?.to_owned())
    };
    let found = check(&["--check"], "context+all")?;
    ensure!(found.contains("[UndeclaredArgument]") && found.contains("Earthfile:9"), "{found}");
    ensure!(!found.contains("JSONArgsRecommended"), "{found}");
    let found = check(&["--check", "--frontend=earthfile"], "context")?;
    ensure!(found.contains("[UndeclaredArgument]"), "{found}");
    ensure!(found.contains("[JSONArgsRecommended]"), "{found}");
    wbuild(&sandbox, &["--check"], "context+build")?.success()?;
    let text = wbuild(&sandbox, &["--call=outline"], "context+all")?.success()?;
    ensure!(text.text()?.contains("is dev or release"), "{}", text.text()?);
    ensure!(text.text()?.contains("TOKEN"), "{}", text.text()?);
    Ok(())
}

fn files_of_version_6_are_built() -> Result<()> {
    let file = "VERSION 0.6\n\
        ARG greeting=hello\n\
        FROM base\n\
        part:\n    \
            ARG name=nobody\n    \
            ARG name=again\n    \
            RUN echo \"$greeting $name\" > part\n    \
            SAVE ARTIFACT part\n\
        all:\n    \
            ARG greeting=other\n    \
            ARG day=$(echo monday)\n    \
            ARG missing=$(no-such-command)\n    \
            ARG lines=$(printf 'a\\nb\\n')\n    \
            ENV literal=$(echo)\n    \
            COPY --build-arg name=$day +part/part .\n    \
            DO +ADD --line=$(cat part)\n    \
            IF [ -f part ]\n        \
                ARG inner=set\n    \
            END\n    \
            RUN echo \"$inner $greeting ${literal}\" >> part\n    \
            RUN echo \"<$missing> $lines\" >> part\n    \
            SAVE ARTIFACT part AS LOCAL out/part\n\
        ADD:\n    \
            COMMAND\n    \
            ARG line\n    \
            RUN echo \"added $line\" >> part\n";
    let sandbox = Sandbox::with("earth-version-6", &[("Earthfile", file)])?;
    wbuild(&sandbox, &[], "context+all")?.success()?;
    let want = "hello monday\nadded hello monday\nset hello $(echo)\n<> a b\n";
    let got = saved(&sandbox, "out/part")?;
    ensure!(got == want, "{got:?}");
    Ok(())
}

fn variables_hold_to_the_end_of_a_recipe() -> Result<()> {
    let file = "VERSION 0.8\n\
        ARG --global both=global\n\
        FROM base\n\
        ENV both=env\n\
        all:\n    \
            LET seen=\n    \
            IF true\n        \
                LET inner=1\n    \
            END\n    \
            FOR i IN a b\n        \
                SET seen=\"$seen$i\"\n    \
            END\n    \
            RUN echo \"$seen $inner $both [$i]\" > out\n    \
            COPY Earthfile $HOME/copied\n    \
            RUN ls ~/copied >> out\n    \
            SAVE ARTIFACT out AS LOCAL out\n";
    let sandbox = Sandbox::with("earth-scopes", &[("Earthfile", file)])?;
    wbuild(&sandbox, &[], "context+all")?.success()?;
    let got = saved(&sandbox, "out")?;
    ensure!(got.starts_with("ab 1 env []\n") && got.ends_with("/copied\n"), "{got:?}");
    Ok(())
}

fn caches_become_part_of_the_image() -> Result<()> {
    let file = "VERSION 0.8\n\
        FROM base\n\
        filled:\n    \
            CACHE --persist /kept\n    \
            CACHE /dropped\n    \
            RUN mkdir -p /kept/a && echo one >> /kept/a/file && echo two > /dropped/file\n    \
            SAVE ARTIFACT /kept/a/file AS LOCAL early\n\
        all:\n    \
            FROM +filled\n    \
            RUN cat /kept/a/file > out && [ ! -e /dropped/file ]\n    \
            SAVE ARTIFACT out AS LOCAL out\n    \
            BUILD +filled\n";
    let sandbox = Sandbox::with("earth-persist", &[("Earthfile", file)])?;
    wbuild(&sandbox, &[], "context+all")?.success()?;
    ensure!(saved(&sandbox, "out")? == "one\n", "{:?}", saved(&sandbox, "out")?);
    ensure!(saved(&sandbox, "early")? == "one\n", "{:?}", saved(&sandbox, "early")?);
    Ok(())
}

fn loops_go_through_patterns() -> Result<()> {
    let file = "VERSION 0.8\n\
        FROM base\n\
        all:\n    \
            COPY parts parts\n    \
            FOR part IN parts/*.txt\n        \
                RUN cat $part >> out\n    \
            END\n    \
            FOR --mount=type=tmpfs,target=/m item IN $(ls -d /m) last\n        \
                RUN echo $item >> out\n    \
            END\n    \
            SAVE ARTIFACT out AS LOCAL out\n";
    let files =
        [("Earthfile", file), ("parts/a.txt", "a\n"), ("parts/b.txt", "b\n"), ("parts/c", "")];
    let sandbox = Sandbox::with("earth-patterns", &files)?;
    wbuild(&sandbox, &[], "context+all")?.success()?;
    ensure!(saved(&sandbox, "out")? == "a\nb\n/m\nlast\n", "{:?}", saved(&sandbox, "out")?);
    Ok(())
}

fn artifacts_keep_what_flags_say() -> Result<()> {
    let file = "VERSION 0.8\n\
        FROM base\n\
        made:\n    \
            WORKDIR /w\n    \
            RUN mkdir -p d/sub && echo a > d/a && echo b > d/sub/b && chown 5:6 d/a\n    \
            RUN ln -s nowhere broken && ln -s d/a link && touch -d '1999-01-02 00:00:00' d/a old\n    \
            SAVE ARTIFACT d\n    \
            SAVE ARTIFACT --symlink-no-follow broken\n    \
            SAVE ARTIFACT link\n    \
            SAVE ARTIFACT --keep-ts old\n    \
            SAVE ARTIFACT old new\n    \
            SAVE ARTIFACT --if-exists missing\n\
        all:\n    \
            WORKDIR /w\n    \
            USER 12:34\n    \
            COPY +made/d/a here.txt owned/\n    \
            COPY --keep-own +made/d/a kept/\n    \
            COPY --chown=7:8 --chmod=0640 +made/d/a given/\n    \
            COPY --symlink-no-follow +made/broken +made/link ./links/\n    \
            COPY --keep-ts +made/old +made/new times/\n    \
            COPY --if-exists +made/missing missing/\n    \
            COPY +made/d/s* glob/\n    \
            COPY --dir +made/d/s* dir/\n    \
            USER root\n    \
            RUN stat -c '%u:%g %a %n' */a owned/here.txt > out && \
                readlink links/broken >> out; cat links/link >> out; \
                stat -c '%Y %n' times/* >> out; find glob dir -type f >> out && ! test -e missing/missing\n    \
            SAVE ARTIFACT out AS LOCAL out\n";
    let sandbox = Sandbox::with("earth-flags", &[("Earthfile", file), ("here.txt", "")])?;
    wbuild(&sandbox, &[], "context+all")?.success()?;
    let got = saved(&sandbox, "out")?;
    let want = "7:8 640 given/a\n5:6 644 kept/a\n12:34 644 owned/a\n12:34 644 owned/here.txt\n\
        nowhere\na\n1587038400 times/new\n915235200 times/old\nglob/b\ndir/sub/b\n";
    ensure!(got == want, "{got}");
    Ok(())
}

fn artifacts_are_called_as_they_are_saved() -> Result<()> {
    let file = "VERSION 0.8\n\
        FROM base\n\
        all:\n    \
            RUN mkdir s && echo file > s/file && echo other > s/other\n    \
            SAVE ARTIFACT s/file my/name AS LOCAL out/\n    \
            SAVE ARTIFACT s/ /dir AS LOCAL out/\n    \
            SAVE ARTIFACT s/ /s3 AS LOCAL .\n    \
            SAVE ARTIFACT s/* many/ AS LOCAL each/\n    \
            SAVE ARTIFACT s/other x AS LOCAL renamed\n";
    let sandbox = Sandbox::with("earth-names", &[("Earthfile", file)])?;
    wbuild(&sandbox, &[], "context+all")?.success()?;
    for (path, want) in [
        ("out/name", "file\n"),
        ("out/dir/file", "file\n"),
        ("s3/other", "other\n"),
        ("each/file", "file\n"),
        ("each/other", "other\n"),
        ("renamed", "other\n"),
    ] {
        ensure!(saved(&sandbox, path)? == want, "{path}");
    }
    for path in ["out/file", "out/s", "s"] {
        ensure!(!sandbox.path(Path::new("context").join(path)).exists(), "{path} is there");
    }
    Ok(())
}

fn patterns_match_something() -> Result<()> {
    let file = "VERSION 0.8\n\
        FROM base\n\
        WORKDIR /work\n\
        copied:\n    \
            COPY nope* ./\n\
        hidden:\n    \
            COPY *.secret ./\n\
        of-others:\n    \
            COPY +saves/nope* ./\n\
        saved:\n    \
            RUN mkdir d\n    \
            SAVE ARTIFACT d/* AS LOCAL o/\n\
        saves:\n    \
            RUN echo x > x\n    \
            SAVE ARTIFACT x\n\
        passed-over:\n    \
            RUN mkdir d\n    \
            COPY --if-exists nope* *.secret +saves/nope* there ./\n    \
            COPY /th* +saves/x* absolute/\n    \
            RUN test \"$(cat there absolute/there)\" = \"$(cat absolute/x && cat absolute/x)\"\n    \
            SAVE ARTIFACT --if-exists d/* AS LOCAL o/\n";
    let files = [
        ("Earthfile", file),
        (".earthlyignore", "*.secret\n"),
        ("a.secret", "a"),
        ("there", "x\n"),
    ];
    let sandbox = Sandbox::with("earth-patterns", &files)?;
    for (target, pattern) in
        [("copied", "nope*"), ("hidden", "*.secret"), ("of-others", "nope*"), ("saved", "d/*")]
    {
        let run = wbuild(&sandbox, &[], &format!("context+{target}"))?.expect(1)?;
        run.says(pattern)?;
        run.says("does not exist")?;
    }
    wbuild(&sandbox, &[], "context+passed-over")?.success()?;
    Ok(())
}

fn deep_files_do_not_crash() -> Result<()> {
    let file = |functions: usize, blocks: usize| {
        let mut text = "VERSION 0.8\nFROM base\nall:\n    DO +F0\n".to_owned();
        for number in 0..functions {
            let next = match number + 1 {
                next if next < functions => format!("    DO +F{next}\n"),
                _ => "    RUN echo the-\"end\"\n".to_owned(),
            };
            let (begin, end) = ("    IF true\n".repeat(blocks), "    END\n".repeat(blocks));
            text += &format!("F{number}:\n    FUNCTION\n{begin}{next}{end}");
        }
        text
    };
    let sandbox = Sandbox::with("earth-deep", &[("Earthfile", &file(9, 10))])?;
    wbuild(&sandbox, &[], "context+all")?.success()?.says("the-end")?;
    sandbox.write("Earthfile", &file(60, 60))?;
    wbuild(&sandbox, &[], "context+all")?
        .expect(1)?
        .says("functions and blocks inside each other")?;
    Ok(())
}
