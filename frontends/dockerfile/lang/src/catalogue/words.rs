//! Pages about the words of an instruction: arguments, variables, flags and mounts.

use super::{Example, Page};

pub(super) const MISSING_ARGUMENT: Page = Page {
    name: "missing-argument",
    summary: "An instruction lacks something that it cannot do without.",
    explanation: "\
The message says what is missing. If it is there in the file but on the next line, the line above \
must end with the escape character, `\\` unless the file sets another.

`COPY` and `ADD` take the destination as their last word, so with a single word there is a source \
and nowhere to put it. Where a variable stands in place of the argument, it is empty: declare it \
with `ARG` or `ENV` in the same stage.",
    wrong: Example::file("FROM alpine\nCOPY app\n"),
    right: Example::file("FROM alpine\nCOPY app /usr/bin/app\n"),
};

pub(super) const UNEXPECTED_ARGUMENT: Page = Page {
    name: "unexpected-argument",
    summary: "An instruction has a word that has no place in it.",
    explanation: "\
`FROM` takes an image and perhaps `AS` and a name. `HEALTHCHECK` takes `CMD` and a command, or \
`NONE` and nothing else.

Remove the word. If it was meant as a comment, put it on a line of its own: a `#` behind an \
instruction does not begin a comment.",
    wrong: Example::file("FROM alpine # small\n"),
    right: Example::file("# small\nFROM alpine\n"),
};

pub(super) const MISSING_NAME: Page = Page {
    name: "missing-name",
    summary: "A variable or label has a value but no name.",
    explanation: "\
There is nothing before an `=`. Often there is a blank before it, which ends the word.

Write `NAME=value` without blanks around the `=`.",
    wrong: Example::file("FROM alpine\nENV A=1 =2\n"),
    right: Example::file("FROM alpine\nENV A=1 B=2\n"),
};

pub(super) const MISSING_EQUALS: Page = Page {
    name: "missing-equals",
    summary: "A word of `ENV` or `LABEL` is not a pair of a name and a value.",
    explanation: "\
Once the first word has an `=`, all words must be `name=value` pairs. A value that holds blanks ends \
at the first of them unless it is quoted, and the rest looks like a word of its own.

Put the value in double quotes.",
    wrong: Example::file("FROM alpine\nENV GREETING=hello world\n"),
    right: Example::file("FROM alpine\nENV GREETING=\"hello world\"\n"),
};

pub(super) const INVALID_JSON: Page = Page {
    name: "invalid-json",
    summary: "A JSON array is needed here, or holds something that is not a string.",
    explanation: "\
The exec form of a command, lists of volumes and the words of `SHELL` are JSON arrays of strings. \
Each element stands in double quotes, numbers too. `SHELL` knows no other form and needs at least \
one word.",
    wrong: Example::file("FROM alpine\nCMD [\"sleep\", 60]\n"),
    right: Example::file("FROM alpine\nCMD [\"sleep\", \"60\"]\n"),
};

pub(super) const INVALID_EXPANSION: Page = Page {
    name: "invalid-expansion",
    summary: "A word with variables or quotes cannot be read, or a variable that must be set is not.",
    explanation: "\
A `$` begins a variable, and quotes stretch to the next quote of the same kind. An open `${` or an \
open quote swallows the rest of the word. To write either as text, put the escape character before \
it, `\\` unless the file sets another.

`${NAME:?message}` and `${NAME?message}` end the build on purpose if the variable has no value: \
give it one with `--build-arg`, or with a default of its `ARG`.",
    wrong: Example::file("FROM alpine\nENV GREETING=\"hello world\n"),
    right: Example::file("FROM alpine\nENV GREETING=\"hello world\"\n"),
};

pub(super) const UNKNOWN_FLAG: Page = Page {
    name: "unknown-flag",
    summary: "An instruction has a flag that it does not know.",
    explanation: "\
Words that begin with `--` between the instruction and its arguments are flags. Either the flag is \
misspelt, or it belongs to another instruction: `--mount` to `RUN`, `--checksum` to `ADD`, `--from` \
and `--parents` to `COPY`, `--platform` to `FROM`.

If the word is meant as an argument, write a lone `--` before it.",
    wrong: Example::file("FROM alpine\nCOPY --chwon=1000 app /app\n"),
    right: Example::file("FROM alpine\nCOPY --chown=1000 app /app\n"),
};

