//! `wbuild imagetools`: what its names and sources mean, and how what was found is shown.

use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use wbuild_api::request::ContextSpec;
use wbuild_engine::imagetools::{Config, Create, Place, Source, Wanted};
use wbuild_graph::{Attrs, Digest};
use wbuild_oci::Reference;
use wbuild_oci::media::{Descriptor, Document};
use wbuild_oci::registry::Fetched;

use crate::args::imagetools::ImageCreateArgs;
use crate::config::read_file;
use crate::environment::Environment;
use crate::exit::Fault;
use crate::resolve::context;
use crate::{metadata, terminal};

/// How a layout is written.
const LAYOUT: &str = "oci-layout://";

/// What the name of an image means.
pub fn place(text: &str, environment: &Environment) -> Result<Place, Fault> {
    if !text.starts_with(LAYOUT) {
        return Ok(Place::Registry(reference(text)?));
    }
    match context::resolve(text, environment)? {
        ContextSpec::OciLayout { directory, reference } => {
            Ok(Place::Layout { directory, reference, shown: text.to_owned() })
        }
        _ => Err(Fault::usage(format!("{text:?} is no image"))),
    }
}

fn reference(text: &str) -> Result<Reference, Fault> {
    text.parse::<Reference>().map_err(|error| Fault::usage(error.to_string()))
}

/// What `wbuild imagetools create` is asked for.
pub fn create(args: &ImageCreateArgs, environment: &Environment) -> Result<Create, Fault> {
    if args.sources.is_empty() && args.files.is_empty() {
        return Err(Fault::usage("there is nothing to join").hint("name one SOURCE or more"));
    }
    if args.tags.is_empty() && !args.dry_run {
        return Err(Fault::usage("the result has no name, so there is nowhere to push it")
            .hint("name it: -t REGISTRY/NAME:TAG, or only look: --dry-run"));
    }
    let mut sources = Vec::new();
    for file in &args.files {
        let shown = file.display().to_string();
        let wrong = |error: &dyn std::error::Error| {
            Fault::input(format!("cannot read the source {shown}")).cause(error)
        };
        let bytes = read_file(&environment.absolute(file)).map_err(|error| wrong(&error))?;
        let text = String::from_utf8(bytes).map_err(|error| wrong(&error))?;
        sources.push(source(text.trim(), &shown, environment)?);
    }
    for text in &args.sources {
        sources.push(source(text, text, environment)?);
    }
    let mut targets: Vec<Reference> = Vec::new();
    for tag in &args.tags {
        let target = reference(tag)?;
        if target.digest().is_some() {
            return Err(Fault::usage(format!("{tag} has a digest, which a push cannot choose"))
                .hint("leave out what follows the @"));
        }
        if !targets.contains(&target) {
            targets.push(target);
        }
    }
    let attrs = args.annotations.iter().flat_map(|annotation| annotation.attrs.clone());
    Ok(Create {
        sources,
        targets,
        annotations: Attrs(attrs.collect()),
        append: args.append,
        prefer_index: args.prefer_index,
    })
}

/// One source: a digest, a descriptor or metadata file as JSON, or the name of an image.
fn source(text: &str, shown: &str, environment: &Environment) -> Result<Source, Fault> {
    let source = |place, wanted| Ok(Source { shown: shown.to_owned(), place, wanted });
    if text.starts_with("sha256:") {
        let digest: Digest = text.parse().map_err(|error| Fault::usage(format!("{error}")))?;
        return source(None, Wanted { digest: Some(digest), ..Wanted::default() });
    }
    if !text.starts_with('{') {
        return source(Some(place(text, environment)?), Wanted::default());
    }
    let wrong = |why: &str| Fault::input(format!("{shown} is no source of an image: {why}"));
    let value: Value = serde_json::from_str(text).map_err(|error| wrong(&error.to_string()))?;
    if let Some(digest) = value.get(metadata::DIGEST) {
        let digest = serde_json::from_value(digest.clone());
        let digest: Digest = digest.map_err(|error| wrong(&error.to_string()))?;
        let names = value.get(metadata::NAMES).and_then(Value::as_str);
        let Some(name) = names.and_then(|names| names.split(',').next()) else {
            return Err(wrong("it does not say where the image was pushed to"));
        };
        let place = Place::Registry(reference(name)?.with_digest(digest));
        return source(Some(place), Wanted { digest: Some(digest), ..Wanted::default() });
    }
    let wanted: Wanted =
        serde_json::from_value(value).map_err(|error| wrong(&error.to_string()))?;
    if wanted.digest.is_none() {
        return Err(wrong("it has no digest"));
    }
    source(None, wanted)
}

/// The document that `--format` is about. `configs` are there if it asks for them.
pub fn document(place: &Place, found: &Fetched, configs: Option<&[Config]>) -> Value {
    let mut out = Map::new();
    out.insert("name".to_owned(), json!(place.to_string()));
    out.insert("manifest".to_owned(), manifest(found));
    let image = match configs {
        None | Some([]) => Value::Null,
        Some([one]) if matches!(found.document, Document::Manifest(_)) => one.config.clone(),
        Some(all) => {
            let all = all.iter().map(|config| (config.platform.to_string(), config.config.clone()));
            Value::Object(all.collect())
        }
    };
    out.insert("image".to_owned(), image);
    Value::Object(out)
}

