//! How git gets to a server: the gate it goes through, credentials, ssh.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use wbuild_graph::Failure;
use wbuild_http::Gate;

use crate::program::Git;
use crate::remote::{Remote, Scheme};

/// What a server is shown.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// For HTTP.
    pub authorization: Option<Authorization>,
    /// The socket of an ssh agent.
    pub agent: Option<PathBuf>,
    /// Keys of ssh servers, as in known_hosts (sshd(8)).
    pub known_hosts: Vec<u8>,
}

/// The value of an `Authorization` header. Never shown.
#[derive(Clone)]
pub struct Authorization(String);

impl Authorization {
    /// Takes a value as it is.
    ///
    /// # Errors
    /// `Invalid` if no header can hold it.
    pub fn header(value: &str) -> Result<Authorization, Failure> {
        match value.bytes().all(|b| (b >= b' ' && b != 0x7f) || b == b'\t') && !value.is_empty() {
            true => Ok(Authorization(value.to_owned())),
            false => Err(Failure::invalid("a credential for git cannot be sent in a header")),
        }
    }

    /// A user and a password (RFC 7617).
    pub fn basic(user: &str, password: &str) -> Authorization {
        Authorization(format!("Basic {}", BASE64.encode(format!("{user}:{password}"))))
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorization(…)")
    }
}

/// The way to one server, for one command.
pub(crate) struct Way {
    pub gate: Gate,
    /// What git is told. Holds no credential.
    pub url: String,
    pub env: Vec<(&'static str, OsString)>,
    pub settings: Vec<(String, String)>,
    pub protocols: &'static str,
}

/// Files of `home` that ssh reads; git and ssh run there.
const SSH_CONFIG: &str = "ssh_config";
const KNOWN_HOSTS: &str = "known_hosts";

impl Git {
    /// Opens the way to a server. `home` is where git will run.
    pub(crate) async fn way(
        &self,
        remote: &Remote,
        access: &Access,
        home: &Path,
    ) -> Result<Way, Failure> {
        let failed = |error: &std::io::Error| {
            Failure::internal("cannot open a way out for git").cause(error)
        };
        let (reach, limits) = (self.reach, self.limits.gate);
        let mut env = Vec::new();
        let mut settings = Vec::new();
        let mut set = |key: &str, value: String| settings.push((key.to_owned(), value));
        if remote.scheme().is_http() {
            let gate =
                Gate::anywhere(reach, limits, self.proxies.clone(), remote.scheme().as_str())
                    .await
                    .map_err(|error| failed(&error))?;
            set("http.proxy", format!("socks5h://127.0.0.1:{}", gate.port()));
            // Redirects would take a header with them, and later requests in any case.
            let follow = if access.authorization.is_some() { "false" } else { "initial" };
            set("http.followRedirects", follow.to_owned());
            if let Some(Authorization(value)) = &access.authorization {
                set("http.extraHeader", format!("Authorization: {value}"));
            }
            // As `wbuild_http` finds its roots.
            for (from, to) in
                [("SSL_CERT_FILE", "GIT_SSL_CAINFO"), ("SSL_CERT_DIR", "GIT_SSL_CAPATH")]
            {
                env.extend(std::env::var_os(from).map(|value| (to, value)));
            }
            let protocols = match remote.scheme() {
                Scheme::Https => "https",
                _ => "http:https",
            };
            return Ok(Way { gate, url: remote.url(), env, settings, protocols });
        }
        let host = remote.host().trim_start_matches('[').trim_end_matches(']');
        let gate = Gate::to(reach, limits, host, remote.port()).await;
        let gate = gate.map_err(|error| failed(&error))?;
        if remote.scheme() == Scheme::Git {
            // The server may offer several hosts' repositories.
            env.push(("GIT_OVERRIDE_VIRTUAL_HOST", remote.host_and_port().into()));
            let url = remote.at(&format!("127.0.0.1:{}", gate.port()));
            return Ok(Way { gate, url, env, settings, protocols: "git" });
        }
        let config = ssh_config(host, remote.port(), gate.port());
        let write = |name: &str, data: &[u8]| std::fs::write(home.join(name), data);
        write(SSH_CONFIG, config.as_bytes())
            .and_then(|()| write(KNOWN_HOSTS, &access.known_hosts))
            .map_err(|error| Failure::internal("cannot set up ssh").cause(&error))?;
        env.push(("GIT_SSH_COMMAND", format!("ssh -F ./{SSH_CONFIG}").into()));
        env.push(("GIT_SSH_VARIANT", "ssh".into()));
        env.extend(access.agent.as_ref().map(|agent| ("SSH_AUTH_SOCK", agent.into())));
        Ok(Way { gate, url: remote.at(remote.host()), env, settings, protocols: "ssh" })
    }
}

/// Ssh through a gate, with the keys of an agent only, to a server whose key is known. All that could
/// run a program or ask somebody is off.
fn ssh_config(host: &str, port: u16, gate: u16) -> String {
    // As known_hosts names it.
    let alias = if port == 22 { host.to_owned() } else { format!("[{host}]:{port}") };
    format!(
        "Host *\n\
         HostName 127.0.0.1\n\
         Port {gate}\n\
         HostKeyAlias {alias}\n\
         BatchMode yes\n\
         StrictHostKeyChecking yes\n\
         UserKnownHostsFile ./{KNOWN_HOSTS}\n\
         GlobalKnownHostsFile /dev/null\n\
         CheckHostIP no\n\
         UpdateHostKeys no\n\
         IdentityFile none\n\
         PreferredAuthentications publickey\n\
         PasswordAuthentication no\n\
         KbdInteractiveAuthentication no\n\
         ForwardAgent no\n\
         ForwardX11 no\n\
         ClearAllForwardings yes\n\
         PermitLocalCommand no\n\
         ControlMaster no\n\
         ControlPath none\n\
         ProxyCommand none\n\
         EscapeChar none\n\
         ConnectTimeout 30\n\
         ServerAliveInterval 30\n\
         LogLevel ERROR\n"
    )
}
