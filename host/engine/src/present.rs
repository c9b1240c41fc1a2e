//! Layers made present: fetched from where they are, unpacked, filled, and what their content is called.
//!
//! A layer is lazy until something reads or sends it. One that cannot be had from where it was said to
//! be is marked as lost, so that what was found with it is made anew.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::{join_all, try_join, try_join_all};
use wbuild_graph::encode::Encoder;
use wbuild_graph::{BlobDigest, CacheKey, ContentDigest, Failure, FailureKind};
use wbuild_oci::reference::Reference;
use wbuild_store::{BlobCheck, BlobRef, Lease, SnapshotId, Stack, View};
use wbuild_tree::Base;
use wbuild_tree::root::Root;

use crate::cancel::CancelOnDrop;
use crate::solved::{self, Layer, Origin, Output, Tree};
use crate::worker::BuildWorker;
use crate::{blocking, ops};

/// What helps against damage on the disk.
pub(crate) const REPAIR: &str = "what is kept on this disk is damaged: `wbuild fsck --verify --repair` \
    sets it aside, and the next build gets or makes it anew";

impl BuildWorker {
    /// The files of a stack of layers, as one read-only directory.
    pub(crate) async fn view(&self, tree: &Tree) -> Result<View, Failure> {
        let snapshots = self.snapshots(tree).await?;
        let store = self.store.clone();
        blocking(move || store.view(&snapshots)).await
    }

    /// The layers for a further one to be written over them, and what keeps them: names and
    /// metadata are looked up, large files may lack their contents. None if there are none.
    pub(crate) async fn base(&self, tree: &Tree) -> Result<Option<(Base, Lease)>, Failure> {
        if tree.layers.is_empty() {
            return Ok(None);
        }
        let Stack { dir, paths, lease } = self.store.stack(&self.unfilled(tree).await?)?;
        let root = Root::from_fd(dir, "the tree below");
        Ok(Some((Base::stack(root, paths), lease)))
    }

    /// Makes every layer's files present; returns their snapshots, bottom first.
    pub(crate) async fn snapshots(&self, tree: &Tree) -> Result<Vec<SnapshotId>, Failure> {
        let snapshots = self.unfilled(tree).await?;
        for layer in &tree.layers {
            self.fill(layer).await?;
        }
        Ok(snapshots)
    }

    /// Writes what a layer's snapshot lacks into it.
    pub(crate) async fn fill(&self, layer: &Layer) -> Result<(), Failure> {
        if layer.lent().is_none() {
            return Ok(());
        }
        let _busy = layer.busy.lock().await;
        let (Some(lent), Some(snapshot)) = (layer.lent(), layer.facts().snapshot) else {
            return Ok(());
        };
        let store = self.store.clone();
        let _slot = self.io_slots.acquire().await.expect("the semaphore is never closed");
        let (_cancel, work) = CancelOnDrop::new();
        blocking(move || -> Result<(), Failure> {
            let view = store.view(&[snapshot])?;
            let root = Root::from_fd(view.open_dir()?, "a layer");
            let filled = lent.files.fill(&root, &lent.context.root, &work);
            filled.map_err(|error| lent.context.failure(error, None))?;
            Ok(store.recount(snapshot)?)
        })
        .await?;
        layer.filled();
        Ok(())
    }

    async fn unfilled(&self, tree: &Tree) -> Result<Vec<SnapshotId>, Failure> {
        let missing: Vec<usize> = (0..tree.layers.len())
            .filter(|index| tree.layers[*index].facts().snapshot.is_none())
            .collect();
        if !missing.is_empty() {
            self.unpack(tree, &missing).await?;
        }
        tree.layers
            .iter()
            .map(|layer| {
                layer
                    .facts()
                    .snapshot
                    .ok_or_else(|| Failure::internal("a layer has no files after it was unpacked"))
            })
            .collect()
    }

    /// Fetches missing layers, all at once, and unpacks them, bottom first.
    async fn unpack(&self, tree: &Tree, missing: &[usize]) -> Result<(), Failure> {
        let contents: Vec<ContentDigest> = self.contents(tree).await?;
        let key_of = |index: usize| unpacked_key(&contents[..=index], &tree.layers[..=index]);
        // What another image has brought already needs no fetch.
        for index in missing {
            let layer = &tree.layers[*index];
            let _busy = layer.busy.lock().await;
            if layer.facts().snapshot.is_some() {
                continue;
            }
            if let Some(held) = self.store.record(&key_of(*index)).map_err(Failure::from)? {
                let (record, lease) = held.into_parts();
                if let Some(snapshot) = record.snapshots().last() {
                    layer.learn(|facts| facts.snapshot = Some(snapshot));
                    layer.hold(lease);
                }
            }
        }
        let absent = |index: &&usize| tree.layers[**index].facts().snapshot.is_none();
        let wanted: Vec<_> =
            missing.iter().filter(absent).map(|index| &tree.layers[*index]).collect();
        let fetch = self.fetch_layers(&wanted);
        // A layer is unpacked as soon as it is there, while those above it are fetched.
        try_join(fetch, self.unpack_each(tree, missing, key_of)).await.map(|_| ())
    }

