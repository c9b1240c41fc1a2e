//! wbuild
