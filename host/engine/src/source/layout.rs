//! Images from OCI layouts on the client's machine, given as named contexts.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;

use async_trait::async_trait;
use wbuild_api::request::ContextSpec;
use wbuild_graph::{BlobDigest, Failure, Platform};
use wbuild_oci::layout::Layout;
use wbuild_oci::media::{Descriptor, MAX_MANIFEST};
use wbuild_oci::reference::Reference;
use wbuild_store::Store;

use crate::blocking;
use crate::source::image::Provider;

/// The name by which an image of a layout is known in a build.
pub(crate) fn context_reference(context: &str, reference: Option<&str>) -> String {
    let clean = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9') => c,
        _ => '-',
    };
    let name: String = context.chars().map(clean).collect();
    let name = match name.trim_matches('-') {
        "" => "layout",
        name => name,
    };
    match reference {
        None => name.to_owned(),
        Some(digest) if digest.starts_with("sha256:") => format!("{name}@{digest}"),
        Some(tag) => {
            // Whole names are used as tags by some tools; what counts is the context's own entry.
            let tag: String = tag.chars().map(clean).take(100).collect();
            format!("{name}:{tag}")
        }
    }
}

/// The layouts of one build, by context.
pub(crate) struct Layouts {
    layouts: BTreeMap<String, LayoutSource>,
}

#[derive(Clone)]
struct LayoutSource {
    directory: PathBuf,
    reference: Option<String>,
}

impl Layouts {
    pub(crate) fn new(contexts: &BTreeMap<String, ContextSpec>) -> Layouts {
        let layouts = contexts.iter().filter_map(|(name, spec)| match spec {
            ContextSpec::OciLayout { directory, reference } => {
                let (directory, reference) = (directory.clone(), reference.clone());
                Some((name.clone(), LayoutSource { directory, reference }))
            }
            _ => None,
        });
        Layouts { layouts: layouts.collect() }
    }

    pub(crate) fn get(&self, context: &str) -> Result<&dyn Provider, Failure> {
        match self.layouts.get(context) {
            Some(layout) => Ok(layout),
            None => Err(Failure::not_found(format!(
                "the image layout of the context {context:?} is not given to this build"
            ))
            .hint(format!("give it with --build-context {context}=oci-layout://DIRECTORY"))),
        }
    }
}

#[async_trait]
impl Provider for LayoutSource {
    async fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Descriptor, Failure> {
        let source = self.clone();
        let digest = reference.digest().map(|digest| digest.to_string());
        let platform = platform.clone();
        blocking(move || {
            let name = digest.or(source.reference);
            Layout::open_path(&source.directory)?.resolve(name.as_deref(), &platform)
        })
        .await
    }

    async fn document(&self, _: &Reference, descriptor: &Descriptor) -> Result<Vec<u8>, Failure> {
        let (source, descriptor) = (self.clone(), descriptor.clone());
        let limit = descriptor.size.max(MAX_MANIFEST);
        blocking(move || Layout::open_path(&source.directory)?.bytes(&descriptor, limit)).await
    }

    async fn fetch(
        &self,
        _: &Reference,
        descriptor: &Descriptor,
        store: &Store,
        report: &(dyn Fn(u64) + Send + Sync),
    ) -> Result<(), Failure> {
        let layout = Layout::open_path(&self.directory)?;
        copy(&layout, &self.directory.display().to_string(), descriptor, store, report).await
    }
}

/// Copies a blob of a layout, which messages call `name`, into the store.
pub(crate) async fn copy(
    layout: &Layout,
    name: &str,
    descriptor: &Descriptor,
    store: &Store,
    report: &(dyn Fn(u64) + Send + Sync),
) -> Result<(), Failure> {
    // What does not have its digest says so itself.
    let failed = |error: std::io::Error| match error.downcast::<wbuild_oci::Error>() {
        Ok(error) => error.into(),
        Err(error) => {
            Failure::internal(format!("cannot copy a blob from the layout {name}")).cause(&error)
        }
    };
    let mut blob = layout.blob(descriptor)?;
    let mut ingest = store.ingest(descriptor.size)?;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match blob.read(&mut buffer).map_err(failed)? {
            0 => break,
            count => ingest.append(&buffer[..count])?,
        }
        report(ingest.size());
        // A large blob must not keep others from running, nor from being cancelled.
        tokio::task::yield_now().await;
    }
    ingest.commit(Some(&BlobDigest(descriptor.digest)), Some(descriptor.size))?;
    Ok(())
}
