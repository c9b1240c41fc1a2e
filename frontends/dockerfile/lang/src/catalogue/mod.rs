//! What can be said of a file, and the pages that explain it.
//!
//! A code is a name that stays: scripts look for it, pages explain it. The set is closed, and a code
//! gets its name from its page, so a diagnostic with a code that nobody explained does not compile. The rules of the build checks are a
//! closed set of their own.
//! The pages are constants which nothing refers to at run time, so a frontend does not carry them;
//! `tests/docs.rs` makes the documentation of them and builds their examples.

mod build;
mod checks;
mod file;
mod rules;
mod stages;
mod words;

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
pub fn url(language: &str, document: &str, name: &str) -> Option<String> {
    url_below(env!("CARGO_PKG_REPOSITORY"), language, document, name)
}

fn url_below(repository: &str, language: &str, document: &str, name: &str) -> Option<String> {
    let repository = repository.trim_end_matches('/');
    let page = || format!("{repository}/frontends/{language}/docs/{document}.md#{name}");
    (!repository.is_empty()).then(page)
}

macro_rules! codes {
    ($($variant:ident = $page:path,)*) => {
        /// What a diagnostic is about, apart from the words of its message.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = concat!("See the page `", stringify!($page), "`.")] $variant,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];

            /// The name that users see.
            pub fn name(self) -> &'static str {
                match self {
                    $(Code::$variant => const { $page.name },)*
                }
            }

            /// What explains it.
            pub fn page(self) -> &'static Page {
                match self {
                    $(Code::$variant => &$page,)*
                }
            }
        }
    };
}

codes! {
    TooLarge = file::TOO_LARGE,
    EmptyFile = file::EMPTY_FILE,
    NoStage = file::NO_STAGE,
    UnknownInstruction = file::UNKNOWN_INSTRUCTION,
    InvalidDirective = file::INVALID_DIRECTIVE,
    RepeatedDirective = file::REPEATED_DIRECTIVE,
    UnterminatedHeredoc = file::UNTERMINATED_HEREDOC,
    InvalidHeredoc = file::INVALID_HEREDOC,
    InvalidTrigger = file::INVALID_TRIGGER,
    InvalidIgnore = file::INVALID_IGNORE,
    MissingArgument = words::MISSING_ARGUMENT,
    UnexpectedArgument = words::UNEXPECTED_ARGUMENT,
    MissingName = words::MISSING_NAME,
    MissingEquals = words::MISSING_EQUALS,
    InvalidJson = words::INVALID_JSON,
    InvalidExpansion = words::INVALID_EXPANSION,
    UnknownFlag = words::UNKNOWN_FLAG,
    RepeatedFlag = words::REPEATED_FLAG,
    InvalidFlag = words::INVALID_FLAG,
    InvalidMode = words::INVALID_MODE,
    InvalidMount = words::INVALID_MOUNT,
    UnknownMountKey = words::UNKNOWN_MOUNT_KEY,
    InvalidPort = words::INVALID_PORT,
    InvalidSignal = words::INVALID_SIGNAL,
    InvalidStageName = stages::INVALID_STAGE_NAME,
    EmptyBase = stages::EMPTY_BASE,
    InvalidPlatform = stages::INVALID_PLATFORM,
    UnknownStage = stages::UNKNOWN_STAGE,
    UnknownTarget = stages::UNKNOWN_TARGET,
    EmptySource = stages::EMPTY_SOURCE,
    VariableInFrom = stages::VARIABLE_IN_FROM,
    UnresolvedImage = stages::UNRESOLVED_IMAGE,
    InvalidImageConfig = stages::INVALID_IMAGE_CONFIG,
    NamedContext = stages::NAMED_CONTEXT,
    RemoteCopy = build::REMOTE_COPY,
    Download = build::DOWNLOAD,
    Git = build::GIT,
    InvalidEpoch = build::INVALID_EPOCH,
    UnusedBuildArg = build::UNUSED_BUILD_ARG,
    Unsupported = build::UNSUPPORTED,
    FailedInstruction = build::FAILED_INSTRUCTION,
    UnknownRule = checks::UNKNOWN_RULE,
    FailedChecks = checks::FAILED_CHECKS,
}

impl crate::diagnostic::Coded for Code {
    fn name(&self) -> &'static str {
        Code::name(*self)
    }

    fn url(&self) -> Option<String> {
        url("dockerfile", "errors", Code::name(*self))
    }
}

#[cfg(test)]
mod tests {
    use super::url_below;

    #[test]
    fn a_page_has_an_address_if_the_project_has() {
        let expect = "https://example.org/x/frontends/dockerfile/docs/errors.md#git";
        let url = |repository| url_below(repository, "dockerfile", "errors", "git");
        assert_eq!(url("https://example.org/x/").as_deref(), Some(expect));
        assert_eq!(url(""), None);
    }
}
