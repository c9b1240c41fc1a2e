//! Records as cache backends keep them, and back.
//!
//! One entry is one record: the layers of all its outputs, one after the other. What a backend
//! elsewhere answers is a claim: [`claimed`] takes over only what has the right form. Which result a
//! key leads to, and what a layer's content is called, is believed of a cache that the user named; the
//! bytes of its layers are checked by digest when they come and by diff id when they are unpacked.

use std::collections::HashSet;

use wbuild_api::extension::{LayerDescriptor, RecordEntry};
use wbuild_graph::encode::Encoder;
use wbuild_graph::{Attrs, BlobDigest, CacheKey, ContentDigest, DiffId, Digest, ResultId};
use wbuild_oci::media::{Compression, MAX_LAYERS};
use wbuild_store::{BlobRef, LayerRecord, OutputRecord, Record};

use super::SNAPSHOT;
use crate::solved::{self, facts_attrs};

/// The attribute of an entry that holds the key of the store's record.
pub(super) const RECORD: &str = "record";
/// What an entry is about: [`RESULT`] or [`MOUNT`].
pub(super) const KIND: &str = "kind";
pub(super) const RESULT: &str = "result";
pub(super) const MOUNT: &str = "cache-mount";
/// How many layers each output has, comma separated; absent for one output that has them all.
const OUTPUTS: &str = "outputs";
/// Of a layer: what its files are called in keys.
const CONTENT: &str = "content-digest";
/// The most outputs of a record from elsewhere.
const MAX_OUTPUTS: usize = 100;
/// The largest layer that is believed in, in bytes.
pub(crate) const LAYER_LIMIT: u64 = 1 << 40;

/// What a backend of this machine keeps of a record: where the store has it.
pub(super) fn local(record: &Record) -> Option<RecordEntry> {
    let first = record.keys.first()?;
    let layers = record.layers().filter_map(|layer| {
        let content = layer.content_digest.map(|content| *content.digest());
        let (media_type, digest, size) = match &layer.blob {
            Some(blob) => (blob.media_type.clone(), *blob.digest.digest(), blob.size),
            None => (SNAPSHOT.to_owned(), content?, layer.size_bytes),
        };
        Some(LayerDescriptor {
            media_type,
            digest,
            size,
            diff_id: layer.diff_id,
            uncompressed_size: (layer.size_bytes > 0).then_some(layer.size_bytes),
            attrs: Attrs::default(),
        })
    });
    let mut attrs = Attrs::default();
    attrs.push(KIND, RESULT);
    attrs.push(RECORD, first.to_string());
    // The identity of a result is computed lazily; until then the record's key stands for it.
    let id = record.outputs.first().and_then(|output| output.result_id);
    Some(RecordEntry {
        keys: record.keys.clone(),
        id: id.unwrap_or(ResultId(*first.digest())),
        layers: layers.collect(),
        created: record.created,
        attrs,
    })
}

/// What a cache elsewhere keeps of a record. None if something of it is not known.
pub(crate) fn elsewhere(
    keys: Vec<CacheKey>,
    outputs: &[OutputRecord],
    created: u64,
) -> Option<RecordEntry> {
    let mut layers = Vec::new();
    let mut ids = Vec::new();
    for output in outputs {
        let contents: Option<Vec<ContentDigest>> =
            output.layers.iter().map(|layer| layer.content_digest).collect();
        ids.push(solved::result_id(&contents?));
        for layer in &output.layers {
            layers.push(descriptor(layer)?);
        }
    }
    let mut attrs = Attrs::default();
    attrs.push(KIND, RESULT);
    let id = match &ids[..] {
        [one] => *one,
        _ => {
            let counts: Vec<String> = outputs.iter().map(|o| o.layers.len().to_string()).collect();
            attrs.push(OUTPUTS, counts.join(","));
            let mut e = Encoder::new("wbuild.results.v1");
            e.list(ids.iter(), |e, id| {
                e.digest(id.digest());
            });
            ResultId(e.finish())
        }
    };
    Some(RecordEntry { keys, id, layers, created, attrs })
}

fn descriptor(layer: &LayerRecord) -> Option<LayerDescriptor> {
    let blob = layer.blob.as_ref()?;
    Some(LayerDescriptor {
        media_type: blob.media_type.clone(),
        digest: *blob.digest.digest(),
        size: blob.size,
        diff_id: Some(layer.diff_id?),
        uncompressed_size: (layer.size_bytes > 0).then_some(layer.size_bytes),
        attrs: layer_attrs(layer.content_digest?, &layer.attrs),
    })
}

/// What is said of a layer besides its blob.
pub(crate) fn layer_attrs(content: ContentDigest, record: &Attrs) -> Attrs {
    let mut attrs = Attrs::default();
    attrs.push(CONTENT, content.to_string());
    attrs.0.extend(facts_attrs(record));
    attrs
}

/// The descriptor by which a layer is asked for.
pub(crate) fn wanted(blob: &BlobRef) -> LayerDescriptor {
    LayerDescriptor {
        media_type: blob.media_type.clone(),
        digest: *blob.digest.digest(),
        size: blob.size,
        diff_id: None,
        uncompressed_size: None,
        attrs: Attrs::default(),
    }
}

