//! Puts a component into a registry, as an artifact, with a signature if wanted.

use std::fs::File;
use std::io::{Seek, Write};
use std::sync::Arc;

use async_trait::async_trait;
use wbuild_graph::{Digest, Failure};
use wbuild_oci::media::{Descriptor, OCI_MANIFEST};
use wbuild_oci::registry::{Client, PushSource};
use wbuild_oci::{Reference, Timestamp};
use wbuild_plugin::Plugin;

use crate::artifact::{self, About, Artifact};
use crate::signature;

/// What is to be published.
pub struct Publication<'a> {
    /// The component, loaded: so it is one that wbuild can use.
    pub plugin: &'a Plugin,
    /// Where to, by tag.
    pub to: &'a Reference,
    /// When it was made.
    pub created: Timestamp,
    /// What to sign with.
    pub key: Option<SigningKey<'a>>,
}

/// A key to sign with.
#[derive(Clone, Copy)]
pub struct SigningKey<'a> {
    /// The text of a key file of minisign.
    pub text: &'a str,
    /// Gives the password of one that has one.
    pub password: &'a dyn Fn() -> Result<String, Failure>,
}

/// What was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The artifact by its digest.
    pub reference: Reference,
    /// The component.
    pub component: Digest,
    /// It was signed.
    pub signed: bool,
}

/// Publishes: the component, its config, the signature, and at last the tag. So whoever finds the tag
/// finds the signature.
///
/// # Errors
///
/// It is no plugin, the key cannot be used, or the registry does not take it.
pub async fn publish(client: &Client, what: Publication<'_>) -> Result<Published, Failure> {
    let Publication { plugin, to, created, key } = what;
    if plugin.kinds().is_empty() {
        return Err(Failure::invalid(format!("{} is no plugin of wbuild", plugin.name()))
            .hint("`wbuild plugin inspect` shows what it is"));
    }
    let bytes = plugin.bytes();
    let about = About {
        imports: plugin.imports(),
        exports: plugin.exports(),
        said: plugin.manifest(),
        created,
    };
    let artifact = Artifact::new(bytes, about);
    let signed = match key {
        Some(SigningKey { text, password }) => {
            let comment = format!("wbuild plugin {}", to.name());
            Some(signature::sign(text, password, bytes, &comment)?)
        }
        None => None,
    };
    let config = Descriptor::of(artifact::CONFIG, &artifact.config);
    push(client, to, &[(&config, &artifact.config), (&artifact.layer, bytes)]).await?;
    let digest = artifact.digest();
    let pinned = to.at(&digest.to_string())?;
    client.push_manifest(&pinned, OCI_MANIFEST, &artifact.manifest).await?;
    if let Some(text) = &signed {
        let subject = Descriptor::of(OCI_MANIFEST, &artifact.manifest);
        let (manifest, layer) = artifact::signature(&subject, text);
        let empty = Descriptor::of(artifact::EMPTY, b"{}");
        push(client, to, &[(&empty, b"{}"), (&layer, text.as_bytes())]).await?;
        let at = to.at(&Digest::of(&manifest).to_string())?;
        client.push_manifest(&at, OCI_MANIFEST, &manifest).await?;
        client.add_referrer(to, &digest, artifact::referrer(&manifest)).await?;
    }
    client.push_manifest(&to.without_digest(), OCI_MANIFEST, &artifact.manifest).await?;
    Ok(Published {
        reference: to.with_digest(digest),
        component: artifact.layer.digest,
        signed: signed.is_some(),
    })
}

async fn push(
    client: &Client,
    to: &Reference,
    blobs: &[(&Descriptor, &[u8])],
) -> Result<(), Failure> {
    let descriptors: Vec<Descriptor> = blobs.iter().map(|(one, _)| (*one).clone()).collect();
    let owned = blobs.iter().map(|(one, bytes)| (one.digest, bytes.to_vec())).collect();
    let source: Arc<dyn PushSource> = Arc::new(Memory(owned));
    for pushed in client.push_blobs(to, &descriptors, &source).await? {
        pushed?;
    }
    Ok(())
}

/// Blobs in memory.
struct Memory(Vec<(Digest, Vec<u8>)>);

#[async_trait]
impl PushSource for Memory {
    fn elsewhere(&self, _: &Descriptor, _: &str) -> Vec<String> {
        Vec::new()
    }

    async fn open(&self, layer: &Descriptor) -> wbuild_oci::Result<File> {
        let missing = |message| wbuild_oci::Error::new(wbuild_oci::ErrorKind::Io, message);
        let bytes = self.0.iter().find(|(digest, _)| *digest == layer.digest);
        let (_, bytes) = bytes.ok_or_else(|| missing("a blob that is not of the artifact"))?;
        let file = || -> std::io::Result<File> {
            let mut file = tempfile::tempfile()?;
            file.write_all(bytes)?;
            file.rewind()?;
            Ok(file)
        };
        file().map_err(|error| missing("cannot write a temporary file").because(error))
    }

    fn sent(&self, _: &Descriptor, _: u64) {}
}
