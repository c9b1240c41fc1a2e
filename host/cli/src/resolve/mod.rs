//! From what was written to what is meant: arguments, environment and file system become one
//! [`Build`]. All that can be refused before anything runs is refused here.

mod cache;
pub mod context;
pub mod definition;
mod docker;
mod earthfile;
pub mod output;
pub mod plugins;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use wbuild::session::{Lent, RegistryHosts};
use wbuild_api::describe::Query;
use wbuild_api::request::{
    BuildRequest, ContextSpec, DefaultNetwork, DefinitionSource, Entitlement,
};
use wbuild_api::session::Proxies;
use wbuild_graph::Attrs;
use wbuild_plugin::PluginKind;
use wbuild_supply::syntax::{self, Known};
use wbuild_supply::{PluginRef, Problem, Project, catalog};

use crate::args::BuildArgs;
use crate::args::call::{CallArg, Format, Method};
use crate::args::values::{NetworkArg, ProgressArg, SecretArg, SecretSource, SshArg};
use crate::config::{self, Kept};
use crate::environment::{Environment, vars};
use crate::exit::Fault;
use crate::isolation::IsolatePlugins;
use crate::registries::{self, Registries};
use plugins::{Backend, Supply};

pub use wbuild::RUNNERS;
pub use wbuild::session::{Directory, SecretPlace};

/// Everything one build needs.
#[derive(Clone, Debug)]
pub struct Build {
    /// What the engine is asked.
    pub request: BuildRequest,
    /// What the session lends.
    pub lends: Lends,
    /// What reads the definition; none where the definition says it, which is not here yet.
    pub frontend: Option<PluginRef>,
    /// Where the definition names it, if it does.
    pub frontend_line: Option<syntax::SyntaxLine>,
    /// What plans launches; in order.
    pub runners: Vec<PluginRef>,
    /// What finds further results; in order.
    pub caches: Vec<PluginRef>,
    /// What reads and writes caches elsewhere, by the name that the request has for it.
    pub remotes: BTreeMap<String, Backend>,
    /// Where these come from.
    pub supply: Supply,
    /// Which plugins run in a process of their own; none = those from elsewhere.
    pub isolate: Option<IsolatePlugins>,
    /// Where results are kept.
    pub state_dir: PathBuf,
    /// Stands in for the machine's boot id.
    pub boot_id: Option<String>,
    /// What may be kept on the disk.
    pub kept: Kept,
    /// What others see who wait for this build. Without options: their values may be secret.
    pub owner: String,
    /// Preferred OCI runtime.
    pub runtime: Option<String>,
    /// Look records up by their own keys too.
    pub record_aliases: bool,
    /// Wait for another build.
    pub wait: bool,
    /// What the frontend is asked instead of building.
    pub call: Option<Call>,
    /// What there is to say of the choices made here.
    pub remarks: Vec<String>,
    /// How the build is shown.
    pub display: Display,
    /// Show warnings with the lines they are about.
    pub full_warnings: bool,
    /// What is left behind for scripts.
    pub notes: Notes,
}

/// A question in place of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What the frontend is asked.
    pub query: Query,
    /// How the answer is written.
    pub format: Format,
    /// End with 0 whatever a check has found.
    pub ignore_status: bool,
}

/// What the session lends, before anything of it is opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lends {
    /// Directories by the name of the local context.
    pub directories: BTreeMap<String, Directory>,
    /// Where secrets are, by id.
    pub secrets: BTreeMap<String, SecretPlace>,
    /// Agents' sockets, by id.
    pub agents: BTreeMap<String, PathBuf>,
    /// Files with the keys of ssh servers; need not exist.
    pub known_hosts: Vec<PathBuf>,
    /// Directory of docker's config.json.
    pub docker_config: Option<PathBuf>,
    /// How registries are asked.
    pub registries: Registries,
    /// Through whom registries and web servers are asked.
    pub proxies: Proxies,
    /// What was read of the archive on standard input, where that is the main context.
    pub archive: Option<Vec<u8>>,
}

impl Lends {
    /// What is needed to ask registries, and nothing else. `registry_config` is the option.
    pub fn to_registries(
        registry_config: Option<&Path>,
        environment: &Environment,
    ) -> Result<Lends, Fault> {
        Ok(Lends {
            docker_config: environment.docker_config_dir(),
            registries: registries::read(registry_config, environment)?,
            proxies: environment.proxies()?,
            ..Lends::default()
        })
    }
}

