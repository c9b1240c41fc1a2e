//! What a document may say: one table, which the checker, the page and the JSON Schema are made from.

/// What a value is.
#[derive(Clone, Copy, Debug)]
pub enum Is {
    /// A text.
    Text,
    /// One of these texts.
    Choice(&'static [&'static str]),
    /// `true` or `false`.
    Switch,
    /// A text, or a list of texts.
    Texts,
    /// A list of texts.
    List,
    /// Names and texts. Without a value: taken from outside, where that makes sense.
    Map,
    /// Names, as a list or as a mapping with values.
    Names,
    /// A mapping with these keys.
    Object(&'static Object),
    /// A list of such mappings.
    Objects(&'static [&'static Object]),
    /// Names and such mappings.
    Named(&'static Object),
}

/// A key of a mapping.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As it is written.
    pub name: &'static str,
    /// What its value is.
    pub is: Is,
    /// It must be there.
    pub required: bool,
    /// What it means, in one sentence without a period.
    pub about: &'static str,
}

/// A mapping with known keys. Of several that may stand in a list, the first key tells them apart.
#[derive(Clone, Copy, Debug)]
pub struct Object {
    /// What messages call it.
    pub name: &'static str,
    /// What it is.
    pub about: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

const fn key(name: &'static str, is: Is, about: &'static str) -> Key {
    Key { name, is, required: false, about }
}

const fn must(name: &'static str, is: Is, about: &'static str) -> Key {
    Key { name, is, required: true, about }
}

/// The document.
pub const DOCUMENT: Object = Object {
    name: "the document",
    about: "A build",
    keys: &[
        key("version", Is::Choice(&["1"]), "Version of this form"),
        key(
            "args",
            Is::Names,
            "Arguments of the build (`--build-arg`) with their defaults, known in `from` and `platform` of stages; a stage that lists one knows it too",
        ),
        key(
            "default",
            Is::Text,
            "The stage, or the artifacts, that is built if none is named; else the last",
        ),
        must(
            "stages",
            Is::Named(&STAGE),
            "Stages by their names, an earlier one before those that use it",
        ),
        key(
            "artifacts",
            Is::Named(&ARTIFACT),
            "Files that come out, by names that are built like stages: `wbuild --target NAME -o DIR .`",
        ),
    ],
};

/// A stage.
pub const STAGE: Object = Object {
    name: "a stage",
    about: "Steps on a base, and the image that they make",
    keys: &[
        key(
            "from",
            Is::Text,
            "Image, stage or build context that it begins with; nothing if it is missing or `scratch`",
        ),
        key(
            "platform",
            Is::Text,
            "Platform, if not that of the build: `linux/arm64`, `${BUILDPLATFORM}`",
        ),
        key("description", Is::Text, "What lists of targets say of it"),
        key(
            "args",
            Is::Names,
            "Arguments that its words and processes see; a name alone has the default of the document",
        ),
        key(
            "shell",
            Is::List,
            "What runs the texts of `run` and `script`; `/bin/sh -c` if it is missing",
        ),
        key("env", Is::Map, "Variables of its steps and of the image"),
        key("workdir", Is::Text, "Where its steps work, and containers of the image"),
        key("user", Is::Text, "Who its steps are, and containers of the image: `USER[:GROUP]`"),
        key("steps", Is::Objects(STEPS), "What is done, in order"),
        key(
            "image",
            Is::Object(&IMAGE),
            "What is so for containers of the image, behind the steps",
        ),
    ],
};

/// The image of a stage.
pub const IMAGE: Object = Object {
    name: "`image`",
    about: "What is so for containers of the image",
    keys: &[
        key("env", Is::Map, "Variables"),
        key("labels", Is::Map, "Labels"),
        key("entrypoint", Is::Texts, "The process: words, or a text for the shell"),
        key("cmd", Is::Texts, "Its arguments, or the process where there is no entrypoint"),
        key("expose", Is::List, "Ports: `8080`, `53/udp`"),
        key("volumes", Is::List, "Directories that are volumes"),
        key("workdir", Is::Text, "Working directory, which is made"),
        key("user", Is::Text, "`USER[:GROUP]`"),
        key("stop-signal", Is::Text, "What stops a container"),
    ],
};

/// Artifacts.
pub const ARTIFACT: Object = Object {
    name: "artifacts",
    about: "Files of a stage or image, and nothing else",
    keys: &[
        must("from", Is::Text, "Stage, image or build context that has them"),
        must("paths", Is::Texts, "Files, directories and patterns"),
        key("to", Is::Text, "Directory of the output; `/` if it is missing"),
        key("description", Is::Text, "What lists of targets say of them"),
    ],
};

/// Steps, told apart by their first key.
pub const STEPS: &[&Object] = &[&RUN, &SCRIPT, &COPY, &ADD, &WRITE, &ENV, &WORKDIR, &USER, &ARGS];

/// The options that `run` and `script` have in common.
macro_rules! process {
    ($first:expr) => {
        &[
            $first,
            key("name", Is::Text, "What the step is called"),
            key("env", Is::Map, "Variables of this process alone"),
            key(
                "workdir",
                Is::Text,
                "Where this process works, seen from the stage's directory; it must be there",
            ),
            key("user", Is::Text, "Who this process is"),
            key("network", Is::Choice(&["default", "none", "host"]), "Network"),
            key("mounts", Is::Objects(&[&MOUNT]), "What it sees besides"),
        ]
    };
}

/// `run`.
pub const RUN: Object = Object {
    name: "a step `run`",
    about: "Runs a process; what it changes is kept",
    keys: process!(must("run", Is::Texts, "A text for the shell, or the words of the process")),
};

/// `script`.
pub const SCRIPT: Object = Object {
    name: "a step `script`",
    about: "Runs commands in one shell, which ends with the first that fails",
    keys: process!(must("script", Is::List, "The commands")),
};

/// `copy`.
pub const COPY: Object = Object {
    name: "a step `copy`",
    about: "Copies files",
    keys: &[
        must("copy", Is::Texts, "Paths and patterns in what is copied from"),
        must("to", Is::Text, "Where to; a directory if it ends in `/` or several are copied"),
        key("from", Is::Text, "Stage, image or build context; the main context if it is missing"),
        key("chown", Is::Text, "Owner: `USER[:GROUP]`"),
        key("chmod", Is::Text, "Permissions: `0755`, `u=rwX,go=rX`"),
        key("exclude", Is::List, "Patterns of what is not copied"),
        key("parents", Is::Switch, "Keep the directories of the source"),
        key("link", Is::Switch, "A layer of its own, which does not depend on those below"),
    ],
};

/// `add`.
pub const ADD: Object = Object {
    name: "a step `add`",
    about: "Fetches files from URLs and git repositories",
    keys: &[
        must("add", Is::Texts, "URLs"),
        must("to", Is::Text, "Where to"),
        key("checksum", Is::Text, "What it must be: `sha256:…`, or a commit"),
        key("unpack", Is::Switch, "Unpack archives"),
        key("keep-git-dir", Is::Switch, "Keep `.git`"),
        key("chown", Is::Text, "Owner: `USER[:GROUP]`"),
        key("chmod", Is::Text, "Permissions"),
        key("exclude", Is::List, "Patterns of what is left out"),
        key("link", Is::Switch, "A layer of its own"),
    ],
};

/// `write`.
pub const WRITE: Object = Object {
    name: "a step `write`",
    about: "Writes a file",
    keys: &[
        must("write", Is::Text, "Its path"),
        must("text", Is::Text, "What is in it"),
        key("expand", Is::Switch, "Put values in place of `${NAME}`"),
        key("chown", Is::Text, "Owner: `USER[:GROUP]`"),
        key("chmod", Is::Text, "Permissions; `0644` if it is missing"),
    ],
};

/// `env`.
pub const ENV: Object = Object {
    name: "a step `env`",
    about: "Sets variables from here on",
    keys: &[must("env", Is::Map, "Variables")],
};

/// `workdir`.
pub const WORKDIR: Object = Object {
    name: "a step `workdir`",
    about: "Makes a directory and works there from here on",
    keys: &[must("workdir", Is::Text, "The directory")],
};

/// `user`.
pub const USER: Object = Object {
    name: "a step `user`",
    about: "Changes the user from here on",
    keys: &[must("user", Is::Text, "`USER[:GROUP]`")],
};

/// `args`.
pub const ARGS: Object = Object {
    name: "a step `args`",
    about: "Makes arguments known from here on, so that steps before do not depend on them",
    keys: &[must("args", Is::Names, "Arguments, with defaults or without")],
};

/// A mount.
pub const MOUNT: Object = Object {
    name: "a mount",
    about: "What a process sees besides its files; the keys of `RUN --mount` in Dockerfiles",
    keys: &[
        key(
            "type",
            Is::Choice(&["bind", "cache", "secret", "ssh", "tmpfs"]),
            "`bind` if it is missing",
        ),
        key("target", Is::Text, "Where it is seen"),
        key("source", Is::Text, "Path in what is mounted"),
        key(
            "from",
            Is::Text,
            "Stage, image or build context that is mounted, or a new cache begins with",
        ),
        key("readonly", Is::Switch, "Of a cache"),
        key("readwrite", Is::Switch, "Of a bind: let it be written to; what is written is dropped"),
        key("id", Is::Text, "Of a cache, secret or agent"),
        key(
            "sharing",
            Is::Choice(&["shared", "private", "locked"]),
            "Of a cache, by several at once",
        ),
        key("required", Is::Switch, "Of a secret or agent: fail without it"),
        key("env", Is::Text, "Of a secret: the variable that has it"),
        key("mode", Is::Text, "Permissions, octal"),
        key("uid", Is::Text, "Owner"),
        key("gid", Is::Text, "Group"),
        key("size", Is::Text, "Of a tmpfs"),
    ],
};
