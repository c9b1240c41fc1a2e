//! Git repositories, by the system's program `git`, run so that a repository can do no harm.
//!
//! What comes from a server is only ever data:
//!
//! - No program of a repository's choosing runs: nothing of the user's or the system's configuration
//!   is read, there are no hooks, no filters, no helpers, and the transports are those of [`Remote`],
//!   of which each command may use the one it needs. Git asks nobody for a password.
//! - No text from outside can be an option: URLs are put together anew from checked parts, names of
//!   references and object ids are types that cannot begin with `-`.
//! - Git connects through a [`wbuild_http::Gate`] only, so what may be reached holds for redirects,
//!   submodules and all transports alike, and so does the limit of what is transferred.
//! - Objects are checked when they arrive (`fsckObjects`), and what a tree holds is checked again here
//!   ([`Tree`]) before a file of it is written.
//! - Git writes into directories that only it uses and that hold no links: links are written as files
//!   and made by this crate afterwards. Checking out is git's and not our own work, because attributes
//!   of line ends and encodings change what is in the files, and belong to what a commit means.
//! - Credentials are handed over in the environment, to the host they are for; where there are some,
//!   no redirect is followed. They are in no argument, file, URL or message.
//! - Every command has a limit of time, output, memory and size of files. One that is given up ends
//!   with all its children.
//!
//! Submodules are repositories like any other: git itself does nothing about them.
//!
//! What lies on this machine already is asked for facts only ([`Git::facts`]), and never changed.
//!
//! A [`Repository`] is a bare repository that is kept, so that what is there is not transferred again.
//! A commit is in it once the reference says so that is written after everything else.

mod checkout;
mod commit;
mod explain;
mod fetch;
mod modules;
mod name;
mod program;
mod remote;
mod repository;
mod transport;
mod tree;
mod work_tree;

pub use checkout::GitDir;
pub use commit::CommitFacts;
pub use fetch::{Advertised, Found, Want};
pub use modules::Submodule;
pub use name::{ObjectId, RefName, Revision, commit_prefix};
pub use program::{Git, Limits};
pub use remote::{Remote, Scheme};
pub use repository::{Progress, Repository};
pub use transport::{Access, Authorization};
pub use tree::{Entry, EntryKind, Tree, clean_directory};
pub use work_tree::{Facts, work_tree};
