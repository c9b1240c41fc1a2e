//! `wbuild build`: options by the names that `docker build` uses.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Args;
use wbuild_graph::Platform;
use wbuild_store::Space;

use super::cache::{CacheArg, CacheMountArg};
use super::call::CallArg;
use super::values::{
    AllowArg, AnnotationArg, Assignment, ContextArg, HostArg, NetworkArg, OutputArg, ProgressArg,
    SecretArg, SshArg, only_false,
};
use super::{PluginArgs, StateArgs};
use crate::isolation::IsolatePlugins;
use crate::units;

/// Build from a definition and a context directory
///
/// Reads PATH/Dockerfile (or PATH/dockerfile) and builds what it says. Only those files of PATH
/// are read that a step uses. Every step's result is kept, so that the next build runs only what
/// has changed.
#[derive(Args, Debug, Default)]
pub struct BuildArgs {
    /// The context: a directory, a URL of a git repository, a tar or a definition; - is standard
    /// input, which holds a tar, or a definition without a context. DIR+TARGET is a target of
    /// DIR/Earthfile, HOST/ORG/REPO[/DIR][:TAG]+TARGET one of a repository, and --NAME=VALUE behind
    /// it a value for an ARG of it
    #[arg(value_name = "PATH")]
    pub path: Option<OsString>,

    /// Write one artifact of an Earthfile: PATH is DIR+TARGET/FILE; behind it may stand where it goes
    /// [default: the working directory]. Understood without this, too
    #[arg(short, long)]
    pub artifact: bool,

    /// Where the artifact goes: what stands behind PATH.
    #[arg(long, hide = true, value_name = "DEST")]
    pub artifact_dest: Option<OsString>,

    /// The definition [default: PATH/Dockerfile]; - is standard input. Where PATH is no directory, a
    /// file inside it, unless this is an absolute path or a URL
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// A name for the image (repeats)
    #[arg(short, long = "tag", value_name = "NAME[:TAG]")]
    pub tags: Vec<String>,

    /// Where the result goes (repeats): type=registry, type=oci|docker|local|tar,dest=PATH,
    /// type=image|cacheonly; DIR alone is type=local, - alone a tar to standard output, type=docker
    /// alone goes into Docker
    #[arg(short, long = "output", value_name = "DEST")]
    pub outputs: Vec<OutputArg>,

    /// Load the image into Docker: short for --output type=docker
    #[arg(long)]
    pub load: bool,

    /// Push the image to where its names say: as --output type=registry; and run what a definition
    /// does only then
    #[arg(long)]
    pub push: bool,

    /// As part of a pipeline: leave nothing of what an Earthfile saves in its directory, and tell it
    #[arg(long)]
    pub ci: bool,

    /// An annotation of the image (repeats): [LEVEL[PLATFORM],...:]KEY=VALUE, with the levels
    /// manifest, index, manifest-descriptor and index-descriptor [default: manifest]
    #[arg(long = "annotation", value_name = "ANNOTATION")]
    pub annotations: Vec<AnnotationArg>,

    /// A value for an ARG; NAME alone is taken from the environment (repeats)
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub build_args: Vec<Assignment>,

    /// A label of the image (repeats)
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub labels: Vec<Assignment>,

    /// The stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,

    /// What to build for, e.g. linux/arm64 (repeats, commas) [default: this machine]
    #[arg(long = "platform", value_name = "PLATFORM", value_delimiter = ',')]
    pub platforms: Vec<Platform>,

    /// A further context (repeats): NAME=DIR, docker-image://REF, oci-layout://DIR[:TAG] or a URL;
    /// NAME::PLATFORM is for one platform
    #[arg(long = "build-context", value_name = "NAME=SOURCE")]
    pub contexts: Vec<ContextArg>,

    /// A secret for RUN --mount=type=secret (repeats): id=NAME,src=FILE or id=NAME,env=VAR; with
    /// ,key=hash another value runs the steps that get it again
    #[arg(long = "secret", value_name = "SECRET")]
    pub secrets: Vec<SecretArg>,

