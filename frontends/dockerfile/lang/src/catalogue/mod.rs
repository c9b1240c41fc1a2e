//! What can be said of a file, and the pages that explain it.
//!
//! A code is a name that stays: scripts look for it, pages explain it. The set is closed, so a
//! diagnostic with a code that nobody wrote down does not compile. The rules of the build checks are
//! a closed set of their own.

mod rules;

pub use rules::Rule;

/// A page of the documentation: what is wrong, why, and how to mend it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// The code that diagnostics carry.
    pub name: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// Why it is so and what to do about it, in paragraphs of Markdown.
    pub explanation: &'static str,
    /// A build that ends in this code and in no other.
    pub wrong: Example,
    /// The same, mended.
    pub right: Example,
}

/// A build that a page shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Example {
    /// The Dockerfile.
    pub file: &'static str,
    /// Options of `wbuild build`, as a user types them.
    pub options: &'static str,
    /// The context's `.dockerignore`.
    pub ignore: &'static str,
    /// What the build meets outside of these files, in the words of the tests' `request.txt`. It is
    /// not shown.
    pub world: &'static str,
}

impl Example {
    /// A Dockerfile that is built without options.
    pub const fn file(file: &'static str) -> Self {
        Example { file, options: "", ignore: "", world: "" }
    }

    /// Adds options of `wbuild build`.
    #[must_use]
    pub const fn options(self, options: &'static str) -> Self {
        Example { options, ..self }
    }

    /// Adds a `.dockerignore`.
    #[must_use]
    pub const fn ignore(self, ignore: &'static str) -> Self {
        Example { ignore, ..self }
    }

    /// Adds what the build meets.
    #[must_use]
    pub const fn world(self, world: &'static str) -> Self {
        Example { world, ..self }
    }
}

/// Where a page can be read. None as long as the project has no address: a path within its sources
/// helps nobody who has only the program.
pub(crate) fn url(document: &str, name: &str) -> Option<String> {
    url_below(env!("CARGO_PKG_REPOSITORY"), document, name)
}

fn url_below(repository: &str, document: &str, name: &str) -> Option<String> {
    let repository = repository.trim_end_matches('/');
    let page = || format!("{repository}/frontends/dockerfile/docs/{document}.md#{name}");
    (!repository.is_empty()).then(page)
}

macro_rules! codes {
    ($($variant:ident = $name:literal,)*) => {
        /// What a diagnostic is about, apart from the words of its message.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = concat!("`", $name, "`")] $variant,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];

            /// The name that users see.
            pub fn name(self) -> &'static str {
                match self {
                    $(Code::$variant => $name,)*
                }
            }
        }
    };
}

codes! {
    TooLarge = "too-large",
    EmptyFile = "empty-file",
    NoStage = "no-stage",
    UnknownInstruction = "unknown-instruction",
    MissingArgument = "missing-argument",
    UnexpectedArgument = "unexpected-argument",
    MissingName = "missing-name",
    MissingEquals = "missing-equals",
    InvalidJson = "invalid-json",
    UnterminatedHeredoc = "unterminated-heredoc",
    InvalidHeredoc = "invalid-heredoc",
    InvalidStageName = "invalid-stage-name",
    InvalidTrigger = "invalid-trigger",
    InvalidDirective = "invalid-directive",
    RepeatedDirective = "repeated-directive",
    UnknownFlag = "unknown-flag",
    RepeatedFlag = "repeated-flag",
    InvalidFlag = "invalid-flag",
    InvalidMode = "invalid-mode",
    InvalidMount = "invalid-mount",
    UnknownMountKey = "unknown-mount-key",
    InvalidExpansion = "invalid-expansion",
    VariableInFrom = "variable-in-from",
    InvalidPlatform = "invalid-platform",
    EmptyBase = "empty-base",
    UnknownStage = "unknown-stage",
    EmptySource = "empty-source",
    UnknownTarget = "unknown-target",
    UnresolvedImage = "unresolved-image",
    InvalidImageConfig = "invalid-image-config",
    RemoteCopy = "remote-copy",
    Download = "download",
    Git = "git",
    InvalidPort = "invalid-port",
    InvalidSignal = "invalid-signal",
    InvalidEpoch = "invalid-epoch",
    InvalidIgnore = "invalid-ignore",
    NamedContext = "named-context",
    Unsupported = "unsupported",
    FailedInstruction = "failed-instruction",
    UnusedBuildArg = "unused-build-arg",
    UnknownRule = "unknown-rule",
    FailedChecks = "failed-checks",
    MoreFindings = "more-findings",
}