/// What `--json` prints.
pub fn to_json(place: &Place, found: &Fetched) -> Value {
    json!({ "name": place.to_string(), "manifest": manifest(found) })
}

/// What names the document and, for an index, what it lists.
fn manifest(found: &Fetched) -> Value {
    let Descriptor { media_type, digest, size, .. } = &found.descriptor;
    let mut out = Map::new();
    if matches!(found.document, Document::Index(_)) {
        out.insert("schemaVersion".to_owned(), json!(2));
    }
    out.insert("mediaType".to_owned(), json!(media_type));
    out.insert("digest".to_owned(), json!(digest));
    out.insert("size".to_owned(), json!(size));
    if let Document::Index(index) = &found.document {
        out.insert("manifests".to_owned(), json!(index.manifests));
    }
    if let Some(annotations) = annotations(&found.document) {
        out.insert("annotations".to_owned(), json!(annotations));
    }
    Value::Object(out)
}

fn annotations(document: &Document) -> Option<&std::collections::BTreeMap<String, String>> {
    match document {
        Document::Index(index) => index.annotations.as_ref(),
        Document::Manifest(manifest) => manifest.annotations.as_ref(),
    }
}

/// A label and what stands behind it; annotations are lines of their own.
type Line<'a> = (&'a str, Entry<'a>);

enum Entry<'a> {
    Text(String),
    Annotations(&'a std::collections::BTreeMap<String, String>),
}

/// For people.
pub fn text(place: &Place, found: &Fetched) -> String {
    let text = |text: &dyn ToString| Entry::Text(text.to_string());
    let mut head: Vec<Line<'_>> = vec![
        ("Name", text(place)),
        ("MediaType", text(&found.descriptor.media_type)),
        ("Digest", text(&found.descriptor.digest)),
    ];
    if let Some(annotations) = annotations(&found.document).filter(|all| !all.is_empty()) {
        head.push(("Annotations", Entry::Annotations(annotations)));
    }
    let mut out = String::new();
    lines(&mut out, "", &head, width(&head));
    let Document::Index(index) = &found.document else { return out };
    out.push_str("\nManifests:\n");
    let entries: Vec<Vec<Line<'_>>> =
        index.manifests.iter().map(|entry| listed(place, entry)).collect();
    let width = entries.iter().map(|entry| width(entry)).max().unwrap_or(0);
    for (at, entry) in entries.iter().enumerate() {
        if at > 0 {
            out.push('\n');
        }
        lines(&mut out, "  ", entry, width);
    }
    out
}

/// An entry of an index.
fn listed<'a>(place: &Place, entry: &'a Descriptor) -> Vec<Line<'a>> {
    let name = match place {
        Place::Registry(reference) => reference.with_digest(entry.digest).to_string(),
        Place::Layout { shown, .. } => {
            let whole = shown.split_once("@sha256:").map_or(&**shown, |(whole, _)| whole);
            format!("{whole}@{}", entry.digest)
        }
    };
    let mut out =
        vec![("Name", Entry::Text(name)), ("MediaType", Entry::Text(entry.media_type.clone()))];
    if let Some(platform) = &entry.platform {
        out.push(("Platform", Entry::Text(platform.normalised().to_string())));
        let version = platform.os_version.iter().filter(|version| !version.is_empty());
        out.extend(version.map(|version| ("OSVersion", Entry::Text(version.clone()))));
        let features = platform.os_features.iter().filter(|features| !features.is_empty());
        out.extend(features.map(|features| ("OSFeatures", Entry::Text(features.join(", ")))));
    }
    let urls = entry.urls.iter().filter(|urls| !urls.is_empty());
    out.extend(urls.map(|urls| ("URLs", Entry::Text(urls.join(", ")))));
    let annotations = entry.annotations.iter().filter(|all| !all.is_empty());
    out.extend(annotations.map(|all| ("Annotations", Entry::Annotations(all))));
    out
}

fn width(lines: &[Line<'_>]) -> usize {
    lines.iter().map(|(label, _)| label.len() + 1).max().unwrap_or(0)
}

fn lines(out: &mut String, indent: &str, lines: &[Line<'_>], width: usize) {
    let plain = |text: &str| terminal::plain(text).replace('\n', " ");
    for (label, entry) in lines {
        let label = format!("{label}:");
        match entry {
            Entry::Text(text) => {
                let _ = writeln!(out, "{indent}{label:<width$} {}", plain(text));
            }
            Entry::Annotations(all) => {
                let _ = writeln!(out, "{indent}{label}");
                let keys = all.keys().map(|key| terminal::width(&plain(key)) + 1);
                let width = keys.max().unwrap_or(0);
                for (key, value) in *all {
                    let key = plain(key) + ":";
                    let gap = " ".repeat(width.saturating_sub(terminal::width(&key)));
                    let _ = writeln!(out, "{indent}  {key}{gap} {}", plain(value));
                }
            }
        }
    }
}