impl From<Lends> for Lent {
    fn from(lends: Lends) -> Lent {
        let Lends { directories, secrets, agents, known_hosts, archive, proxies, .. } = lends;
        let registries = Some(Arc::new(lends.registries) as Arc<dyn RegistryHosts>);
        Lent { directories, secrets, agents, known_hosts, archive, registries, proxies }
    }
}

/// How the build is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Display {
    /// A live view.
    Tty,
    /// Lines.
    Plain,
    /// One JSON object a line.
    Json,
    /// Nothing but failures.
    Quiet,
}

/// What a build leaves behind for scripts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Print the image's id to standard output.
    pub print_id: bool,
    /// Write the image's id here.
    pub iidfile: Option<PathBuf>,
    /// Write what was built here.
    pub metadata_file: Option<PathBuf>,
    /// Show numbers.
    pub stats: bool,
}

/// Resolves the arguments of `wbuild build`. Reads `stdin` only if the definition comes from there.
pub fn build(
    args: &BuildArgs,
    environment: &Environment,
    stdin: &mut dyn Read,
) -> Result<Build, Fault> {
    if let Some((option, instead)) = args.later.refused() {
        return Err(Fault::not_yet(format!("{option} is not supported yet")).hint(instead));
    }
    let call = call(args)?;
    let named = match &args.frontend {
        Some(name) => Some(name.as_os_str()),
        None => environment.var_os(vars::FRONTEND),
    };
    let private = plugins::reaches_private(&args.allow);
    let directory = args.path.as_deref().filter(|path| *path != "-");
    let directory = directory.map(|path| environment.absolute(Path::new(path)));
    let supply = Supply::of(directory.as_deref(), &args.plugins, private)?;
    let named = named.map(|name| supply.named(PluginKind::Frontend, name, environment));
    let named = named.transpose()?;
    let inputs = definition::find(args, named.as_ref(), environment, stdin)?;

    let mut lends = Lends {
        known_hosts: environment.known_hosts(),
        archive: inputs.archive,
        ..Lends::to_registries(args.registry_config.as_deref(), environment)?
    };
    let mut contexts = BTreeMap::from([("context".to_owned(), inputs.context)]);
    for arg in &args.contexts {
        let spec = context::resolve(&arg.value, environment)
            .map_err(|fault| name_context(fault, &arg.name))?;
        contexts.insert(arg.name.clone(), spec);
    }
    for (name, spec) in &contexts {
        if let ContextSpec::Local(path) = spec {
            let written = args.contexts.iter().rev().find(|arg| arg.name == *name);
            let shown = match written {
                Some(arg) => arg.value.clone(),
                None => inputs.directory_shown.clone(),
            };
            lends.directories.insert(name.clone(), Directory { path: path.clone(), shown });
        }
    }
    if let Some(directory) = inputs.definition_directory {
        lends.directories.insert("dockerfile".to_owned(), directory);
    }
    for secret in &args.secrets {
        lends.secrets.insert(secret.id.clone(), secret_place(secret, environment)?);
    }
    for agent in &args.ssh {
        lends.agents.insert(agent.id.clone(), agent_socket(agent, environment)?);
    }

    // A question has an answer and nothing to export.
    let mut outputs = match call {
        Some(_) => Vec::new(),
        None => output::resolve(&output::wanted(args), args.push, &args.annotations, environment)?,
    };
    let saves = named.as_ref().is_some_and(|named| named.is_bundled("earthfile"));
    // What else is pushed does not change what a definition leaves in its directory.
    let unsaid = saves && call.is_none() && output::wanted(args).is_empty();
    let mut artifact_name = None;
    if let Some(artifact) = earthfile::artifact(args, saves, environment)? {
        if unsaid {
            outputs.push(output::saved_files(&artifact.directory, None));
        }
        artifact_name = artifact.name;
    } else if unsaid && !args.ci {
        let context = match contexts.get("context") {
            Some(ContextSpec::Local(context)) if *context != inputs.beside => Some(&**context),
            _ => None,
        };
        outputs.push(output::saved_files(&inputs.beside, context));
    }
    if !args.allow.iter().any(|allow| allow.0 == Entitlement::LocalDelete) {
        output::check_deleting(&outputs, environment)?;
    }
    let epoch = source_date_epoch(args, environment)?;
    let display = display(args.quiet, args.progress, environment)?;
    let mut options = options(args, environment, epoch)?;
    options.0.extend(artifact_name.map(|name| (earthfile::NAME.to_owned(), name)));
    let choice = match named {
        Some(_) => None,
        None => of_definition(&inputs.definition, &contexts, &mut options, &supply)?,
    };
    let remarks = choice.iter().filter_map(|choice| choice.note.clone()).collect();
    let (frontend, frontend_line) = match choice {
        Some(choice) => (Some(choice.frontend), choice.line),
        None => (named, None),
    };
    let mut cache_from = cache::resolve(&args.cache_from, "--cache-from", environment)?;
    let mut cache_to = match call {
        Some(_) => Vec::new(),
        None => cache::resolve(&args.cache_to, "--cache-to", environment)?,
    };
    let remotes = supply.backends(cache_from.iter_mut().chain(&mut cache_to), environment)?;
    let request = BuildRequest {
        definition: inputs.definition,
        options,
        targets: args.target.iter().cloned().collect(),
        platforms: unique(&args.platforms),
        contexts,
        tags: unique(&args.tags),
        identify: call.is_none()
            && (display == Display::Quiet
                || args.iidfile.is_some()
                || args.metadata_file.is_some()),
        pull: args.pull,
        no_cache: args.no_cache,
        source_date_epoch: epoch,
        network: match args.network {
            Some(NetworkArg::None) => DefaultNetwork::None,
            Some(NetworkArg::Default | NetworkArg::Host) | None => DefaultNetwork::Host,
        },
        add_hosts: args.add_hosts.iter().map(|h| (h.name.clone(), h.address.clone())).collect(),
        allow: args.allow.iter().map(|allow| allow.0).collect(),
        max_parallelism: jobs(args, environment)?,
        explain: args.explain,
        keyed_secrets: args.secrets.iter().filter(|s| s.keyed).map(|s| s.id.clone()).collect(),
        outputs,
        cache_from,
        cache_to,
        cache_mounts: cache::mounts(&args.cache_mounts, environment)?,
    };
    let notes = match call {
        None => Notes {
            print_id: display == Display::Quiet && !output::uses_stdout(&request.outputs),
            iidfile: args.iidfile.as_deref().map(|path| environment.absolute(path)),
            metadata_file: args.metadata_file.as_deref().map(|path| environment.absolute(path)),
            stats: args.stats,
        },
        Some(_) => Notes { stats: args.stats, ..Notes::default() },
    };
    Ok(Build {
        request,
        lends,
        frontend,
        frontend_line,
        runners: supply.all(PluginKind::Runner, &args.runners, &RUNNERS, environment)?,
        caches: supply.all(
            PluginKind::Cache,
            &args.cache_backends,
            &["cache-local"],
            environment,
        )?,
        remotes,
        isolate: args.isolate_plugins,
        supply,
        state_dir: environment.state_dir(args.state.state_dir.as_deref())?,
        boot_id: environment.var(vars::BOOT_ID)?.map(str::to_owned),
        kept: config::kept(args.cache_max, environment)?,
        owner: format!("wbuild build {} in {}", inputs.context_shown, environment.cwd.display()),
        runtime: runtime(args.runtime.as_deref(), environment)?,
        record_aliases: !args.no_record_aliases,
        wait: !args.no_wait,
        call,
        remarks,
        display,
        full_warnings: args.debug || display == Display::Plain,
        notes,
    })
}

