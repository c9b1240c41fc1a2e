//! Where the user's Docker listens: `DOCKER_HOST`, else the docker context in use, else the usual
//! socket.

use std::path::Path;

use serde_json::Value;
use wbuild_graph::Digest;

use crate::environment::{Environment, vars};
use crate::exit::Fault;

/// Where Docker listens unless told otherwise.
const SOCKET: &str = "unix:///var/run/docker.sock";
/// The context that stands for [`SOCKET`].
const DEFAULT: &str = "default";

/// The address, as `DOCKER_HOST` writes it.
pub fn endpoint(environment: &Environment) -> Result<String, Fault> {
    if let Some(host) = environment.var(vars::DOCKER_HOST)? {
        if environment.var_os(vars::DOCKER_TLS_VERIFY).is_some() && !host.starts_with("unix://") {
            return Err(unsupported(host, "with TLS"));
        }
        return checked(host);
    }
    let Some(directory) = environment.docker_config_dir() else { return Ok(SOCKET.to_owned()) };
    let name = match environment.var(vars::DOCKER_CONTEXT)? {
        Some(name) => name.to_owned(),
        None => match read(&directory.join("config.json"))? {
            Some(config) => config["currentContext"].as_str().unwrap_or(DEFAULT).to_owned(),
            None => DEFAULT.to_owned(),
        },
    };
    if name.is_empty() || name == DEFAULT {
        return Ok(SOCKET.to_owned());
    }
    // Docker keeps a context in a directory that has the digest of its name.
    let digest = Digest::of(name.as_bytes()).hex();
    let context = read(&directory.join("contexts/meta").join(&digest).join("meta.json"))?
        .ok_or_else(|| {
            Fault::input(format!("there is no docker context {name:?}"))
                .hint("`docker context ls` lists those that there are")
        })?;
    let host = context["Endpoints"]["docker"]["Host"].as_str().unwrap_or(SOCKET);
    if directory.join("contexts/tls").join(&digest).join("docker").is_dir() {
        return Err(unsupported(host, "with TLS"));
    }
    checked(host)
}

fn checked(host: &str) -> Result<String, Fault> {
    match host.split_once("://") {
        Some(("ssh", _)) => Err(unsupported(host, "over ssh")),
        Some(("unix" | "tcp" | "http", _)) => Ok(host.to_owned()),
        _ => Err(Fault::input(format!("{host:?} is no address of a Docker"))
            .hint("expected unix://PATH or tcp://HOST:PORT")),
    }
}

fn unsupported(host: &str, how: &str) -> Fault {
    Fault::not_yet(format!("wbuild cannot talk to the Docker at {host} {how} yet"))
        .hint("let its own client do it: --output type=docker,dest=- | docker load")
}

/// A file of docker's configuration; none if it is not there.
fn read(path: &Path) -> Result<Option<Value>, Fault> {
    let failed = |error: &dyn std::error::Error| {
        Fault::input(format!("cannot read docker's configuration {}", path.display())).cause(error)
    };
    match std::fs::read(path) {
        Ok(data) => serde_json::from_slice(&data).map(Some).map_err(|error| failed(&error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(&error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_docker_listens() {
        let home = tempfile::tempdir().expect("temporary directory");
        let config = home.path().join("docker");
        let write = |path: &str, value: Value| {
            let path = config.join(path);
            std::fs::create_dir_all(path.parent().expect("below")).expect("directory");
            std::fs::write(path, value.to_string()).expect("file");
        };
        let context = |name: &str, host: &str| {
            let digest = Digest::of(name.as_bytes()).hex();
            let meta =
                serde_json::json!({ "Name": name, "Endpoints": { "docker": { "Host": host } } });
            write(&format!("contexts/meta/{digest}/meta.json"), meta);
            digest
        };
        context("rootless", "unix:///run/user/1000/docker.sock");
        context("far", "ssh://host");
        let tls = context("tls", "tcp://host:2376");
        std::fs::create_dir_all(config.join("contexts/tls").join(tls).join("docker")).expect("tls");
        let directory = config.to_str().expect("UTF-8");
        let ask = |vars: &[(&str, &str)]| {
            let vars = [&[("DOCKER_CONFIG", directory)], vars].concat();
            endpoint(&Environment::of_parts(home.path(), &vars)).map_err(|fault| fault.to_string())
        };
        assert_eq!(ask(&[]), Ok(SOCKET.to_owned()));
        write("config.json", serde_json::json!({ "currentContext": "rootless" }));
        assert_eq!(ask(&[]), Ok("unix:///run/user/1000/docker.sock".to_owned()));
        for (vars, want) in [
            (&[("DOCKER_CONTEXT", "default")][..], SOCKET),
            (&[("DOCKER_HOST", "tcp://h:1"), ("DOCKER_CONTEXT", "far")], "tcp://h:1"),
            (&[("DOCKER_HOST", "unix:///s"), ("DOCKER_TLS_VERIFY", "1")], "unix:///s"),
        ] {
            assert_eq!(ask(vars), Ok(want.to_owned()), "{vars:?}");
        }
        for (vars, says) in [
            (&[("DOCKER_CONTEXT", "far")][..], "over ssh"),
            (&[("DOCKER_CONTEXT", "tls")], "with TLS"),
            (&[("DOCKER_CONTEXT", "none")], "no docker context"),
            (&[("DOCKER_HOST", "tcp://h:1"), ("DOCKER_TLS_VERIFY", "1")], "with TLS"),
            (&[("DOCKER_HOST", "/var/run/docker.sock")], "no address"),
        ] {
            let error = ask(vars).expect_err(says);
            assert!(error.contains(says), "{error}");
        }
    }
}
