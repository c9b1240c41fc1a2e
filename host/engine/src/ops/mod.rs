//! The ops, one file each. All of them work on directory descriptors; none knows a host path of the
//! user's.

mod agent;
pub(crate) mod cache_mount;
pub(crate) mod client;
pub(crate) mod content;
pub(crate) mod exec;
pub(crate) mod file;
pub(crate) mod merge;

use wbuild_store::StateKind;
use wbuild_tree::xattr::XattrKind;

/// Which overlay attributes the state directory's snapshots use.
pub(crate) fn xattr_kind(kind: StateKind) -> XattrKind {
    match kind {
        StateKind::Trusted => XattrKind::Trusted,
        StateKind::User => XattrKind::User,
    }
}

/// The same for image layers.
pub(crate) fn overlay_kind(kind: StateKind) -> wbuild_oci::layer::OverlayKind {
    match kind {
        StateKind::Trusted => wbuild_oci::layer::OverlayKind::Trusted,
        StateKind::User => wbuild_oci::layer::OverlayKind::User,
    }
}
