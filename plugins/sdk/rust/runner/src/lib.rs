//! Writes runners of wbuild: what says how well a platform can be run on a machine, and plans how a
//! process is launched there.
//!
//! ```
//! use wbuild_runner::{Error, FailureKind, Job, Machine, Offer, Plan, Platform, Result, Runner};
//!
//! wbuild_runner::runner!(Here);
//!
//! /// Runs what the machine runs.
//! struct Here;
//!
//! impl Runner for Here {
//!     fn offer(machine: &Machine, platform: &Platform) -> Result<Offer> {
//!         if machine.native_platforms().contains(platform) {
//!             return Ok(wbuild_runner::offer(0, "native"));
//!         }
//!         Err(Error::new(FailureKind::Unsupported, format!("{platform} does not run here"))
//!             .help("name a runner that emulates it"))
//!     }
//!
//!     fn plan(_machine: &Machine, _job: &Job) -> Result<Plan> {
//!         Ok(Plan::base())
//!     }
//! }
//! # fn main() {}
//! ```
//!
//! Compiled for `wasm32-unknown-unknown` with `wasm-component-ld` as the linker, a `cdylib` of this is
//! a component that `wbuild build --runner` asks. Compiled natively, [`runner!`] makes a function
//! `runner()`, which `wbuild-testkit` asks in a test, without any component, and which a program that
//! embeds the engine may use as it is.
//!
//! A runner plans only. It sees facts about the [`Machine`] and the [`Job`], and no path, secret or
//! file of the host; the host checks the [`Plan`] and carries it out. Both functions are pure: the same
//! questions on the same machine have the same answers. What a plan may do is said in `wit/runner`.

#[cfg(not(target_family = "wasm"))]
mod native;
mod plan;
#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub mod wasm;

use std::sync::Arc;

#[cfg(not(target_family = "wasm"))]
pub use native::Native;
pub use plan::Plan;
use wbuild_api::extension::MachineCap;
pub use wbuild_api::extension::{BinfmtEntry, Job, MountView, Offer, Tool};
pub use wbuild_graph::{Attrs, FailureKind, Platform};
use wbuild_graph::{Failure, Severity};
use wbuild_guest::diagnostic;
pub use wbuild_guest::{Error, Result, ResultExt, WIT_VERSION};

/// What a runner does. Implemented by a type without fields, which [`runner!`] names.
pub trait Runner {
    /// How well programs of a platform run on the machine. An error of the kind `Unsupported` says why
    /// they do not, and its help what the user can do: both are shown when no runner makes an offer.
    ///
    /// # Errors
    ///
    /// When they do not run.
    fn offer(machine: &Machine, platform: &Platform) -> Result<Offer>;

    /// How a process is launched, of a platform that was offered.
    ///
    /// # Errors
    ///
    /// Fails the step.
    fn plan(machine: &Machine, job: &Job) -> Result<Plan>;
}

/// An offer. Of all runners of a build the lowest `rank` wins: native is 0, emulated 100. `how` is for
/// people.
pub fn offer(rank: u32, how: impl Into<String>) -> Offer {
    Offer { rank, how: how.into(), attrs: Attrs::default() }
}

/// A refusal as the host takes it: with the remedy where it looks for it (wit/runner, `supports`).
fn refusal(error: Error) -> Failure {
    let mut failure = error.into_failure();
    if failure.diagnostics.is_empty() && !failure.hints.is_empty() {
        let mut told = diagnostic(Severity::Error, failure.message.clone());
        told.help = Some(failure.hints.remove(0));
        failure.diagnostics.push(told);
    }
    failure
}

/// Facts about the machine, and the programs on it that the policy lets this runner use.
pub struct Machine(Arc<dyn MachineCap>);

impl Machine {
    /// The machine that `facts` describe.
    pub fn new(facts: Arc<dyn MachineCap>) -> Machine {
        Machine(facts)
    }

    /// What processor and kernel run without help. A platform with a variant (`linux/amd64/v3`) stands
    /// for the lower ones, too.
    pub fn native_platforms(&self) -> Vec<Platform> {
        self.0.native_platforms()
    }

    /// The kernel's own handler for programs of a platform (binfmt_misc), if it has one.
    pub fn kernel_handler(&self, platform: &Platform) -> Option<BinfmtEntry> {
        self.0.kernel_binfmt(platform.clone())
    }

    /// Whether the machine has a feature: `rootless`, `userns`, `cgroup-v2`, `binfmt-userns`,
    /// `overlay`, `personality`.
    pub fn has(&self, feature: &str) -> bool {
        self.0.features().get(feature) == Some("true")
    }

    /// A program of the machine by its plain name, e.g. `qemu-aarch64`. None: not there, or not granted.
    pub fn tool(&self, name: &str) -> Option<Tool> {
        self.0.find_tool(name.to_owned())
    }
}

impl std::fmt::Debug for Machine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Machine").finish_non_exhaustive()
    }
}

/// Makes a runner of a type that implements [`Runner`]: `runner!(Mine)`. Once in a crate, at its root.
#[macro_export]
macro_rules! runner {
    ($runner:ty) => {
        #[cfg(target_family = "wasm")]
        $crate::__export!($runner);

        /// The runner, natively.
        #[cfg(not(target_family = "wasm"))]
        pub fn runner() -> $crate::Native {
            $crate::Native::new::<$runner>(env!("CARGO_PKG_NAME"))
        }
    };
}

/// The component's exports.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($runner:ty) => {
        #[allow(unsafe_code)] // The component ABI is made of raw pointers.
        const _: () = {
            use $crate::wasm::{bindings, planner};
            struct Component;
            impl planner::Guest for Component {
                fn supports(
                    platforms: ::std::vec::Vec<planner::Platform>,
                ) -> ::std::vec::Vec<::std::result::Result<planner::Offer, planner::Failure>>
                {
                    $crate::wasm::supports::<$runner>(platforms)
                }
                fn make_plan(
                    process: &planner::Process,
                ) -> ::std::result::Result<planner::Plan, planner::Failure> {
                    $crate::wasm::make_plan::<$runner>(process)
                }
            }
    bindings::export_planner!(Component with_types_in $crate::wasm::bindings);
        };
    };
}
