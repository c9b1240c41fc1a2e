//! Between the records of a component's own bindings and the values of this crate.

/// Defines `record_in(RecordEntry) -> Result<Record, String>`, `record_out(&Record) -> RecordEntry` and
/// `layer_out(&Layer) -> Descriptor` for the types that a component's bindings have for them: each
/// component has types of its own.
#[macro_export]
macro_rules! border {
    ($entry:ident, $descriptor:ident) => {
        fn hash_in(text: &str) -> Result<$crate::Hash, String> {
            $crate::Hash::parse(text).ok_or_else(|| format!("{text:?} is no digest"))
        }

        fn record_in(entry: $entry) -> Result<$crate::Record, String> {
            let layers = entry.layers.into_iter().map(|layer| {
                Ok(std::rc::Rc::new($crate::Layer {
                    digest: hash_in(&layer.digest)?,
                    size: layer.size,
                    media_type: layer.media_type,
                    diff_id: layer.diff_id.as_deref().map(hash_in).transpose()?,
                    uncompressed_size: layer.uncompressed_size,
                    attrs: layer.attrs,
                }))
            });
            Ok($crate::Record {
                id: hash_in(&entry.id)?,
                layers: layers.collect::<Result<_, String>>()?,
                keys: entry.keys.iter().map(|key| hash_in(key)).collect::<Result<_, String>>()?,
                created: entry.created,
                attrs: entry.attrs,
            })
        }

        fn layer_out(layer: &$crate::Layer) -> $descriptor {
            $descriptor {
                media_type: layer.media_type.clone(),
                digest: layer.digest.to_string(),
                size: layer.size,
                diff_id: layer.diff_id.map(|id| id.to_string()),
                uncompressed_size: layer.uncompressed_size,
                attrs: layer.attrs.clone(),
            }
        }

        fn record_out(record: &$crate::Record) -> $entry {
            $entry {
                keys: record.keys.iter().map(ToString::to_string).collect(),
                id: record.id.to_string(),
                layers: record.layers.iter().map(|layer| layer_out(layer)).collect(),
                created: record.created,
                attrs: record.attrs.clone(),
            }
        }
    };
}