/// The record that an entry from `place` claims to be, found by `key`. None for one that is of no use
/// or has a layer that is known to be gone.
///
/// It has no key but the one that was asked for: what else a cache says of keys nobody asked about is
/// not taken over.
pub(super) fn claimed(
    entry: &RecordEntry,
    key: CacheKey,
    place: &str,
    gone: &HashSet<Digest>,
    now: u64,
) -> Option<Record> {
    let right = entry.attrs.get(KIND) == Some(RESULT) && entry.keys.contains(&key);
    if !right || entry.layers.len() > MAX_LAYERS {
        return None;
    }
    let mut layers = entry.layers.iter().map(|layer| claimed_layer(layer, place, gone));
    let counts: Vec<usize> = match entry.attrs.get(OUTPUTS) {
        None => vec![entry.layers.len()],
        Some("") => Vec::new(),
        Some(counts) => counts.split(',').map(|count| count.parse().ok()).collect::<Option<_>>()?,
    };
    let all = counts.iter().try_fold(0usize, |sum, count| sum.checked_add(*count));
    if counts.len() > MAX_OUTPUTS || all != Some(entry.layers.len()) {
        return None;
    }
    let outputs = counts.into_iter().map(|count| {
        let layers: Option<Vec<LayerRecord>> = layers.by_ref().take(count).collect();
        Some(OutputRecord { result_id: None, layers: layers? })
    });
    Some(Record {
        keys: vec![key],
        outputs: outputs.collect::<Option<_>>()?,
        created: entry.created.min(now),
        ..Record::default()
    })
}

fn claimed_layer(
    layer: &LayerDescriptor,
    place: &str,
    gone: &HashSet<Digest>,
) -> Option<LayerRecord> {
    Compression::of_media_type(&layer.media_type)?;
    let diff_id = layer.diff_id?;
    if gone.contains(&layer.digest) || layer.size > LAYER_LIMIT {
        return None;
    }
    let attrs = solved::attrs_from(place, &layer.attrs)?;
    let content = match solved::is_of_image(&attrs) {
        // What is known without anybody's word.
        true => solved::image_layer_content(&diff_id),
        false => layer.attrs.get(CONTENT)?.parse().ok()?,
    };
    Some(LayerRecord {
        snapshot: None,
        content_digest: Some(content),
        blob: Some(BlobRef {
            media_type: layer.media_type.clone(),
            digest: BlobDigest(layer.digest),
            size: layer.size,
        }),
        diff_id: Some(diff_id),
        size_bytes: layer.uncompressed_size.unwrap_or(0),
        attrs,
    })
}

/// Names the files of a cache mount.
pub(crate) fn mount_key(id: &str) -> CacheKey {
    CacheKey(Encoder::new("wbuild.cache-mount.v1").str(id).finish())
}

/// What a cache elsewhere keeps of a cache mount: all its files as one layer.
pub(crate) fn mount(id: &str, blob: &BlobRef, diff_id: DiffId, created: u64) -> RecordEntry {
    let mut attrs = Attrs::default();
    attrs.push(KIND, MOUNT);
    let layer = LayerDescriptor { diff_id: Some(diff_id), ..wanted(blob) };
    let id = mount_key(id);
    RecordEntry { keys: vec![id], id: ResultId(diff_id.0), layers: vec![layer], created, attrs }
}

