//! Behaviour of copies and layers on real directories.

mod context;
mod copy;
mod hostile_contexts;
mod layer;
mod lent;
mod paths;
mod races;
mod stack;
mod support;
