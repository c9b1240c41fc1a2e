//! Where credentials come from. Nothing here reads files, runs programs or looks at the environment:
//! the caller hands in the configuration's text and a way to run helpers.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::reference::DEFAULT_REGISTRY;

/// The key Docker Hub's credentials have in configuration files and helpers.
const HUB_KEY: &str = "https://index.docker.io/v1/";
/// Largest configuration or helper answer that is read, in bytes.
const MAX_TEXT: usize = 1 << 20;

/// What convinces a registry or its token service. Its `Debug` form shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// Name and password.
    Basic {
        /// Name.
        username: String,
        /// Password or access token.
        password: String,
    },
    /// A refresh token for the token service (`identitytoken`).
    Identity(String),
    /// A bearer token for the registry itself (`registrytoken`).
    Bearer(String),
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Credential::Basic { .. } => "Credential::Basic(..)",
            Credential::Identity(_) => "Credential::Identity(..)",
            Credential::Bearer(_) => "Credential::Bearer(..)",
        })
    }
}

/// Finds credentials.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// Credentials for `registry` (as in [`Reference::registry`](crate::Reference::registry)); `None`
    /// asks anonymously. Called only once a registry has asked for authentication.
    async fn lookup(&self, registry: &str) -> Result<Option<Credential>>;
}

/// No credentials for anyone.
#[derive(Clone, Copy, Debug, Default)]
pub struct Anonymous;

#[async_trait]
impl Credentials for Anonymous {
    async fn lookup(&self, _registry: &str) -> Result<Option<Credential>> {
        Ok(None)
    }
}

/// Runs credential helpers (docker-credential-helpers protocol).
#[async_trait]
pub trait CredentialHelper: Send + Sync {
    /// Runs `program` (`docker-credential-NAME`) with the argument `get` and `server` on its standard
    /// input, and returns what it wrote to standard output. `None`: it knows nothing of `server` (it
    /// failed saying "credentials not found in native keychain").
    async fn get(&self, program: &str, server: &str) -> Result<Option<Vec<u8>>>;
}

/// Docker's `config.json`, as far as it is about credentials.
#[derive(Clone, Debug, Default)]
pub struct DockerConfig {
    auths: BTreeMap<String, Credential>,
    store: Option<String>,
    helpers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ConfigFile {
    #[serde(default)]
    auths: Option<BTreeMap<String, AuthEntry>>,
    #[serde(default)]
    creds_store: Option<String>,
    #[serde(default)]
    cred_helpers: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
struct AuthEntry {
    #[serde(default)]
    auth: Option<String>,
    #[serde(default)]
    username: Option<String>,
    #[serde(default)]
    password: Option<String>,
    #[serde(default)]
    identitytoken: Option<String>,
    #[serde(default)]
    registrytoken: Option<String>,
}

impl DockerConfig {
    /// Reads the text of a `config.json`. Keys that are not about credentials are passed over.
    pub fn parse(text: &str) -> Result<Self> {
        let bad =
            |reason: &str| Error::invalid(format!("malformed Docker configuration: {reason}"));
        if text.len() > MAX_TEXT {
            return Err(Error::limit("the Docker configuration is larger than 1 MiB"));
        }
        // The decoder would take a list for an object's fields in order.
        if !text.trim_start().starts_with('{') {
            return Err(bad("it is no JSON object"));
        }
        // The decoder's message may quote the text, and the text holds secrets: only the place is told.
        let file: ConfigFile = serde_json::from_str(text)
            .map_err(|e| bad(&format!("line {}, column {}", e.line(), e.column())))?;
        let mut auths = BTreeMap::new();
        for (key, entry) in file.auths.unwrap_or_default() {
            let full = |text: Option<String>| text.filter(|t| !t.is_empty());
            let credential = if let Some(token) = full(entry.registrytoken) {
                Credential::Bearer(token)
            } else if let Some(token) = full(entry.identitytoken) {
                Credential::Identity(token)
            } else if let Some(auth) = full(entry.auth) {
                let decoded =
                    STANDARD.decode(auth.trim()).ok().and_then(|b| String::from_utf8(b).ok());
                let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
                let wrong = || bad(&format!("the auth of {key:?} is not base64 of NAME:PASSWORD"));
                let (username, password) = pair.ok_or_else(wrong)?;
                // Old versions of Docker padded with NUL.
                let password = password.trim_end_matches('\0');
                Credential::Basic { username: username.to_owned(), password: password.to_owned() }
            } else if let (Some(username), Some(password)) = (full(entry.username), entry.password)
            {
                Credential::Basic { username, password }
            } else {
                // What `docker login` leaves behind when a helper keeps the secret.
                continue;
            };
            auths.insert(normalise(&key), credential);
        }
        let mut helpers = BTreeMap::new();
        for (key, helper) in file.cred_helpers.unwrap_or_default() {
            helpers.insert(normalise(&key), checked_helper(helper)?);
        }
        let store = file.creds_store.filter(|s| !s.is_empty()).map(checked_helper).transpose()?;
        Ok(DockerConfig { auths, store, helpers })
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.auths.is_empty() && self.store.is_none() && self.helpers.is_empty()
    }
}

/// A helper's name becomes part of a program's name.
fn checked_helper(name: String) -> Result<String> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    if !name.is_empty() && name.len() <= 64 && name.bytes().all(fine) {
        return Ok(name);
    }
    Err(Error::invalid(format!(
        "malformed Docker configuration: {name:?} is no name of a credential helper"
    )))
}

/// The registry a key of the configuration means: without scheme and path, Docker Hub under one name.
fn normalise(key: &str) -> String {
    let rest = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    let host = rest.split('/').next().unwrap_or_default().to_ascii_lowercase();
    match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => {
            DEFAULT_REGISTRY.to_owned()
        }
        _ => host,
    }
}