/// The files of a cache mount that an entry claims to be.
pub(super) fn claimed_mount(
    entry: &RecordEntry,
    key: CacheKey,
    gone: &HashSet<Digest>,
) -> Option<(BlobRef, DiffId)> {
    let [layer] = &entry.layers[..] else { return None };
    let right = entry.attrs.get(KIND) == Some(MOUNT) && entry.keys.contains(&key);
    Compression::of_media_type(&layer.media_type)?;
    if !right || gone.contains(&layer.digest) || layer.size > LAYER_LIMIT {
        return None;
    }
    let blob = BlobRef {
        media_type: layer.media_type.clone(),
        digest: BlobDigest(layer.digest),
        size: layer.size,
    };
    Some((blob, layer.diff_id?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> CacheKey {
        CacheKey(Digest::of(text.as_bytes()))
    }

    fn layer(text: &str, image: bool) -> LayerRecord {
        let mut attrs = Attrs::default();
        if image {
            attrs.push("image", "example.org/base:1");
        }
        attrs.push("created", "5");
        attrs.push("private", "to this machine");
        let diff_id = DiffId(Digest::of(format!("{text} unpacked").as_bytes()));
        LayerRecord {
            snapshot: None,
            content_digest: Some(match image {
                true => solved::image_layer_content(&diff_id),
                false => ContentDigest(Digest::of(format!("{text} content").as_bytes())),
            }),
            blob: Some(BlobRef {
                media_type: "application/vnd.oci.image.layer.v1.tar+gzip".to_owned(),
                digest: BlobDigest(Digest::of(text.as_bytes())),
                size: 7,
            }),
            diff_id: Some(diff_id),
            size_bytes: 9,
            attrs,
        }
    }

    fn outputs() -> Vec<OutputRecord> {
        let output = |layers| OutputRecord { result_id: None, layers };
        vec![output(vec![layer("base", true), layer("a", false)]), output(vec![layer("b", false)])]
    }

    #[test]
    fn records_come_back_as_they_went() {
        for outputs in [outputs(), outputs()[..1].to_vec(), Vec::new()] {
            let entry = elsewhere(vec![key("k"), key("l")], &outputs, 3).expect("all is known");
            let found = claimed(&entry, key("l"), "place", &HashSet::new(), 2).expect("right");
            assert_eq!((found.keys, found.created), (vec![key("l")], 2));
            assert_eq!(found.outputs.len(), outputs.len());
            let layers = |outputs: &[OutputRecord]| -> Vec<LayerRecord> {
                outputs.iter().flat_map(|output| output.layers.clone()).collect()
            };
            for (found, mut sent) in layers(&found.outputs).into_iter().zip(layers(&outputs)) {
                sent.attrs.0.retain(|(key, _)| key != "private");
                sent.attrs.push("place", "place");
                assert_eq!(found, sent);
            }
        }
        let mut unknown = outputs();
        unknown[0].layers[1].blob = None;
        assert!(elsewhere(vec![key("k")], &unknown, 3).is_none());
    }

    #[test]
    fn what_has_another_form_is_not_believed() {
        let entry = elsewhere(vec![key("k")], &outputs(), 3).expect("all is known");
        let nothing = HashSet::new();
        assert!(claimed(&entry, key("k"), "p", &nothing, 9).is_some());
        assert!(claimed(&entry, key("other"), "p", &nothing, 9).is_none(), "another key");
        let gone = HashSet::from([entry.layers[2].digest]);
        assert!(claimed(&entry, key("k"), "p", &gone, 9).is_none(), "a layer is gone");
        let set = |key: &'static str, value: &'static str| {
            move |attrs: &mut Attrs| {
                attrs.0.retain(|(known, _)| known != key);
                attrs.push(key, value);
            }
        };
        type Change = Box<dyn Fn(&mut RecordEntry)>;
        let changes: Vec<(&str, Change)> = vec![
            ("another kind", Box::new(move |e| set(KIND, MOUNT)(&mut e.attrs))),
            ("fewer outputs", Box::new(move |e| set(OUTPUTS, "2")(&mut e.attrs))),
            ("too many", Box::new(move |e| set(OUTPUTS, "2,18446744073709551615")(&mut e.attrs))),
            ("no number", Box::new(move |e| set(OUTPUTS, "2,-1")(&mut e.attrs))),
            ("no diff id", Box::new(|e| e.layers[1].diff_id = None)),
            ("no archive", Box::new(|e| SNAPSHOT.clone_into(&mut e.layers[1].media_type))),
            ("too large", Box::new(|e| e.layers[1].size = LAYER_LIMIT + 1)),
            ("no content", Box::new(|e| e.layers[1].attrs.0.clear())),
            ("odd content", Box::new(move |e| set(CONTENT, "sha256:x")(&mut e.layers[1].attrs))),
            ("odd image", Box::new(move |e| set("image", "a b")(&mut e.layers[0].attrs))),
            ("odd date", Box::new(move |e| set("created", "soon")(&mut e.layers[1].attrs))),
            ("many layers", Box::new(|e| e.layers = vec![e.layers[0].clone(); MAX_LAYERS + 1])),
        ];
        for (what, change) in changes {
            let mut entry = entry.clone();
            change(&mut entry);
            assert!(claimed(&entry, key("k"), "p", &nothing, 9).is_none(), "{what}");
        }
        // What a layer of an image holds is known without anybody's word.
        let mut lie = entry.clone();
        set(CONTENT, "sha256:x")(&mut lie.layers[0].attrs);
        let found = claimed(&lie, key("k"), "p", &nothing, 9).expect("right");
        assert_eq!(found.outputs[0].layers[0].content_digest, layer("base", true).content_digest);
        // And where it is, is nobody else's to say.
        set("place", "elsewhere")(&mut lie.layers[1].attrs);
        let found = claimed(&lie, key("k"), "p", &nothing, 9).expect("right");
        let places: Vec<_> = found.outputs[0].layers[1].attrs.all("place").collect();
        assert_eq!(places, ["p"]);
    }

    #[test]
    fn mounts() {
        let blob = layer("m", false).blob.expect("a blob");
        let diff_id = DiffId(Digest::of(b"tar"));
        let entry = mount("id", &blob, diff_id, 3);
        let nothing = HashSet::new();
        assert_eq!(claimed_mount(&entry, mount_key("id"), &nothing), Some((blob, diff_id)));
        assert_eq!(claimed_mount(&entry, mount_key("other"), &nothing), None);
        assert!(claimed(&entry, mount_key("id"), "p", &nothing, 9).is_none(), "it is no result");
        let result = elsewhere(vec![mount_key("id")], &outputs()[1..], 3).expect("known");
        assert_eq!(claimed_mount(&result, mount_key("id"), &nothing), None);
    }
}
