//! What a build leaves for other programs: the image's id, and what was built as JSON.

use serde_json::{Map, Value, json};
use wbuild_api::event::{BuildReport, ImageReport};
use wbuild_graph::Digest;

/// The id of what was built, as buildx prints it: the digest of the config, which `docker image ls`
/// shows too; that of the index for an image of several platforms.
///
/// Of several images it is the one that names of the caller's are for, if there is one.
pub fn image_id(report: &BuildReport) -> Option<Digest> {
    let first = report.images.first()?;
    let main = report.images.iter().find(|image| image.image.is_empty());
    // An image that several outputs write has the same id in each.
    let only = || report.images.iter().all(|other| other.image == first.image).then_some(first);
    let image = main.or_else(only)?;
    image.config.or(image.digest)
}

/// The metadata file: keys as buildx writes them for the image that names of the caller's are for,
/// or else for the first, and all images below `wbuild.images`.
pub fn metadata(report: &BuildReport) -> Value {
    let main = report.images.iter().find(|image| image.image.is_empty());
    let mut out = main.or(report.images.first()).map(image).unwrap_or_default();
    out.insert("wbuild.images".to_owned(), json!(report.images));
    out.insert("wbuild.stats".to_owned(), json!(report.stats));
    Value::Object(out)
}

/// The digest of a manifest or index.
pub const DIGEST: &str = "containerimage.digest";
/// All names, with commas between.
pub const NAMES: &str = "image.name";

/// What is said of one image.
pub fn image(image: &ImageReport) -> Map<String, Value> {
    let mut out = Map::new();
    if let Some(digest) = image.digest {
        out.insert(DIGEST.to_owned(), json!(digest));
    }
    if let Some(config) = image.config {
        out.insert("containerimage.config.digest".to_owned(), json!(config));
    }
    if let Some(descriptor) = &image.descriptor {
        out.insert("containerimage.descriptor".to_owned(), json!(descriptor));
    }
    if !image.names.is_empty() {
        out.insert(NAMES.to_owned(), json!(image.names.join(",")));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use wbuild_api::event::ImageDescriptor;

    #[test]
    fn ids_are_those_of_buildx() {
        let (manifest, config) = (Digest::of(b"manifest"), Digest::of(b"config"));
        let report = |digest, config| BuildReport {
            images: vec![ImageReport {
                image: String::new(),
                names: vec!["a:1".into(), "b:2".into()],
                digest,
                config,
                descriptor: digest.map(|digest| ImageDescriptor {
                    media_type: "type".to_owned(),
                    digest,
                    size: 7,
                    annotations: [("a".to_owned(), "b".to_owned())].into(),
                }),
            }],
            ..BuildReport::default()
        };
        let single = report(Some(manifest), Some(config));
        assert_eq!(image_id(&single), Some(config));
        assert_eq!(image_id(&report(None, Some(config))), Some(config));
        assert_eq!(image_id(&report(Some(manifest), None)), Some(manifest));
        assert_eq!(image_id(&BuildReport::default()), None);

        // Of several images, the one without a name of its own; without one, none.
        let other = ImageReport {
            image: "+a".to_owned(),
            config: Some(Digest::of(b"other")),
            ..single.images[0].clone()
        };
        let several = |images: Vec<ImageReport>| BuildReport { images, ..BuildReport::default() };
        let both = several(vec![other.clone(), single.images[0].clone()]);
        assert_eq!(image_id(&both), Some(config));
        assert_eq!(metadata(&both)["containerimage.config.digest"], json!(config));
        assert_eq!(metadata(&both)["wbuild.images"][0]["image"], "+a");
        assert_eq!(image_id(&several(vec![other.clone(), other.clone()])), other.config);
        let third = ImageReport { image: "+b".to_owned(), ..other.clone() };
        assert_eq!(image_id(&several(vec![other, third])), None);

        let value = metadata(&single);
        assert_eq!(value["containerimage.digest"], json!(manifest));
        assert_eq!(value["containerimage.config.digest"], json!(config));
        assert_eq!(value["image.name"], "a:1,b:2");
        let descriptor = json!({
            "mediaType": "type", "digest": manifest, "size": 7, "annotations": {"a": "b"},
        });
        assert_eq!(value["containerimage.descriptor"], descriptor);
        assert_eq!(value["wbuild.images"][0]["names"][1], "b:2");
        assert_eq!(metadata(&report(None, Some(config))).get("containerimage.digest"), None);
    }
}