    /// An agent for RUN --mount=type=ssh (repeats): default, or ID=SOCKET
    #[arg(long, value_name = "ID[=SOCKET]")]
    pub ssh: Vec<SshArg>,

    /// A line for each step's /etc/hosts (repeats)
    #[arg(long = "add-host", value_name = "NAME:ADDRESS")]
    pub add_hosts: Vec<HostArg>,

    /// What the build may do beyond what every build may (repeats): network.private, downloads from
    /// this machine and private networks; buildx.local.delete, mode=delete of outputs anywhere;
    /// client.exec, processes outside of any container, with your rights
    #[arg(long, value_name = "ENTITLEMENT")]
    pub allow: Vec<AllowArg>,

    /// How registries are asked: mirrors, authorities, client certificates. Default: registries.toml
    /// in ~/.config/wbuild, else in /etc/wbuild
    #[arg(long, value_name = "FILE")]
    pub registry_config: Option<PathBuf>,

    /// Network of steps that do not choose: default, host or none
    #[arg(long, value_name = "MODE")]
    pub network: Option<NetworkArg>,

    /// Run every step, whatever the cache holds
    #[arg(long)]
    pub no_cache: bool,

    /// Run the steps of these stages, whatever the cache holds (repeats, commas)
    #[arg(long = "no-cache-filter", value_name = "STAGE", value_delimiter = ',')]
    pub no_cache_filter: Vec<String>,

    /// Always ask registries for the images referenced: where one cannot be asked, an image that is
    /// here already is not good enough
    #[arg(long)]
    pub pull: bool,

    /// Build nothing, say what is doubtful in the definition: as --call check
    #[arg(long)]
    pub check: bool,

    /// Ask the frontend instead of building: check, outline, targets, subrequests.describe or a
    /// method of its own; [,format=json] for programs, [,ignorestatus=true] to end with 0
    #[arg(long, value_name = "METHOD[,KEY=VALUE]")]
    pub call: Option<CallArg>,

    /// What reads the definition: the name of a bundled plugin or of one in wbuild.toml, a component
    /// file, oci://REGISTRY/NAME[:TAG] or https://…#sha256:… [default: what the definition or
    /// wbuild.toml says, else dockerfile]
    #[arg(long, value_name = "PLUGIN")]
    pub frontend: Option<OsString>,

    /// What decides how steps are launched (repeats) [default: native, qemu]
    #[arg(long = "runner", value_name = "PLUGIN")]
    pub runners: Vec<OsString>,

    /// What finds results besides the state directory's own records (repeats) [default:
    /// cache-local]
    #[arg(long = "cache-backend", value_name = "PLUGIN")]
    pub cache_backends: Vec<OsString>,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a comment here would replace the command's help")]
    pub plugins: PluginArgs,

