//! Values of options, parsed into types that cannot be wrong. Pure: no file is looked at.

use std::path::PathBuf;
use std::str::FromStr;

use wbuild_api::request::{Entitlement, OutputKind};
use wbuild_graph::Attrs;

use super::csv::{self, OneOf};

/// `NAME=VALUE`, or `NAME` for what the environment holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    /// Not empty.
    pub name: String,
    /// `None`: not given.
    pub value: Option<String>,
}

impl FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (text, None),
        };
        if name.trim().is_empty() {
            return Err("expected NAME=VALUE".to_owned());
        }
        Ok(Assignment { name: name.to_owned(), value })
    }
}

/// `--output`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputArg {
    /// What to write.
    pub kind: OutputKind,
    /// `dest`; `-` is standard output.
    pub dest: Option<String>,
    /// The other keys, in order.
    pub attrs: Attrs,
}

/// Names of the kinds of output that there are.
const OUTPUT_KINDS: [&str; 7] = ["image", "registry", "oci", "docker", "local", "tar", "cacheonly"];

impl FromStr for OutputArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fields = csv::fields(text)?;
        if let [only] = &fields[..]
            && !only.contains('=')
        {
            // `-o DIR` and `-o -`.
            return match only.as_str() {
                "" => Err("expected a directory, - or type=KIND".to_owned()),
                "-" => Ok(OutputArg {
                    kind: OutputKind::Tar,
                    dest: Some("-".to_owned()),
                    attrs: Attrs::default(),
                }),
                dir => Ok(OutputArg {
                    kind: OutputKind::Local,
                    dest: Some(dir.to_owned()),
                    attrs: Attrs::default(),
                }),
            };
        }
        let (mut kind, mut dest, mut attrs) = (None, None, Attrs::default());
        let mut push = false;
        for (key, value) in csv::pairs(text)? {
            let value =
                value.ok_or_else(|| format!("{key:?} has no value; expected {key}=VALUE"))?;
            match key.as_str() {
                "type" => {
                    kind = Some(output_kind(&value)?);
                    push = value == "registry";
                }
                "dest" => dest = Some(value),
                _ => attrs.push(key, value),
            }
        }
        let kind =
            kind.ok_or_else(|| format!("a type is missing: type={}", OneOf(&OUTPUT_KINDS)))?;
        if push && attrs.get("push").is_none() {
            attrs.push("push", "true");
        }
        Ok(OutputArg { kind, dest: dest.filter(|dest| !dest.is_empty()), attrs })
    }
}

fn output_kind(name: &str) -> Result<OutputKind, String> {
    match name {
        "image" | "registry" => Ok(OutputKind::Image),
        "oci" => Ok(OutputKind::Oci),
        "docker" => Ok(OutputKind::Docker),
        "local" => Ok(OutputKind::Local),
        "tar" => Ok(OutputKind::Tar),
        "cacheonly" => Ok(OutputKind::CacheOnly),
        other => Err(format!("unknown type {other:?}; expected {}", OneOf(&OUTPUT_KINDS))),
    }
}

/// `--annotation`: the attributes of outputs that it stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnotationArg {
    /// E.g. `annotation-index.org.example` and its value.
    pub attrs: Vec<(String, String)>,
}

impl FromStr for AnnotationArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) =
            text.split_once('=').ok_or("expected [LEVEL[PLATFORM],...:]KEY=VALUE")?;
        let (levels, key) = match name.split_once(':') {
            Some((levels, key)) => (levels.split(',').collect(), key),
            None => (vec![""], name),
        };
        if key.trim().is_empty() {
            return Err("the annotation has no key; expected KEY=VALUE".to_owned());
        }
        let attr = |level: &str| {
            let (name, platform) = level.split_at(level.find('[').unwrap_or(level.len()));
            let known = ["manifest", "index", "manifest-descriptor", "index-descriptor"];
            let name = match name {
                "" => String::new(),
                name if known.contains(&name) => format!("-{name}"),
                name => return Err(format!("unknown level {name:?}; expected {}", OneOf(&known))),
            };
            Ok((format!("annotation{name}{platform}.{key}"), value.to_owned()))
        };
        Ok(AnnotationArg { attrs: levels.into_iter().map(attr).collect::<Result<_, _>>()? })
    }
}

