//! Pages of rules about how things are written.

use wbuild_dockerfile::{Example, Page};

pub(super) const OLD_VERSION: Page = Page {
    name: "OldVersion",
    summary: "The file is of the newest version of the language",
    explanation: "\
Files of older versions are built as they always were, and that keeps them from what came later. What \
changes from one version to the next:

| from | |
| --- | --- |
| none or 0.5 to 0.6 | `FOR`; what is saved counts only in targets that `BUILD` names |
| 0.6 to 0.7 | arguments of the base that targets use need `ARG --global`; `$(…)` is replaced in every command, not in arguments alone; `SAVE ARTIFACT` keeps owners |
| 0.7 to 0.8 | functions begin with `FUNCTION`, not `COMMAND`; an argument cannot be declared twice; the files of a `CACHE` are no part of the image without `--persist`; a cache with an id is that of all files |",
    wrong: Example::file(
        "\
VERSION 0.7
FROM alpine

build:
    RUN make
",
    ),
    right: Example::file(
        "\
VERSION 0.8
FROM alpine

build:
    RUN make
",
    ),
};

pub(super) const REDUNDANT_FEATURE: Page = Page {
    name: "RedundantFeature",
    summary: "VERSION switches on only what the version does not have",
    explanation: "\
A feature that was an experiment once is part of a later version, and its flag has no effect there.",
    wrong: Example::file(
        "\
VERSION --wait-block 0.8
FROM alpine

build:
    RUN make
",
    ),
    right: Example::file(
        "\
VERSION 0.8
FROM alpine

build:
    RUN make
",
    ),
};

pub(super) const DEPRECATED_FORM: Page = Page {
    name: "DeprecatedForm",
    summary: "Nothing is written in a form that the language has given up",
    explanation: "\
| old | new |
| --- | --- |
| `BUILD --build-arg NAME=value +target`, and `FROM` | `BUILD +target --NAME=value` |
| `COPY --build-arg NAME=value +target/path .` | `COPY (+target/path --NAME=value) .` |
| `WITH DOCKER --build-arg NAME=value --load name=+target` | `WITH DOCKER --load name=(+target --NAME=value)` |
| `RUN --with-docker command` | `WITH DOCKER`, `RUN command`, `END` |
| `RUN --secret NAME=+secrets/id` | `RUN --secret NAME=id` |
| `SAVE IMAGE --cache-hint` | nothing: every step is cached |

`FROM DOCKERFILE --build-arg` is no old form: it is for the Dockerfile.",
    wrong: Example::file(
        "\
VERSION 0.8
FROM alpine

build:
    ARG mode=dev
    RUN make $mode

all:
    BUILD --build-arg mode=release +build
",
    ),
    right: Example::file(
        "\
VERSION 0.8
FROM alpine

build:
    ARG mode=dev
    RUN make $mode

all:
    BUILD +build --mode=release
",
    ),
};

pub(super) const LEGACY_KEY_VALUE_FORMAT: Page = Page {
    name: "LegacyKeyValueFormat",
    summary: "ENV has an equals sign between name and value",
    explanation: "\
`ENV name value` takes the rest of the line as the value, `ENV name=value` the next word, with quotes \
around blanks. Only the second form looks like what it does.",
    wrong: Example::file(
        "\
VERSION 0.8
FROM alpine
ENV MODE release
",
    ),
    right: Example::file(
        "\
VERSION 0.8
FROM alpine
ENV MODE=release
",
    ),
};

pub(super) const SEVERAL_ASSIGNMENTS: Page = Page {
    name: "SeveralAssignments",
    summary: "ENV and ARG are written once for each variable",
    explanation: "\
What stands behind the first `=` is the value, to the end of the line. In a Dockerfile the same line \
sets several variables, so it is easily brought along.",
    wrong: Example::file(
        "\
VERSION 0.8
FROM alpine
ENV MODE=release LEVEL=3
",
    ),
    right: Example::file(
        "\
VERSION 0.8
FROM alpine
ENV MODE=release
ENV LEVEL=3
",
    ),
};

pub(super) const CONSTANT_CONDITION: Page = Page {
    name: "ConstantCondition",
    summary: "A condition can hold and not hold",
    explanation: "\
A condition without variables and files is the same in every build. Often a `$` is missing, or a block \
was switched off for a while. A process is run for it all the same.",
    wrong: Example::file(
        "\
VERSION 0.8
FROM alpine

build:
    ARG mode=dev
    IF [ \"mode\" = \"dev\" ]
        RUN make
    END
",
    ),
    right: Example::file(
        "\
VERSION 0.8
FROM alpine

build:
    ARG mode=dev
    IF [ \"$mode\" = \"dev\" ]
        RUN make
    END
",
    )
    .world("outcome 0 [ \"$mode\" = \"dev\" ]\n"),
};

pub(super) const JSON_ARGS_RECOMMENDED: Page = Page {
    name: "JSONArgsRecommended",
    summary: "CMD and ENTRYPOINT are JSON arrays, so that signals reach the program",
    explanation: "\
A command that is not an array is run by a shell. The shell gets the signal that stops a container, \
and most shells do not hand it on: the program is killed after a while instead of being told to end.",
    wrong: Example::file(
        "\
VERSION 0.8
FROM alpine
ENTRYPOINT server --port 80
",
    ),
    right: Example::file(
        "\
VERSION 0.8
FROM alpine
ENTRYPOINT [\"server\", \"--port\", \"80\"]
",
    ),
};

pub(super) const INVALID_DEFINITION_DESCRIPTION: Page = Page {
    name: "InvalidDefinitionDescription",
    summary: "A comment directly above a target, a function or an ARG begins with its name",
    explanation: "\
`wbuild --call=targets` and `--call=outline` show the comments that begin with the name of what stands \
below. Others are for readers of the file; an empty line sets them apart.",
    wrong: Example::file(
        "\
# check=experimental=InvalidDefinitionDescription
VERSION 0.8
FROM alpine

# This makes the program.
build:
    RUN make
",
    ),
    right: Example::file(
        "\
# check=experimental=InvalidDefinitionDescription
VERSION 0.8
FROM alpine

# build makes the program.
build:
    RUN make
",
    ),
};
