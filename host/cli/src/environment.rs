//! The user's environment, read once at start: variables, working directory, user, terminals.
//!
//! Every variable that wbuild knows is a constant of [`vars`]; nothing else in the workspace reads
//! variables for itself.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use wbuild_api::session::Proxies;

use crate::exit::Fault;

/// The variables that wbuild reads. The help of `wbuild build` lists them ([`HELP`]).
pub mod vars {
    /// Where wbuild keeps its state; `--state-dir` wins over it.
    pub const STATE_DIR: &str = "WBUILD_STATE_DIR";
    /// Where compiled plugins are kept. Safe to delete at any time.
    pub const CACHE_DIR: &str = "WBUILD_CACHE_DIR";
    /// Default of `--frontend`.
    pub const FRONTEND: &str = "WBUILD_FRONTEND";
    /// Default of `--progress`.
    pub const PROGRESS: &str = "WBUILD_PROGRESS";
    /// Default of `--progress` where `WBUILD_PROGRESS` is not set, so that set-ups made for other
    /// builders keep their display.
    pub const BUILDKIT_PROGRESS: &str = "BUILDKIT_PROGRESS";
    /// Default of `--runtime`.
    pub const RUNTIME: &str = "WBUILD_RUNTIME";
    /// Default of `--jobs`.
    pub const JOBS: &str = "WBUILD_JOBS";
    /// Seconds since 1970 that the times of a result are clamped to
    /// (reproducible-builds.org/specs/source-date-epoch).
    pub const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";
    /// Set and not empty: no colour (no-color.org).
    pub const NO_COLOR: &str = "NO_COLOR";
    /// `dumb` or unset: no live display.
    pub const TERM: &str = "TERM";
    /// Holds `wbuild/` with the state of an ordinary user (XDG base directory specification).
    pub const XDG_STATE_HOME: &str = "XDG_STATE_HOME";
    /// Holds `wbuild/` with compiled plugins (XDG base directory specification).
    pub const XDG_CACHE_HOME: &str = "XDG_CACHE_HOME";
    /// The user's home, where the XDG variables and `DOCKER_CONFIG` are not set.
    pub const HOME: &str = "HOME";
    /// The directory of docker's `config.json` with registry credentials.
    pub const DOCKER_CONFIG: &str = "DOCKER_CONFIG";
    /// Registry credentials in the form of docker's `config.json`, in place of its file.
    pub const AUTH_CONFIG: &str = "DOCKER_AUTH_CONFIG";
    /// How registries are asked; `--registry-config` wins over it.
    pub const REGISTRY_CONFIG: &str = "WBUILD_REGISTRY_CONFIG";
    /// What plugins may do; `--policy` wins over it.
    pub const POLICY: &str = "WBUILD_POLICY";
    /// Most that is kept; `--cache-max` wins over it.
    pub const CACHE_MAX: &str = "WBUILD_CACHE_MAX";
    /// The configuration in place of `config.toml`.
    pub const CONFIG: &str = "WBUILD_CONFIG";
    /// Holds `wbuild/` with the configuration (XDG base directory specification).
    pub const XDG_CONFIG_HOME: &str = "XDG_CONFIG_HOME";
    /// The proxy for what is asked over HTTPS; as `https_proxy`, too.
    pub const HTTPS_PROXY: &str = "HTTPS_PROXY";
    /// The proxy for what is asked over plain HTTP; as `http_proxy`, too.
    pub const HTTP_PROXY: &str = "HTTP_PROXY";
    /// Who is asked without them; as `no_proxy`, too.
    pub const NO_PROXY: &str = "NO_PROXY";
    /// Where Docker listens, for outputs that are loaded into it.
    pub const DOCKER_HOST: &str = "DOCKER_HOST";
    /// The docker context that says so, where `DOCKER_HOST` does not.
    pub const DOCKER_CONTEXT: &str = "DOCKER_CONTEXT";
    /// Set: Docker is talked to with TLS.
    pub const DOCKER_TLS_VERIFY: &str = "DOCKER_TLS_VERIFY";
    /// The agent's socket behind `--ssh default`.
    pub const SSH_AUTH_SOCK: &str = "SSH_AUTH_SOCK";
    /// Stands in for the machine's boot id, so that tests can simulate a power cut.
    pub const BOOT_ID: &str = "WBUILD_BOOT_ID";
    /// Directories with programs: the OCI runtime, emulators, credential helpers.
    pub const PATH: &str = "PATH";
    /// Where the whole output of a long step waits while only its end is on the screen, and where
    /// layers are on their way from one registry to another.
    pub const TMPDIR: &str = "TMPDIR";
}

