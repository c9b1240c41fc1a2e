//! The Dockerfile frontend, as the component that builds run, over input that is large, deep or
//! broken: it ends in a result or in a failure that says why, and never crashes.

mod common;

use std::path::Path;
use std::sync::{Arc, Mutex};

use common::*;
use proptest::prelude::*;
use wbuild_api::extension::Frontend;
use wbuild_graph::{Definition, Failure, FailureKind, GraphLimits};

/// What the frontend reads.
#[derive(Default)]
struct Input {
    file: Vec<u8>,
    ignore: Option<Vec<u8>>,
    config: Option<String>,
}

impl Input {
    fn file(text: impl Into<Vec<u8>>) -> Input {
        Input { file: text.into(), ..Input::default() }
    }

    fn ignore(text: impl Into<Vec<u8>>) -> Input {
        Input { ignore: Some(text.into()), ..Input::file("FROM scratch\nCOPY . /\n") }
    }

    fn config(text: impl Into<String>) -> Input {
        Input { config: Some(text.into()), ..Input::file("FROM base\nRUN true\n") }
    }
}

/// Builds within the limits that every build has.
fn build(frontend: &Arc<dyn Frontend>, input: Input) -> (usize, Result<(), Failure>) {
    let mut world = World::new("", &[]);
    let inner = Arc::get_mut(&mut world).expect("nobody else has it yet");
    inner.definition = Mutex::new(Definition::new("test", GraphLimits::default()));
    inner.file = input.file;
    inner.files.extend(input.ignore.map(|text| (".dockerignore".to_owned(), text)));
    if let Some(config) = input.config {
        inner.config = config;
    }
    let result = run(frontend.build(world.host()));
    let results = world.results.lock().expect("lock").len();
    (results, result)
}

/// A result, or a failure of the input and not of the frontend.
fn ends_well(frontend: &Arc<dyn Frontend>, input: Input) -> Result<(), FailureKind> {
    let (results, result) = build(frontend, input);
    match result {
        Ok(()) => {
            assert_eq!(results, 1, "one platform, one image");
            Ok(())
        }
        Err(failure) => {
            let text = render(&failure);
            assert_ne!(failure.kind, FailureKind::Internal, "{text}");
            assert!(!failure.message.is_empty());
            Err(failure.kind)
        }
    }
}

fn dockerfile() -> Arc<dyn Frontend> {
    load(&host(), "dockerfile").frontend().expect("a frontend")
}

const MIB: usize = 1 << 20;

fn lines(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).map(line).collect()
}

