//! Pages about the build checks themselves. What they find has pages of its own, in `rules`.

use super::{Example, Page};

pub(super) const UNKNOWN_RULE: Page = Page {
    name: "unknown-rule",
    summary: "A setting of the build checks names a rule that does not exist.",
    explanation: "\
The name in `# check=skip=…` or `# check=experimental=…` has no effect. Names are written as the \
findings show them, capitals included; a rule that is not known here may belong to another version \
of the language.

[rules.md](rules.md) lists all of them.",
    wrong: Example::file(
        "\
# check=skip=FromAsCase
FROM alpine AS build
",
    ),
    right: Example::file(
        "\
# check=skip=FromAsCasing
FROM alpine as build
",
    ),
};

pub(super) const FAILED_CHECKS: Page = Page {
    name: "failed-checks",
    summary: "The build checks have found something, and the file makes that an error.",
    explanation: "\
With `# check=error=true` at the top of the file, or in the build argument \
`BUILDKIT_DOCKERFILE_CHECK`, a build ends if there is any finding. The findings are shown before.

Mend what was found. If a rule does not fit the file, skip it by its name, for the file or in a \
comment above one instruction: `# check=skip=…`.",
    wrong: Example::file(
        "\
# check=error=true
FROM alpine as build
",
    ),
    right: Example::file(
        "\
# check=error=true
FROM alpine AS build
",
    ),
};
