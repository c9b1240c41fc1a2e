//! The codes of all errors, notes and warnings that are no lint rule.
//!
//! A code is a name that stays: scripts look for it, pages explain it. The set is closed, so a
//! diagnostic with a code that nobody wrote down does not compile.

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
}
