//! Writes frontends of wbuild: what turns a user's file into a graph of work.
//!
//! ```
//! use wbuild_frontend::{Build, ImageConfig, Result, State};
//!
//! wbuild_frontend::frontend!(build);
//!
//! fn build(build: &Build) -> Result<()> {
//!     let greeting = build.definition("")?;
//!     for platform in build.platforms() {
//!         let root = State::scratch().platform(&platform).files().write("/hello", greeting.bytes());
//!         build.image(&root.done()?, &ImageConfig::new(&platform)).done()?;
//!     }
//!     Ok(())
//! }
//! # fn main() {}
//! ```
//!
//! Compiled for `wasm32-unknown-unknown` with `wasm-component-ld` as the linker, a `cdylib` of this is
//! a component that `wbuild build --frontend` runs. Compiled natively, [`frontend!`] makes a function
//! `frontend()`, which `wbuild-testkit` runs in a test, without any component, and which a program
//! that embeds the engine may use as it is.
//!
//! - [`Build`] is what the caller asked for, and where results go.
//! - [`State`] is a file system at some point, and what is run on it.
//! - [`Source`] is a text of the user's; its places go into nodes (`at`), errors and warnings, so that
//!   the host can show the line also when a step fails long after the frontend has returned.
//! - [`Call`] has another frontend do a part of the work; it is the one thing here that users are asked
//!   about.
//! - [`Error`] is made of any other error by `?`, and of a panic something that names its place.
//! - [`sys`] is the plugin interface itself, call by call, for what there is no word for here.

/// The recipes, so that they are compiled.
#[cfg(doctest)]
#[doc = include_str!("../../../../docs/cookbook.md")]
struct Cookbook;

mod build;
mod config;
mod describe;
mod files;
#[cfg(not(target_family = "wasm"))]
mod native;
mod nested;
mod path;
mod run;
mod source;
mod sources;
mod state;
pub mod sys;

pub use build::{Base, Build, Files as YieldedFiles, Image, Wanted};
pub use config::ImageConfig;
pub use describe::Describe;
pub use files::{Copy, Files};
#[cfg(not(target_family = "wasm"))]
pub use native::Native;
pub use nested::{Call, Called, CalledFiles, CalledImage};
pub use path::join;
pub use run::{Mount, Outcome, Run, sh};
pub use source::{Line, Source, Warning};
pub use sources::{GitSource, HttpSource, ImageSource, LocalSource};
pub use state::State;

pub use wbuild_api::extension::{
    Entry, EntryKind, ImageInfo, ImageRequest, NamedContext, Parameter, SourceInfo, SourceRequest,
    Target,
};
pub use wbuild_graph::{Attrs, Edge, FailureKind, Platform, Severity, Span};
pub use wbuild_guest::{Error, Result, ResultExt, WIT_VERSION};

/// Makes a frontend of a function, and of a type that answers questions if one is named:
/// `frontend!(build)` or `frontend!(build, describe = Answers)`, where `Answers` is a unit struct that
/// implements [`Describe`]. Once in a crate, at its root.
#[macro_export]
macro_rules! frontend {
    ($build:path) => {
        #[cfg(target_family = "wasm")]
        $crate::__export_build!($build);

        /// The frontend, natively.
        #[cfg(not(target_family = "wasm"))]
        pub fn frontend() -> $crate::Native {
            $crate::Native::new(env!("CARGO_PKG_NAME"), $build)
        }
    };
    ($build:path, describe = $describe:path) => {
        #[cfg(target_family = "wasm")]
        $crate::__export_build!($build);
        #[cfg(target_family = "wasm")]
        $crate::__export_describe!($describe);

        /// The frontend, natively.
        #[cfg(not(target_family = "wasm"))]
        pub fn frontend() -> $crate::Native {
            $crate::Native::new(env!("CARGO_PKG_NAME"), $build).describing(&$describe)
        }
    };
}

/// The component's `build`.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_build {
    ($build:path) => {
        #[allow(unsafe_code)] // The component ABI is made of raw pointers.
        const _: () = {
            use $crate::sys::exports::build as bindings;
            struct Component;
            impl bindings::exports::wbuild::frontend::build::Guest for Component {
                fn build() -> ::std::result::Result<(), $crate::sys::wit::Failure> {
                    $crate::sys::run(|| $build(&$crate::Build::new()))
                }
            }
    bindings::export_build!(Component with_types_in $crate::sys::exports::build);
        };
    };
}

/// The component's `describe`.
#[doc(hidden)]
#[macro_export]
macro_rules! __export_describe {
    ($describe:path) => {
        #[allow(unsafe_code)] // The component ABI is made of raw pointers.
        const _: () = {
            use bindings::exports::wbuild::frontend::describe as guest;
            use $crate::Describe as _;
            use $crate::sys::exports::describe as bindings;
            use $crate::sys::{method_out, parameter_out, run, target_out, wit};
            type Pairs = ::std::vec::Vec<(::std::string::String, ::std::string::String)>;
            type Text = ::std::string::String;
            type Answer<T> = ::std::result::Result<T, wit::Failure>;
            struct Component;
            impl guest::Guest for Component {
                fn targets(_opts: Pairs) -> Answer<::std::vec::Vec<guest::Target>> {
                    let targets = run(|| $describe.targets(&$crate::Build::new()))?;
                    Ok(targets.into_iter().map(target_out).collect())
                }
                fn parameters(
                    target: ::std::option::Option<Text>,
                    _opts: Pairs,
                ) -> Answer<::std::vec::Vec<guest::Parameter>> {
                    let build = $crate::Build::new();
                    let parameters = run(|| $describe.parameters(&build, target.as_deref()))?;
                    Ok(parameters.into_iter().map(parameter_out).collect())
                }
                fn check(target: ::std::option::Option<Text>, _opts: Pairs) -> Answer<()> {
                    run(|| $describe.check(&$crate::Build::new(), target.as_deref()))
                }
                fn methods() -> Answer<::std::vec::Vec<guest::Method>> {
                    let methods = run(|| $describe.methods(&$crate::Build::new()))?;
                    Ok(methods.into_iter().map(method_out).collect())
                }
                fn call(
                    method: Text,
                    target: ::std::option::Option<Text>,
                    args: Pairs,
                ) -> Answer<Text> {
                    let (build, args) = ($crate::Build::new(), $crate::Attrs(args));
                    run(|| $describe.call(&build, &method, target.as_deref(), &args))
                }
            }
    bindings::export_describe!(Component with_types_in $crate::sys::exports::describe);
        };
    };
}