/// What is asked in place of a build.
fn call(args: &BuildArgs) -> Result<Option<Call>, Fault> {
    let arg = match (&args.call, args.check) {
        (None, false) => return Ok(None),
        (None, true) => CallArg::check(),
        (Some(arg), true) if arg.method != Method::Check => {
            return Err(Fault::usage("--check and another method of --call exclude each other"));
        }
        (Some(arg), _) => arg.clone(),
    };
    let query = arg.method.query(args.target.as_deref());
    let CallArg { format, ignore_status, .. } = arg;
    Ok(query.map(|query| Call { query, format, ignore_status }))
}

/// What reads a definition. None for one that is not here yet: [`choose`] is asked once it is.
fn of_definition(
    source: &DefinitionSource,
    contexts: &BTreeMap<String, ContextSpec>,
    options: &mut Attrs,
    supply: &Supply,
) -> Result<Option<syntax::Choice>, Fault> {
    let project = supply.project.as_deref();
    let mut default = None;
    let (name, data) = match source {
        DefinitionSource::Inline { name, data } => (name, Cow::Borrowed(&data[..])),
        // One that cannot be read is for the engine to say.
        DefinitionSource::File { directory, name } => {
            let path = directory.join(name);
            if let (Some(project), Ok(real)) = (project, std::fs::canonicalize(directory)) {
                default = project.frontend_for(&real.join(name))?;
            }
            let mut data = Vec::new();
            let _ = std::fs::File::open(path)
                .and_then(|file| file.take(definition::MAX_DEFINITION).read_to_end(&mut data));
            (name, Cow::Owned(data))
        }
        DefinitionSource::InContext { .. } | DefinitionSource::Url(_) => {
            return Ok(None);
        }
    };
    let definition = syntax::Definition { name, data: &data };
    let choice = choose(&definition, contexts, options, project, default.as_ref())?;
    options.0.extend(choice.options());
    Ok(Some(choice))
}

