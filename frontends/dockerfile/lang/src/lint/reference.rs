//! Whether a text can be the name of an image (OCI distribution specification, and how names
//! without a registry are completed).

/// Most characters of a name without tag and digest.
const MOST: usize = 255;

/// Whether a text names an image: `[registry[:port]/]path[:tag][@digest]`.
pub(super) fn valid(text: &str) -> bool {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    let last = rest.rfind('/').map_or(0, |at| at + 1);
    let (name, tag) = match rest[last..].split_once(':') {
        Some((base, tag)) => (&rest[..last + base.len()], Some(tag)),
        None => (rest, None),
    };
    // An id is no name.
    let is_id = |name: &str| {
        name.len() == 64 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let (registry, path) = match name.split_once('/') {
        Some((first, path)) if is_registry(first) => (Some(first), path),
        _ => (None, name),
    };
    registry.is_none_or(valid_registry)
        && !path.is_empty()
        && path.split('/').all(valid_name)
        && name.len() <= MOST
        && !is_id(text)
        && tag.is_none_or(valid_tag)
        && digest.is_none_or(valid_digest)
}

/// Whether the first of several names is that of a registry.
fn is_registry(name: &str) -> bool {
    name == "localhost"
        || name.contains(['.', ':'])
        || name.contains(|c: char| c.is_ascii_uppercase())
}

fn valid_registry(name: &str) -> bool {
    let (host, port) = match name.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (name, None),
    };
    let label = |label: &str| {
        let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
        edge(label.bytes().next())
            && edge(label.bytes().last())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let valid_host = match address {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.split('.').all(label),
    };
    let digits = |port: &str| !port.is_empty() && port.bytes().all(|b| b.is_ascii_digit());
    valid_host && port.is_none_or(digits)
}

/// Small letters and digits; between them one dot, one or two underscores, or any number of dashes.
fn valid_name(name: &str) -> bool {
    let is_word = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    let edges = bytes.first().is_some_and(is_word) && bytes.last().is_some_and(is_word);
    let separators = name.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    edges
        && separators.filter(|separator| !separator.is_empty()).all(|separator| {
            matches!(separator, "." | "_" | "__") || separator.bytes().all(|b| b == b'-')
        })
}

fn valid_tag(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

fn valid_digest(digest: &str) -> bool {
    let Some((algorithm, hex)) = digest.split_once(':') else { return false };
    let part = |part: &str| {
        part.bytes().next().is_some_and(|b| b.is_ascii_alphabetic())
            && part.bytes().all(|b| b.is_ascii_alphanumeric())
    };
    algorithm.split(['-', '_', '+', '.']).all(part)
        && hex.len() >= 32
        && hex.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::valid;

    #[test]
    fn names_of_images() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let id = "0a".repeat(32);
        for good in [
            "alpine",
            "alpine:3.20",
            "alpine:3_x-Y.z",
            "a/b/c",
            "a.b_c__d--e",
            "localhost/x",
            "localhost:5000/x:y",
            "example.org/me/app",
            "Host/app",
            "[::1]:5000/app",
            "[::1]/app",
            &format!("alpine@{digest}"),
            &format!("example.org:5000/alpine:3.20@{digest}"),
            &format!("me/{id}"),
        ] {
            assert!(valid(good), "{good}");
        }
        for bad in [
            "",
            ":tag",
            "alpine:",
            "alpine@",
            "alpine@sha256:12",
            "Alpine",
            "alpine:a b",
            "alpine:.x",
            "me/App",
            "a//b",
            "/a",
            "a/",
            "-a",
            "a___b",
            "a..b",
            "a_-b",
            "example.org:port/x",
            "exa_mple.org/x",
            "[::g]/app",
            &id,
            &format!("alpine:{}", "x".repeat(129)),
            &"a".repeat(256),
        ] {
            assert!(!valid(bad), "{bad}");
        }
    }
}
