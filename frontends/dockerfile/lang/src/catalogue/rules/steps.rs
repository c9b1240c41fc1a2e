//! Pages of rules about the instructions of a stage.

use crate::catalogue::{Example, Page};

pub(super) const UNDEFINED_VAR: Page = Page {
    name: "UndefinedVar",
    summary: "Variables are set before they are used",
    explanation: "\
The variable is neither declared with `ARG` nor set with `ENV` in this stage above the line, nor set \
by the base image, so it is empty here. Often the name is misspelt, or an `ARG` above the first \
`FROM` was not declared again in the stage.

Instructions whose variables the shell fills in when they run (`RUN`, `CMD`, `ENTRYPOINT`) are not \
looked at.",
    wrong: Example::file("\
FROM alpine
ARG ASSETS=assets
COPY $ASSET /srv
"),
    right: Example::file("\
FROM alpine
ARG ASSETS=assets
COPY $ASSETS /srv
"),
};

pub(super) const SECRETS_USED_IN_ARG_OR_ENV: Page = Page {
    name: "SecretsUsedInArgOrEnv",
    summary: "Secrets are no values of ARG or ENV",
    explanation: "\
Values of `ENV` are part of the image, and those of `ARG` of its history: whoever has the image can \
read them. A secret mount shows a step the secret and leaves no trace of it.

The rule goes by the name. A word of it, between underscores, is one of `apikey`, `auth`, \
`credential`, `credentials`, `key`, `password`, `pword`, `passwd`, `secret` and `token`, and none is \
`public`, `file` or `version`.",
    wrong: Example::file("\
FROM alpine
ARG API_TOKEN
RUN ./fetch \"$API_TOKEN\"
"),
    right: Example::file("\
FROM alpine
RUN --mount=type=secret,id=api,env=API_TOKEN ./fetch \"$API_TOKEN\"
"),
};

pub(super) const WORKDIR_RELATIVE_PATH: Page = Page {
    name: "WorkdirRelativePath",
    summary: "The first WORKDIR of a build is an absolute path",
    explanation: "\
A relative path is taken from the working directory of the base image, which is not the file's to \
decide and may change with the next version of the image. Once the file has set a directory itself, \
relative paths are safe.",
    wrong: Example::file(
        "\
FROM alpine
WORKDIR srv
",
    ),
    right: Example::file(
        "\
FROM alpine
WORKDIR /srv
WORKDIR www
",
    ),
};

pub(super) const JSON_ARGS_RECOMMENDED: Page = Page {
    name: "JSONArgsRecommended",
    summary: "CMD and ENTRYPOINT are JSON arrays, so that signals reach the program",
    explanation: "\
Without the array the container starts a shell, which starts the program. Signals, such as the one \
of `docker stop`, go to the shell, and most shells do not hand them on; so the program is killed after \
a while instead of ending itself.

If a shell is needed, say which: after a `SHELL` instruction the rule is silent.",
    wrong: Example::file("\
FROM alpine
CMD httpd -f
"),
    right: Example::file("\
FROM alpine
CMD [\"httpd\", \"-f\"]
"),
};

pub(super) const MULTIPLE_INSTRUCTIONS_DISALLOWED: Page = Page {
    name: "MultipleInstructionsDisallowed",
    summary: "A stage has one CMD, one ENTRYPOINT and one HEALTHCHECK",
    explanation: "\
An image has one of each, so only the last of a stage counts. An earlier one has no effect, and who \
changes it will wonder why.",
    wrong: Example::file(
        "\
FROM alpine
CMD [\"one\"]
CMD [\"two\"]
",
    ),
    right: Example::file(
        "\
FROM alpine
CMD [\"two\"]
",
    ),
};

pub(super) const EXPOSE_PROTO_CASING: Page = Page {
    name: "ExposeProtoCasing",
    summary: "Protocols of EXPOSE are written in small letters",
    explanation: "\
The image holds the protocol in small letters in any case. Writing it so keeps file and image alike.",
    wrong: Example::file(
        "\
FROM alpine
EXPOSE 53/UDP
",
    ),
    right: Example::file(
        "\
FROM alpine
EXPOSE 53/udp
",
    ),
};

pub(super) const EXPOSE_INVALID_FORMAT: Page = Page {
    name: "ExposeInvalidFormat",
    summary: "EXPOSE names ports of the container, without an address or a port of the host",
    explanation: "\
`EXPOSE` says which ports the program listens on. Where they appear on a machine is decided when a \
container is started, by `--publish`; an address or port of the host in the file has no effect, and a \
later version of the language may refuse it.",
    wrong: Example::file(
        "\
FROM alpine
EXPOSE 127.0.0.1:8080:80
",
    ),
    right: Example::file(
        "\
FROM alpine
EXPOSE 80
",
    ),
};

pub(super) const COPY_IGNORED_FILE: Page = Page {
    name: "CopyIgnoredFile",
    summary: "COPY and ADD do not name what the ignore file leaves out",
    explanation: "\
What `.dockerignore` names is no part of the context, so it cannot be copied. Either the pattern \
leaves out more than was meant, or the line is left from before.

An ignore file with exceptions, lines that begin with `!`, is not looked at: whether an exception lies \
below a directory cannot be told without the files.",
    wrong: Example::file("\
FROM alpine
COPY notes.md /srv/
")
    .ignore("*.md\n"),
    right: Example::file("\
FROM alpine
COPY notes.txt /srv/
")
    .ignore("*.md\n"),
};