/// `--secret`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretArg {
    /// What the definition calls it.
    pub id: String,
    /// Where the value is.
    pub source: SecretSource,
    /// A keyed hash of the value counts for the cache.
    pub keyed: bool,
}

/// Where a secret's value is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// In a file.
    File(PathBuf),
    /// In a variable.
    Env(String),
    /// In a variable named like the secret, else in a file named like it.
    Named,
}

impl FromStr for SecretArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (mut kind, mut id, mut src, mut env) = (None, None, None, None);
        let mut keyed = false;
        for (key, value) in csv::pairs(text)? {
            let value =
                value.ok_or_else(|| format!("{key:?} has no value; expected {key}=VALUE"))?;
            match key.as_str() {
                "type" if value == "file" || value == "env" => kind = Some(value),
                "type" => return Err(format!("unknown type {value:?}; expected file or env")),
                "id" => id = Some(value),
                "src" | "source" => src = Some(value),
                "env" => env = Some(value),
                "key" if value == "hash" || value == "none" => keyed = value == "hash",
                "key" => return Err(format!("unknown key={value}; expected key=hash or key=none")),
                other => {
                    return Err(format!(
                        "unknown key {other:?}; expected {}",
                        OneOf(&["id", "src", "env", "type", "key"])
                    ));
                }
            }
        }
        let id = id.filter(|id| !id.is_empty()).ok_or("an id is missing: id=NAME,src=FILE")?;
        // `type=env,src=VAR` names the variable by `src`.
        let source = match (kind.as_deref(), src, env) {
            (_, Some(_), Some(_)) => return Err("src and env exclude each other".to_owned()),
            (Some("env"), Some(name), None) | (None | Some("env"), None, Some(name)) => {
                SecretSource::Env(name)
            }
            (Some("env"), None, None) => SecretSource::Env(id.clone()),
            (_, Some(path), None) => SecretSource::File(path.into()),
            (Some("file"), None, None) => SecretSource::File(id.clone().into()),
            (Some(_), None, Some(_)) => {
                return Err("type=file and env exclude each other".to_owned());
            }
            (None, None, None) => SecretSource::Named,
            (Some(_), None, None) => return Err("expected id=NAME,src=FILE".to_owned()),
        };
        Ok(SecretArg { id, source, keyed })
    }
}

/// `--ssh`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshArg {
    /// What the definition calls it.
    pub id: String,
    /// The agent's socket; `None` = the user's own agent.
    pub socket: Option<PathBuf>,
}

impl FromStr for SshArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (id, path) = match text.split_once('=') {
            Some((id, path)) => (id, Some(path)),
            None => (text, None),
        };
        if id.is_empty() {
            return Err("expected default, or ID=SOCKET".to_owned());
        }
        if path.is_some_and(|path| path.contains(',')) {
            return Err("one agent socket per id; keys are lent through an agent".to_owned());
        }
        let socket = path.filter(|path| !path.is_empty()).map(PathBuf::from);
        Ok(SshArg { id: id.to_owned(), socket })
    }
}

/// `--add-host`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostArg {
    /// The name.
    pub name: String,
    /// IPv4 or IPv6.
    pub address: String,
}

impl FromStr for HostArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected NAME:ADDRESS or NAME=ADDRESS".to_owned();
        let (name, address) =
            text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(expected)?;
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if name.is_empty() || !name.chars().all(plain) {
            return Err(format!("{name:?} is no host name"));
        }
        // Steps share this machine's network, so the machine is reached by loopback.
        if address == "host-gateway" {
            return Ok(HostArg { name: name.to_owned(), address: "127.0.0.1".to_owned() });
        }
        let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
        match bare.parse::<std::net::IpAddr>() {
            Ok(address) => Ok(HostArg { name: name.to_owned(), address: address.to_string() }),
            Err(_) => Err(format!("{address:?} is no IP address")),
        }
    }
}

/// `--progress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgressArg {
    /// A live view on a terminal, else plain.
    Auto,
    /// A live view.
    Tty,
    /// Lines.
    Plain,
    /// One JSON object a line.
    Json,
    /// Nothing.
    Quiet,
}

