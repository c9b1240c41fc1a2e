//! The documentation of what is said about a file: `frontends/dockerfile/docs`.
//!
//! It is made of the pages beside the codes. Each example is built: the wrong one must end in the
//! page's code and in no other, and what is then said is printed; the right one must build and leave
//! nothing to say. `UPDATE=1` rewrites the documents.

mod support;

use std::fmt::Write as _;

use support::pages::{self, contents, example, golden};
use support::recorder::Recorder;
use support::{IMAGE, render};
use wbuild_dockerfile::{CheckRule, Code, Example, Page, Rule, Severity, describe};

#[test]
fn errors() {
    let introduction = "\
What wbuild says of a Dockerfile that it cannot build, by the code of the message. A report shows \
the code in brackets, `error[unknown-flag]`, if there is more than one message. Each page shows a \
file that is wrong, what wbuild says of it, and the file mended.

This document is generated: `UPDATE=1 cargo test -p wbuild-dockerfile --test docs`.
";
    let mut pages: Vec<&Page> = Code::ALL.iter().map(|code| code.page()).collect();
    pages.sort_by_key(|page| page.name);
    for pair in pages.windows(2) {
        assert_ne!(pair[0].name, pair[1].name, "two pages have one name");
    }
    publish("errors.md", "Errors of Dockerfiles", introduction, &pages);
}

#[test]
fn rules() {
    let mut out = RULES.to_owned();
    contents::<Rule>(&mut out);
    let check = |example: &Example| {
        let mut recorder = build(example);
        (recorder.attempt(|recorder| describe::check(recorder, None)), recorder)
    };
    for rule in Rule::ALL {
        assert_eq!(Rule::named(rule.name()), Some(*rule));
        pages::rule(rule.page(), check, &mut out);
    }
    golden("rules.md", &out);
}

const RULES: &str = "\
# Build checks

`wbuild build --check .` looks for what can be built but is doubtful; an ordinary build reports the \
same. Which rules run is set at the top of the Dockerfile:

```dockerfile
# check=skip=JSONArgsRecommended,SecretsUsedInArgOrEnv;error=true
```

| setting | |
| --- | --- |
| `skip=Rule,Rule` | these rules do not run; `skip=all`: none does |
| `error=true` | a finding fails the build |
| `experimental=Rule,Rule` | these experimental rules run, also if all are skipped; `experimental=all`: all of them |

The settings end at the first blank; what follows is a remark. `--build-arg \
BUILDKIT_DOCKERFILE_CHECK=…` takes the place of the line. In a comment right above an instruction \
`# check=skip=…` and `# check=experimental=…` hold for this instruction alone.

This document is generated: `UPDATE=1 cargo test -p wbuild-dockerfile --test docs`.

";

/// Writes or checks a document of pages.
fn publish(file: &str, title: &str, introduction: &str, pages: &[&Page]) {
    let mut out = format!("# {title}\n\n{introduction}\n");
    for page in pages {
        writeln!(out, "- [`{0}`](#{0}): {1}", page.name, page.summary).expect("a String takes all");
    }
    for page in pages {
        self::page(page, &mut out);
    }
    golden(file, &out);
}

fn page(page: &Page, out: &mut String) {
    let Page { name, summary, explanation, wrong, right } = page;
    assert!(summary.ends_with('.') && !summary.trim_end_matches('.').contains(". "), "{name}");
    let mut build = build(wrong);
    build.build();
    // Advice is given by rules, which have pages of their own.
    build.diagnostics.retain(|diagnostic| diagnostic.severity != Severity::Warning);
    assert!(!build.diagnostics.is_empty(), "{name}: the wrong example is right");
    for diagnostic in &build.diagnostics {
        assert_eq!(diagnostic.code, *name, "the wrong example ends in more than its code");
    }
    let said = render(&build.diagnostics, &build.sources);
    write!(out, "\n## `{name}`\n\n{summary}\n\n{explanation}\n\n").expect("a String takes all");
    let long = if wrong.world.starts_with("pad ") { ", with 16 MiB more behind it" } else { "" };
    example(&format!("Wrong{long}"), wrong, out);
    write!(out, "What wbuild says:\n\n```text\n{}\n```\n\n", said.trim_end())
        .expect("a String takes all");
    let mut build = self::build(right);
    assert!(build.build(), "{name}: the right example does not build: {}", build.out);
    build.diagnostics.retain(|diagnostic| diagnostic.severity != Severity::Warning);
    let said = render(&build.diagnostics, &build.sources);
    assert!(said.is_empty(), "{name}: of the right example is said: {said}");
    // Where the fault lies outside, there is nothing to mend here.
    if (wrong.file, wrong.options, wrong.ignore) != (right.file, right.options, right.ignore) {
        example("Right", right, out);
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
}

/// An example as a case of the tests.
fn build(example: &Example) -> Recorder {
    let mut request = format!("image alpine {IMAGE}\nimage busybox {IMAGE}\n");
    let mut words = example.options.split_whitespace();
    while let (Some(option), Some(value)) = (words.next(), words.next()) {
        let line = match option {
            "--target" => format!("opt target={value}"),
            "--build-arg" => format!("opt build-arg:{value}"),
            "--build-context" => {
                let (name, source) = value.split_once('=').expect("name and source");
                let (kind, path) = source.split_once("://").unwrap_or(("local", source));
                format!("context {name} {kind} {path}")
            }
            other => panic!("the test does not know the option {other}"),
        };
        writeln!(request, "{line}").expect("a String takes all");
    }
    if !example.ignore.is_empty() {
        let content = example.ignore.replace('\n', "\\n");
        writeln!(request, "file context .dockerignore {content}").expect("a String takes all");
    }
    request.push_str(example.world);
    Recorder::new(example.file.as_bytes().to_vec(), &request)
}