/// What reads a definition; `default` if it does not say so itself.
pub fn choose(
    definition: &syntax::Definition<'_>,
    contexts: &BTreeMap<String, ContextSpec>,
    options: &Attrs,
    project: Option<&Project>,
    default: Option<&PluginRef>,
) -> Result<syntax::Choice, Problem> {
    let argument = options.get(&format!("build-arg:{}", syntax::ARGUMENT));
    let mut names = catalog::names(PluginKind::Frontend);
    names.extend(project.into_iter().flat_map(Project::frontends));
    let known = Known { names: &names, default };
    syntax::choose(definition, argument, contexts, known)
}

/// The OCI runtime asked for; a path becomes absolute.
pub fn runtime(flag: Option<&str>, environment: &Environment) -> Result<Option<String>, Fault> {
    let Some(name) = flag.map_or_else(|| environment.var(vars::RUNTIME), |flag| Ok(Some(flag)))?
    else {
        return Ok(None);
    };
    if !name.contains('/') {
        return Ok(Some(name.to_owned()));
    }
    let path = environment.absolute(Path::new(name));
    if !path.is_file() {
        return Err(Fault::input(format!("the OCI runtime {name} does not exist")));
    }
    // It was text before and stays so: the working directory may not be.
    path.into_os_string()
        .into_string()
        .map(Some)
        .map_err(|_| Fault::input(format!("the path of the OCI runtime {name} is not valid UTF-8")))
}

fn name_context(mut fault: Fault, name: &str) -> Fault {
    *fault.failure = fault.failure.context(format!("cannot use the build context {name:?}"));
    fault
}

/// What frontends see, by the names that `docker buildx` uses; of repeated names the last counts.
fn options(
    args: &BuildArgs,
    environment: &Environment,
    epoch: Option<u64>,
) -> Result<Attrs, Fault> {
    let mut options = Vec::new();
    let mut set = |key: String, value: String| {
        options.retain(|(known, _)| *known != key);
        options.push((key, value));
    };
    if let Some(epoch) = epoch {
        set(format!("build-arg:{}", vars::SOURCE_DATE_EPOCH), epoch.to_string());
    }
    for arg in &args.build_args {
        let value = match &arg.value {
            Some(value) => Some(value.clone()),
            None => match environment.var_raw(&arg.name) {
                Some(value) => Some(value.to_str().map(str::to_owned).ok_or_else(|| {
                    Fault::input(format!(
                        "the environment variable {} of --build-arg is not valid UTF-8",
                        arg.name
                    ))
                })?),
                None => None,
            },
        };
        // A name that the environment does not have leaves the ARG's default alone.
        if let Some(value) = value {
            set(format!("build-arg:{}", arg.name), value);
        }
    }
    for label in &args.labels {
        set(format!("label:{}", label.name), label.value.clone().unwrap_or_default());
    }
    if let Some(target) = &args.target {
        set("target".to_owned(), target.clone());
    }
    if args.ci {
        set("ci".to_owned(), "true".to_owned());
    }
    if args.no_cache {
        set("no-cache".to_owned(), String::new());
    } else if !args.no_cache_filter.is_empty() {
        set("no-cache".to_owned(), args.no_cache_filter.join(","));
    }
    Ok(Attrs(options))
}

fn unique<T: Clone + PartialEq>(values: &[T]) -> Vec<T> {
    let mut out: Vec<T> = Vec::new();
    for value in values {
        if !out.contains(value) {
            out.push(value.clone());
        }
    }
    out
}

fn source_date_epoch(args: &BuildArgs, environment: &Environment) -> Result<Option<u64>, Fault> {
    let name = vars::SOURCE_DATE_EPOCH;
    let given = args.build_args.iter().rev().find(|arg| arg.name == name);
    let text = match given.and_then(|arg| arg.value.as_deref()) {
        Some(text) => Some(text),
        None => environment.var(name)?,
    };
    match text {
        None | Some("") => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|_| {
            Fault::input(format!("{name} is {text:?}, which is no number of seconds since 1970"))
                .hint(format!("for example {name}=$(git log -1 --format=%ct)"))
        }),
    }
}