/// What people write, over and over.
fn ordinary(size: usize) -> String {
    let mut text = String::from("# syntax=docker/dockerfile:1\nARG VERSION=3.20\n");
    let mut number = 0;
    while text.len() < size {
        let base = if number == 0 { "alpine:${VERSION}".to_owned() } else { "s0".to_owned() };
        text += &format!(
            "
FROM {base} AS s{number}
ARG TARGETARCH
LABEL org.opencontainers.image.title=\"part {number}\" maintainer=\"nobody <nobody@example.org>\"
ENV PATH=/opt/part{number}/bin:$PATH LANG=C.UTF-8
WORKDIR /src/part{number}
COPY --chown=1000:1000 part{number}/package.json part{number}/package-lock.json ./
RUN --mount=type=cache,target=/root/.cache,id=part{number} \\
    apt-get update && \\
    # what the build needs
    apt-get install -y --no-install-recommends \\
        build-essential ca-certificates curl git && \\
    rm -rf /var/lib/apt/lists/*
COPY part{number} .
RUN <<EOF
set -eu
./configure --prefix=/opt/part{number} --host=$TARGETARCH
make -j
make install
EOF
HEALTHCHECK --interval=30s --timeout=3s CMD curl -f http://localhost:{} || exit 1
EXPOSE {}
ENTRYPOINT [\"/opt/part{number}/bin/run\", \"--verbose\"]
CMD [\"serve\"]
",
            1000 + number % 60000,
            1000 + number % 60000,
        );
        number += 1;
    }
    text += "\nFROM scratch\n";
    for stage in 0..number {
        text += &format!("COPY --from=s{stage} /opt/part{stage} /opt/part{stage}\n");
    }
    text
}

#[test]
fn large_and_deep_files_build_within_the_limits() {
    let frontend = dockerfile();
    let nested = |open: &str, close: &str, depth: usize| open.repeat(depth) + &close.repeat(depth);
    let long = "x".repeat(MIB);
    let from = |text: String| format!("FROM scratch\n{text}");
    let onbuild = r#"{"os":"linux","architecture":"amd64","config":{"OnBuild":["#.to_owned();
    let env = r#"{"os":"linux","architecture":"amd64","config":{"Env":["#.to_owned();
    let list = |count, item: &str| vec![item; count].join(",");
    for (name, input) in [
        ("a 1 MiB file that people could have written", Input::file(ordinary(MIB))),
        ("100,000 comments", Input::file(from(lines(100_000, |n| format!("# comment {n}\n"))))),
        ("50,000 steps", Input::file(from(lines(50_000, |n| format!("RUN echo {n}\n"))))),
        ("100,000 labels", Input::file(from(lines(100_000, |n| format!("LABEL l{n}=v\n"))))),
        ("100,000 labels in one", Input::file(from(format!("LABEL {}", "a=b ".repeat(100_000))))),
        (
            "20,000 variables",
            Input::file(from(lines(20_000, |n| format!("ENV e{n}=$e{}\n", n / 2)))),
        ),
        ("20,000 triggers", Input::file(from("ONBUILD RUN true\n".repeat(20_000)))),
        (
            "10,000 stages",
            Input::file(lines(10_000, |n| format!("FROM a{} AS s{n}\nRUN true\n", n % 9))),
        ),
        (
            "10,000 stages, each on the one above",
            Input::file(lines(10_000, |n| match n {
                0 => "FROM a AS s0\n".to_owned(),
                n => format!("FROM s{} AS s{n}\nRUN true\n", n - 1),
            })),
        ),
        (
            "10,000 stages, each with a file of the one above",
            Input::file(lines(10_000, |n| match n {
                0 => "FROM a AS s0\nRUN true\n".to_owned(),
                n => format!("FROM a AS s{n}\nCOPY --from=s{} /a /b\n", n - 1),
            })),
        ),
        ("100,000 continuations", Input::file(from(format!("RUN a{}", " \\\n b".repeat(100_000))))),
        (
            "100,000 empty ones",
            Input::file(from(format!("RUN a{}\n b", " \\\n\n".repeat(100_000)))),
        ),
        ("20,000 heredocs", Input::file(from("RUN <<E\necho\nE\n".repeat(20_000)))),
        (
            "20,000 heredocs in one instruction",
            Input::file(from(format!(
                "RUN cat{}\n{}",
                " <<E".repeat(20_000),
                "E\n".repeat(20_000)
            ))),
        ),
        ("50,000 shifts that are no heredocs", Input::file(from("RUN a << B\n".repeat(50_000)))),
        ("50,000 in one line", Input::file(from(format!("RUN a{}\n", " << B".repeat(50_000))))),
        (
            "a word of 1 MiB",
            Input::file(from(format!("RUN {long}\nENV a={long}\nWORKDIR /{long}\n"))),
        ),
        ("20,000 sources", Input::file(from(format!("COPY {}/\n", "a ".repeat(20_000))))),
        ("150,000 ports", Input::file(from(format!("EXPOSE {}\n", "1-30000 ".repeat(5))))),
        (
            "a command of 200,000 words",
            Input::file(from(format!("CMD [{}]", list(200_000, "\"a\"")))),
        ),
        ("brackets", Input::file(from(format!("RUN {}", nested("[", "]", 200_000))))),
        ("objects", Input::file(from(format!("CMD [{}]", nested("{\"a\":[", "]}", 50_000))))),
        ("20,000 flags", Input::file(from(format!("COPY {} a b", "--exclude=x ".repeat(20_000))))),
        (
            "5,000 mounts",
            Input::file(from(format!("RUN {}true", "--mount=type=tmpfs,target=/t ".repeat(5_000)))),
        ),
        ("an ignore file of 90,000 lines", Input::ignore(lines(90_000, |n| format!("a/{n}/**\n")))),
        ("a deep pattern", Input::ignore("a/../".repeat(200_000))),
        (
            "a config of 20,000 variables",
            Input::config(env.clone() + &list(20_000, "\"a=b\"") + "]}}"),
        ),
        (
            "a config of 5,000 triggers",
            Input::config(onbuild.clone() + &list(5_000, "\"RUN true\"") + "]}}"),
        ),
    ] {
        let before = std::time::Instant::now();
        let ended = ends_well(&frontend, input);
        println!("{name}: {:?}", before.elapsed());
        assert_eq!(ended, Ok(()), "{name}");
    }
}

#[test]
fn input_that_nobody_can_mean_ends_in_words() {
    let frontend = dockerfile();
    let nested = |open: &str, close: &str, depth: usize| open.repeat(depth) + &close.repeat(depth);
    let from = |text: String| format!("FROM scratch\n{text}");
    let laughs = |word: &str| from(lines(60, |_| format!("ENV a={word}\n")));
    use FailureKind::*;
    for (name, input, kind) in [
        ("nothing", Input::file(""), Invalid),
        ("NUL bytes", Input::file(vec![0; MIB]), Invalid),
        ("more than 16 MiB", Input::file(vec![b'\n'; 17 * MIB]), Invalid),
        (
            "100,000 words that are no instructions",
            Input::file("FORM a\n".repeat(100_000)),
            Invalid,
        ),
        (
            "100,000 flags that nobody knows",
            Input::file(from(format!("RUN {}", lines(100_000, |n| format!("--f{n} "))))),
            Invalid,
        ),
        (
            "words inside words",
            Input::file(from(format!("ENV a={}", nested("${a:-", "}", 10_000)))),
            Invalid,
        ),
        (
            "patterns inside patterns",
            Input::file(from(format!("ENV a={}", nested("${a#", "}", 10_000)))),
            Invalid,
        ),
        (
            "an open word in each word",
            Input::file(from(format!("ENV a={}", "${a:-".repeat(200_000)))),
            Invalid,
        ),
        ("a heredoc without an end", Input::file(from("RUN <<E\n".repeat(100_000))), Invalid),
        ("values that double", Input::file(laughs("${a:-x}$a$a")), Invalid),
        ("values that double by replacing", Input::file(laughs("${a:-xx}${a//x/xx}")), Invalid),
        (
            "10,000 images that are not there",
            Input::file(
                lines(10_000, |n| format!("FROM missing{n} AS s{n}\n"))
                    + "FROM scratch\n"
                    + &lines(10_000, |n| format!("COPY --from=s{n} / /\n")),
            ),
            NotFound,
        ),
        ("a pattern of 1 MiB", Input::ignore("x".repeat(MIB)), Invalid),
        ("open ends in an ignore file", Input::ignore("!\n".repeat(100_000)), Invalid),
        ("a config that is none", Input::config("nothing"), Invalid),
        ("a config of brackets", Input::config("[".repeat(MIB)), Invalid),
        ("a config of objects", Input::config(nested("{\"config\":", "}", 100_000)), Invalid),
        (
            "a trigger of words inside words",
            Input::config(format!(
                r#"{{"config":{{"OnBuild":["ENV a={}"]}}}}"#,
                nested("${a:-", "}", 10_000)
            )),
            Invalid,
        ),
    ] {
        let before = std::time::Instant::now();
        let ended = ends_well(&frontend, input);
        println!("{name}: {:?}", before.elapsed());
        assert_eq!(ended, Err(kind), "{name}");
    }
}

/// The Dockerfiles of the language's case folders.
fn cases() -> Vec<Vec<u8>> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../frontends/dockerfile/lang/tests");
    let mut files = Vec::new();
    for kind in ["parse", "errors", "lower"] {
        let folder = std::fs::read_dir(tests.join(kind)).expect("case folders");
        let mut paths: Vec<_> = folder.map(|entry| entry.expect("listed").path()).collect();
        paths.sort();
        let read =
            |path: &std::path::PathBuf| std::fs::read(path.join("Dockerfile")).expect("read");
        files.extend(paths.iter().map(read));
    }
    files
}

/// A change of a file.
#[derive(Clone, Debug)]
enum Change {
    Drop,
    Repeat,
    Put(Vec<u8>),
}

fn changed() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<&[u8]> = vec![
        b"\\\n",
        b"\n",
        b"<<E ",
        b"\nE\n",
        b"${a:-",
        b"}",
        b"\"",
        b"'",
        b"[\"",
        b"]",
        b" --from=",
        b"\0",
        b"\xff",
        b"FROM a AS b\n",
        b"ONBUILD ",
        b"--mount=type=bind,from=b ",
        b"$",
        b"=",
        b" ",
        b"#",
    ];
    let piece = prop::sample::select(pieces).prop_map(<[u8]>::to_vec);
    let change = prop_oneof![
        Just(Change::Drop),
        Just(Change::Repeat),
        piece.prop_map(Change::Put),
        prop::collection::vec(any::<u8>(), 1..4).prop_map(Change::Put),
    ];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), 0..40_usize, change), 0..6);
    (prop::sample::select(cases()), changes).prop_map(|(mut file, changes)| {
        for (at, length, change) in changes {
            let at = at.index(file.len() + 1);
            let range = at..(at + length).min(file.len());
            match change {
                Change::Drop => drop(file.splice(range, [])),
                Change::Repeat => drop(file.splice(at..at, file[range].to_vec())),
                Change::Put(bytes) => drop(file.splice(at..at, bytes)),
            }
        }
        file
    })
}

#[test]
fn what_is_broken_ends_in_words() {
    let frontend = dockerfile();
    let config = ProptestConfig { cases: 500, failure_persistence: None, ..Default::default() };
    let bytes = prop::collection::vec(any::<u8>(), 0..300);
    let broken = (changed(), prop::option::of(bytes.clone()), prop::option::of(bytes));
    proptest!(config, |((file, ignore, config) in broken)| {
        let config = config.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let _ = ends_well(&frontend, Input { file, ignore, config });
    });
}