impl FromStr for ProgressArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(ProgressArg::Auto),
            "tty" => Ok(ProgressArg::Tty),
            "plain" => Ok(ProgressArg::Plain),
            "json" | "rawjson" => Ok(ProgressArg::Json),
            "quiet" | "none" => Ok(ProgressArg::Quiet),
            _ => Err(format!(
                "unknown display {text:?}; expected {}",
                OneOf(&["auto", "tty", "plain", "json", "quiet"])
            )),
        }
    }
}

/// `--allow`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AllowArg(pub Entitlement);

impl FromStr for AllowArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = |known: &Entitlement| known.as_str() == text;
        match Entitlement::ALL.into_iter().find(named) {
            Some(known) => Ok(AllowArg(known)),
            None if matches!(text, "network.host" | "security.insecure" | "device") => {
                Err("steps that need it cannot run in this version of wbuild".to_owned())
            }
            None => Err(format!(
                "unknown entitlement; expected {}",
                OneOf(&Entitlement::ALL.map(Entitlement::as_str))
            )),
        }
    }
}

/// `--network`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkArg {
    /// What steps get by default: this machine's network.
    Default,
    /// This machine's network.
    Host,
    /// Loopback only.
    None,
}

impl FromStr for NetworkArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "default" => Ok(NetworkArg::Default),
            "host" => Ok(NetworkArg::Host),
            "none" => Ok(NetworkArg::None),
            _ => Err(format!(
                "unknown network {text:?}; expected {}",
                OneOf(&["default", "host", "none"])
            )),
        }
    }
}

/// `--build-context`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextArg {
    /// May end in `::os/arch`.
    pub name: String,
    /// A directory or a URL.
    pub value: String,
}

impl FromStr for ContextArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text
            .split_once('=')
            .filter(|(name, value)| !name.is_empty() && !value.is_empty())
            .ok_or("expected NAME=DIR, NAME=docker-image://REF or NAME=oci-layout://DIR[:TAG]")?;
        if matches!(name, "context" | "dockerfile") {
            return Err(format!("{name:?} is the build's own; choose another name"));
        }
        Ok(ContextArg { name: name.to_owned(), value: value.to_owned() })
    }
}