/// Reads what a helper wrote: `{"Username": .., "Secret": ..}`.
fn parse_helper_answer(bytes: &[u8], program: &str) -> Result<Option<Credential>> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        #[serde(default)]
        username: String,
        #[serde(default)]
        secret: String,
    }
    let answer: Option<Answer> =
        (bytes.len() <= MAX_TEXT).then(|| serde_json::from_slice(bytes).ok()).flatten();
    // The answer holds a secret, so the error quotes nothing of it.
    let Some(Answer { username, secret }) = answer else {
        return Err(Error::invalid(format!(
            "the answer of {program} is not what a credential helper writes"
        )));
    };
    Ok(match (username.as_str(), secret.is_empty()) {
        (_, true) => None,
        ("<token>", false) => Some(Credential::Identity(secret)),
        _ => Some(Credential::Basic { username, password: secret }),
    })
}

/// Credentials from Docker's configuration: the registry's own helper, else the common helper, else
/// what the file itself holds.
pub struct DockerCredentials {
    config: DockerConfig,
    helper: Option<Arc<dyn CredentialHelper>>,
}

impl DockerCredentials {
    /// Credentials from `config`; without `helper` its helpers are not asked.
    pub fn new(config: DockerConfig, helper: Option<Arc<dyn CredentialHelper>>) -> Self {
        DockerCredentials { config, helper }
    }
}

