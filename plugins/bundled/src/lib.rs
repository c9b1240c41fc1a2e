//! The components that come with wbuild, embedded: the installed program is one file.
//!
//! Nothing here is special to the host: a bundled component goes through the same loader and limits as
//! one that a user brings, and can be replaced by one of another path or name. What it is granted is
//! up to the program that embeds it.
//!
//! ```no_run
//! use wbuild_bundled::{Kind, find};
//!
//! let dockerfile = find(Kind::Frontend, "dockerfile").expect("is bundled");
//! assert!(dockerfile.bytes.starts_with(b"\0asm"));
//! ```
//!
//! `cargo xtask guests` makes the components; without them this crate does not compile and says so.

/// A component that comes with wbuild.
#[derive(Clone, Copy)]
pub struct Bundled {
    /// The name a user gives on the command line, e.g. `dockerfile`. Unique within its kind.
    pub name: &'static str,
    /// What it is used as.
    pub kind: Kind,
    /// The component, as WebAssembly.
    pub bytes: &'static [u8],
    /// sha256 of the bytes, computed when the program was built, so that no start has to.
    pub digest: [u8; 32],
}

/// What a component is used as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Turns a user's file into a definition.
    Frontend,
    /// Decides how a process is launched.
    Runner,
    /// Keeps cache records.
    Cache,
}

impl std::fmt::Debug for Bundled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bundled")
            .field("name", &self.name)
            .field("kind", &self.kind)
            .field("bytes", &self.bytes.len())
            .finish()
    }
}

static ALL: &[Bundled] = include!(concat!(env!("OUT_DIR"), "/bundled.rs"));

/// All bundled components; of each kind, the default comes first.
pub fn all() -> &'static [Bundled] {
    ALL
}

/// The bundled component of this kind and name.
pub fn find(kind: Kind, name: &str) -> Option<&'static Bundled> {
    ALL.iter().find(|bundled| bundled.kind == kind && bundled.name == name)
}

#[cfg(test)]
mod tests {
    use xtask::component::{Role, Surface};

    use super::*;

    #[test]
    fn every_component_is_of_its_kind_and_asks_for_nothing_foreign() {
        for bundled in all() {
            let digest = <[u8; 32]>::from(<sha2::Sha256 as sha2::Digest>::digest(bundled.bytes));
            assert_eq!(bundled.digest, digest, "{}", bundled.name);
            let surface = Surface::read(bundled.bytes).expect(bundled.name);
            let role = match bundled.kind {
                Kind::Frontend => Role::Frontend,
                Kind::Runner => Role::Runner,
                Kind::Cache => Role::Cache,
            };
            assert_eq!(surface.roles(), [role], "{}", bundled.name);
            assert_eq!(
                surface.foreign_imports().collect::<Vec<_>>(),
                Vec::<&str>::new(),
                "{}",
                bundled.name
            );
        }
    }

    #[test]
    fn there_is_one_of_every_kind_and_each_is_found_under_its_own_name_only() {
        for kind in [Kind::Frontend, Kind::Runner, Kind::Cache] {
            assert!(all().iter().any(|bundled| bundled.kind == kind), "{kind:?}");
        }
        for bundled in all() {
            let found = find(bundled.kind, bundled.name).expect(bundled.name);
            assert!(std::ptr::eq(found, bundled), "{} is there twice", bundled.name);
        }
        assert!(find(Kind::Runner, "dockerfile").is_none());
        assert!(find(Kind::Frontend, "hostile-frontend").is_none());
    }
}
