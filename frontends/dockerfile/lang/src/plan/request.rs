//! What the caller asked for, read once.

use std::collections::BTreeMap;

use super::host::Host;
use crate::ast::{Dockerfile, Stage};
use crate::directives::parse_bool;
use crate::platform::Platform;
use crate::suggest::did_you_mean;
use crate::text::shown;
use crate::{Code, Diagnostic, Failure, Span, units};

/// Variables that every step may see without declaring them, and that are in no key and no history.
pub(crate) const PROXY_VARIABLES: [&str; 5] =
    ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// The variable that fixes the time of all that is made.
pub(crate) const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// The time that a value of [`EPOCH`] asks for: seconds since 1970, or `context`, the name of a
/// context or that of a stage whose time the host finds out, if it has one.
pub(crate) fn epoch(
    host: &mut dyn Host,
    file: &Dockerfile,
    value: &str,
    at: Option<Span>,
) -> Result<Option<u64>, Failure> {
    if let Ok(seconds) = value.parse() {
        return Ok(Some(seconds));
    }
    let contexts = host.context_names();
    let stages: Vec<String> = file.stages.iter().filter_map(Stage::folded_name).collect();
    if value == "context"
        || contexts.iter().any(|name| name == value)
        || stages.contains(&value.to_lowercase())
    {
        return Ok(host.epoch());
    }
    let names = contexts.iter().chain(&stages).map(String::as_str).chain(["context"]);
    let nowhere = Span { source: 0, start: 0, end: 0 };
    let message = format!("{EPOCH} cannot be {}", shown(value));
    let mut error = Diagnostic::error(Code::InvalidEpoch, at.unwrap_or(nowhere), message)
        .help("write seconds since 1970, or the name of a context or stage whose time counts")
        .maybe_help(did_you_mean(value, names));
    if at.is_none() {
        // It is about the command line, not about a place in the file.
        error.labels.clear();
    }
    Err(error.into())
}

/// Which stages are built anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoCache {
    Nothing,
    Everything,
    Stages(Vec<String>),
}

/// The caller's wishes.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub target: Option<String>,
    pub build_args: BTreeMap<String, String>,
    pub labels: Vec<(String, String)>,
    pub no_cache: NoCache,
    pub build_platform: Platform,
    pub target_platforms: Vec<Platform>,
    /// The caller named the platforms, so the image is of these whatever the base says.
    pub explicit_platform: bool,
    /// Node names carry the platform.
    pub several_platforms: bool,
    /// When tags are resolved anew: attribute `resolve` of images.
    pub resolve: Option<String>,
    pub network: String,
    pub hostname: String,
    pub add_hosts: Vec<(String, String)>,
    pub ulimits: Vec<(String, i64, i64)>,
    pub shm_size: Option<String>,
    /// Put before the ids of cache mounts.
    pub cache_namespace: String,
    pub keep_git_dir: bool,
    pub epoch: Option<u64>,
}

