//! What refers to a manifest: signatures and the like (OCI distribution specification 1.1, "Listing
//! Referrers", with the tag that stands in where a registry knows no such list).

use reqwest::Method;
use wbuild_graph::Digest;
use wbuild_http::body;

use super::{Client, Wanted};
use crate::error::{ErrorKind, Result};
use crate::media::{Descriptor, Document, Index, MAX_MANIFEST, MediaFamily, OCI_INDEX};
use crate::reference::Reference;

/// What refers to a manifest, as a registry says.
#[derive(Clone, Debug, PartialEq)]
pub struct Referrers {
    /// Their manifests.
    pub manifests: Vec<Descriptor>,
    /// The registry keeps the list itself; else it lies under a tag, which whoever adds one changes.
    pub kept_by_registry: bool,
}

/// The tag under which the list lies where the registry does not keep it.
fn fallback(reference: &Reference, subject: &Digest) -> Result<Reference> {
    reference.at(&subject.to_string().replace(':', "-"))
}

impl Client {
    /// What refers to the manifest `subject` in the repository of `reference`. The list is a claim of
    /// the registry, as is what the manifests in it say.
    ///
    /// # Errors
    /// The registry cannot be asked, or its answer makes no sense.
    pub async fn referrers(&self, reference: &Reference, subject: &Digest) -> Result<Referrers> {
        match self.listed(reference, subject).await {
            Ok(index) => Ok(Referrers { manifests: index.manifests, kept_by_registry: true }),
            Err(error) if unknown(error.kind()) => {
                let manifests = match self.manifest(&fallback(reference, subject)?).await {
                    Ok(fetched) => match fetched.document {
                        Document::Index(index) => index.manifests,
                        Document::Manifest(_) => Vec::new(),
                    },
                    Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
                    Err(error) => return Err(error),
                };
                Ok(Referrers { manifests, kept_by_registry: false })
            }
            Err(error) => Err(error),
        }
    }

    async fn listed(&self, reference: &Reference, subject: &Digest) -> Result<Index> {
        let target = subject.to_string();
        let what = format!("what refers to {}@{target}", reference.name());
        let wanted = Wanted::new(Method::GET, "referrers", &target);
        let mut places = self.0.sites.places(reference.registry()).await?;
        loop {
            let place = places.next();
            let result = async {
                let response = self.request(&place, reference, &wanted, &what).await?;
                let limit = usize::try_from(MAX_MANIFEST).expect("fits");
                let bytes = body(response, limit, &what).await?;
                match Document::decode(&bytes, Some(OCI_INDEX), &what)? {
                    Document::Index(index) => Ok(index),
                    Document::Manifest(_) => unreachable!("it was read as an index"),
                }
            };
            if let Some(done) = places.settle(&place, result.await) {
                return done;
            }
        }
    }

    /// Adds a manifest that was pushed to what refers to `subject`, where the registry does not see to
    /// that itself.
    ///
    /// # Errors
    /// The list cannot be read or written.
    pub async fn add_referrer(
        &self,
        reference: &Reference,
        subject: &Digest,
        referrer: Descriptor,
    ) -> Result<()> {
        let Referrers { mut manifests, kept_by_registry } =
            self.referrers(reference, subject).await?;
        if kept_by_registry || manifests.iter().any(|known| known.digest == referrer.digest) {
            return Ok(());
        }
        manifests.push(referrer);
        let bytes = Index::new(MediaFamily::Oci, manifests).to_bytes();
        self.push_manifest(&fallback(reference, subject)?, OCI_INDEX, &bytes).await.map(drop)
    }
}

/// How registries answer that do not know the question.
fn unknown(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::Invalid | ErrorKind::Unsupported)
}
