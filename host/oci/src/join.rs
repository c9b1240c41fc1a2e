//! Joins images and indexes into one index. Pure: what is joined was fetched and checked before.
//!
//! Entries stand in the order of their parts, those of an index in its order, so an attestation stays
//! with the image it is about. Content that several parts name is one entry, and what the later says
//! of it wins. Two images for one platform cannot both be found there, so that is an error, unless one
//! part has both of them: others made it so.

use std::collections::BTreeMap;

use wbuild_graph::{Digest, Platform};

use crate::error::{Error, Result};
use crate::media::{
    DOCKER_LIST, DOCKER_MANIFEST, Descriptor, Index, MAX_INDEX_ENTRIES, MAX_MANIFEST, MediaFamily,
};

/// One of the things that are joined.
#[derive(Clone, Debug)]
pub struct Part {
    /// What messages call it.
    pub name: String,
    /// What it brings.
    pub content: PartContent,
}

/// What a part brings.
#[derive(Clone, Debug)]
pub enum PartContent {
    /// One image. Its descriptor names the platform.
    Image(Box<Descriptor>),
    /// All that an index lists.
    Index(Vec<Descriptor>),
}

/// The entries of an index and who brought them.
#[derive(Default)]
struct Entries<'a> {
    list: Vec<Descriptor>,
    places: BTreeMap<Digest, usize>,
    /// Of images, by platform.
    owners: Vec<(Platform, &'a str)>,
}

/// One index of all parts: of Docker's types where all entries are, else of OCI's.
///
/// # Errors
///
/// Nothing is joined; an entry is no image; two parts have different images for one platform; there is
/// more than an index may hold.
pub fn join(parts: &[Part]) -> Result<Index> {
    let mut entries = Entries::default();
    for part in parts {
        match &part.content {
            PartContent::Image(descriptor) => entries.add(&part.name, descriptor)?,
            PartContent::Index(list) => {
                for descriptor in list {
                    entries.add(&part.name, descriptor)?;
                }
            }
        }
    }
    let list = entries.list;
    if list.is_empty() {
        return Err(Error::invalid("there is no image to join"));
    }
    let docker = |d: &Descriptor| matches!(&*d.media_type, DOCKER_MANIFEST | DOCKER_LIST);
    let family = if list.iter().all(docker) { MediaFamily::Docker } else { MediaFamily::Oci };
    let index = Index::new(family, list);
    check_size(&index)?;
    Ok(index)
}

/// Refuses an index that no registry would take.
///
/// # Errors
///
/// It has too many entries or bytes.
pub fn check_size(index: &Index) -> Result<()> {
    if index.manifests.len() > MAX_INDEX_ENTRIES {
        return Err(Error::limit(format!(
            "the index would have more than {MAX_INDEX_ENTRIES} entries"
        )));
    }
    if index.to_bytes().len() as u64 > MAX_MANIFEST {
        let message = format!("the index would be larger than {MAX_MANIFEST} bytes");
        return Err(Error::limit(message).hint("shorten its annotations"));
    }
    Ok(())
}

impl<'a> Entries<'a> {
    fn add(&mut self, part: &'a str, descriptor: &Descriptor) -> Result<()> {
        let Descriptor { digest, media_type, .. } = descriptor;
        if !descriptor.is_manifest() && !descriptor.is_index() {
            let media_type: String = media_type.chars().take(100).collect();
            let message = format!("{part} lists {digest}, which has the type {media_type:?}");
            return Err(Error::unsupported(message).hint("images and indexes can be joined"));
        }
        if let Some(known) = self.places.get(digest).and_then(|at| self.list.get_mut(*at)) {
            if descriptor.platform.is_some() {
                known.platform.clone_from(&descriptor.platform);
            }
            if let Some(more) = &descriptor.annotations {
                known.annotations.get_or_insert_default().extend(more.clone());
            }
            return Ok(());
        }
        let platform = descriptor.platform.as_ref().filter(|_| !descriptor.is_attestation());
        if let Some(platform) = platform.map(super::media::DescriptorPlatform::normalised) {
            let taken = self.owners.iter().find(|(other, by)| *other == platform && *by != part);
            if let Some((_, other)) = taken {
                let message = format!("{other} and {part} both have an image for {platform}");
                return Err(Error::invalid(message)
                    .hint("leave one of them out; an index has one image for each platform"));
            }
            self.owners.push((platform, part));
        }
        self.places.insert(*digest, self.list.len());
        self.list.push(descriptor.clone());
        Ok(())
    }
}
