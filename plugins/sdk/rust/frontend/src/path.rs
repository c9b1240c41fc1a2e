//! Paths in a file system that is not here: absolute, with `/`.

/// `path` seen from the directory `dir`. A slash at the end stays: it means a directory.
pub fn join(dir: &str, path: &str) -> String {
    match path {
        "." | "" => dir.to_owned(),
        path if path.starts_with('/') => path.to_owned(),
        path => format!("{}/{path}", dir.trim_end_matches('/')),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins_paths() {
        for (dir, path, want) in [
            ("/", "a", "/a"),
            ("/w", "a/", "/w/a/"),
            ("/w/", "a", "/w/a"),
            ("/w", "/a", "/a"),
            ("/w", ".", "/w"),
        ] {
            assert_eq!(join(dir, path), want);
        }
    }
}
