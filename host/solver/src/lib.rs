//! wbuild-solver
