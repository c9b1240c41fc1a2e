//! Shared by unit tests.

/// Says that a test could not run here; a failure where everything is required to run.
pub(crate) fn skip(test: &str, reason: &str) {
    assert!(
        std::env::var_os("WBUILD_TEST_REQUIRE").is_none_or(|v| v != "1"),
        "{test} must run here: {reason}"
    );
    eprintln!("skipped: {test}: {reason}");
}
