//! An image, and a server that offers it as a registry does.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use wbuild_graph::Digest;
use wbuild_oci::media::{
    Descriptor, Index, Manifest, MediaFamily, OCI_CONFIG, OCI_INDEX, OCI_LAYER_GZIP, OCI_MANIFEST,
};
use wbuild_oci::registry::{Client, ClientOptions, Credential, Credentials, Host, Retries};
use wbuild_oci::{Reference, Result};

use crate::server::{Answer, Asked, Server};

/// A password that must turn up nowhere else.
pub const SECRET: &str = "canary-7f3a";

/// Whether the long form of tests was asked for.
pub fn long() -> bool {
    std::env::var_os("WBUILD_LONG").is_some_and(|value| value == "1")
}

/// Numbers that look like chance and are the same each time.
pub struct Chance(pub u64);

impl Chance {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as usize % limit
    }
}

/// Bytes without a pattern that a mistake in an offset would keep.
pub fn data(size: usize, seed: u64) -> Vec<u8> {
    let mut chance = Chance(seed);
    (0..size).map(|_| chance.below(256) as u8).collect()
}

/// Credentials by host.
#[derive(Clone, Default)]
pub struct Keys(pub BTreeMap<String, Credential>);

impl Keys {
    /// A name and the canary for these hosts.
    pub fn of(hosts: &[&str]) -> Keys {
        let credential =
            Credential::Basic { username: "user".to_owned(), password: SECRET.to_owned() };
        Keys(hosts.iter().map(|host| ((*host).to_owned(), credential.clone())).collect())
    }
}

#[async_trait]
impl Credentials for Keys {
    async fn lookup(&self, registry: &str) -> Result<Option<Credential>> {
        Ok(self.0.get(registry).cloned())
    }
}

/// Impatient, for tests.
pub fn options() -> ClientOptions {
    let retries =
        Retries { attempts: 4, first: Duration::from_millis(1), most: Duration::from_millis(5) };
    ClientOptions { retries, stall_timeout: Duration::from_millis(400), ..ClientOptions::default() }
}

pub fn client(keys: Keys, hosts: &[(&str, Host)]) -> Client {
    let hosts: BTreeMap<String, Host> =
        hosts.iter().map(|(name, host)| ((*name).to_owned(), host.clone())).collect();
    Client::with_hosts(options(), Arc::new(keys), Arc::new(hosts))
}

/// An image in an index, as the tag `v1` of the repository `a/b`.
#[derive(Clone)]
pub struct Content {
    pub index: Vec<u8>,
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
}

impl Content {
    pub fn new(sizes: &[usize]) -> Content {
        let layers: Vec<Vec<u8>> =
            sizes.iter().enumerate().map(|(n, size)| data(*size, n as u64)).collect();
        let ids: Vec<String> = layers.iter().map(|l| format!("\"{}\"", Digest::of(l))).collect();
        let ids = ids.join(",");
        let config = format!(
            r#"{{"architecture":"amd64","os":"linux","rootfs":{{"type":"layers","diff_ids":[{ids}]}}}}"#
        )
        .into_bytes();
        let descriptors = layers.iter().map(|l| Descriptor::of(OCI_LAYER_GZIP, l)).collect();
        let config_descriptor = Descriptor::of(OCI_CONFIG, &config);
        let manifest = Manifest::new(MediaFamily::Oci, config_descriptor, descriptors).to_bytes();
        let platform = "linux/amd64".parse().expect("a platform");
        let entry = Descriptor::of(OCI_MANIFEST, &manifest).with_platform(&platform);
        let index = Index::new(MediaFamily::Oci, vec![entry]).to_bytes();
        Content { index, manifest, config, layers }
    }

    /// What a path below the repository stands for: media type and bytes.
    pub fn find(&self, target: &str) -> Option<(&'static str, &[u8])> {
        let target = target.split('?').next().unwrap_or_default();
        let (rest, name) = target.rsplit_once('/')?;
        let is = |bytes: &[u8]| name == Digest::of(bytes).to_string();
        if rest.ends_with("/manifests") {
            if name == "v1" || is(&self.index) {
                return Some((OCI_INDEX, &self.index));
            }
            return is(&self.manifest).then_some((OCI_MANIFEST, &self.manifest[..]));
        }
        let blobs = self.layers.iter().chain([&self.config]);
        let found = blobs.into_iter().find(|bytes| is(bytes))?;
        Some(("application/octet-stream", found))
    }

    /// The answer of an honest registry.
    pub fn answer(&self, asked: &Asked) -> Answer {
        let Some((media_type, bytes)) = self.find(&asked.target) else {
            return Answer::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"no"}]}"#);
        };
        let answer = match asked.from() {
            0 => Answer::new(200, bytes),
            from if from >= bytes.len() => Answer::new(416, ""),
            from => Answer::new(206, &bytes[from..]).header(
                "Content-Range",
                format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len()),
            ),
        };
        answer
            .header("Content-Type", media_type)
            .header("Docker-Content-Digest", Digest::of(bytes).to_string())
    }

    /// A registry that offers it.
    pub fn serve(&self, ip: &str) -> Server {
        let content = self.clone();
        Server::start(ip, move |asked| content.answer(asked))
    }
}

/// What a build does: the tag, the manifest for the platform, the config, the layers.
pub async fn pull(client: &Client, reference: &Reference) -> Result<Vec<Vec<u8>>> {
    let root = client.resolve(reference).await?;
    let root = client.manifest_of(reference, &root).await?;
    let platform = "linux/amd64".parse().expect("a platform");
    let image = client.image_of(reference, root, &platform).await?;
    let mut layers = Vec::new();
    for layer in &image.manifest.layers {
        let mut bytes = Vec::new();
        client.blob(reference, layer, &mut bytes).await?;
        layers.push(bytes);
    }
    Ok(layers)
}

/// Whether a server has seen anything of a credential.
pub fn leaked(server: &Server) -> bool {
    use base64::Engine as _;
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("user:{SECRET}"));
    server.asked().iter().any(|asked| {
        let all = format!("{asked:?}");
        all.contains(SECRET) || all.contains(&basic) || asked.header("authorization").is_some()
    })
}
