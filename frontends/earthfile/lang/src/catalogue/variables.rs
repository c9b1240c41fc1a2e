//! Pages of rules about variables.

use wbuild_dockerfile::{Example, Page};

pub(super) const UNDEFINED_VARIABLE: Page = Page {
    name: "UndefinedVariable",
    summary: "Variables are declared in the recipe that uses them",
    explanation: "\
An `ARG` holds in its own recipe, from its line on. One of the base, above the first target, is seen by \
the targets only with `--global` (before version 0.7 without it, too). A variable that nothing \
declares is empty: paths and names lose a part, and nothing says so.

Images set variables that the file does not show. So where there is an image, a variable is reported \
only if the file declares it elsewhere, or if its name is nearly that of one that is declared. What a \
shell sets for itself is not reported.",
    wrong: Example::file(
        "\
VERSION 0.8
FROM alpine
ARG release=1.0

package:
    COPY app-$release.tar .
",
    ),
    right: Example::file(
        "\
VERSION 0.8
FROM alpine
ARG --global release=1.0

package:
    COPY app-$release.tar .
",
    ),
};

pub(super) const UNUSED_ARGUMENT: Page = Page {
    name: "UnusedArgument",
    summary: "What ARG and LET declare is used",
    explanation: "\
Whoever gives a value to an argument that nothing uses expects something to change. Processes see all \
arguments of their recipe as environment variables, so nothing is reported if one is run below, nor \
are arguments with `--required`, or with `--global`.",
    wrong: Example::file(
        "\
VERSION 0.8
FROM alpine

package:
    ARG release=1.0
    COPY app.tar .
",
    ),
    right: Example::file(
        "\
VERSION 0.8
FROM alpine

package:
    ARG release=1.0
    COPY app-$release.tar .
",
    ),
};

pub(super) const SHADOWED_VARIABLE: Page = Page {
    name: "ShadowedVariable",
    summary: "No variable hides another one",
    explanation: "\
A `LET` takes the place of an `ARG` of the same name, an `ARG` that of a global one, and the variable \
of a `FOR` that of any: behind the loop it is gone. Who reads the recipe, or gives a value on the \
command line, may mean the other one.

`LET name=$name` is the way to make a variable of an argument that `SET` can change, and is not \
reported.",
    wrong: Example::file(
        "\
VERSION 0.8
ARG --global mode=dev
FROM alpine

build:
    ARG mode=release
    RUN make $mode
",
    ),
    right: Example::file(
        "\
VERSION 0.8
ARG --global mode=dev
FROM alpine

build:
    ARG kind=release
    RUN make $mode $kind
",
    ),
};

pub(super) const REPEATED_ARGUMENT: Page = Page {
    name: "RepeatedArgument",
    summary: "An argument is declared once",
    explanation: "\
Before version 0.8 an `ARG` that is there already keeps its value, so the default of a second one has \
no effect. From version 0.8 on it is an error.",
    wrong: Example::file(
        "\
# check=skip=OldVersion
VERSION 0.7
FROM alpine

build:
    ARG mode=dev
    ARG mode=release
    RUN make $mode
",
    ),
    right: Example::file(
        "\
# check=skip=OldVersion
VERSION 0.7
FROM alpine

build:
    ARG mode=release
    RUN make $mode
",
    ),
};

pub(super) const SECRETS_USED_IN_ARG_OR_ENV: Page = Page {
    name: "SecretsUsedInArgOrEnv",
    summary: "Secrets are no values of ARG or ENV",
    explanation: "\
What `ENV` sets is part of the image, for everybody who has it. Values of `ARG` are seen by all \
processes of the recipe, are part of what steps are cached by, and stand on command lines. A secret is \
given to one command, and leaves no trace: `RUN --secret NAME`, with `wbuild --secret id=NAME,…`.

Names are judged by their words, such as `token`, `password` and `key`.",
    wrong: Example::file(
        "\
VERSION 0.8
FROM alpine

publish:
    ARG UPLOAD_TOKEN
    RUN upload \"$UPLOAD_TOKEN\"
",
    ),
    right: Example::file(
        "\
VERSION 0.8
FROM alpine

publish:
    RUN --secret UPLOAD_TOKEN upload \"$UPLOAD_TOKEN\"
",
    ),
};
