//! Pages about what happens while a build is put together.

use super::{Example, Page};

pub(super) const REMOTE_COPY: Page = Page {
    name: "remote-copy",
    summary: "`COPY` is asked to fetch something.",
    explanation: "\
`COPY` takes files from the context, from stages and from images. URLs and git repositories are \
what `ADD` is for.",
    wrong: Example::file("FROM alpine\nCOPY https://example.org/app /app\n"),
    right: Example::file("FROM alpine\nADD https://example.org/app /app\n"),
};

pub(super) const DOWNLOAD: Page = Page {
    name: "download",
    summary: "A URL of `ADD` cannot be fetched.",
    explanation: "\
The message says what the server answered, or that it could not be reached. Check the address, and \
whether the machine needs a proxy.",
    wrong: Example::file("FROM alpine\nADD https://example.org/ap /app\n")
        .world("fail http https://example.org/ap: 404 Not Found"),
    right: Example::file("FROM alpine\nADD https://example.org/app /app\n"),
};

pub(super) const GIT: Page = Page {
    name: "git",
    summary: "A git repository of `ADD` cannot be fetched.",
    explanation: "\
The message says what git answered. Check the address, and what stands behind the `#`: a branch, a \
tag or a commit, then perhaps `:` and a directory. A private repository needs `--ssh` or a secret.",
    wrong: Example::file("FROM alpine\nADD https://example.org/app.git#mian /src\n")
        .world("fail git https://example.org/app.git has no branch or tag mian"),
    right: Example::file("FROM alpine\nADD https://example.org/app.git#main /src\n"),
};

pub(super) const INVALID_EPOCH: Page = Page {
    name: "invalid-epoch",
    summary: "`SOURCE_DATE_EPOCH` is not a time.",
    explanation: "\
It is the number of seconds since the beginning of 1970 in UTC, as `date +%s` prints it. The word \
`context`, or the name of a named context or stage, stands for the time of that source.",
    wrong: Example::file("FROM alpine\n").options("--build-arg SOURCE_DATE_EPOCH=2025-01-01"),
    right: Example::file("FROM alpine\n").options("--build-arg SOURCE_DATE_EPOCH=1735689600"),
};

pub(super) const UNUSED_BUILD_ARG: Page = Page {
    name: "unused-build-arg",
    summary: "A build argument has no effect, since no `ARG` declares it.",
    explanation: "\
`--build-arg NAME=value` sets variables that the file declares with `ARG NAME`. This is a note and \
not an error, because scripts often pass the same arguments to many files. If the argument was meant \
to count, compare the spelling.",
    wrong: Example::file("ARG VERSION=1\nFROM alpine\n").options("--build-arg VERSOIN=2"),
    right: Example::file("ARG VERSION=1\nFROM alpine\n").options("--build-arg VERSION=2"),
};

pub(super) const UNSUPPORTED: Page = Page {
    name: "unsupported",
    summary: "The file is right, but asks for something that wbuild does not do yet.",
    explanation: "The message names it. The README lists what is missing.",
    wrong: Example::file("FROM alpine\nRUN --device=vendor.example/gpu make\n"),
    right: Example::file("FROM alpine\nRUN make\n"),
};

pub(super) const FAILED_INSTRUCTION: Page = Page {
    name: "failed-instruction",
    summary: "An instruction cannot be carried out, for a reason that lies outside of the file.",
    explanation: "\
The message says what went wrong: the context cannot be read, for example. The place says which \
instruction needed it.",
    wrong: Example::file("FROM alpine\nCOPY . /app\n")
        .world("fail local the build context cannot be read: Permission denied"),
    right: Example::file("FROM alpine\nCOPY . /app\n"),
};
