//! Plugins in processes of their own, confined, for those that are not trusted: against a guest that
//! breaks out of WebAssembly by a bug of the compiler.
//!
//! ```text
//!   the program                                  a child: the same program, hidden subcommand
//!   Frontend, Runner, CachePlugin ──► Session ═══ one socket ═══ Remote capabilities ──► guest
//!        │                              │
//!        └── the engine's capabilities ◄┘ bounded, checked
//! ```
//!
//! Invariants:
//!
//! - A child has given up files, network, programs, other processes and all system calls but a few
//!   before it looks at a byte that the plugin's author chose; see [`confine`].
//! - What a child says is a claim. Whatever the bindings of `wbuild-plugin` enforce for a guest in this
//!   process is enforced here again, by the same functions and the same meter, since the child's own
//!   bindings may be under its guest's control. What no guest can say ends the child.
//! - A child writes nothing that outlives it: compiled code is made by a child that runs no guest, and
//!   kept by this process, under the component's own digest.
//! - A child dies with this process, with the build that wanted it, and with its time.
//!
//! Needs a tokio runtime with time and input/output enabled.

mod child;
pub mod confine;
mod parent;
mod protocol;
mod wire;

pub use child::child_main;
pub use parent::{Isolator, Program};
pub use protocol::claimed;
pub use wire::{Malformed, weigh};
