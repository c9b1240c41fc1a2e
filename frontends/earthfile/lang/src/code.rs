//! What diagnostics of this language are about.

use wbuild_dockerfile::Coded;

macro_rules! codes {
    ($($variant:ident = $name:literal, $about:literal;)*) => {
        /// What a diagnostic is about, apart from the words of its message.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Code {
            $(#[doc = $about] $variant,)*
        }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];
        }

        impl Coded for Code {
            fn name(&self) -> &'static str {
                match self {
                    $(Code::$variant => $name,)*
                }
            }
        }
    };
}

impl Code {
    /// Whether an error is about how the file is divided into recipes, blocks and commands: what is
    /// around it may mean something else, too. Others are about their command alone.
    pub(crate) fn is_of_the_file(name: &str) -> bool {
        const CODES: [Code; 11] = [
            Code::TooLarge,
            Code::EmptyFile,
            Code::UnclosedQuote,
            Code::MissingVersion,
            Code::InvalidVersion,
            Code::UnknownFeature,
            Code::UnknownCommand,
            Code::Misplaced,
            Code::UnclosedBlock,
            Code::UnexpectedEnd,
            Code::InvalidName,
        ];
        CODES.iter().any(|code| code.name() == name)
    }
}

codes! {
    TooLarge = "too-large", "The file is larger than anybody writes by hand.";
    EmptyFile = "empty-file", "The file holds no commands.";
    UnclosedQuote = "unclosed-quote", "A quote or `$(` has no end.";
    MissingVersion = "missing-version", "The file does not begin with VERSION.";
    InvalidVersion = "invalid-version", "VERSION names a version that there is not, or stands twice.";
    UnknownFeature = "unknown-feature", "VERSION has a flag that is no feature.";
    FeatureNeeded = "feature-needed", "Something needs a newer VERSION or a feature flag.";
    UnknownCommand = "unknown-command", "A line does not begin with a command.";
    Misplaced = "misplaced-command", "A command stands where it cannot.";
    UnclosedBlock = "unclosed-block", "A block has no END.";
    UnexpectedEnd = "unexpected-end", "END, ELSE or FINALLY without a block that it belongs to.";
    InvalidName = "invalid-name", "A name of a target, function or variable is not well formed.";
    RepeatedName = "repeated-name", "Two targets, functions or variables of one name.";
    InvalidReference = "invalid-reference", "A reference to a target, artifact or function is not well formed.";
    MissingArgument = "missing-argument", "A command lacks something that it cannot do without.";
    UnexpectedArgument = "unexpected-argument", "A command has a word that has no place in it.";
    UnknownFlag = "unknown-flag", "A command has no such flag.";
    RepeatedFlag = "repeated-flag", "A flag stands twice that can stand once only.";
    InvalidFlag = "invalid-flag", "The value of a flag is not one of those it can have.";
    InvalidJson = "invalid-json", "An array holds something that is not a string.";
    InvalidMount = "invalid-mount", "A mount is not well formed.";
    InvalidExpansion = "invalid-expansion", "A word with variables or quotes cannot be read.";
    UnknownTarget = "unknown-target", "There is no target, function or Earthfile of this name.";
    UnresolvedImage = "unresolved-image", "An image cannot be found, or is of no use.";
    ImageTwice = "image-twice", "Two different images for one platform are saved under one name.";
    FailedCommand = "failed-command", "A command cannot be carried out.";
    UnusedArgument = "unused-argument", "An argument of the caller is declared by no ARG.";
    Unsupported = "unsupported", "Something of the language is not supported yet.";
}