    /// Which plugins run in a process of their own, without files, network and most system calls:
    /// all, untrusted (those that do not come with wbuild) or none [default: those from elsewhere;
    /// untrusted if no value is given]
    #[arg(long, value_name = "WHICH", num_args = 0..=1, require_equals = true,
        default_missing_value = "untrusted", hide_possible_values = true)]
    pub isolate_plugins: Option<IsolatePlugins>,

    /// A cache elsewhere to look for results in (repeats): NAME, type=registry,ref=NAME,
    /// type=local,src=DIR, or type=PLUGIN of a cache backend with its keys
    #[arg(long, value_name = "CACHE")]
    pub cache_from: Vec<CacheArg>,

    /// A cache elsewhere to write results to (repeats): type=registry,ref=NAME,
    /// type=local,dest=DIR or type=inline, with mode=min|max, compression=KIND, ignore-error=true,
    /// mounts=ID;ID
    #[arg(long, value_name = "CACHE")]
    pub cache_to: Vec<CacheArg>,

    /// A directory that stands in for a cache mount (repeats)
    #[arg(long = "cache-mount", value_name = "ID=DIR")]
    pub cache_mounts: Vec<CacheMountArg>,

    /// OCI runtime, by name or path [default: crun, else runc]
    #[arg(long, value_name = "NAME|PATH")]
    pub runtime: Option<String>,

    /// Steps run at once [default: by the number of processors]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub jobs: Option<u16>,

    /// How the build is shown: auto, tty, plain, json or quiet
    #[arg(long, value_name = "DISPLAY")]
    pub progress: Option<ProgressArg>,

    /// Show nothing, print the image's id
    #[arg(short, long)]
    pub quiet: bool,

    /// Write the image's id to a file
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,

    /// Write what was built to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,

    /// Show warnings with the lines they are about
    #[arg(short = 'D', long)]
    pub debug: bool,

    /// Say of each step why it runs, or where its result was found; `wbuild explain` says it later
    #[arg(long)]
    pub explain: bool,

    /// Show numbers about the build at its end
    #[arg(long)]
    pub stats: bool,

    /// Most that is kept on the disk, e.g. 50GB or 30% of it: after each build, what was unused the
    /// longest goes [default: 80%, at most 100GB]
    #[arg(long, value_name = "SIZE", value_parser = units::parse_ceiling)]
    pub cache_max: Option<Space>,

    /// Fail at once if another build holds the state directory
    #[arg(long)]
    pub no_wait: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a comment here would replace the command's help")]
    pub state: StateArgs,

    /// Find results through the cache backends only, not through the store's own records. For
    /// those who write a cache backend.
    #[arg(long, hide = true)]
    pub no_record_aliases: bool,

    #[command(flatten)]
    #[expect(missing_docs, reason = "a comment here would replace the command's help")]
    pub later: LaterArgs,
}

/// Options of other builders that wbuild recognises, so that it can say what to do instead.
/// [`crate::resolve`] refuses those that would be ignored otherwise.
#[derive(Args, Debug, Default)]
pub struct LaterArgs {
    /// Attestations.
    #[arg(long, hide = true, value_name = "ATTESTATION")]
    pub attest: Vec<String>,
    /// Attestations; `false` is what there is.
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_parser = only_false)]
    pub sbom: Option<()>,
    /// Attestations; `false` is what there is.
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true", require_equals = true, value_parser = only_false)]
    pub provenance: Option<()>,
    /// Limits of steps.
    #[arg(long, hide = true, value_name = "SIZE")]
    pub shm_size: Option<String>,
    /// Limits of steps.
    #[arg(long, hide = true, value_name = "LIMIT")]
    pub ulimit: Vec<String>,
    /// Limits of steps.
    #[arg(long, hide = true, value_name = "PATH")]
    pub cgroup_parent: Option<String>,
    /// Another builder.
    #[arg(long, hide = true, value_name = "NAME")]
    pub builder: Option<String>,
    /// Classic builder: remove containers after the build. There are none.
    #[arg(long, hide = true)]
    pub rm: bool,
    /// Classic builder: remove containers even after a failure. There are none.
    #[arg(long, hide = true)]
    pub force_rm: bool,
}

impl LaterArgs {
    /// The first option that is set, and what to do instead.
    pub fn refused(&self) -> Option<(&'static str, &'static str)> {
        let instead: [(&str, bool, &str); 4] = [
            ("--attest", !self.attest.is_empty(), "leave it out"),
            ("--shm-size", self.shm_size.is_some(), "mount a tmpfs: RUN --mount=type=tmpfs"),
            (
                "--ulimit",
                !self.ulimit.is_empty() || self.cgroup_parent.is_some(),
                "limit wbuild itself, e.g. with systemd-run",
            ),
            ("--builder", self.builder.is_some(), "the builder is this program; leave it out"),
        ];
        instead.into_iter().find(|(_, set, _)| *set).map(|(name, _, hint)| (name, hint))
    }
}
