//! Pages about stages, images and contexts, and how they are named.

use super::{Example, Page};

pub(super) const INVALID_STAGE_NAME: Page = Page {
    name: "invalid-stage-name",
    summary: "The name behind `AS` cannot be that of a stage.",
    explanation: "\
A name starts with a letter, since a number means the stage at that place in the file, counted from \
0. Letters, digits, `-`, `_` and `.` follow. Variables are not replaced in it.",
    wrong: Example::file("FROM alpine AS 2nd-stage\n"),
    right: Example::file("FROM alpine AS second-stage\n"),
};

pub(super) const EMPTY_BASE: Page = Page {
    name: "empty-base",
    summary: "Nothing is left of the image behind `FROM` once its variables are replaced.",
    explanation: "\
`FROM` sees variables that an `ARG` declares above the first `FROM`, and those about platforms \
which are always there. An `ARG` inside of a stage is not seen by the `FROM` of the next, and \
`--build-arg` sets only what an `ARG` declares.

Declare the variable at the top of the file, best with a default.",
    wrong: Example::file("FROM $BASE\n"),
    right: Example::file("ARG BASE=alpine\nFROM $BASE\n"),
};

pub(super) const INVALID_PLATFORM: Page = Page {
    name: "invalid-platform",
    summary: "`FROM --platform` does not name a platform.",
    explanation: "\
A platform is an operating system, an architecture, and for some a variant, with slashes between: \
`linux/amd64`, `linux/arm/v7`. One of the first two may stand alone.

The variables `BUILDPLATFORM` and `TARGETPLATFORM` are always there; others must be declared by an \
`ARG` above the first `FROM`.",
    wrong: Example::file("FROM --platform=$TARGET_PLATFORM alpine\n"),
    right: Example::file("FROM --platform=$TARGETPLATFORM alpine\n"),
};

pub(super) const UNKNOWN_STAGE: Page = Page {
    name: "unknown-stage",
    summary: "Files are taken from a stage that is not there yet.",
    explanation: "\
`COPY --from` and `RUN --mount=from=` may name stages that stand above in the file, by name or by \
number, counted from 0. A stage cannot take files from itself or from one below it: when it is \
built, they are not.

Move the stage that has the files above the one that needs them.",
    wrong: Example::file(
        "\
FROM alpine
COPY --from=build /app /app

FROM alpine AS build
RUN make

FROM alpine
COPY --from=0 /app /app
",
    ),
    right: Example::file(
        "\
FROM alpine AS build
RUN make

FROM alpine
COPY --from=build /app /app
",
    ),
};

pub(super) const UNKNOWN_TARGET: Page = Page {
    name: "unknown-target",
    summary: "`--target` names a stage that the file does not have.",
    explanation: "\
A stage gets its name in `FROM image AS name`; capitals and small letters are the same. Without \
`--target` the last stage is built.",
    wrong: Example::file("FROM alpine AS build\nRUN make\n").options("--target biuld"),
    right: Example::file("FROM alpine AS build\nRUN make\n").options("--target build"),
};

pub(super) const EMPTY_SOURCE: Page = Page {
    name: "empty-source",
    summary: "A file is to be copied from a stage that has no files at all.",
    explanation: "\
The stage starts from `scratch` and no instruction of it makes a file, so there is nothing that \
could be copied. `ENV`, `LABEL` and their kind do not make files.

Name the stage that makes the files.",
    wrong: Example::file(
        "\
FROM scratch AS files
LABEL purpose=files

FROM alpine
COPY --from=files /app /app
",
    ),
    right: Example::file(
        "\
FROM scratch AS files
COPY app /app

FROM alpine
COPY --from=files /app /app
",
    ),
};

pub(super) const VARIABLE_IN_FROM: Page = Page {
    name: "variable-in-from",
    summary: "A variable stands where a stage, image or context must be named.",
    explanation: "\
What a stage copies and mounts from decides which stages are built at all, and in which order, \
before any variable of a stage has a value. So `COPY --from` and `RUN --mount=from=` take names as \
they are.

`FROM` does replace variables: give the image a stage of its own and name that.",
    wrong: Example::file(
        "\
FROM alpine
ARG TOOLS=busybox
COPY --from=$TOOLS /bin/busybox /bin/
",
    ),
    right: Example::file(
        "\
ARG TOOLS=busybox
FROM $TOOLS AS tools

FROM alpine
COPY --from=tools /bin/busybox /bin/
",
    ),
};

pub(super) const UNRESOLVED_IMAGE: Page = Page {
    name: "unresolved-image",
    summary: "An image cannot be found, or its registry cannot be asked.",
    explanation: "\
A name that is no stage above and no named context is an image, which is looked for in its registry. \
Check the spelling, tag included; a name without a registry is looked for on Docker Hub. For a \
private image log in to its registry first.

If a stage was meant, it must stand above and be spelt the same.",
    wrong: Example::file("\
FROM alpine AS build
RUN make

FROM alpine
COPY --from=biuld /app /app
"),
    right: Example::file("\
FROM alpine AS build
RUN make

FROM alpine
COPY --from=build /app /app
"),
};

pub(super) const INVALID_IMAGE_CONFIG: Page = Page {
    name: "invalid-image-config",
    summary: "The config of a base image cannot be read.",
    explanation: "\
Every image has a config: its environment, command, platform. That of this image is not what the \
OCI image format says it should be, so nothing can be built on it. The file is not at fault.

Tell whoever made the image, or use another tag of it.",
    wrong: Example::file("FROM example.org/broken\n").world("image example.org/broken []"),
    right: Example::file("FROM example.org/working\n")
        .world("image example.org/working {\"rootfs\":{\"diff_ids\":[\"sha256:1\"]}}"),
};

pub(super) const NAMED_CONTEXT: Page = Page {
    name: "named-context",
    summary: "A context that the command line gave under a name cannot be used.",
    explanation: "\
`--build-context NAME=SOURCE` puts a directory, an image, a layout, a repository or a URL in the \
place of the stage or image `NAME`. The message says what is wrong with the source.",
    wrong: Example::file("FROM alpine\nCOPY --from=src . /src\n")
        .options("--build-context src=oci-layout://./layuot")
        .world("fail context there is no directory ./layuot"),
    right: Example::file("FROM alpine\nCOPY --from=src . /src\n")
        .options("--build-context src=oci-layout://./layout")
        .world("image ./layout {\"rootfs\":{\"diff_ids\":[\"sha256:1\"]}}"),
};