impl Request {
    /// `target` takes the place of the one that the request names, if there is one.
    pub fn read(
        host: &mut dyn Host,
        file: &Dockerfile,
        target: Option<&str>,
    ) -> Result<Request, Failure> {
        let mut build_args: BTreeMap<String, String> =
            host.opts("build-arg:").into_iter().collect();
        let labels = host.opts("label:");
        let list = |text: &str| -> Vec<String> {
            text.split(',')
                .map(|part| part.trim().to_owned())
                .filter(|part| !part.is_empty())
                .collect()
        };
        let no_cache = match host.opt("no-cache") {
            None => NoCache::Nothing,
            Some(stages) if list(&stages).is_empty() => NoCache::Everything,
            Some(stages) => NoCache::Stages(list(&stages)),
        };
        let target_platforms = host.target_platforms();
        let build_platform = host.build_platform();
        let target_platforms = if target_platforms.is_empty() {
            vec![build_platform.clone()]
        } else {
            target_platforms
        };
        let on = |args: &BTreeMap<String, String>, name: &str| {
            args.get(name).and_then(|value| parse_bool(value)).unwrap_or(false)
        };
        let several_platforms = target_platforms.len() > 1
            || host.opt("multi-platform").is_some_and(|value| parse_bool(&value) == Some(true))
            || on(&build_args, "BUILDKIT_MULTI_PLATFORM");
        let mut targets = host.targets();
        if targets.len() > 1 {
            let message = "a Dockerfile is built for one target at a time";
            return Err(Failure::new("unsupported", message));
        }
        let target =
            target.map(str::to_owned).or_else(|| targets.pop()).or_else(|| host.opt("target"));
        let hostname = host
            .opt("hostname")
            .or_else(|| build_args.get("BUILDKIT_SANDBOX_HOSTNAME").cloned())
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| "buildkitsandbox".to_owned());
        let network = match host.opt("force-network-mode").as_deref() {
            None | Some("" | "default" | "sandbox") => "sandbox".to_owned(),
            Some(mode @ ("none" | "host")) => mode.to_owned(),
            Some(other) => {
                return Err(Failure::new(
                    "invalid",
                    format!("the option force-network-mode cannot be {}", shown(other)),
                ));
            }
        };
        let epoch = match build_args.get(EPOCH).filter(|value| !value.is_empty()).cloned() {
            None => host.epoch(),
            Some(value) => epoch(host, file, &value, None)?,
        };
        // An ARG of the name sees the time that was settled, wherever it came from.
        match epoch {
            Some(epoch) => build_args.insert(EPOCH.to_owned(), epoch.to_string()),
            None => build_args.remove(EPOCH),
        };
        Ok(Request {
            target: target.filter(|target| !target.is_empty()),
            labels,
            no_cache,
            explicit_platform: host.opt("platform").is_some_and(|platform| !platform.is_empty()),
            several_platforms,
            resolve: host
                .opt("image-resolve-mode")
                .filter(|mode| !mode.is_empty() && mode != "default"),
            network,
            hostname,
            add_hosts: hosts(&host.opt("add-hosts").unwrap_or_default())?,
            ulimits: ulimits(&host.opt("ulimit").unwrap_or_default())?,
            shm_size: match host.opt("shm-size").filter(|size| !size.is_empty()) {
                None => None,
                Some(size) => {
                    Some(units::bytes(&size).map(|bytes| bytes.to_string()).ok_or_else(|| {
                        let message = format!("the option shm-size cannot be {}", shown(&size));
                        Failure::new("invalid", message)
                    })?)
                    .filter(|size| size != "0")
                }
            },
            cache_namespace: build_args.get("BUILDKIT_CACHE_MOUNT_NS").cloned().unwrap_or_default(),
            keep_git_dir: on(&build_args, "BUILDKIT_CONTEXT_KEEP_GIT_DIR"),
            build_platform,
            target_platforms,
            epoch,
            build_args,
        })
    }

    /// Whether the nodes of a stage run even if their results are known.
    pub fn ignores_cache(&self, stage: Option<&str>) -> bool {
        match &self.no_cache {
            NoCache::Nothing => false,
            NoCache::Everything => true,
            NoCache::Stages(names) => {
                stage.is_some_and(|stage| names.iter().any(|name| name.eq_ignore_ascii_case(stage)))
            }
        }
    }

    /// The proxy settings among the build arguments, in both spellings, as programs differ in
    /// which they read.
    pub fn proxy_env(&self) -> Vec<(String, String)> {
        let mut env = Vec::new();
        for name in PROXY_VARIABLES {
            // Of both spellings the one in small letters, which sorts last, counts.
            let given = self.build_args.iter().rfind(|(given, _)| given.eq_ignore_ascii_case(name));
            if let Some((_, value)) = given.filter(|(_, value)| !value.is_empty()) {
                env.push((name.to_owned(), value.clone()));
                env.push((name.to_ascii_lowercase(), value.clone()));
            }
        }
        env
    }
}

/// `name=address,…`.
fn hosts(text: &str) -> Result<Vec<(String, String)>, Failure> {
    let parts = text.split(',').filter(|part| !part.is_empty());
    parts
        .map(|part| match part.split_once('=') {
            Some((name, address)) if !name.is_empty() && !address.is_empty() => {
                Ok((name.to_owned(), address.to_owned()))
            }
            _ => Err(Failure::new(
                "invalid",
                format!("the option add-hosts holds {}, which is not `name=address`", shown(part)),
            )),
        })
        .collect()
}

/// `name=soft[:hard],…`.
fn ulimits(text: &str) -> Result<Vec<(String, i64, i64)>, Failure> {
    let parts = text.split(',').filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let limit = part.split_once('=').and_then(|(name, limits)| {
                let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
                Some((name.to_owned(), soft.parse().ok()?, hard.parse().ok()?))
            });
            limit.ok_or_else(|| {
                let part = shown(part);
                let message =
                    format!("the option ulimit holds {part}, which is not `name=soft:hard`");
                Failure::new("invalid", message)
            })
        })
        .collect()
}