/// The paragraph of `--help` about variables.
pub const HELP: &str = "\
Environment:
  WBUILD_STATE_DIR   where the state is kept, as --state-dir
  WBUILD_CACHE_DIR   where plugins are kept that were fetched, and compiled ones
  WBUILD_CACHE_MAX   most that is kept on the disk, as --cache-max
  WBUILD_CONFIG      the configuration; else config.toml in ~/.config/wbuild or /etc/wbuild
  WBUILD_FRONTEND    default of --frontend
  WBUILD_PROGRESS    default of --progress; else BUILDKIT_PROGRESS
  WBUILD_RUNTIME     default of --runtime
  WBUILD_JOBS        default of --jobs
  SOURCE_DATE_EPOCH  seconds since 1970 that the times of the result are clamped to
  DOCKER_CONFIG      directory of the config.json with registry credentials
  DOCKER_AUTH_CONFIG registry credentials themselves, as text of that form; they come first
  WBUILD_REGISTRY_CONFIG
                     how registries are asked, as --registry-config
  WBUILD_POLICY      what plugins may do, as --policy
  HTTPS_PROXY, HTTP_PROXY, NO_PROXY
                     proxies for registries and URLs; steps do not see them
  DOCKER_HOST        the Docker that --load loads into, else that of DOCKER_CONTEXT or config.json
  SSH_AUTH_SOCK      the agent behind --ssh default
  NO_COLOR           no colours if set and not empty";

