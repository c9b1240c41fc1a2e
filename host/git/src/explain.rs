//! What it means that git failed, and what to do about it.

use wbuild_graph::{Failure, FailureKind};
use wbuild_http::ErrorKind;

use crate::remote::{Remote, Scheme};
use crate::transport::Access;

/// Most lines of git's own words that are shown.
const LINES: usize = 4;
/// Longest of these lines, in characters.
const WIDTH: usize = 300;

/// Git's own words, last lines only, without what a terminal could act upon. They may quote the server.
pub(crate) fn own_words(messages: &str) -> String {
    let lines: Vec<String> = messages
        .split(['\n', '\r'])
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("hint:"))
        .map(|line| {
            let line: String = line.chars().take(WIDTH).collect();
            line.replace(|c: char| c.is_control(), "\u{fffd}")
        })
        .collect();
    lines[lines.len().saturating_sub(LINES)..].join("; ")
}

/// What a failed command means. Git says it to people only, so this goes by its words (`LC_ALL=C`);
/// what is not recognised is a server that cannot be used now.
pub(crate) fn explain(
    remote: &Remote,
    access: &Access,
    gate: Option<wbuild_http::Error>,
    messages: &str,
) -> Failure {
    let words = own_words(messages);
    let said = |parts: &[&str]| parts.iter().any(|part| messages.contains(part));
    let fail = |kind, what: &str| {
        let failure = Failure::new(kind, format!("{remote} {what}"));
        if words.is_empty() { failure } else { failure.cause(&Words(words.clone())) }
    };
    if let Some(error) = gate {
        let denied = error.kind == ErrorKind::OutOfReach;
        let failure = Failure::from(error).context(format!("{remote} cannot be fetched"));
        return match denied {
            true => failure.hint("to allow it: --allow network.private"),
            false => failure,
        };
    }
    if said(&["fsck error", "fsckObjects", "malformed object", "unknown object type"]) {
        return fail(
            FailureKind::Denied,
            "has sent an object that git considers dangerous or broken",
        );
    }
    if said(&["Host key verification failed", "host key is known", "REMOTE HOST IDENTIFICATION"]) {
        let host = remote.host();
        let port = match remote.port() {
            22 => String::new(),
            port => format!(" -p {port}"),
        };
        return fail(FailureKind::Denied, "is on a server whose key is not known").hint(format!(
            "compare what `ssh-keyscan{port} {host}` says with what the server's owner says, and add \
             it to ~/.ssh/known_hosts"
        ));
    }
    if said(&["Permission denied (", "Too many authentication failures"]) {
        let failure = fail(FailureKind::Denied, "does not accept the keys of the ssh agent");
        return match access.agent {
            None => failure.hint("lend the agent to the build: --ssh default"),
            Some(_) => failure.hint("see with ssh-add -l which keys the agent has"),
        };
    }
    if said(&["ssh: not found", "cannot run ssh"]) {
        return fail(FailureKind::NotFound, "needs the program ssh, which is not installed")
            .hint("install the package openssh-client (Debian) or openssh-clients (Fedora)");
    }
    let refused = [
        "Authentication failed",
        "could not read Username",
        "could not read Password",
        "returned error: 401",
        "returned error: 403",
        "HTTP Basic: Access denied",
        "access denied or repository not exported",
    ];
    if said(&refused) {
        return with_credential(fail(FailureKind::Denied, "cannot be read"), remote, access);
    }
    let elsewhere =
        ["returned error: 301", "returned error: 302", "returned error: 307", "error: 308"];
    if said(&elsewhere) {
        return fail(FailureKind::Denied, "has moved, and a credential is not taken along")
            .hint("write the repository's new URL");
    }
    if said(&["unable to update url base from redirection", "transport 'http' not allowed"]) {
        return fail(FailureKind::Denied, "leads to where git may not follow")
            .hint("write the repository's new URL");
    }
    let absent = [
        "not our ref",
        "couldn't find remote ref",
        "remote ref does not exist",
        "unadvertised object",
    ];
    if said(&absent) {
        return fail(FailureKind::NotFound, "does not give what was asked for");
    }
    if said(&["not found", "does not appear to be a git repository", "returned error: 404"]) {
        // Servers hide private repositories from strangers.
        let failure = fail(FailureKind::NotFound, "is not there");
        return with_credential(failure, remote, access);
    }
    if said(&["certificate", "SSL"]) {
        return fail(FailureKind::Denied, "is on a server whose certificate is not accepted")
            .hint("add its authority to the system's certificates, or point SSL_CERT_FILE at it");
    }
    // Of a program that the system has ended, git says only that its answer is missing.
    let ended = [
        "No space left on device",
        "File too large",
        "died of signal",
        "invalid index-pack output",
    ];
    if said(&ended) {
        return fail(FailureKind::Limit, "is larger than what is allowed or fits here");
    }
    let mut failure = fail(FailureKind::Unavailable, "cannot be fetched now");
    failure.retryable = true;
    failure
}

fn with_credential(failure: Failure, remote: &Remote, access: &Access) -> Failure {
    let host = remote.host_and_port();
    match (remote.scheme(), &access.authorization) {
        (Scheme::Https | Scheme::Http, None) => failure.hint(format!(
            "if it is private, give a token with --secret id=GIT_AUTH_TOKEN.{host},src=FILE or a whole \
             header with id=GIT_AUTH_HEADER.{host}"
        )),
        (Scheme::Https | Scheme::Http, Some(_)) => failure.hint(format!(
            "the server does not let the credential for {host} read it: see that it is valid and has \
             the right to read the repository"
        )),
        _ => failure,
    }
}

#[derive(Debug)]
struct Words(String);

impl std::fmt::Display for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Words {}
