//! Pages of rules about what commands name.

use wbuild_dockerfile::{Example, Page};

pub(super) const UNKNOWN_REFERENCE: Page = Page {
    name: "UnknownReference",
    summary: "Targets, functions and imports that commands name are there",
    explanation: "\
A reference without a place in front, as in `+name`, means a target or function of the same file, one \
with a word in front what `IMPORT` has given this name. A build says so when it comes to the command; \
the check says it of all of them. References to other files are not followed.",
    wrong: Example::file(
        "\
VERSION 0.8
FROM alpine

build:
    RUN make
    SAVE ARTIFACT app

package:
    COPY +buidl/app .
",
    ),
    right: Example::file(
        "\
VERSION 0.8
FROM alpine

build:
    RUN make
    SAVE ARTIFACT app

package:
    COPY +build/app .
",
    ),
};

pub(super) const UNDECLARED_ARGUMENT: Page = Page {
    name: "UndeclaredArgument",
    summary: "Arguments that a command hands over are declared by what it names",
    explanation: "\
An argument has an effect only where an `ARG` declares it: in the function itself, or in the target \
and those of the same file that it needs. Any other is ignored, often because it is misspelt. Targets \
that need something of other files are not looked at.",
    wrong: Example::file(
        "\
VERSION 0.8
FROM alpine

build:
    ARG mode=dev
    RUN make $mode

all:
    BUILD +build --mood=release
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

pub(super) const MISSING_REQUIRED: Page = Page {
    name: "MissingRequired",
    summary: "A function is called with all arguments that it requires",
    explanation: "\
A function sees only the arguments that `DO` hands over (and global ones), so one that is required and \
is not among them fails the build. Targets are not looked at: they may be given their arguments on the \
command line.",
    wrong: Example::file(
        "\
VERSION 0.8
FROM alpine

INSTALL:
    FUNCTION
    ARG --required package
    RUN apk add $package

tools:
    DO +INSTALL
",
    ),
    right: Example::file(
        "\
VERSION 0.8
FROM alpine

INSTALL:
    FUNCTION
    ARG --required package
    RUN apk add $package

tools:
    DO +INSTALL --package=curl
",
    ),
};

pub(super) const UNSAVED_ARTIFACT: Page = Page {
    name: "UnsavedArtifact",
    summary: "A target that COPY takes files from saves some",
    explanation: "\
`COPY +target/path` takes what the target saves with `SAVE ARTIFACT`, not what lies in its file \
system. If nothing in the target does that, the build fails.",
    wrong: Example::file(
        "\
VERSION 0.8
FROM alpine

build:
    RUN make

package:
    COPY +build/app .
",
    ),
    right: Example::file(
        "\
VERSION 0.8
FROM alpine

build:
    RUN make
    SAVE ARTIFACT app

package:
    COPY +build/app .
",
    ),
};

pub(super) const UNUSED_IMPORT: Page = Page {
    name: "UnusedImport",
    summary: "What IMPORT names is used",
    explanation: "\
An import that nothing refers to says that the file needs another one, which it does not. If \
references of the file are made of variables, nothing is reported.",
    wrong: Example::file(
        "\
VERSION 0.8
IMPORT ./tools
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

pub(super) const UNUSED_FUNCTION: Page = Page {
    name: "UnusedFunction",
    summary: "A function is called by something in its file",
    explanation: "\
A function that nothing calls is left over, unless other files import this one: that cannot be seen \
from here, so the rule must be asked for.",
    wrong: Example::file(
        "\
# check=experimental=UnusedFunction
VERSION 0.8
FROM alpine

INSTALL:
    FUNCTION
    RUN apk add curl

tools:
    RUN apk add curl
",
    ),
    right: Example::file(
        "\
# check=experimental=UnusedFunction
VERSION 0.8
FROM alpine

INSTALL:
    FUNCTION
    RUN apk add curl

tools:
    DO +INSTALL
",
    ),
};