/// What the process was started in.
#[derive(Clone, Debug)]
pub struct Environment {
    vars: BTreeMap<OsString, OsString>,
    /// The working directory.
    pub cwd: PathBuf,
    /// The effective user is root.
    pub is_root: bool,
    /// Standard input is a terminal.
    pub stdin_terminal: bool,
    /// Standard output is a terminal.
    pub stdout_terminal: bool,
    /// Standard error is a terminal.
    pub stderr_terminal: bool,
}

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Result<Self, Fault> {
        let cwd = std::env::current_dir().map_err(|error| {
            Fault::input("cannot find the working directory")
                .cause(&error)
                .hint("change to a directory that exists")
        })?;
        Ok(Environment {
            vars: std::env::vars_os().collect(),
            cwd,
            is_root: rustix::process::geteuid().is_root(),
            stdin_terminal: std::io::stdin().is_terminal(),
            stdout_terminal: std::io::stdout().is_terminal(),
            stderr_terminal: std::io::stderr().is_terminal(),
        })
    }

    /// An environment made of parts, without terminals: for tests.
    pub fn of_parts(cwd: &Path, vars: &[(&str, &str)]) -> Self {
        Environment {
            vars: vars.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            cwd: cwd.to_owned(),
            is_root: false,
            stdin_terminal: false,
            stdout_terminal: false,
            stderr_terminal: false,
        }
    }

    /// A variable as it is; an empty one counts as not set.
    pub fn var_os(&self, name: &str) -> Option<&OsStr> {
        self.vars.get(OsStr::new(name)).map(OsString::as_os_str).filter(|v| !v.is_empty())
    }

    /// A variable that is set, even if empty.
    pub fn var_raw(&self, name: &str) -> Option<&OsStr> {
        self.vars.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// A variable as text; one that is not UTF-8 is the user's error.
    pub fn var(&self, name: &str) -> Result<Option<&str>, Fault> {
        match self.var_os(name) {
            None => Ok(None),
            Some(value) => value.to_str().map(Some).ok_or_else(|| {
                Fault::input(format!("the environment variable {name} is not valid UTF-8"))
            }),
        }
    }

    /// A path below the working directory, or an absolute path as it is.
    pub fn absolute(&self, path: &Path) -> PathBuf {
        if path == Path::new(".") { self.cwd.clone() } else { self.cwd.join(path) }
    }

    /// The state directory, unless the command line names one.
    pub fn state_dir(&self, flag: Option<&Path>) -> Result<PathBuf, Fault> {
        if let Some(path) = flag {
            return Ok(self.absolute(path));
        }
        if let Some(path) = self.var_os(vars::STATE_DIR) {
            return Ok(self.absolute(Path::new(path)));
        }
        if self.is_root {
            return Ok(PathBuf::from("/var/lib/wbuild"));
        }
        self.xdg(vars::XDG_STATE_HOME, ".local/state").ok_or_else(|| {
            Fault::input("cannot tell where the state of wbuild is to be kept")
                .hint("set HOME, WBUILD_STATE_DIR, or give --state-dir")
        })
    }

    /// Where compiled plugins are kept. A user without a home gets root's place, which will not take
    /// anything: plugins are compiled anew each time.
    pub fn code_cache_dir(&self) -> PathBuf {
        if let Some(path) = self.var_os(vars::CACHE_DIR) {
            return self.absolute(Path::new(path));
        }
        let ours = match self.is_root && self.var_os(vars::XDG_CACHE_HOME).is_none() {
            true => None,
            false => self.xdg(vars::XDG_CACHE_HOME, ".cache"),
        };
        ours.unwrap_or_else(|| PathBuf::from("/var/cache/wbuild")).join("code")
    }

    /// Where plugins are kept that were fetched, beside the compiled ones.
    pub fn plugin_dir(&self) -> PathBuf {
        let code = self.code_cache_dir();
        match (self.var_os(vars::CACHE_DIR), code.parent()) {
            (None, Some(parent)) => parent.join("plugins"),
            _ => code.join("plugins"),
        }
    }

    /// Where files may be that nobody needs later.
    pub fn temp_dir(&self) -> PathBuf {
        self.var_os(vars::TMPDIR).map_or_else(|| PathBuf::from("/tmp"), PathBuf::from)
    }

    /// Directories with programs: `PATH`, then those of the system, which the `PATH` of an ordinary
    /// user often lacks. Relative ones are passed over.
    pub fn search_path(&self) -> Vec<PathBuf> {
        const SYSTEM: [&str; 6] =
            ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
        let mut out: Vec<PathBuf> = Vec::new();
        let named = self.var_os(vars::PATH).map(std::env::split_paths).into_iter().flatten();
        for dir in named.chain(SYSTEM.map(PathBuf::from)) {
            if dir.is_absolute() && !out.contains(&dir) {
                out.push(dir);
            }
        }
        out
    }

    /// Where the user's configuration lies, if the user has a home.
    pub fn config_dir(&self) -> Option<PathBuf> {
        self.xdg(vars::XDG_CONFIG_HOME, ".config")
    }

    /// Through whom registries and web servers are asked. Of the two spellings of a variable the one
    /// in capital letters counts, as for `docker`.
    pub fn proxies(&self) -> Result<Proxies, Fault> {
        let either = |name: &str| match self.var(name)? {
            Some(value) => Ok(Some(value.to_owned())),
            None => Ok::<_, Fault>(self.var(&name.to_ascii_lowercase())?.map(str::to_owned)),
        };
        Ok(Proxies {
            https: either(vars::HTTPS_PROXY)?,
            http: either(vars::HTTP_PROXY)?,
            except: either(vars::NO_PROXY)?,
        })
    }

    /// Files with the keys of ssh servers, as ssh looks for them.
    pub fn known_hosts(&self) -> Vec<PathBuf> {
        let own = self.var_os(vars::HOME).map(|home| Path::new(home).join(".ssh/known_hosts"));
        own.into_iter().chain([PathBuf::from("/etc/ssh/ssh_known_hosts")]).collect()
    }

    /// The directory of docker's `config.json`.
    pub fn docker_config_dir(&self) -> Option<PathBuf> {
        match self.var_os(vars::DOCKER_CONFIG) {
            Some(path) => Some(self.absolute(Path::new(path))),
            None => Some(PathBuf::from(self.var_os(vars::HOME)?).join(".docker")),
        }
    }

    /// Whether text for people on standard error may be coloured.
    pub fn colour(&self) -> bool {
        self.stderr_terminal && self.colour_wanted()
    }

    /// Whether text for people on standard output may be coloured.
    pub fn colour_out(&self) -> bool {
        self.stdout_terminal && self.colour_wanted()
    }

    fn colour_wanted(&self) -> bool {
        self.var_os(vars::NO_COLOR).is_none() && self.cursor_moves()
    }

    /// Whether the terminal, if there is one, can move its cursor.
    pub fn cursor_moves(&self) -> bool {
        self.var_os(vars::TERM).is_some_and(|term| term != "dumb")
    }

    /// `$variable/wbuild`, else `~/fallback/wbuild`. The specification says to ignore relative
    /// paths in the variable.
    fn xdg(&self, variable: &str, fallback: &str) -> Option<PathBuf> {
        let base = match self.var_os(variable).map(Path::new).filter(|path| path.is_absolute()) {
            Some(path) => path.to_owned(),
            None => Path::new(self.var_os(vars::HOME)?).join(fallback),
        };
        Some(base.join("wbuild"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories() {
        let cwd = Path::new("/w");
        let state = |vars: &[(&str, &str)], flag: Option<&str>, root: bool| {
            let mut env = Environment::of_parts(cwd, vars);
            env.is_root = root;
            env.state_dir(flag.map(Path::new)).map(|p| p.display().to_string()).ok()
        };
        for (vars, flag, root, want) in [
            (&[("HOME", "/h")][..], None, false, Some("/h/.local/state/wbuild")),
            (&[("HOME", "/h"), ("XDG_STATE_HOME", "/x")], None, false, Some("/x/wbuild")),
            (
                &[("HOME", "/h"), ("XDG_STATE_HOME", "rel")],
                None,
                false,
                Some("/h/.local/state/wbuild"),
            ),
            (&[("HOME", "/h")], None, true, Some("/var/lib/wbuild")),
            (&[("WBUILD_STATE_DIR", "s")], None, true, Some("/w/s")),
            (&[("WBUILD_STATE_DIR", "/s")], Some("f"), true, Some("/w/f")),
            (&[("WBUILD_STATE_DIR", "")], None, false, None),
            (&[], None, false, None),
        ] {
            assert_eq!(state(vars, flag, root).as_deref(), want, "{vars:?} {flag:?} {root}");
        }

        let cache = |vars: &[(&str, &str)]| Environment::of_parts(cwd, vars).code_cache_dir();
        assert_eq!(cache(&[("HOME", "/h")]), Path::new("/h/.cache/wbuild/code"));
        assert_eq!(cache(&[("XDG_CACHE_HOME", "/c")]), Path::new("/c/wbuild/code"));
        assert_eq!(cache(&[("WBUILD_CACHE_DIR", "/d")]), Path::new("/d"));
        assert_eq!(cache(&[]), Path::new("/var/cache/wbuild/code"));

        let env = Environment::of_parts(
            cwd,
            &[("https_proxy", "small"), ("HTTP_PROXY", "CAPITAL"), ("http_proxy", "small")],
        );
        let proxies = env.proxies().expect("text");
        assert_eq!(proxies.https.as_deref(), Some("small"));
        assert_eq!((proxies.http.as_deref(), proxies.except), (Some("CAPITAL"), None));

        let env = Environment::of_parts(cwd, &[("PATH", "/a:rel:/usr/bin:/a:")]);
        let path = env.search_path();
        assert_eq!(path[..2], [PathBuf::from("/a"), PathBuf::from("/usr/bin")]);
        assert_eq!(path.len(), 7);
    }

    #[test]
    fn help_lists_our_own_variables() {
        for name in [
            vars::STATE_DIR,
            vars::CACHE_DIR,
            vars::CACHE_MAX,
            vars::CONFIG,
            vars::FRONTEND,
            vars::PROGRESS,
            vars::BUILDKIT_PROGRESS,
            vars::RUNTIME,
            vars::JOBS,
            vars::SOURCE_DATE_EPOCH,
            vars::DOCKER_CONFIG,
            vars::AUTH_CONFIG,
            vars::REGISTRY_CONFIG,
            vars::POLICY,
            vars::HTTPS_PROXY,
            vars::HTTP_PROXY,
            vars::NO_PROXY,
            vars::SSH_AUTH_SOCK,
            vars::NO_COLOR,
        ] {
            assert!(HELP.contains(name), "{name} is not in the help");
        }
    }
}
