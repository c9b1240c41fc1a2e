//! The rules of the build checks: names, what they are about, whether they must be asked for.
//!
//! The names are those of BuildKit, since `# check=skip=` lines in files hold them.

mod stages;
mod steps;
mod style;

use super::{Page, url};
use crate::diagnostic::{CheckRule, Coded};

macro_rules! rules {
    ($($variant:ident = $page:path,)*) => {
        /// What a finding of the build checks is about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $(#[doc = concat!("See the page `", stringify!($page), "`.")] $variant,)*
        }

        impl Rule {
            /// Every rule.
            pub const ALL: &'static [Rule] = &[$(Rule::$variant,)*];

            /// The name that users see.
            pub fn name(self) -> &'static str {
                match self {
                    $(Rule::$variant => const { $page.name },)*
                }
            }

            /// What the rule asks for, in one sentence.
            pub fn summary(self) -> &'static str {
                match self {
                    $(Rule::$variant => const { $page.summary },)*
                }
            }

            /// What explains it.
            pub fn page(self) -> &'static Page {
                match self {
                    $(Rule::$variant => &$page,)*
                }
            }
        }
    };
}

rules! {
    StageNameCasing = style::STAGE_NAME_CASING,
    FromAsCasing = style::FROM_AS_CASING,
    NoEmptyContinuation = style::NO_EMPTY_CONTINUATION,
    ConsistentInstructionCasing = style::CONSISTENT_INSTRUCTION_CASING,
    LegacyKeyValueFormat = style::LEGACY_KEY_VALUE_FORMAT,
    MaintainerDeprecated = style::MAINTAINER_DEPRECATED,
    InvalidDefinitionDescription = style::INVALID_DEFINITION_DESCRIPTION,
    DuplicateStageName = stages::DUPLICATE_STAGE_NAME,
    ReservedStageName = stages::RESERVED_STAGE_NAME,
    UndefinedArgInFrom = stages::UNDEFINED_ARG_IN_FROM,
    InvalidDefaultArgInFrom = stages::INVALID_DEFAULT_ARG_IN_FROM,
    RedundantTargetPlatform = stages::REDUNDANT_TARGET_PLATFORM,
    FromPlatformFlagConstDisallowed = stages::FROM_PLATFORM_FLAG_CONST_DISALLOWED,
    InvalidBaseImagePlatform = stages::INVALID_BASE_IMAGE_PLATFORM,
    UndefinedVar = steps::UNDEFINED_VAR,
    SecretsUsedInArgOrEnv = steps::SECRETS_USED_IN_ARG_OR_ENV,
    WorkdirRelativePath = steps::WORKDIR_RELATIVE_PATH,
    JSONArgsRecommended = steps::JSON_ARGS_RECOMMENDED,
    MultipleInstructionsDisallowed = steps::MULTIPLE_INSTRUCTIONS_DISALLOWED,
    ExposeProtoCasing = steps::EXPOSE_PROTO_CASING,
    ExposeInvalidFormat = steps::EXPOSE_INVALID_FORMAT,
    CopyIgnoredFile = steps::COPY_IGNORED_FILE,
}

impl Coded for Rule {
    fn name(&self) -> &'static str {
        Rule::name(*self)
    }

    fn url(&self) -> Option<String> {
        url("dockerfile", "rules", &Rule::name(*self).to_ascii_lowercase())
    }
}

impl CheckRule for Rule {
    const ALL: &'static [Rule] = Rule::ALL;

    fn summary(&self) -> &'static str {
        Rule::summary(*self)
    }

    fn experimental(&self) -> bool {
        *self == Rule::InvalidDefinitionDescription
    }
}