    async fn unpack_each(
        &self,
        tree: &Tree,
        missing: &[usize],
        key_of: impl Fn(usize) -> CacheKey,
    ) -> Result<(), Failure> {
        for index in missing {
            let layer = &tree.layers[*index];
            if layer.facts().snapshot.is_none() {
                self.fetch_layer(layer).await?;
            }
            let _busy = layer.busy.lock().await;
            if layer.facts().snapshot.is_some() {
                continue;
            }
            let below: Vec<SnapshotId> =
                tree.layers[..*index].iter().filter_map(|layer| layer.facts().snapshot).collect();
            let slot = self.io_slots.acquire().await.expect("the semaphore is never closed");
            let unpacked = self.images.unpack_layer(layer, below, key_of(*index)).await;
            drop(slot);
            let (snapshot, lease) = match unpacked {
                Ok(unpacked) => unpacked,
                Err(failure) => {
                    let blob = layer.facts().blob.map(|blob| blob.digest);
                    let failure = self.if_damaged(blob.into_iter().collect(), failure).await;
                    return Err(self.refused(layer, tree, failure));
                }
            };
            layer.learn(|facts| facts.snapshot = Some(snapshot));
            layer.hold(lease);
        }
        Ok(())
    }

    /// Makes sure that a layer's blob is in the store.
    pub(crate) async fn fetch_layer(&self, layer: &Layer) -> Result<BlobRef, Failure> {
        let fetched = match (&layer.place, layer.facts().blob) {
            (Some(place), Some(blob)) => {
                let fetch = self.imports.fetch(place, std::slice::from_ref(&blob));
                let mut answers = Box::pin(fetch).await;
                answers.pop().unwrap_or(Ok(())).map(|()| blob)
            }
            _ => self.images.fetch_layer(layer).await,
        };
        lost_if_gone(layer, fetched)
    }

    /// The same for several layers, those of one cache all at once.
    async fn fetch_layers(&self, layers: &[&Arc<Layer>]) -> Result<(), Failure> {
        let mut places: BTreeMap<&str, (Vec<&Layer>, Vec<BlobRef>)> = BTreeMap::new();
        let mut others = Vec::new();
        for layer in layers {
            match (&layer.place, layer.facts().blob) {
                (Some(place), Some(blob)) => {
                    let (layers, blobs) = places.entry(place).or_default();
                    layers.push(layer);
                    blobs.push(blob);
                }
                _ => others.push(layer),
            }
        }
        let places = places.into_iter().map(|(place, (layers, blobs))| async move {
            let answers = Box::pin(self.imports.fetch(place, &blobs)).await;
            // All that are gone are noted, whichever is the first.
            let answers = layers.iter().zip(answers);
            let answers = answers.map(|(layer, answer)| lost_if_gone(layer, answer));
            answers.collect::<Vec<_>>().into_iter().collect::<Result<(), Failure>>()
        });
        // Every cache is heard.
        let places = async { join_all(places).await.into_iter().collect::<Result<(), Failure>>() };
        let others =
            others.into_iter().map(|layer| async { self.fetch_layer(layer).await.map(|_| ()) });
        try_join(places, try_join_all(others)).await.map(|_| ())
    }

    /// Finds out what else of an output is gone, where something is: then it is made anew once, and not
    /// for each layer again.
    pub(crate) async fn count_losses(&self, output: &Output) {
        let Output::Tree(tree) = output else { return };
        let absent =
            |layer: &&Arc<Layer>| layer.place.is_some() && layer.facts().snapshot.is_none();
        let layers: Vec<_> = tree.layers.iter().filter(absent).collect();
        // What is gone is noted; what comes is there already when it is wanted.
        let _ = self.fetch_layers(&layers).await;
    }

