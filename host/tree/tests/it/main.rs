//! Behaviour of copies and layers on real directories.

mod context;
mod copy;
mod layer;
mod lent;
mod paths;
mod races;
mod support;