/// The value of a switch that names what must stay off: `--sbom=false`.
pub fn only_false(text: &str) -> Result<(), String> {
    match text {
        "false" | "0" | "off" => Ok(()),
        _ => Err("wbuild makes no attestations yet; leave the option out or say false".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: FromStr<Err = String> + std::fmt::Debug + PartialEq>(cases: &[(&str, Option<T>)]) {
        for (text, want) in cases {
            let got: Result<T, String> = text.parse();
            match want {
                Some(want) => assert_eq!(got.as_ref(), Ok(want), "{text}"),
                None => assert!(got.is_err(), "{text}: {got:?}"),
            }
        }
    }

    #[test]
    fn outputs() {
        let output = |kind, dest: Option<&str>, attrs: &[(&str, &str)]| {
            let attrs = attrs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            Some(OutputArg { kind, dest: dest.map(str::to_owned), attrs: Attrs(attrs) })
        };
        check(&[
            ("out", output(OutputKind::Local, Some("out"), &[])),
            ("-", output(OutputKind::Tar, Some("-"), &[])),
            ("type=local,dest=o", output(OutputKind::Local, Some("o"), &[])),
            ("type=tar", output(OutputKind::Tar, None, &[])),
            ("type=cacheonly", output(OutputKind::CacheOnly, None, &[])),
            (
                "type=oci,dest=x.tar,compression=zstd,name=a",
                output(OutputKind::Oci, Some("x.tar"), &[("compression", "zstd"), ("name", "a")]),
            ),
            ("type=image", output(OutputKind::Image, None, &[])),
            ("type=registry", output(OutputKind::Image, None, &[("push", "true")])),
            ("push=false,type=registry", output(OutputKind::Image, None, &[("push", "false")])),
            (
                "type=image,Name=a,annotation-Index[linux/amd64].Key=V",
                output(
                    OutputKind::Image,
                    None,
                    &[("name", "a"), ("annotation-Index[linux/amd64].Key", "V")],
                ),
            ),
            ("dest=x,TYPE=docker", output(OutputKind::Docker, Some("x"), &[])),
            ("\"dir,with,commas\"", output(OutputKind::Local, Some("dir,with,commas"), &[])),
            ("", None),
            ("dest=x", None),
            ("type=oci,dest", None),
            ("type=flying", None),
            ("type=oci,\"dest", None),
        ]);
    }

    #[test]
    fn secrets() {
        let secret = |id: &str, source| Some(SecretArg { id: id.to_owned(), source, keyed: false });
        check(&[
            ("id=a,src=f", secret("a", SecretSource::File("f".into()))),
            ("id=a,source=f", secret("a", SecretSource::File("f".into()))),
            ("type=file,id=a", secret("a", SecretSource::File("a".into()))),
            ("id=a,env=V", secret("a", SecretSource::Env("V".into()))),
            ("type=env,id=a", secret("a", SecretSource::Env("a".into()))),
            ("type=env,id=a,src=V", secret("a", SecretSource::Env("V".into()))),
            ("id=a", secret("a", SecretSource::Named)),
            (
                "id=a,src=f,key=hash",
                secret("a", SecretSource::File("f".into())).map(|s| SecretArg { keyed: true, ..s }),
            ),
            ("id=a,src=f,key=none", secret("a", SecretSource::File("f".into()))),
            ("id=a,src=f,key=value", None),
            ("src=f", None),
            ("id=,src=f", None),
            ("id=a,src=f,env=V", None),
            ("type=file,id=a,env=V", None),
            ("type=vault,id=a", None),
            ("id=a,mode=0400", None),
            ("id", None),
        ]);
    }

    #[test]
    fn annotations() {
        let all = |attrs: &[(&str, &str)]| {
            let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
            Some(AnnotationArg { attrs: attrs.iter().map(pair).collect() })
        };
        check(&[
            ("a=b", all(&[("annotation.a", "b")])),
            ("A.b=c=d", all(&[("annotation.A.b", "c=d")])),
            ("a=x:y", all(&[("annotation.a", "x:y")])),
            ("index:a=b", all(&[("annotation-index.a", "b")])),
            (
                "manifest,index-descriptor:a=",
                all(&[("annotation-manifest.a", ""), ("annotation-index-descriptor.a", "")]),
            ),
            ("manifest[linux/arm64]:a=b", all(&[("annotation-manifest[linux/arm64].a", "b")])),
            ("a", None),
            ("=b", None),
            ("index:=b", None),
            ("layer:a=b", None),
        ]);
    }

    #[test]
    fn hosts_and_agents() {
        let host = |name: &str, address: &str| {
            Some(HostArg { name: name.to_owned(), address: address.to_owned() })
        };
        check(&[
            ("a:1.2.3.4", host("a", "1.2.3.4")),
            ("a=1.2.3.4", host("a", "1.2.3.4")),
            ("a:::1", host("a", "::1")),
            ("a=[fe80::1]", host("a", "fe80::1")),
            ("gw:host-gateway", host("gw", "127.0.0.1")),
            ("a", None),
            (":1.2.3.4", None),
            ("a:nowhere", None),
            ("a b:1.2.3.4", None),
        ]);
        let ssh = |id: &str, socket: Option<&str>| {
            Some(SshArg { id: id.to_owned(), socket: socket.map(PathBuf::from) })
        };
        check(&[
            ("default", ssh("default", None)),
            ("default=", ssh("default", None)),
            ("git=/run/agent", ssh("git", Some("/run/agent"))),
            ("", None),
            ("=x", None),
            ("git=a,b", None),
        ]);
    }

    #[test]
    fn assignments_and_contexts() {
        let assign = |name: &str, value: Option<&str>| {
            Some(Assignment { name: name.to_owned(), value: value.map(str::to_owned) })
        };
        check(&[
            ("A=b", assign("A", Some("b"))),
            ("A=", assign("A", Some(""))),
            ("A=b=c", assign("A", Some("b=c"))),
            ("A", assign("A", None)),
            ("=b", None),
            ("", None),
        ]);
        let context = |name: &str, value: &str| {
            Some(ContextArg { name: name.to_owned(), value: value.to_owned() })
        };
        check(&[
            ("a=dir", context("a", "dir")),
            ("a=docker-image://x:1", context("a", "docker-image://x:1")),
            ("a::linux/arm64=dir", context("a::linux/arm64", "dir")),
            ("a", None),
            ("a=", None),
            ("context=x", None),
        ]);
    }
}
