//! The rules of the build checks, and the pages that explain them.
//!
//! A rule gets its name from its page, so one that nobody explained does not compile. Names of rules
//! that Dockerfiles have, too, are the same. The pages are constants which nothing refers to at run
//! time; `tests/docs.rs` makes the documentation of them and builds their examples.

mod calls;
mod forms;
mod variables;

use wbuild_dockerfile::shared::url;
use wbuild_dockerfile::{CheckRule, Coded, Page};

macro_rules! rules {
    ($($variant:ident = $page:path,)*) => {
        /// What a finding of the build checks is about.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule {
            $(#[doc = concat!("See the page `", stringify!($page), "`.")] $variant,)*
        }

        impl Rule {
            /// What explains it.
            pub fn page(self) -> &'static Page {
                match self {
                    $(Rule::$variant => &$page,)*
                }
            }
        }

        impl Coded for Rule {
            fn name(&self) -> &'static str {
                match self {
                    $(Rule::$variant => const { $page.name },)*
                }
            }

            fn url(&self) -> Option<String> {
                url("earthfile", "rules", &self.name().to_ascii_lowercase())
            }
        }

        impl CheckRule for Rule {
            const ALL: &'static [Rule] = &[$(Rule::$variant,)*];

            fn summary(&self) -> &'static str {
                match self {
                    $(Rule::$variant => const { $page.summary },)*
                }
            }

            fn experimental(&self) -> bool {
                matches!(self, Rule::UnusedFunction | Rule::InvalidDefinitionDescription)
            }
        }
    };
}

rules! {
    UndefinedVariable = variables::UNDEFINED_VARIABLE,
    UnusedArgument = variables::UNUSED_ARGUMENT,
    ShadowedVariable = variables::SHADOWED_VARIABLE,
    RepeatedArgument = variables::REPEATED_ARGUMENT,
    SecretsUsedInArgOrEnv = variables::SECRETS_USED_IN_ARG_OR_ENV,
    UnknownReference = calls::UNKNOWN_REFERENCE,
    UndeclaredArgument = calls::UNDECLARED_ARGUMENT,
    MissingRequired = calls::MISSING_REQUIRED,
    UnsavedArtifact = calls::UNSAVED_ARTIFACT,
    UnusedImport = calls::UNUSED_IMPORT,
    UnusedFunction = calls::UNUSED_FUNCTION,
    OldVersion = forms::OLD_VERSION,
    RedundantFeature = forms::REDUNDANT_FEATURE,
    DeprecatedForm = forms::DEPRECATED_FORM,
    LegacyKeyValueFormat = forms::LEGACY_KEY_VALUE_FORMAT,
    SeveralAssignments = forms::SEVERAL_ASSIGNMENTS,
    ConstantCondition = forms::CONSTANT_CONDITION,
    JSONArgsRecommended = forms::JSON_ARGS_RECOMMENDED,
    InvalidDefinitionDescription = forms::INVALID_DEFINITION_DESCRIPTION,
}
