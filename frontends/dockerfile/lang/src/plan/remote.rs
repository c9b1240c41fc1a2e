//! URLs of `ADD` and of contexts that are files; those of repositories are [`wbuild_git_url`]'s.

/// Whether a source of `ADD` is a URL of any kind.
pub(super) fn is_http(source: &str) -> bool {
    source.starts_with("http://") || source.starts_with("https://")
}

/// The name of the file that a URL stands for.
pub(super) fn file_name(url: &str) -> String {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    let path = path.split_once("://").map_or(path, |(_, rest)| rest);
    let name = path.split_once('/').map_or("", |(_, path)| crate::paths::base(path));
    // Without a name of its own it gets one that nobody mistakes for it.
    if name.is_empty() || name == "." || name == ".." {
        "__unnamed__".to_owned()
    } else {
        name.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_downloads() {
        for (url, expect) in [
            ("https://example.org/a/b.tgz?x=/y", "b.tgz"),
            ("https://example.org/", "__unnamed__"),
            ("https://example.org", "__unnamed__"),
            ("https://example.org/a/", "a"),
        ] {
            assert_eq!(file_name(url), expect, "{url}");
        }
    }
}
