//! The documentation of the build checks: `frontends/earthfile/docs`, made of the pages beside the
//! rules. `UPDATE=1` rewrites it.

mod support;

use support::common::IMAGE;
use support::common::pages::{self, contents, golden};
use support::common::recorder::Recorder;
use wbuild_dockerfile::{CheckRule as _, Coded as _, Example};
use wbuild_earthfile::{Rule, build, describe};

const RULES: &str = "\
# Build checks of Earthfiles

`wbuild --check ./dir+target` looks for what can be built but is doubtful in a target and in what it \
needs, `wbuild --frontend=earthfile --check ./dir` in the whole Earthfile. The checks go by the text of the one file: nothing is run, \
no image and no other file is looked at. Which rules run is set right above VERSION:

```dockerfile
# check=skip=OldVersion,JSONArgsRecommended;error=true
VERSION 0.7
```

| setting | |
| --- | --- |
| `skip=Rule,Rule` | these rules do not run; `skip=all`: none does |
| `error=true` | a finding fails the check |
| `experimental=Rule,Rule` | these experimental rules run, also if all are skipped; `experimental=all`: all of them |

The settings end at the first blank; what follows is a remark. In a comment right above a command, a \
target or a function `# check=skip=…` and `# check=experimental=…` hold for this alone.

This document is generated: `UPDATE=1 cargo test -p wbuild-earthfile --test docs`.

";

fn recorder(example: &Example) -> Recorder {
    let request = format!("image alpine {IMAGE}\n{}", example.world);
    let mut recorder = Recorder::new(example.file.as_bytes().to_vec(), &request);
    recorder.file_name = Some("Earthfile");
    recorder
}

#[test]
fn rules() {
    let mut out = RULES.to_owned();
    contents::<Rule>(&mut out);
    let check = |example: &Example| {
        let mut recorder = recorder(example);
        (recorder.attempt(|recorder| describe::check(recorder, None)), recorder)
    };
    for rule in Rule::ALL {
        assert_eq!(Rule::named(rule.name()), Some(*rule));
        pages::rule(rule.page(), check, &mut out);
    }
    golden("rules.md", &out);
}

/// What is recommended can be built.
#[test]
fn right_examples() {
    for rule in Rule::ALL {
        let right = &rule.page().right;
        let text = right.file;
        let parsed = wbuild_earthfile::parse(0, text.as_bytes());
        for target in parsed.file.targets.iter().map(|target| target.name.as_str()) {
            let mut recorder = recorder(right);
            recorder.targets = vec![target.to_owned()];
            let fine = recorder.attempt(|recorder| build(recorder));
            assert!(fine, "{}: {}", rule.name(), recorder.out);
        }
    }
}
