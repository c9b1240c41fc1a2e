//! Kills at every failure point.
