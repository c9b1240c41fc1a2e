//! Annotations of images: `annotation[-LEVEL][[PLATFORM]].KEY=VALUE` among an output's attributes.
//!
//! Levels are `manifest` (without a level too), `manifest-descriptor`, `index` and
//! `index-descriptor`. Those of an index exist only where there is one, so they are refused for one
//! platform; so is a platform that is not built. What is said for one platform wins over what is said
//! for all.

use std::collections::BTreeMap;

use wbuild_api::request::BuildRequest;
use wbuild_graph::{Attrs, Failure, Platform};
use wbuild_oci::layout::{ExportImage, IndexAnnotations};

const PREFIX: &str = "annotation";

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    Manifest,
    ManifestDescriptor,
    Index,
    IndexDescriptor,
}

struct Annotation {
    level: Level,
    platform: Option<Platform>,
    key: String,
    value: String,
}

/// All annotations of an output.
pub(crate) struct Annotations(Vec<Annotation>);

impl Annotations {
    /// Whether an attribute is an annotation.
    pub(super) fn is_key(key: &str) -> bool {
        key.strip_prefix(PREFIX).is_some_and(|rest| rest.starts_with(['.', '-', '[']))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads them, whatever there is to annotate.
    pub(crate) fn read(attrs: &Attrs) -> Result<Annotations, Failure> {
        let given = attrs.0.iter().filter(|(key, _)| Annotations::is_key(key));
        let all = given.map(|(key, value)| parse(key, value));
        Ok(Annotations(all.collect::<Result<_, Failure>>()?))
    }

    /// Whether there is one of this level.
    pub(crate) fn has(&self, level: Level) -> bool {
        self.0.iter().any(|annotation| annotation.level == level)
    }

    /// Reads those of a build's output.
    pub(super) fn of(request: &BuildRequest, attrs: &Attrs) -> Result<Annotations, Failure> {
        let platforms = match &request.platforms[..] {
            [] => vec![Platform::host()],
            platforms => platforms.to_vec(),
        };
        let given = attrs.0.iter().filter(|(key, _)| Annotations::is_key(key));
        let all = given.map(|(key, value)| {
            let annotation = parse(key, value)?;
            let of_index = matches!(annotation.level, Level::Index | Level::IndexDescriptor);
            if of_index && platforms.len() < 2 {
                let message = format!("{key}: an image for one platform has no index to annotate");
                return Err(Failure::invalid(message).hint("annotate the manifest instead"));
            }
            if let Some(wanted) = &annotation.platform
                && !platforms.contains(wanted)
            {
                let built: Vec<String> = platforms.iter().map(ToString::to_string).collect();
                return Err(Failure::invalid(format!("{key}: {wanted} is not built"))
                    .hint(format!("built is: {}", built.join(", "))));
            }
            Ok(annotation)
        });
        Ok(Annotations(all.collect::<Result<_, Failure>>()?))
    }

    /// Annotates one image.
    pub(super) fn add_to(&self, image: &mut ExportImage) {
        let platform = image.platform.clone();
        image.annotations.extend(self.at(Level::ManifestDescriptor, Some(&platform)));
        let manifest = self.at(Level::Manifest, Some(&platform));
        if !manifest.is_empty() {
            image.manifest.annotations.get_or_insert_default().extend(manifest);
        }
    }

    /// Those of the index.
    pub(super) fn index(&self) -> IndexAnnotations {
        IndexAnnotations {
            index: self.at(Level::Index, None),
            descriptor: self.at(Level::IndexDescriptor, None),
        }
    }

    /// Those of a level, for a platform where it has one.
    pub(crate) fn at(&self, level: Level, platform: Option<&Platform>) -> BTreeMap<String, String> {
        let here = self.0.iter().filter(|annotation| annotation.level == level);
        let (general, special): (Vec<_>, Vec<_>) = here.partition(|a| a.platform.is_none());
        let special = special.into_iter().filter(|a| a.platform.as_ref() == platform);
        let pair = |a: &Annotation| (a.key.clone(), a.value.clone());
        general.into_iter().chain(special).map(pair).collect()
    }
}

/// One annotation; the key is known to be one.
fn parse(name: &str, value: &str) -> Result<Annotation, Failure> {
    let bad = |reason: &str| {
        Failure::invalid(format!("{name:?} is no annotation: {reason}"))
            .hint("for example annotation.KEY=VALUE or annotation-manifest[linux/amd64].KEY=VALUE")
    };
    let rest = &name[PREFIX.len()..];
    let (level, rest) = match rest.strip_prefix('-') {
        None => ("manifest", rest),
        Some(rest) => rest.split_at(rest.find(['.', '[']).unwrap_or(rest.len())),
    };
    let level = match level {
        "manifest" => Level::Manifest,
        "manifest-descriptor" => Level::ManifestDescriptor,
        "index" => Level::Index,
        "index-descriptor" => Level::IndexDescriptor,
        other => {
            return Err(Failure::invalid(format!("{name:?}: unknown level {other:?}"))
                .hint("expected manifest, index, manifest-descriptor or index-descriptor"));
        }
    };
    let (platform, rest) = match rest.strip_prefix('[') {
        None => (None, rest),
        Some(rest) => {
            let (platform, rest) = rest.split_once(']').ok_or_else(|| bad("a ] is missing"))?;
            let platform: Platform =
                platform.parse().map_err(|error| bad("the platform is malformed").cause(&error))?;
            (Some(platform), rest)
        }
    };
    let key = rest.strip_prefix('.').filter(|key| !key.is_empty());
    let key = key.ok_or_else(|| bad("it has no key"))?.to_owned();
    Ok(Annotation { level, platform, key, value: value.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        for (key, level, platform, of) in [
            ("annotation.a", Level::Manifest, None, "a"),
            ("annotation.a.b/C", Level::Manifest, None, "a.b/C"),
            ("annotation-manifest.a", Level::Manifest, None, "a"),
            ("annotation[linux/arm/v7].a", Level::Manifest, Some("linux/arm/v7"), "a"),
            ("annotation-index.a", Level::Index, None, "a"),
            ("annotation-index-descriptor.a", Level::IndexDescriptor, None, "a"),
            (
                "annotation-manifest-descriptor[linux/amd64].a[b]",
                Level::ManifestDescriptor,
                Some("linux/amd64"),
                "a[b]",
            ),
        ] {
            assert!(Annotations::is_key(key), "{key}");
            let annotation = parse(key, "v").unwrap_or_else(|failure| panic!("{failure}"));
            assert!(annotation.level == level, "{key}");
            let found = annotation.platform.map(|platform| platform.to_string());
            assert_eq!((found.as_deref(), &*annotation.key), (platform, of), "{key}");
        }
        for bad in [
            "annotation.",
            "annotation-.a",
            "annotation-layer.a",
            "annotation[].a",
            "annotation[linux/amd64.a",
            "annotation[linux/amd64]",
            "annotation-manifest",
        ] {
            assert!(Annotations::is_key(bad) && parse(bad, "v").is_err(), "{bad}");
        }
        assert!(!Annotations::is_key("annotations") && !Annotations::is_key("annotation"));
    }
}
