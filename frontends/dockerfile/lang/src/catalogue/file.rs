//! Pages about the file as a whole: its lines, directives, heredocs and triggers.

use super::{Example, Page};

pub(super) const TOO_LARGE: Page = Page {
    name: "too-large",
    summary: "The Dockerfile is larger than any Dockerfile should be.",
    explanation: "\
A definition may have 16 MiB. One that is larger was most likely named by mistake: an archive, an \
image or a log in place of a Dockerfile.

Check what `--file` names. Data that a step needs belongs into a file of the context, from where \
`COPY` and `ADD` take it.",
    wrong: Example::file("FROM alpine\nCMD [\"true\"]\n").world("pad 16777216"),
    right: Example::file("FROM alpine\nCOPY data /data\n"),
};

pub(super) const EMPTY_FILE: Page = Page {
    name: "empty-file",
    summary: "The Dockerfile holds no instruction.",
    explanation: "\
The file is empty, or all that it holds is comments and blank lines. Often an editor has not saved \
it yet, or a script wrote it before it had anything to write.

A Dockerfile needs at least a `FROM`.",
    wrong: Example::file("# to be written\n"),
    right: Example::file("# to be written\nFROM alpine\n"),
};

pub(super) const NO_STAGE: Page = Page {
    name: "no-stage",
    summary: "An instruction stands outside of any stage, or there is no stage at all.",
    explanation: "\
Every instruction changes what the `FROM` above it began, so there must be one. Only `ARG` may \
stand above the first `FROM`; there it declares variables for the `FROM` lines.

Move the instruction below the `FROM` it belongs to.",
    wrong: Example::file("RUN make\nFROM alpine\n"),
    right: Example::file("FROM alpine\nRUN make\n"),
};

pub(super) const UNKNOWN_INSTRUCTION: Page = Page {
    name: "unknown-instruction",
    summary: "A line begins with a word that is no instruction.",
    explanation: "\
Usually the word is misspelt. If it looks like a command, such as `apt-get`, the line above should \
have gone on: a command that takes several lines needs the escape character, `\\` unless the file \
sets another, at the end of each line but the last.

The instructions are `ADD`, `ARG`, `CMD`, `COPY`, `ENTRYPOINT`, `ENV`, `EXPOSE`, `FROM`, \
`HEALTHCHECK`, `LABEL`, `MAINTAINER`, `ONBUILD`, `RUN`, `SHELL`, `STOPSIGNAL`, `USER`, `VOLUME` \
and `WORKDIR`, in capitals or small letters.",
    wrong: Example::file(
        "\
FROM alpine
RUN apk update &&
    apk add curl
",
    ),
    right: Example::file(
        "\
FROM alpine
RUN apk update && \\
    apk add curl
",
    ),
};

pub(super) const INVALID_DIRECTIVE: Page = Page {
    name: "invalid-directive",
    summary: "A directive at the top of the file has a value that it cannot have.",
    explanation: "\
Comments of the form `# escape=…`, `# syntax=…` and `# check=…` at the very top set how the file is \
read. The escape character is `\\` or a backtick. `check` takes settings between semicolons: \
`skip` with names of rules or `all`, `error` with `true` or `false`, and `experimental` with names \
of rules or `all`.

If the line was meant to be a comment and nothing else, write something before it: directives end \
at the first line that is none.",
    wrong: Example::file("# check=skip=all;error=yes\nFROM alpine\n"),
    right: Example::file("# check=skip=all;error=true\nFROM alpine\n"),
};

pub(super) const REPEATED_DIRECTIVE: Page = Page {
    name: "repeated-directive",
    summary: "The same directive is given twice.",
    explanation: "\
Each of `# syntax=`, `# escape=` and `# check=` may stand once, since it would not be clear which \
of two counts. Several settings of `check` go into one line, between semicolons.",
    wrong: Example::file(
        "\
# check=skip=StageNameCasing
# check=error=true
FROM alpine
",
    ),
    right: Example::file(
        "\
# check=skip=StageNameCasing;error=true
FROM alpine
",
    ),
};

pub(super) const UNTERMINATED_HEREDOC: Page = Page {
    name: "unterminated-heredoc",
    summary: "A heredoc is begun and never ended.",
    explanation: "\
`<<NAME` says that what follows, up to a line that is `NAME` and nothing else, is text. No such \
line was found. A blank before or after the name is enough to make it another line; with `<<-` it \
may be indented, but with tabs only.

If the `<<` was meant for the shell, e.g. in arithmetic, put a blank behind it.",
    wrong: Example::file(
        "\
FROM alpine
RUN <<EOF
  make
  EOF
",
    ),
    right: Example::file(
        "\
FROM alpine
RUN <<EOF
  make
EOF
",
    ),
};

pub(super) const INVALID_HEREDOC: Page = Page {
    name: "invalid-heredoc",
    summary: "The name of a heredoc cannot be the name of a file.",
    explanation: "\
`COPY` and `ADD` make a file of the heredoc, which has the heredoc's name until it is copied to the \
destination, and so does `RUN` if the text begins with `#!`. So the name can hold no `/`.

End the heredoc by a plain word. Where the file goes is what the destination says.",
    wrong: Example::file("\
FROM alpine
COPY <<etc/motd /etc/motd
Welcome
etc/motd
"),
    right: Example::file("\
FROM alpine
COPY <<EOF /etc/motd
Welcome
EOF
"),
};

pub(super) const INVALID_TRIGGER: Page = Page {
    name: "invalid-trigger",
    summary: "An `ONBUILD` instruction cannot be carried out by the build that uses the image.",
    explanation: "\
`ONBUILD` stores one instruction, which runs after the `FROM` of a build that starts from this \
image. It may be any instruction except `FROM`, `MAINTAINER` and `ONBUILD` itself.

If the trigger stands in a base image, nothing in your file is wrong: the image must be built anew, \
or another one used.",
    wrong: Example::file("FROM alpine\nONBUILD ONBUILD COPY . /app\n"),
    right: Example::file("FROM alpine\nONBUILD COPY . /app\n"),
};

pub(super) const INVALID_IGNORE: Page = Page {
    name: "invalid-ignore",
    summary: "An ignore file has a line that is no pattern.",
    explanation: "\
Each line of `.dockerignore` is a pattern of paths that the build does not see; one that begins \
with `!` takes paths back in. Behind the `!` there must be a pattern.",
    wrong: Example::file("FROM alpine\nCOPY . /app\n").ignore("*.md\n!\n"),
    right: Example::file("FROM alpine\nCOPY . /app\n").ignore("*.md\n!README.md\n"),
};
