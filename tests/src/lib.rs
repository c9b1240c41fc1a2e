//! wbuild-tests