#[async_trait]
impl Credentials for DockerCredentials {
    async fn lookup(&self, registry: &str) -> Result<Option<Credential>> {
        let name = self.config.helpers.get(registry).or(self.config.store.as_ref());
        if let (Some(name), Some(helper)) = (name, &self.helper) {
            let program = format!("docker-credential-{name}");
            let server = if registry == DEFAULT_REGISTRY { HUB_KEY } else { registry };
            if let Some(answer) = helper.get(&program, server).await?
                && let Some(credential) = parse_helper_answer(&answer, &program)?
            {
                return Ok(Some(credential));
            }
        }
        Ok(self.config.auths.get(registry).cloned())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn basic(username: &str, password: &str) -> Option<Credential> {
        Some(Credential::Basic { username: username.to_owned(), password: password.to_owned() })
    }

    /// Answers for one server and notes what it was asked.
    struct Helper(Mutex<Vec<String>>);

    #[async_trait]
    impl CredentialHelper for Helper {
        async fn get(&self, program: &str, server: &str) -> Result<Option<Vec<u8>>> {
            self.0.lock().expect("one thread").push(format!("{program} {server}"));
            Ok(match server {
                "gcr.io" => Some(br#"{"ServerURL":"gcr.io","Username":"u","Secret":"s"}"#.to_vec()),
                HUB_KEY => Some(br#"{"Username":"<token>","Secret":"refresh"}"#.to_vec()),
                "bad.example" => Some(b"secret-text".to_vec()),
                _ => None,
            })
        }
    }

    #[tokio::test]
    async fn finds_what_docker_finds() {
        let auth = STANDARD.encode("me:pass:word");
        let text = format!(
            r#"{{"auths":{{"https://index.docker.io/v1/":{{"auth":"{auth}"}},"127.0.0.1:5000":{{"username":"a",
            "password":"b"}},"https://Reg.example/v2/":{{"identitytoken":"id"}},"empty.example":{{}},
            "tok.example":{{"registrytoken":"t"}}}},"HttpHeaders":{{"X":"y"}},"psFormat":"z"}}"#
        );
        let credentials = DockerCredentials::new(DockerConfig::parse(&text).expect("valid"), None);
        for (registry, want) in [
            ("docker.io", basic("me", "pass:word")),
            ("127.0.0.1:5000", basic("a", "b")),
            ("127.0.0.1:5001", None),
            ("reg.example", Some(Credential::Identity("id".to_owned()))),
            ("tok.example", Some(Credential::Bearer("t".to_owned()))),
            ("empty.example", None),
            ("example", None),
        ] {
            assert_eq!(credentials.lookup(registry).await.expect(registry), want, "{registry}");
        }
    }

    #[tokio::test]
    async fn asks_helpers_first() {
        let auth = STANDARD.encode("file:x");
        let text = format!(
            r#"{{"credsStore":"desktop","credHelpers":{{"gcr.io":"gcloud"}},
            "auths":{{"other.example":{{"auth":"{auth}"}}}}}}"#
        );
        let helper = Arc::new(Helper(Mutex::default()));
        let config = DockerConfig::parse(&text).expect("valid");
        let credentials = DockerCredentials::new(config, Some(Arc::clone(&helper) as _));
        assert_eq!(credentials.lookup("gcr.io").await.expect("helper"), basic("u", "s"));
        let hub = credentials.lookup("docker.io").await.expect("store");
        assert_eq!(hub, Some(Credential::Identity("refresh".to_owned())));
        assert_eq!(credentials.lookup("other.example").await.expect("file"), basic("file", "x"));
        let error = credentials.lookup("bad.example").await.expect_err("malformed answer");
        assert!(!format!("{error:?} {error}").contains("secret-text"));
        assert_eq!(
            *helper.0.lock().expect("one thread"),
            [
                "docker-credential-gcloud gcr.io",
                "docker-credential-desktop https://index.docker.io/v1/",
                "docker-credential-desktop other.example",
                "docker-credential-desktop bad.example",
            ]
        );
    }

    #[test]
    fn refuses_malformed_configurations_without_quoting_them() {
        for bad in [
            "",
            "[]",
            r#"{"auths":{"a":{"auth":"c2VjcmV0"}}}"#,
            r#"{"auths":{"a":{"auth":"!"}}}"#,
            r#"{"credsStore":"../x"}"#,
            r#"{"credHelpers":{"a":"b c"}}"#,
            r#"{"auths":{"a":"c2VjcmV0"}}"#,
        ] {
            let error = DockerConfig::parse(bad).expect_err(bad);
            assert!(!format!("{error:?}").contains("c2VjcmV0"), "{error:?}");
        }
        assert!(DockerConfig::parse("{}").expect("empty").is_empty());
        let shown = format!("{:?}", basic("name", "hidden"));
        assert!(!shown.contains("hidden"));
    }
}
