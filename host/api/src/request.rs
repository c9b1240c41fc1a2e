//! What a client asks for: plain, serialisable values.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use wbuild_graph::{Attrs, Platform};

/// One build.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BuildRequest {
    /// Where the build definition comes from.
    pub definition: DefinitionSource,
    /// Options by the names `docker buildx` uses: `build-arg:X`, `label:X`, `target`, `no-cache`
    /// (empty = all, else stage names), `add-hosts`, …; handed to the frontend as they are.
    pub options: Attrs,
    /// Targets; empty = the definition's default.
    pub targets: Vec<String>,
    /// Empty = the machine's own.
    pub platforms: Vec<Platform>,
    /// Contexts by name; `context` is the main one. `name::os/arch` applies to one platform.
    pub contexts: BTreeMap<String, ContextSpec>,
    /// Image names, normalised when exported.
    pub tags: Vec<String>,
    /// Where results go; empty = they stay in the cache.
    pub outputs: Vec<OutputSpec>,
    /// Find out the digest of the image's config also where no output writes an image.
    pub identify: bool,
    /// Resolve tags anew even if a pin is known.
    pub pull: bool,
    /// Never look anything up.
    pub no_cache: bool,
    /// SOURCE_DATE_EPOCH: seconds since 1970 that all times of the result are clamped to.
    pub source_date_epoch: Option<u64>,
    /// Network of steps that do not say otherwise: `host` or `none`.
    pub network: DefaultNetwork,
    /// Names and addresses added to every step's hosts file.
    pub add_hosts: Vec<(String, String)>,
    /// What the build may do beyond what every build may.
    pub allow: BTreeSet<Entitlement>,
    /// Steps run at once; none = by the number of processors.
    pub max_parallelism: Option<usize>,
    /// Caches elsewhere that are asked for results, in order.
    pub cache_from: Vec<CacheSpec>,
    /// Caches elsewhere that results are written to.
    pub cache_to: Vec<CacheSpec>,
    /// Directories of the client's that stand in for cache mounts, by the mount's id.
    pub cache_mounts: BTreeMap<String, PathBuf>,
    /// Say of each step why it runs or where its result came from.
    pub explain: bool,
    /// Secrets whose values count for the keys of the steps that get them, by a keyed hash.
    pub keyed_secrets: BTreeSet<String>,
}

/// A cache elsewhere: one `--cache-from` or `--cache-to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheSpec {
    /// The cache backend, as the user named it: `registry`, `local`, `./my.wasm`. `inline` is the
    /// engine's own.
    pub backend: String,
    /// `ref`, `src`, `dest`, `mode`, `compression`, …: by the names `docker buildx` uses.
    pub attrs: Attrs,
}

impl CacheSpec {
    /// Records within the images that are built.
    pub const INLINE: &str = "inline";

    /// What people call it.
    pub fn shown(&self) -> String {
        let place = ["ref", "src", "dest", "url"].iter().find_map(|key| self.attrs.get(key));
        match place {
            // A URL may hold a password.
            Some(place) if !place.contains('@') || !place.contains("://") => place.to_owned(),
            _ => format!("type={}", self.backend),
        }
    }
}

/// A right that a build has only if its caller says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Entitlement {
    /// Downloads from this machine, its links and private networks.
    #[serde(rename = "network.private")]
    NetworkPrivate,
    /// Removing files from directories that the client does not work in (`mode=delete`). The client
    /// itself sees to it.
    #[serde(rename = "buildx.local.delete")]
    LocalDelete,
    /// Processes of the client's own, outside of any container.
    #[serde(rename = "client.exec")]
    ClientExec,
}

impl Entitlement {
    /// All that can be granted.
    pub const ALL: [Entitlement; 3] =
        [Entitlement::NetworkPrivate, Entitlement::LocalDelete, Entitlement::ClientExec];

    /// The name that users write.
    pub const fn as_str(self) -> &'static str {
        match self {
            Entitlement::NetworkPrivate => "network.private",
            Entitlement::LocalDelete => "buildx.local.delete",
            Entitlement::ClientExec => "client.exec",
        }
    }
}

/// Network of steps with the default network mode.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DefaultNetwork {
    /// The host's network.
    #[default]
    Host,
    /// Loopback only.
    None,
}

/// Where the build definition comes from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DefinitionSource {
    /// A file of a directory: the directory becomes the local context `dockerfile`.
    File {
        /// The directory.
        directory: PathBuf,
        /// File name inside it.
        name: String,
    },
    /// Text the client holds (standard input).
    Inline {
        /// As the user knows it.
        name: String,
        /// Its bytes.
        data: Vec<u8>,
    },
    /// A file of the main context.
    InContext {
        /// The directory of the context that the definition is about; empty = the context itself.
        directory: String,
        /// Paths inside that directory; the first that is there.
        names: Vec<String>,
    },
    /// What an http(s) URL yields.
    Url(String),
}

/// What a named context is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContextSpec {
    /// A directory on the client's machine.
    Local(PathBuf),
    /// `docker-image://REF`.
    Image(String),
    /// `oci-layout://DIR[:tag|@digest]`.
    OciLayout {
        /// The layout's directory.
        directory: PathBuf,
        /// Tag or digest; none = the only image of the layout.
        reference: Option<String>,
    },
    /// A git URL.
    Git(String),
    /// An http(s) URL. Of the main context: an archive, or a file that is the definition itself and
    /// then stands for no files at all.
    Http(String),
    /// A tar that the session hands over, plain or compressed; the main context only.
    Archive,
    /// Nothing (a definition from standard input without a context).
    Empty,
}

/// Where a result goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutputSpec {
    /// Kind of output.
    pub kind: OutputKind,
    /// Where to.
    pub dest: OutputDest,
    /// Further `key=value` pairs: `name`, `push`, `compression`, `compression-level`, `tar`,
    /// `rewrite-timestamp`, `annotation…`, `platform-split`, ….
    pub attrs: Attrs,
}

/// Kinds of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputKind {
    /// An image in the state directory, and with `push` in a registry.
    Image,
    /// OCI image layout, as tar or directory.
    Oci,
    /// A tar for `docker load`.
    Docker,
    /// The files, into a directory.
    Local,
    /// The files, as tar.
    Tar,
    /// Nothing: the result stays in the cache.
    CacheOnly,
}

impl OutputKind {
    /// Whether layers are written, rather than files.
    pub const fn is_image(self) -> bool {
        match self {
            OutputKind::Image | OutputKind::Oci | OutputKind::Docker => true,
            OutputKind::Local | OutputKind::Tar | OutputKind::CacheOnly => false,
        }
    }
}

/// Where an output goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutputDest {
    /// A file.
    File(PathBuf),
    /// A directory.
    Directory(PathBuf),
    /// Standard output.
    Stdout,
    /// A running Docker, as `DOCKER_HOST` names it: `unix://PATH`, `tcp://HOST:PORT`.
    Daemon(String),
    /// Nowhere.
    Nowhere,
}
