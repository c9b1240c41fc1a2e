//! Registry credentials, of the crate `wbuild`.

pub use wbuild::credentials::FromDocker;