fn jobs(args: &BuildArgs, environment: &Environment) -> Result<Option<usize>, Fault> {
    if let Some(jobs) = args.jobs {
        return Ok(Some(usize::from(jobs)));
    }
    match environment.var(vars::JOBS)? {
        None => Ok(None),
        Some(text) => match text.parse::<u16>() {
            Ok(jobs) if jobs > 0 => Ok(Some(usize::from(jobs))),
            _ => Err(Fault::usage(format!("{} is {text:?}, expected 1 to 65535", vars::JOBS))),
        },
    }
}

/// How work is shown.
pub fn display(
    quiet: bool,
    progress: Option<ProgressArg>,
    environment: &Environment,
) -> Result<Display, Fault> {
    if quiet {
        return Ok(Display::Quiet);
    }
    let asked = match progress {
        Some(asked) => asked,
        None => match environment.var(vars::PROGRESS)? {
            Some(text) => text
                .parse()
                .map_err(|error| Fault::usage(format!("{}: {error}", vars::PROGRESS)))?,
            // Another builder's variable: what we do not know in it is not ours to refuse.
            None => environment
                .var(vars::BUILDKIT_PROGRESS)?
                .and_then(|text| text.parse().ok())
                .unwrap_or(ProgressArg::Auto),
        },
    };
    let live = environment.stderr_terminal && environment.cursor_moves();
    Ok(match asked {
        ProgressArg::Auto | ProgressArg::Tty if live => Display::Tty,
        ProgressArg::Auto | ProgressArg::Tty | ProgressArg::Plain => Display::Plain,
        ProgressArg::Json => Display::Json,
        ProgressArg::Quiet => Display::Quiet,
    })
}

fn secret_place(arg: &SecretArg, environment: &Environment) -> Result<SecretPlace, Fault> {
    use std::os::unix::ffi::OsStrExt;
    let of_variable = |name: &str| {
        environment.var_raw(name).map(|value| SecretPlace::Value(value.as_bytes().to_vec()))
    };
    let of_file = |path: &Path| {
        let path = environment.absolute(path);
        let failed = |why: &str| {
            Fault::input(format!(
                "cannot read the file {} of the secret {:?}{why}",
                path.display(),
                arg.id
            ))
        };
        match std::fs::metadata(&path) {
            Ok(found) if found.is_dir() => Err(failed(": it is a directory")),
            Ok(_) => Ok(SecretPlace::File(path)),
            Err(error) => Err(failed("").cause(&error)),
        }
    };
    match &arg.source {
        SecretSource::File(path) => of_file(path),
        SecretSource::Env(name) => of_variable(name).ok_or_else(|| {
            Fault::input(format!(
                "the environment variable {name} of the secret {:?} is not set",
                arg.id
            ))
        }),
        SecretSource::Named => match of_variable(&arg.id) {
            Some(value) => Ok(value),
            None => of_file(Path::new(&arg.id)).map_err(|fault| {
                fault.hint(format!(
                    "say where the value is: --secret id={0},src=FILE or --secret id={0},env=VAR",
                    arg.id
                ))
            }),
        },
    }
}

fn agent_socket(arg: &SshArg, environment: &Environment) -> Result<PathBuf, Fault> {
    use std::os::unix::fs::FileTypeExt;
    let path = match &arg.socket {
        Some(path) => environment.absolute(path),
        None => environment
            .var_os(vars::SSH_AUTH_SOCK)
            .map(|path| environment.absolute(Path::new(path)))
            .ok_or_else(|| {
                Fault::input(format!("no ssh agent for --ssh {}: SSH_AUTH_SOCK is not set", arg.id))
                    .hint("start one: eval $(ssh-agent) && ssh-add")
            })?,
    };
    let shown = path.display().to_string();
    match std::fs::metadata(&path) {
        Ok(found) if found.file_type().is_socket() => Ok(path),
        Ok(_) => Err(Fault::input(format!("{shown} of --ssh {} is not an agent's socket", arg.id))
            .hint("keys are lent through an agent: ssh-add KEY, then --ssh default")),
        Err(error) => {
            Err(Fault::input(format!("cannot find the agent's socket {shown} of --ssh {}", arg.id))
                .cause(&error))
        }
    }
}
