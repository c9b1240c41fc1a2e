//! Pages of documentation, made from the catalogue of the language. `UPDATE=1` rewrites them.

mod support;

use std::fmt::Write as _;
use std::path::Path;

use support::recorder::Recorder;
use wbuild_dockerfile::{Example, Rule, describe};

/// Images that examples start from.
const WORLD: &str = r#"
image alpine {"os":"linux","architecture":"amd64","config":{"Env":["PATH=/bin"]},"rootfs":{"diff_ids":["sha256:0"]}}
image alpine:3.20 {"os":"linux","architecture":"amd64","config":{"Env":["PATH=/bin"]},"rootfs":{"diff_ids":["sha256:0"]}}
"#;

const HEAD: &str = "\
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
";

/// Compares with a page, or writes it.
fn page(name: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if std::env::var_os("UPDATE").is_some_and(|value| value == "1") {
        std::fs::create_dir_all(file.parent().expect("it has one")).expect("a folder can be made");
        std::fs::write(&file, text).expect("the page can be written");
    }
    let present = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(present == text, "{name} is not what the catalogue says; UPDATE=1 rewrites it");
}

#[test]
fn the_page_of_rules_is_current() {
    let mut text = HEAD.to_owned();
    let mut add = |part: String| write!(text, "\n{part}").expect("a String takes all");
    for rule in Rule::ALL {
        let page = rule.page();
        let note = if rule.experimental() { " (experimental)" } else { "" };
        add(format!("## {}\n\n{}{note}.\n\n{}\n", page.name, page.summary, page.explanation));
        for (title, example) in [("Reported", page.wrong), ("Not reported", page.right)] {
            add(format!("{title}:\n\n```dockerfile\n{}```\n", example.file));
            if !example.ignore.is_empty() {
                add(format!("with a `.dockerignore` of\n\n```text\n{}```\n", example.ignore));
            }
        }
    }
    page("rules.md", &text);
}

#[test]
fn examples_of_rules_show_their_rule_and_no_other() {
    for rule in Rule::ALL {
        let page = rule.page();
        assert_eq!(findings(&page.wrong), [rule.name()], "what is wrong for {}", page.name);
        assert!(findings(&page.right).is_empty(), "what is right for {}", page.name);
        assert_eq!(Rule::named(page.name), Some(*rule));
    }
}

/// The codes of what a check reports.
fn findings(example: &Example) -> Vec<String> {
    let ignore = example.ignore.replace('\n', "\\n");
    let request = format!("{WORLD}\n{}\nfile context .dockerignore {ignore}", example.world);
    let mut recorder = Recorder::new(example.file.as_bytes().to_vec(), &request);
    recorder.quiet = true;
    let out = recorder.with(|recorder| describe::check(recorder, None));
    assert!(!out.contains("failed ("), "{out}");
    let codes = out.lines().filter_map(|line| line.strip_prefix("warning["));
    codes.filter_map(|line| Some(line.split_once(']')?.0.to_owned())).collect()
}
