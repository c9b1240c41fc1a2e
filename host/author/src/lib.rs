//! What wbuild does for authors of plugins: new projects, and components out of them.
//!
//! A project is a folder with a `wbuild-plugin.toml` ([`Project`]). [`template::write`] makes one out
//! of the files that are embedded in the program; [`build::build`] runs the ordinary tool of its
//! language, makes a component of what that leaves where the tool does not, and adds the manifest
//! that the project states.
//!
//! Invariants: nothing is downloaded here (package managers are asked to, and it is said); a
//! project's own `wit/` decides which packages its component is built for; the component is written
//! whole or not at all. What it may import is judged by whoever loads it, not here.

pub mod build;
pub mod component;
pub mod files;
mod project;
pub mod template;
pub mod watch;

pub use project::{Kind, Language, PROJECT_FILE, Project};
