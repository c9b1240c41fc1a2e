//! Where plugins come from and what they are trusted with.
//!
//! ```text
//! reference ─► project (aliases) ─► lock ─► store ─► registry or web server
//!                                                        │
//!                 plugin, granted ◄── policy, consents ◄─┴── imports, signature
//! ```
//!
//! - [`PluginRef`] is how a plugin is named; [`syntax`] how a definition names its frontend.
//! - [`Project`] is the project's `wbuild.toml`: names, files, configuration. It may ask, and lower.
//! - [`Lock`] is the project's `wbuild.lock`: which component a reference meant when it was first used.
//! - [`Policy`] is the user's: which plugins may be used, what they are granted, whose signature they need.
//! - [`PluginStore`] keeps components that were fetched; [`Fetcher`] fetches them.
//! - [`Supplier`] joins these: it turns a reference into a plugin with its grants, or says why not.
//! - [`publish`] puts a component into a registry, with a signature if wanted.
//!
//! Invariants:
//!
//! - Imports are the request and the user's policy, or the user's answer, is the grant. Nothing that a
//!   component, a registry, a definition or a project says adds to it.
//! - A component is known by the digest of its bytes, which is computed here. What a lock says of a
//!   reference is a claim of the project until it is known that the reference's own registry has, or
//!   had, that component.
//! - Nothing is printed and no environment is read: whoever makes a [`Supplier`] says where files are,
//!   and answers its questions.

pub mod artifact;
pub mod catalog;
mod consent;
mod document;
mod fetch;
mod limits;
mod lock;
mod policy;
mod project;
pub mod publish;
mod reference;
mod signature;
mod store;
pub mod suggest;
mod supplier;
pub mod syntax;
pub mod units;

pub use consent::{Consents, Want};
pub use document::{ConfigFile, Problem, read_file};
pub use fetch::{Fetched, Fetcher};
pub use limits::{LimitChanges, LimitLine};
pub use lock::{FILE as LOCK_FILE, Lock, Locked};
pub use policy::{FILE as POLICY_FILE, Policy, Rule, WHAT as POLICY};
pub use project::{Alias, FILE as PROJECT_FILE, Project};
pub use reference::{PluginRef, WebRef};
pub use signature::{PublicKeys, Signature};
pub use store::{Kept, PluginStore};
pub use supplier::{Ask, Decision, Supplied, Supplier, SupplierOptions, Unattended, Update};
