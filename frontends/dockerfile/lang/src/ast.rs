//! What a Dockerfile says, instruction by instruction, with the place of every part.
//!
//! Words are as written: nothing is expanded yet, because what a variable holds depends on the
//! stage, the platform and the caller's build arguments.

use crate::directives::Directives;
use crate::{Span, Text};

/// A parsed file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dockerfile {
    /// Directives at the top.
    pub directives: Directives,
    /// `ARG` instructions before the first `FROM`.
    pub globals: Vec<Instruction>,
    /// Build stages in the order of the file.
    pub stages: Vec<Stage>,
}

/// A `FROM` and what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// The `FROM` instruction.
    pub span: Span,
    /// Its keyword as written.
    pub keyword: Text,
    /// Image, earlier stage or `scratch`; may hold variables.
    pub base: Text,
    /// `--platform`; may hold variables.
    pub platform: Option<Text>,
    /// The name after `AS`, as written.
    pub name: Option<Text>,
    /// The `AS` keyword as written.
    pub as_keyword: Option<Text>,
    /// Comment that describes the stage.
    pub doc: Option<String>,
    /// Comment lines directly above, without `#`.
    pub comments: Vec<Text>,
    /// The rest of the stage.
    pub instructions: Vec<Instruction>,
}

impl Stage {
    /// The name in the form that names are compared in.
    pub fn folded_name(&self) -> Option<String> {
        self.name.as_ref().map(|name| name.to_lowercase())
    }
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// All of its lines, heredocs included.
    pub span: Span,
    /// The keyword as written.
    pub keyword: Text,
    /// The joined line without heredoc bodies.
    pub line: Text,
    /// Comment lines directly above, without `#`.
    pub comments: Vec<Text>,
    /// What it says.
    pub kind: Kind,
}

/// Instructions by kind. What is large stands apart: a file may have thousands of short ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `ADD`.
    Add(Box<Transfer>),
    /// `ARG`.
    Arg(Vec<Declaration>),
    /// `CMD`.
    Cmd(Command),
    /// `COPY`.
    Copy(Box<Transfer>),
    /// `ENTRYPOINT`.
    Entrypoint(Command),
    /// `ENV`.
    Env(Vec<Pair>),
    /// `EXPOSE`.
    Expose(Vec<Text>),
    /// `HEALTHCHECK`.
    Healthcheck(Box<Healthcheck>),
    /// `LABEL`.
    Label(Vec<Pair>),
    /// `MAINTAINER`.
    Maintainer(Text),
    /// `ONBUILD`.
    Onbuild(Trigger),
    /// `RUN`.
    Run(Box<Run>),
    /// `SHELL`.
    Shell(Vec<Text>),
    /// `STOPSIGNAL`.
    Stopsignal(Text),
    /// `USER`.
    User(Text),
    /// `VOLUME`.
    Volume(Vec<Text>),
    /// `WORKDIR`.
    Workdir(Text),
}

/// A command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Text for the shell.
    Shell(Text),
    /// The words of the process.
    Exec(Vec<Text>),
}

/// A text inside the file, `<<NAME … NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// `<<NAME` as written.
    pub word: Text,
    /// The name without quotes.
    pub name: String,
    /// The name was not quoted, so variables are expanded when the text is copied to a file.
    pub expand: bool,
    /// `<<-`: leading tabs are dropped.
    pub strip_tabs: bool,
    /// The lines as they are in the file.
    pub raw: Text,
}

impl Heredoc {
    /// The lines without the tabs that `<<-` drops.
    pub fn content(&self) -> Text {
        if !self.strip_tabs {
            return self.raw.clone();
        }
        let mut builder = crate::TextBuilder::like(&self.raw);
        let mut at = 0;
        for line in self.raw.split_inclusive('\n') {
            let tabs = line.len() - line.trim_start_matches('\t').len();
            builder.push(&self.raw, at + tabs..at + line.len());
            at += line.len();
        }
        builder.finish()
    }
}

