//! Pages of rules about how a file is written.

use crate::catalogue::{Example, Page};

pub(super) const STAGE_NAME_CASING: Page = Page {
    name: "StageNameCasing",
    summary: "Names of stages are written in small letters",
    explanation: "\
Names of stages are compared without regard to case, so `AS Build` and `--from=build` are the same \
stage. Writing the name in one way everywhere, in small letters as image names are, keeps it easy to \
search for.",
    wrong: Example::file(
        "\
FROM alpine AS Build
RUN make
",
    ),
    right: Example::file(
        "\
FROM alpine AS build
RUN make
",
    ),
};

pub(super) const FROM_AS_CASING: Page = Page {
    name: "FromAsCasing",
    summary: "AS is written in the same case as FROM",
    explanation: "\
Keywords may be written in capitals or in small letters. A line that mixes both reads as if the two \
words were of different kinds.",
    wrong: Example::file("FROM alpine as build\n"),
    right: Example::file("FROM alpine AS build\n"),
};

pub(super) const NO_EMPTY_CONTINUATION: Page = Page {
    name: "NoEmptyContinuation",
    summary: "No empty line stands within an instruction",
    explanation: "\
An empty line behind a line that ends in the escape character does not end the instruction: it is \
skipped, and the next line still belongs to it. That is easy to overlook, and a later version of the \
language may refuse it.

Remove the empty line, or make a comment of it: lines that begin with `#` may stand between continued \
lines.",
    wrong: Example::file("\
FROM alpine
RUN apk update && \\

    apk add curl
"),
    right: Example::file("\
FROM alpine
RUN apk update && \\
    # a tool for health checks
    apk add curl
"),
};

pub(super) const CONSISTENT_INSTRUCTION_CASING: Page = Page {
    name: "ConsistentInstructionCasing",
    summary: "All instructions of a file are written in the same case",
    explanation: "\
Instructions may be written in capitals or in small letters, and the file should keep to one of the \
two. What most instructions of the file have is taken as what is meant; if both are as frequent, \
capitals are. `Run`, which is neither, is always reported.",
    wrong: Example::file(
        "\
FROM alpine
run apk add curl
COPY . /src
",
    ),
    right: Example::file(
        "\
FROM alpine
RUN apk add curl
COPY . /src
",
    ),
};

pub(super) const LEGACY_KEY_VALUE_FORMAT: Page = Page {
    name: "LegacyKeyValueFormat",
    summary: "ENV and LABEL have an equals sign between name and value",
    explanation: "\
`ENV NAME some words` is an old form that gives one name all of the rest of the line. It cannot set \
two variables, and with one more `=` on the line it would mean something else. \
`ENV NAME=\"some words\"` has neither fault.",
    wrong: Example::file(
        "\
FROM alpine
ENV GREETING hello world
",
    ),
    right: Example::file(
        "\
FROM alpine
ENV GREETING=\"hello world\"
",
    ),
};

pub(super) const MAINTAINER_DEPRECATED: Page = Page {
    name: "MaintainerDeprecated",
    summary: "The author of an image is named by a label, not by MAINTAINER",
    explanation: "\
`MAINTAINER` fills one field of the image that few tools show. The label \
`org.opencontainers.image.authors` says the same, and tools that read labels find it beside the \
others.",
    wrong: Example::file(
        "\
FROM alpine
MAINTAINER me@example.org
",
    ),
    right: Example::file(
        "\
FROM alpine
LABEL org.opencontainers.image.authors=\"me@example.org\"
",
    ),
};

pub(super) const INVALID_DEFINITION_DESCRIPTION: Page = Page {
    name: "InvalidDefinitionDescription",
    summary: "A comment directly above a stage or an ARG begins with its name",
    explanation: "\
`wbuild build --call=targets` and `--call=outline` show comments as descriptions. Such a comment \
stands directly above the `FROM` or `ARG`, and begins with the name of the stage or argument. Any \
other comment there looks like a description but is none.

If it is not meant as one, put an empty line between it and the instruction.

The rule is experimental: it must be asked for.",
    wrong: Example::file(
        "\
# check=experimental=InvalidDefinitionDescription

# this compiles the program
FROM alpine AS build
",
    ),
    right: Example::file(
        "\
# check=experimental=InvalidDefinitionDescription

# build compiles the program
FROM alpine AS build
",
    ),
};
