//! Pages of rules about stages and what they start from.

use crate::catalogue::{Example, Page};

pub(super) const DUPLICATE_STAGE_NAME: Page = Page {
    name: "DuplicateStageName",
    summary: "No two stages have the same name",
    explanation: "\
Of two stages of one name the later one hides the earlier: `--from` below it, and `--target`, mean \
the later. The earlier stage can only be reached from lines between the two, which is seldom what was \
meant.",
    wrong: Example::file(
        "\
FROM alpine AS build
RUN make one

FROM alpine AS build
RUN make two
",
    ),
    right: Example::file(
        "\
FROM alpine AS one
RUN make one

FROM alpine AS two
RUN make two
",
    ),
};

pub(super) const RESERVED_STAGE_NAME: Page = Page {
    name: "ReservedStageName",
    summary: "No stage has one of the names scratch and context",
    explanation: "\
`scratch` is the empty image and `context` the directory that is built from. A stage of such a name \
makes every line that uses the word ambiguous.",
    wrong: Example::file("FROM alpine AS scratch\n"),
    right: Example::file("FROM alpine AS base\n"),
};

pub(super) const UNDEFINED_ARG_IN_FROM: Page = Page {
    name: "UndefinedArgInFrom",
    summary: "FROM uses only variables that are declared above the first FROM",
    explanation: "\
`FROM` sees the arguments that `ARG` declares above the first `FROM`, and a few that every build has, \
such as `TARGETPLATFORM`. Any other variable is empty there, whatever is given on the command line \
and whatever a stage sets.",
    wrong: Example::file(
        "\
ARG VARIANT
FROM alpine${VERSION}${VARIANT}
",
    ),
    right: Example::file(
        "\
ARG VARIANT
ARG VERSION
FROM alpine${VERSION}${VARIANT}
",
    ),
};

pub(super) const INVALID_DEFAULT_ARG_IN_FROM: Page = Page {
    name: "InvalidDefaultArgInFrom",
    summary: "The image of a FROM is a valid name even if no build argument is given",
    explanation: "\
The image is named with arguments, and with nothing but their defaults the name is empty or not \
valid, so the file can only be built with the right `--build-arg`. Whoever builds it without fails \
at the first line.

Give the argument a default, or the variable: `${TAG:-latest}`.",
    wrong: Example::file(
        "\
ARG TAG
FROM alpine:${TAG}
",
    )
    .options("--build-arg TAG=3.20")
    .world(r#"image alpine:3.20 {"os":"linux","architecture":"amd64"}"#),
    right: Example::file(
        "\
ARG TAG=3.20
FROM alpine:${TAG}
",
    )
    .world(r#"image alpine:3.20 {"os":"linux","architecture":"amd64"}"#),
};

pub(super) const REDUNDANT_TARGET_PLATFORM: Page = Page {
    name: "RedundantTargetPlatform",
    summary: "FROM does not ask for the target platform, which it has anyway",
    explanation: "\
Without `--platform` a stage is of the platform that is built for. `--platform=$TARGETPLATFORM` says \
the same again. `$BUILDPLATFORM`, the platform of the machine that builds, is a real choice.",
    wrong: Example::file("FROM --platform=$TARGETPLATFORM alpine\n"),
    right: Example::file("FROM alpine\n"),
};

pub(super) const FROM_PLATFORM_FLAG_CONST_DISALLOWED: Page = Page {
    name: "FromPlatformFlagConstDisallowed",
    summary: "The platform of a FROM is not a constant",
    explanation: "\
A stage with a constant platform is always of that platform, whatever `--platform` of the build says, \
so the image cannot be built for another one. Leave the flag out and choose when building, or use a \
variable.

If the stage is meant for one platform, let its name say so: the rule is silent if the name holds the \
operating system or the architecture, e.g. `AS build-amd64`.",
    wrong: Example::file("FROM --platform=linux/amd64 alpine AS app\n"),
    right: Example::file("FROM --platform=$BUILDPLATFORM alpine AS app\n"),
};

pub(super) const INVALID_BASE_IMAGE_PLATFORM: Page = Page {
    name: "InvalidBaseImagePlatform",
    summary: "The base image is of the platform that is built for",
    explanation: "\
The image that a `FROM` names has no variant for the platform in question; what was found is of \
another one. Its programs may not run, and the image that is built from it is not what it says.

Choose an image that has the platform, or name the platform of the image in `FROM --platform=`.",
    wrong: Example::file("FROM only-arm\n").world(
        r#"image only-arm {"os":"linux","architecture":"arm64","rootfs":{"diff_ids":["sha256:0"]}}"#,
    ),
    right: Example::file("\
ARG PLATFORM=linux/arm64
FROM --platform=$PLATFORM only-arm
")
    .world(
        r#"image only-arm {"os":"linux","architecture":"arm64","rootfs":{"diff_ids":["sha256:0"]}}"#,
    ),
};