/// `NAME` or `NAME=default` of `ARG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declaration {
    /// The variable.
    pub name: Text,
    /// Its default; may hold variables.
    pub default: Option<Text>,
    /// Comment that describes it.
    pub doc: Option<String>,
}

/// `name=value` of `ENV` and `LABEL`; both halves may hold variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// Before the `=`.
    pub name: Text,
    /// After the `=`.
    pub value: Text,
    /// Written in the old form, with a blank in place of `=`.
    pub legacy: bool,
}

/// `RUN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What to run.
    pub command: Command,
    /// Texts that the command reads, in order.
    pub heredocs: Vec<Heredoc>,
    /// `--mount`, in order.
    pub mounts: Vec<Mount>,
    /// `--network`.
    pub network: Option<Text>,
    /// `--security`.
    pub security: Option<Text>,
    /// `--device`, in order.
    pub devices: Vec<Text>,
    /// What is so for this process alone.
    pub own: Own,
}

/// What a process has for itself and leaves neither to later steps nor to the image. A Dockerfile
/// cannot say so; languages that become one can. Words may hold variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// Variables.
    pub env: Vec<Pair>,
    /// Working directory, seen from that of the stage. Nothing makes it.
    pub workdir: Option<Text>,
    /// User.
    pub user: Option<Text>,
}

/// `--mount` of `RUN`, split but not yet checked: values may hold variables, even that of `type`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The flag's value.
    pub text: Text,
    /// Keys in order.
    pub fields: Vec<MountField>,
}

impl Mount {
    /// What `from` names, if it is given. Memory comes from nowhere.
    pub fn from(&self) -> Option<&Text> {
        let last = |key| {
            let field = self.fields.iter().rev().find(|field| field.key == key);
            field.and_then(|field| field.value.as_ref())
        };
        let memory = last("type").is_some_and(|kind| kind.eq_ignore_ascii_case("tmpfs"));
        last("from").filter(|_| !memory)
    }
}

/// A key of a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountField {
    /// Canonical name: aliases such as `dst` are resolved.
    pub key: &'static str,
    /// The key as written.
    pub name: Text,
    /// After the `=`.
    pub value: Option<Text>,
}

/// `COPY` and `ADD`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Paths, patterns, URLs.
    pub sources: Vec<Text>,
    /// Files given in place, in order, after the paths.
    pub heredocs: Vec<Heredoc>,
    /// Where to.
    pub target: Text,
    /// `--from` of `COPY`.
    pub from: Option<Text>,
    /// `--chown`.
    pub chown: Option<Text>,
    /// `--chmod`.
    pub chmod: Option<Text>,
    /// `--link`.
    pub link: bool,
    /// `--parents` of `COPY`.
    pub parents: bool,
    /// `--exclude`, in order.
    pub exclude: Vec<Text>,
    /// `--checksum` of `ADD`.
    pub checksum: Option<Text>,
    /// `--keep-git-dir` of `ADD`.
    pub keep_git_dir: Option<bool>,
    /// `--unpack` of `ADD`.
    pub unpack: Option<bool>,
}

/// `HEALTHCHECK`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Healthcheck {
    /// Switches an inherited check off.
    None,
    /// Runs a command.
    Check {
        /// What to run.
        command: Command,
        /// When and how often. Times in nanoseconds; 0 means the runtime's default.
        timing: Timing,
    },
}

/// Times of a health check in nanoseconds, 0 means the runtime's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timing {
    /// Between checks.
    pub interval: i64,
    /// Until a check counts as failed.
    pub timeout: i64,
    /// During which failures do not count.
    pub start_period: i64,
    /// Between checks during the start period.
    pub start_interval: i64,
    /// Failures in a row until the container is unhealthy.
    pub retries: i64,
}

/// `ONBUILD`: an instruction for builds that use the image as their base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// As it is stored in the image, heredocs included.
    pub expression: String,
    /// The instruction itself.
    pub instruction: Box<Instruction>,
}
