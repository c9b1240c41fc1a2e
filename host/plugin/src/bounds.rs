//! What the words of a guest may be, once for every way they come by: the bindings of each WIT
//! version, and a process that runs a guest for this one and may have been taken over by it.

use wbuild_api::extension::BlobInfo;
use wbuild_graph::{Attrs, Diagnostic, Failure, FailureKind, quoted};

use crate::limits::{SMALL_BLOB_READ, SMALL_BLOB_WRITE, clip, size};

/// Longest text of a failure or diagnostic that is kept, in bytes.
pub const TEXT_BYTES: usize = 64 << 10;
/// Most diagnostics of a failure, labels of a diagnostic, and pairs of either, that are kept.
pub const TEXT_ITEMS: usize = 1000;
/// Most targets, parameters or methods that a frontend may answer.
pub const ANSWERS: usize = 10_000;
/// Longest media type.
const MEDIA_TYPE_BYTES: usize = 255;
/// Longest tag or digest.
const REFERENCE_BYTES: usize = 256;

/// A text for people.
pub fn text(text: String) -> String {
    clip(text, TEXT_BYTES)
}

/// Pairs beside a text for people.
pub fn attrs(attrs: Attrs) -> Attrs {
    let pair = |(key, value)| (text(key), text(value));
    Attrs(attrs.0.into_iter().take(TEXT_ITEMS).map(pair).collect())
}

/// A diagnostic that a guest reports.
pub fn diagnostic(mut diagnostic: Diagnostic) -> Diagnostic {
    diagnostic.labels.truncate(TEXT_ITEMS);
    for label in &mut diagnostic.labels {
        label.text = text(std::mem::take(&mut label.text));
    }
    Diagnostic {
        code: diagnostic.code.map(text),
        message: text(diagnostic.message),
        help: diagnostic.help.map(text),
        url: diagnostic.url.map(text),
        ..diagnostic
    }
}

/// A failure that a guest reports.
pub fn failure(mut failure: Failure) -> Failure {
    failure.diagnostics.truncate(TEXT_ITEMS);
    failure.causes.truncate(TEXT_ITEMS);
    failure.hints.truncate(TEXT_ITEMS);
    Failure {
        message: text(failure.message),
        diagnostics: failure.diagnostics.into_iter().map(diagnostic).collect(),
        causes: failure.causes.into_iter().map(text).collect(),
        hints: failure.hints.into_iter().map(text).collect(),
        attrs: attrs(failure.attrs),
        ..failure
    }
}

/// Bucket names become parts of the store's own names: plain ones only.
///
/// # Errors
///
/// `Invalid` for others.
pub fn bucket(name: &str) -> Result<(), Failure> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
    if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        return Err(Failure::invalid(format!("{} is no name for a bucket", quoted(name)))
            .hint("a bucket's name is 1 to 64 of the characters a-z 0-9 - _"));
    }
    Ok(())
}

/// A tag or digest of a repository.
///
/// # Errors
///
/// `Invalid` for other texts.
pub fn reference(reference: &str) -> Result<(), Failure> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-:".contains(&byte);
    let length = 1..=REFERENCE_BYTES;
    if length.contains(&reference.len()) && reference.bytes().all(fits) {
        return Ok(());
    }
    Err(Failure::invalid(format!("{} is neither a tag nor a digest", quoted(reference))))
}

/// A media type, which is held for as long as a handle of its blob.
///
/// # Errors
///
/// `Invalid` when it is longer than any (RFC 6838, section 4.2).
pub fn media_type(text: &str) -> Result<(), Failure> {
    if text.len() <= MEDIA_TYPE_BYTES {
        return Ok(());
    }
    Err(Failure::invalid(format!("{} is no media type", quoted(text))))
}

/// A blob that is to be read by a guest: larger ones are layers.
///
/// # Errors
///
/// `Limit` when it is too large.
pub fn readable_blob(info: &BlobInfo) -> Result<(), Failure> {
    if info.size <= SMALL_BLOB_READ {
        return Ok(());
    }
    let bound = size(usize::try_from(SMALL_BLOB_READ).unwrap_or(usize::MAX));
    let message = format!("the blob {} is larger than {bound}, it cannot be read", info.digest);
    Err(Failure::new(FailureKind::Limit, message))
}

/// A blob that is to be written.
///
/// # Errors
///
/// `Limit` when it is too large.
pub fn small_blob(data: &[u8]) -> Result<(), Failure> {
    let message = |is, most| format!("a blob of {is} is to be written, at most {most} can be");
    small(data, message)
}

/// A manifest that is to be published.
///
/// # Errors
///
/// `Limit` when it is too large.
pub fn manifest(data: &[u8]) -> Result<(), Failure> {
    let message =
        |is, most| format!("a manifest of {is} is to be published, at most {most} can be");
    small(data, message)
}

fn small(data: &[u8], message: impl FnOnce(String, String) -> String) -> Result<(), Failure> {
    if data.len() <= SMALL_BLOB_WRITE {
        return Ok(());
    }
    Err(Failure::new(FailureKind::Limit, message(size(data.len()), size(SMALL_BLOB_WRITE))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_bucket_names_reach_the_store() {
        for good in ["records", "a", "v1-keys_2"] {
            assert!(bucket(good).is_ok(), "{good}");
        }
        for bad in ["", "..", "a/b", "A", "a.b", "a\0", &"x".repeat(65)] {
            assert!(bucket(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_tags_and_digests_reach_the_repository() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for good in ["latest", "v1.2_a-b", &digest] {
            assert!(reference(good).is_ok(), "{good}");
        }
        for bad in ["", "a/b", "../x", "a b", "a?b", "a#b", "a%2fb", "a\0", &"x".repeat(257)] {
            assert!(reference(bad).is_err(), "{bad:?}");
        }
    }
}
