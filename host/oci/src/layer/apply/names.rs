//! What the names in archives mean.

use crate::error::{Error, Result};
use crate::layer::MAX_DEPTH;
use crate::layer::entry::show;

/// What an entry's path says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    Root,
    Normal {
        parent: Vec<u8>,
        name: Vec<u8>,
    },
    Whiteout {
        parent: Vec<u8>,
        name: Vec<u8>,
    },
    Opaque {
        parent: Vec<u8>,
    },
    /// Metadata of AUFS that old images carry.
    Ignored,
}

/// Components of a path; `.` and empty ones dropped, `..` refused.
fn components(at: &[u8]) -> Result<Vec<&[u8]>> {
    let parts: Vec<&[u8]> =
        at.split(|b| *b == b'/').filter(|p| !p.is_empty() && *p != b".").collect();
    if parts.contains(&&b".."[..]) {
        return Err(Error::invalid(format!("the archive holds {}, which leads upwards", show(at))));
    }
    if parts.contains(&&b""[..]) || at.contains(&0) {
        return Err(Error::invalid(format!("the archive holds the name {} with NUL", show(at))));
    }
    if parts.len() > MAX_DEPTH {
        let at = show(at);
        return Err(Error::limit(format!("{at} is nested deeper than {MAX_DEPTH} directories")));
    }
    if parts.iter().any(|part| part.len() > 255) {
        return Err(Error::limit(format!("{} has a part of more than 255 bytes", show(at))));
    }
    Ok(parts)
}

pub(super) fn name_of(at: &[u8], dest: &[u8], whiteouts: bool) -> Result<Name> {
    let parts = components(at)?;
    let Some((last, parents)) = parts.split_last() else { return Ok(Name::Root) };
    let mut parent = dest.to_vec();
    for part in parents {
        if !parent.is_empty() {
            parent.push(b'/');
        }
        parent.extend_from_slice(part);
    }
    let name = last.to_vec();
    if !whiteouts {
        return Ok(Name::Normal { parent, name });
    }
    if parts.iter().any(|part| matches!(*part, b".wh..wh.plnk" | b".wh..wh.aufs" | b".wh..wh.orph"))
    {
        return Ok(Name::Ignored);
    }
    if parents.iter().any(|part| part.starts_with(b".wh.")) {
        let at = show(at);
        return Err(Error::invalid(format!("the layer holds {at}, which lies below a whiteout")));
    }
    match last.strip_prefix(b".wh.") {
        None => Ok(Name::Normal { parent, name }),
        Some(b".wh..opq") => Ok(Name::Opaque { parent }),
        Some(hidden)
            if hidden.is_empty()
                || hidden == b"."
                || hidden == b".."
                || hidden.starts_with(b".wh.") =>
        {
            Err(Error::invalid(format!(
                "the layer holds {}, which hides no possible name",
                show(at)
            )))
        }
        Some(hidden) => Ok(Name::Whiteout { parent, name: hidden.to_vec() }),
    }
}

pub(super) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}
