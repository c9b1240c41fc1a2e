//! What an Earthfile says.
//!
//! Words are kept as they are written, with quotes, variables and `$(…)`: they mean something only
//! where the command is carried out. Everything knows its place in the source.

use wbuild_dockerfile::ast::{Command, Instruction};
use wbuild_dockerfile::{Diagnostic, Span, Text};

use crate::features::Features;
use crate::flags::Flags;

/// A file.
#[derive(Clone, Debug, Default)]
pub struct Earthfile {
    /// Its first command; without it the file is one of version 0.5.
    pub version: Option<Version>,
    /// Commands before the first target: what every target begins with.
    pub base: Vec<Statement>,
    /// In the order of the file.
    pub targets: Vec<Recipe>,
    /// In the order of the file.
    pub functions: Vec<Recipe>,
}

/// `VERSION`.
#[derive(Clone, Debug)]
pub struct Version {
    /// The whole command.
    pub line: Text,
    /// Comment lines directly above.
    pub comments: Vec<Text>,
    /// `0.8`.
    pub number: Text,
    /// Its flags, as they are written.
    pub flags: Vec<Text>,
    /// What it switches on.
    pub features: Features,
}

impl Version {
    /// The number behind `0.`.
    pub fn minor(&self) -> u32 {
        let minor = self.number.strip_prefix("0.").and_then(|minor| minor.parse().ok());
        minor.unwrap_or_default()
    }
}

/// A target or a function.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Without the colon.
    pub name: Text,
    /// Comment lines directly above.
    pub comments: Vec<Text>,
    /// `FUNCTION` or `COMMAND`, if it is a function.
    pub marker: Option<Text>,
    /// What it does.
    pub body: Vec<Statement>,
    /// Errors of its commands, without which it cannot be built, but all others can.
    pub problems: Vec<Diagnostic>,
}

impl Recipe {
    /// What its author says of it: the comments above that begin with its name.
    pub fn doc(&self) -> Option<String> {
        documented(&self.comments, &self.name)
    }
}

/// The comment that begins with a name, without the name.
pub fn documented(comments: &[Text], name: &str) -> Option<String> {
    let at = comments.iter().position(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(' '))
    })?;
    let first = comments[at].strip_prefix(name).unwrap_or_default();
    let lines = std::iter::once(first).chain(comments[at + 1..].iter().map(|line| line.as_str()));
    let text = lines.map(str::trim).collect::<Vec<_>>().join("\n");
    Some(text.trim().to_owned())
}

/// A command.
#[derive(Clone, Debug)]
pub struct Statement {
    /// From its first word to its last one; of a block, of its first line.
    pub span: Span,
    /// The command, e.g. `SAVE IMAGE`.
    pub name: &'static str,
    /// Its line, without continuations; of a block the first one.
    pub line: Text,
    /// Comment lines directly above.
    pub comments: Vec<Text>,
    /// What it says.
    pub kind: Kind,
}

/// What a command says.
#[derive(Clone, Debug)]
pub enum Kind {
    /// `FROM`: an image, or a target with arguments for it.
    From {
        /// Its flags.
        flags: Flags,
        /// What to begin with.
        base: Text,
        /// For the target.
        args: Vec<BuildArg>,
    },
    /// `FROM DOCKERFILE`.
    FromDockerfile {
        /// Its flags.
        flags: Flags,
        /// A directory or an artifact.
        context: Source,
    },
    /// `LOCALLY`.
    Locally,
    /// `COPY`.
    Copy {
        /// Its flags.
        flags: Flags,
        /// At least one.
        sources: Vec<Source>,
        /// Where to.
        target: Text,
    },
    /// `SAVE ARTIFACT`.
    SaveArtifact {
        /// Its flags.
        flags: Flags,
        /// Path or pattern.
        source: Text,
        /// Where among the target's artifacts.
        target: Option<Text>,
        /// Where on the client's side.
        local: Option<Text>,
    },
    /// `SAVE IMAGE`.
    SaveImage {
        /// Its flags.
        flags: Flags,
        /// Names for the image.
        names: Vec<Text>,
    },
    /// `RUN`.
    Run(Box<Run>),
    /// `BUILD`.
    Build {
        /// Its flags.
        flags: Flags,
        /// What to build.
        target: Text,
        /// For the target; several values of one name are a matrix.
        args: Vec<BuildArg>,
    },
    /// `ARG`.
    Arg {
        /// Its flags.
        flags: Flags,
        /// What is declared.
        assign: Assign,
    },
    /// `LET`.
    Let(Assign),
    /// `SET`.
    Set(Assign),
    /// `ENV`.
    Env(Assign),
    /// `LABEL`.
    Label(Vec<Assign>),
    /// `CMD`, `ENTRYPOINT`, `EXPOSE`, `HEALTHCHECK`, `USER`, `VOLUME`, `WORKDIR`: as in a Dockerfile.
    Config(Box<Instruction>),
    /// `GIT CLONE`.
    GitClone {
        /// Its flags.
        flags: Flags,
        /// Where from.
        url: Text,
        /// Where to.
        target: Text,
    },
    /// `DO`.
    Do {
        /// Its flags.
        flags: Flags,
        /// Which function.
        function: Text,
        /// For the function.
        args: Vec<BuildArg>,
    },
    /// `IMPORT`.
    Import {
        /// Its flags.
        flags: Flags,
        /// Which Earthfile.
        place: Text,
        /// `AS` this.
        alias: Option<Text>,
    },
    /// `CACHE`.
    Cache {
        /// Its flags.
        flags: Flags,
        /// Where it appears.
        path: Text,
    },
    /// `HOST`.
    Host {
        /// Its name.
        name: Text,
        /// Its address.
        address: Text,
    },
    /// `PROJECT`, `PIPELINE`, `TRIGGER`, which were for a service that does not exist any more.
    Service(Vec<Text>),
    /// `IF`, `ELSE IF`, `ELSE`.
    If {
        /// In order; at least one.
        branches: Vec<Branch>,
        /// Where no condition holds.
        otherwise: Option<Vec<Statement>>,
    },
    /// `FOR`.
    For {
        /// Its flags.
        flags: Flags,
        /// `--mount`, in order.
        mounts: Vec<Mount>,
        /// Its variable.
        variable: Text,
        /// Behind `IN`.
        values: Text,
        /// What is repeated.
        body: Vec<Statement>,
    },
    /// `WAIT`.
    Wait(Vec<Statement>),
    /// `TRY`, `FINALLY`.
    Try {
        /// A RUN, perhaps in WITH DOCKER.
        body: Vec<Statement>,
        /// What is saved in any case.
        finally: Vec<Statement>,
    },
    /// `WITH DOCKER`.
    With {
        /// Its flags.
        flags: Flags,
        /// A RUN.
        body: Vec<Statement>,
    },
}

