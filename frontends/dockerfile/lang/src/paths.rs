//! Slash-separated paths, as text: nothing here looks at a file system.

/// The shortest equal path: no doubled slashes, no `.`, no `..` that can be resolved. An empty path
/// is `.`.
pub fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => match parts.last() {
                Some(&"..") | None if !rooted => parts.push(".."),
                _ => {
                    parts.pop();
                }
            },
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

/// `path` below `/`; it cannot leave it.
pub fn rooted(path: &str) -> String {
    clean(&format!("/{path}"))
}

/// `path` as seen from the absolute directory `base`.
pub fn join(base: &str, path: &str) -> String {
    if path.starts_with('/') { clean(path) } else { rooted(&format!("{base}/{path}")) }
}

/// Like [`join`], but a path that names a directory (ends in `/`, is `.` or empty) ends in `/`.
pub fn join_target(base: &str, path: &str) -> String {
    let directory = path.is_empty() || path == "." || path.ends_with('/') || path.ends_with("/.");
    let joined = join(base, path);
    if directory && !joined.ends_with('/') { joined + "/" } else { joined }
}

/// The last part of a path.
pub fn base(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cleans_and_joins() {
        for (path, expect) in [
            ("", "."),
            ("a//b/./c/", "a/b/c"),
            ("../a/../b", "../b"),
            ("/../a", "/a"),
            ("a/../..", ".."),
            ("/", "/"),
        ] {
            assert_eq!(clean(path), expect, "{path}");
        }
        assert_eq!(rooted("../../etc"), "/etc");
        assert_eq!(join("/app", "x/../y"), "/app/y");
        assert_eq!(join("/app", "/x/"), "/x");
        for (path, expect) in [
            ("", "/app/"),
            (".", "/app/"),
            ("./", "/app/"),
            ("x", "/app/x"),
            ("x/", "/app/x/"),
            ("x/.", "/app/x/"),
            ("/", "/"),
            ("/y/", "/y/"),
        ] {
            assert_eq!(join_target("/app", path), expect, "{path}");
        }
    }
}