    /// Whether a layer of an output cannot be had any more.
    pub(crate) fn is_lost(&self, output: &Output) -> Result<bool, Failure> {
        let Output::Tree(tree) = output else { return Ok(false) };
        for layer in &tree.layers {
            // Found to be gone; or by somebody who had it from another record.
            let facts = layer.facts();
            let lost = layer.is_lost()
                || match (&layer.place, &layer.origin, &facts.blob, facts.snapshot) {
                    (Some(place), _, Some(blob), None) => self.imports.lacks(place, blob)?,
                    // Made here, and kept as a blob alone.
                    (None, Origin::Made, Some(blob), None) => !self.store.has_blob(&blob.digest)?,
                    _ => false,
                };
            if lost {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The repository of `registry` that a layer lies in already, if there is one.
    pub(crate) fn repository_of(&self, layer: &Layer, registry: &str) -> Option<String> {
        match (&layer.place, &layer.origin) {
            (Some(place), _) => self.imports.repository(place, registry),
            (None, Origin::Image(origin)) if origin.store.is_none() => {
                let reference = origin.reference.parse::<Reference>().ok()?;
                (reference.registry() == registry).then(|| reference.repository().to_owned())
            }
            (None, _) => None,
        }
    }

    /// What it means that a layer cannot be unpacked: of one from elsewhere, that it is not what the
    /// cache said, so that it counts as gone; and with it what else of `tree` is to come from there,
    /// since a result is made anew only once.
    fn refused(&self, layer: &Layer, tree: &Tree, failure: Failure) -> Failure {
        let blamed = [FailureKind::Invalid, FailureKind::Unsupported, FailureKind::Limit];
        if let (Some(place), Some(blob)) = (&layer.place, layer.facts().blob)
            && blamed.contains(&failure.kind)
        {
            self.imports.refuse(place, &blob, &failure);
            let same = |other: &&Arc<Layer>| {
                other.place.as_ref() == Some(place) && other.facts().snapshot.is_none()
            };
            for other in tree.layers.iter().filter(same) {
                other.lose();
                if let Some(blob) = other.facts().blob {
                    self.imports.doubt(place, &blob);
                }
            }
            return Failure { kind: FailureKind::Gone, ..failure };
        }
        failure
    }

    /// A failure, and what helps if one of these blobs is not what it was when it came here.
    pub(crate) async fn if_damaged(&self, blobs: Vec<BlobDigest>, failure: Failure) -> Failure {
        // What a refusal, or a layer that cannot be read, is.
        if !matches!(failure.kind, FailureKind::Invalid | FailureKind::Unsupported) {
            return failure;
        }
        let store = self.store.clone();
        let damaged = blocking(move || {
            let damaged = |digest| matches!(store.verify_blob(digest), Ok(BlobCheck::Damaged));
            Ok::<_, Failure>(blobs.iter().any(damaged))
        });
        match damaged.await {
            Ok(true) => failure.hint(REPAIR),
            _ => failure,
        }
    }

    /// Content of each layer, bottom first, computed where it is not known.
    pub(crate) async fn contents(&self, tree: &Tree) -> Result<Vec<ContentDigest>, Failure> {
        let mut contents = Vec::with_capacity(tree.layers.len());
        for layer in &tree.layers {
            contents.push(self.layer_content(layer).await?);
        }
        Ok(contents)
    }

    pub(crate) async fn layer_content(&self, layer: &Layer) -> Result<ContentDigest, Failure> {
        if let Some(content) = layer.facts().content {
            return Ok(content);
        }
        let _busy = layer.busy.lock().await;
        let facts = layer.facts();
        if let Some(content) = facts.content {
            return Ok(content);
        }
        let content = match (&layer.origin, facts.snapshot, facts.diff_id) {
            (Origin::Image(_), _, Some(diff_id)) => solved::image_layer_content(&diff_id),
            (_, Some(snapshot), _) => {
                let (store, lent) = (self.store.clone(), layer.lent());
                let _slot = self.io_slots.acquire().await.expect("the semaphore is never closed");
                let (_cancel, work) = CancelOnDrop::new();
                blocking(move || -> Result<ContentDigest, Failure> {
                    let view = store.view(&[snapshot])?;
                    let root = Root::from_fd(view.open_dir()?, "a layer");
                    let kind = ops::xattr_kind(store.kind());
                    Ok(match lent {
                        Some(lent) => lent.files.layer_digest(&root, kind, &work)?,
                        None => wbuild_tree::digest::layer_digest(&root, kind, &work)?,
                    })
                })
                .await?
            }
            _ => return Err(Failure::internal("a layer without files and without a diff id")),
        };
        layer.learn(|facts| facts.content = Some(content));
        Ok(content)
    }
}

/// Names the unpacked form of the topmost of `layers`: what a layer unpacks to depends on those
/// below it, whose directories it takes over.
///
/// What a cache elsewhere calls the content of a layer of ours is its own word, which must not stand
/// for anybody else's layer: there the diff id, which is checked, belongs to the name.
fn unpacked_key(contents: &[ContentDigest], layers: &[Arc<Layer>]) -> CacheKey {
    let mut e = Encoder::new("wbuild.unpacked.v1");
    e.list(contents.iter(), |e, content| {
        e.digest(content.digest());
    });
    let claimed = |layer: &&Arc<Layer>| layer.place.is_some() && layer.origin == Origin::Made;
    for layer in layers.iter().filter(claimed) {
        if let Some(diff_id) = layer.facts().diff_id {
            e.variant("claimed").digest(diff_id.digest());
        }
    }
    CacheKey(e.finish())
}

fn lost_if_gone<T>(layer: &Layer, result: Result<T, Failure>) -> Result<T, Failure> {
    if result.as_ref().is_err_and(|failure| failure.kind == FailureKind::Gone) {
        layer.lose();
    }
    result
}
