//! Paths below a root: bytes, relative, without `.`, `..`, empty components or NUL.

use std::cmp::Ordering;
use std::fmt;

use crate::error::{Result, TreeError, show};

/// Longest path in bytes that the kernel takes in one call, without the final NUL.
pub const MAX_PATH: usize = 4095;
/// Longest file name in bytes.
pub const MAX_NAME: usize = 255;

/// A cleaned path below some root. The empty path is the root itself.
///
/// The order is the order of a depth-first walk with sorted names: a directory comes before what
/// is in it, and what is in it before the directory's later siblings.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct RelPath(Box<[u8]>);

impl RelPath {
    /// The root itself.
    pub fn root() -> Self {
        RelPath::default()
    }

    /// Cleans any path, absolute or not, as if the root were `/`: `..` never leaves it. Purely
    /// lexical: symbolic links are not looked at.
    ///
    /// # Errors
    /// A NUL byte, a name above [`MAX_NAME`] or a path above [`MAX_PATH`] bytes.
    pub fn clean(path: impl AsRef<[u8]>) -> Result<Self> {
        let path = path.as_ref();
        let invalid = |reason| TreeError::Path { path: show(path), reason };
        if path.contains(&0) {
            return Err(invalid("it contains a NUL byte"));
        }
        let mut parts: Vec<&[u8]> = Vec::new();
        for part in path.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => {
                    parts.pop();
                }
                name if name.len() > MAX_NAME => {
                    return Err(invalid("a name in it is longer than 255 bytes"));
                }
                name => parts.push(name),
            }
        }
        let joined = parts.join(&b'/');
        if joined.len() > MAX_PATH {
            return Err(invalid("it is longer than 4095 bytes"));
        }
        Ok(RelPath(joined.into_boxed_slice()))
    }

    /// Wraps bytes that are known to be clean (they come from a walk or from joined names).
    pub(crate) fn trusted(path: impl Into<Box<[u8]>>) -> Self {
        let path = path.into();
        debug_assert!(!path.starts_with(b"/") && !path.ends_with(b"/"));
        RelPath(path)
    }

    /// The bytes, without a leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the root itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The names from the root down.
    pub fn names(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|name| !name.is_empty())
    }

    /// The last name; none for the root.
    pub fn name(&self) -> Option<&[u8]> {
        self.names().next_back()
    }

    /// The directory that holds it; none for the root.
    pub fn parent(&self) -> Option<RelPath> {
        if self.is_root() {
            return None;
        }
        Some(RelPath(split(&self.0).0.into()))
    }

    /// This path followed by another one.
    #[must_use]
    pub fn join(&self, below: &[u8]) -> RelPath {
        RelPath(join(&self.0, below))
    }

    /// The rest of the path below `dir`, if it is `dir` or lies below it.
    pub fn below(&self, dir: &RelPath) -> Option<&[u8]> {
        if dir.is_root() {
            return Some(&self.0);
        }
        match self.0.strip_prefix(&*dir.0)? {
            b"" => Some(b""),
            rest => rest.strip_prefix(b"/"),
        }
    }
}

impl PartialOrd for RelPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RelPath {
    fn cmp(&self, other: &Self) -> Ordering {
        walk_order(&self.0, &other.0)
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&show(&self.0))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", show(&self.0))
    }
}

/// Compares two clean paths in walk order, which is byte order with `/` lowest.
pub fn walk_order(a: &[u8], b: &[u8]) -> Ordering {
    let same = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    let rank = |path: &[u8]| {
        path.get(same).map(|byte| if *byte == b'/' { 0 } else { u16::from(*byte) + 1 })
    };
    rank(a).cmp(&rank(b))
}

/// Joins two clean paths, either of which may be empty.
pub(crate) fn join(dir: &[u8], below: &[u8]) -> Box<[u8]> {
    let mut out = Vec::with_capacity(dir.len() + 1 + below.len());
    out.extend_from_slice(dir);
    if !dir.is_empty() && !below.is_empty() {
        out.push(b'/');
    }
    out.extend_from_slice(below);
    out.into_boxed_slice()
}

/// Splits a clean path into the directory and the last name.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cleans_within_the_root() {
        for (given, wanted) in [
            ("", ""),
            ("/", ""),
            (".", ""),
            ("a/b", "a/b"),
            ("/a//b/./c/", "a/b/c"),
            ("../../etc", "etc"),
            ("a/../../b", "b"),
            ("a/..", ""),
            ("...", "..."),
            ("a b/ c", "a b/ c"),
        ] {
            assert_eq!(RelPath::clean(given).unwrap().as_bytes(), wanted.as_bytes(), "{given}");
        }
        assert!(RelPath::clean("a\0b").is_err());
        assert!(RelPath::clean("x".repeat(256)).is_err());
        assert!(RelPath::clean("x/".repeat(2100)).is_err());
    }

    #[test]
    fn parts_of_a_path() {
        let path = RelPath::clean("a/b/c").unwrap();
        assert_eq!(path.name(), Some(&b"c"[..]));
        assert_eq!(path.parent().unwrap().as_bytes(), b"a/b");
        assert_eq!(path.below(&RelPath::clean("a").unwrap()), Some(&b"b/c"[..]));
        assert_eq!(path.below(&path), Some(&b""[..]));
        assert_eq!(path.below(&RelPath::clean("a/bc").unwrap()), None);
        assert_eq!(RelPath::root().parent(), None);
    }

    proptest! {
        #[test]
        fn order_is_that_of_component_lists(a in "[ab./ -]{0,8}", b in "[ab./ -]{0,8}") {
            let (a, b) = (RelPath::clean(a).unwrap(), RelPath::clean(b).unwrap());
            let by_names = a.names().collect::<Vec<_>>().cmp(&b.names().collect::<Vec<_>>());
            prop_assert_eq!(a.cmp(&b), by_names);
        }

        #[test]
        fn cleaning_is_idempotent(a in "[ab./]{0,12}") {
            let once = RelPath::clean(&a).unwrap();
            prop_assert_eq!(RelPath::clean(once.as_bytes()).unwrap(), once);
        }
    }
}