impl Statement {
    /// The commands in it, block by block.
    pub fn blocks(&self) -> Vec<&[Statement]> {
        match &self.kind {
            Kind::If { branches, otherwise } => {
                let branches = branches.iter().map(|branch| &branch.body[..]);
                branches.chain(otherwise.as_deref()).collect()
            }
            Kind::For { body, .. } | Kind::Wait(body) | Kind::With { body, .. } => vec![body],
            Kind::Try { body, finally } => vec![body, finally],
            _ => Vec::new(),
        }
    }

    /// The name that an IMPORT gives, if it is one.
    pub fn import(&self) -> Option<&str> {
        let Kind::Import { place, alias, .. } = &self.kind else { return None };
        let last = place.rsplit('/').next().unwrap_or_default();
        let named = last.split(':').next().unwrap_or_default();
        Some(alias.as_ref().map_or(named, |alias| alias.as_str()))
    }

    /// Looks at a command and at all in it, in the order of the file.
    pub fn walk<'s>(&'s self, look: &mut dyn FnMut(&'s Statement)) {
        look(self);
        for block in self.blocks() {
            block.iter().for_each(|statement| statement.walk(look));
        }
    }
}

impl Earthfile {
    /// Whether its VERSION switches something on.
    pub fn has(&self, feature: &str) -> bool {
        self.version.as_ref().is_some_and(|version| version.features.has(feature))
    }

    /// The commands of the base and of each recipe, with the recipe.
    pub fn bodies(&self) -> impl Iterator<Item = (Option<&Recipe>, &[Statement])> {
        let recipes = self.targets.iter().chain(&self.functions);
        let recipes = recipes.map(|recipe| (Some(recipe), &recipe.body[..]));
        std::iter::once((None, &self.base[..])).chain(recipes)
    }
}

/// `RUN`, or a condition.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its flags.
    pub flags: Flags,
    /// What to run.
    pub command: Command,
    /// `--mount`, in order.
    pub mounts: Vec<Mount>,
}

/// `--mount`, split; values may hold variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// The flag's value.
    pub text: Text,
    /// Key and value, in order; none if a variable stands for some of the keys.
    pub fields: Vec<(&'static str, Text)>,
}

/// `IF` or `ELSE IF` with what is done if its condition holds.
#[derive(Clone, Debug)]
pub struct Branch {
    /// Its line.
    pub line: Text,
    /// The condition.
    pub condition: Box<Run>,
    /// What is done.
    pub body: Vec<Statement>,
}

/// `name=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assign {
    /// Before the `=`.
    pub name: Text,
    /// After it; none if there is no `=`.
    pub value: Option<Text>,
}

/// An argument for a target or function, `--name=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildArg {
    /// Without dashes.
    pub name: Text,
    /// Its value.
    pub value: Text,
}

/// A file of the context, or an artifact with arguments for its target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// All of it.
    pub text: Text,
    /// Path or reference.
    pub path: Text,
    /// For the target; only with parentheses.
    pub args: Vec<BuildArg>,
}
