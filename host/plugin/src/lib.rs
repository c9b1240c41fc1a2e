//! wbuild-plugin