pub(super) const REPEATED_FLAG: Page = Page {
    name: "repeated-flag",
    summary: "A flag that may stand once is given twice.",
    explanation: "\
It would not be clear which of the two counts. Only `--mount` and `--device` of `RUN` and \
`--exclude` of `COPY` and `ADD` may be repeated.",
    wrong: Example::file("FROM alpine\nCOPY --chown=1000 --chown=:1000 app /app\n"),
    right: Example::file("FROM alpine\nCOPY --chown=1000:1000 app /app\n"),
};

pub(super) const INVALID_FLAG: Page = Page {
    name: "invalid-flag",
    summary: "A flag has a value that it cannot have, lacks one, or does not fit the rest.",
    explanation: "\
The message says what the flag takes. The value stands behind an `=` without blanks. Flags such as \
`--link` are either there or not; they take `true` and `false` only.

`--checksum` of `ADD` is about one thing that is fetched: it cannot hold for files of the context, \
nor for several sources at once.",
    wrong: Example::file("FROM alpine\nHEALTHCHECK --interval=30 CMD curl -f localhost\n"),
    right: Example::file("FROM alpine\nHEALTHCHECK --interval=30s CMD curl -f localhost\n"),
};

pub(super) const INVALID_MODE: Page = Page {
    name: "invalid-mode",
    summary: "`--chmod` has a value that is not a file mode.",
    explanation: "\
A mode is octal, up to `7777`, or a list of changes as the command chmod takes them: `u=rwX,go=rX`. \
In a change, `u`, `g`, `o` and `a` say for whom, then comes `+`, `-` or `=`.",
    wrong: Example::file("FROM alpine\nCOPY --chmod=rwx app /app\n"),
    right: Example::file("FROM alpine\nCOPY --chmod=a=rwx app /app\n"),
};

pub(super) const INVALID_MOUNT: Page = Page {
    name: "invalid-mount",
    summary: "A `--mount` of `RUN` has a value that it cannot have, or keys that do not fit its type.",
    explanation: "\
A mount is a list of `key=value` fields between commas, without blanks. Which keys make sense \
depends on `type`, which is `bind` if it is left out:

- `bind` shows files of the context, or of the stage or image that `from` names;
- `cache` keeps a directory between builds; `sharing` is `shared`, `private` or `locked`;
- `tmpfs` is memory; `size` limits it;
- `secret` shows a secret as a file, or as a variable with `env`;
- `ssh` lends the ssh agent.

`target` says where the mount appears. It cannot be `/`.",
    wrong: Example::file("FROM alpine\nRUN --mount=type=cache,target=/cache,sharing=lock make\n"),
    right: Example::file("FROM alpine\nRUN --mount=type=cache,target=/cache,sharing=locked make\n"),
};

pub(super) const UNKNOWN_MOUNT_KEY: Page = Page {
    name: "unknown-mount-key",
    summary: "A `--mount` of `RUN` has a key that no mount has.",
    explanation: "\
The keys are `type`, `from`, `source` (or `src`), `target` (or `dst`, `destination`), `readonly` \
(or `ro`), `readwrite` (or `rw`), `id`, `sharing`, `required`, `mode`, `uid`, `gid`, `size` and \
`env`.

A blank ends the flag, so what stands behind it is not part of the mount, and a comma before it \
leaves a field without a key.",
    wrong: Example::file("FROM alpine\nRUN --mount=type=cache,path=/cache make\n"),
    right: Example::file("FROM alpine\nRUN --mount=type=cache,target=/cache make\n"),
};

pub(super) const INVALID_PORT: Page = Page {
    name: "invalid-port",
    summary: "A word of `EXPOSE` is not a port.",
    explanation: "\
`EXPOSE` takes ports between 0 and 65535 or ranges of them, perhaps with a protocol: `80`, \
`53/udp`, `8000-8010/tcp`. The protocols are `tcp`, `udp` and `sctp`.

Which port of the machine leads to it is decided when a container is started, not here.",
    wrong: Example::file("FROM alpine\nEXPOSE http\n"),
    right: Example::file("FROM alpine\nEXPOSE 80/tcp\n"),
};

pub(super) const INVALID_SIGNAL: Page = Page {
    name: "invalid-signal",
    summary: "`STOPSIGNAL` does not name a signal.",
    explanation: "\
A signal is a name, with or without `SIG`, or a number other than 0. Real-time signals are \
`SIGRTMIN`, `SIGRTMIN+1` to `SIGRTMIN+15`, `SIGRTMAX-14` to `SIGRTMAX-1`, and `SIGRTMAX`.",
    wrong: Example::file("FROM alpine\nSTOPSIGNAL SIGTREM\n"),
    right: Example::file("FROM alpine\nSTOPSIGNAL SIGTERM\n"),
};
