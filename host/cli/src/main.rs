//! The program `wbuild`.
fn main() {}
