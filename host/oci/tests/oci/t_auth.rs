//! T-AUTH: no credential reaches another host, realm or scheme than its own. Each case is a registry
//! that tries to make the client carry it elsewhere; an attacker listens on other addresses and ports
//! and notes all it sees.

use wbuild_oci::registry::{Credential, Host, Trust};
use wbuild_oci::{ErrorKind, Reference};

use crate::content::{Content, Keys, SECRET, client, leaked, pull};
use crate::server::{Answer, Asked, Server};

const ATTACKER: &str = "127.0.0.66";

/// What the registry answers to who has authenticated (or need not).
type Behaviour = fn(&Asked, &Content, &str) -> Answer;

fn is_blob(asked: &Asked) -> bool {
    asked.target.contains("/blobs/")
}

/// A registry on `127.0.0.1` that asks for a password and then behaves as a case says; `attacker` is
/// `http://ADDRESS`.
fn registry(content: &Content, attacker: &str, tls: bool, behaviour: Behaviour) -> Server {
    let (content, attacker) = (content.clone(), attacker.to_owned());
    let answer = move |asked: &Asked| behaviour(asked, &content, &attacker);
    if tls { Server::start_tls("127.0.0.1", answer) } else { Server::start("127.0.0.1", answer) }
}

fn basic(asked: &Asked) -> Result<(), Answer> {
    match asked.header("authorization") {
        Some(_) => Ok(()),
        None => Err(Answer::challenge(r#"Basic realm="x""#)),
    }
}

/// A registry that asks for a token of a realm; any token will do.
fn token(asked: &Asked, content: &Content, realm: &str) -> Answer {
    match asked.header("authorization") {
        Some(header) if header.starts_with("Bearer ") => content.answer(asked),
        _ => Answer::challenge(format!(r#"Bearer realm="{realm}",service="s""#)),
    }
}

struct Case {
    name: &'static str,
    tls: bool,
    behaviour: Behaviour,
    /// What the attacker answers.
    attacker: fn(&Asked, &Content) -> Answer,
    /// Whether the pull succeeds.
    works: bool,
    /// Whether the attacker is asked at all.
    asked: bool,
}

const CASES: &[Case] = &[
    Case {
        name: "blobs at another host, as with S3",
        tls: false,
        behaviour: |asked, content, attacker| match basic(asked) {
            Ok(()) if is_blob(asked) => Answer::redirect(format!("{attacker}{}", asked.target)),
            Ok(()) => content.answer(asked),
            Err(challenge) => challenge,
        },
        attacker: |asked, content| content.answer(asked),
        works: true,
        asked: true,
    },
    Case {
        name: "manifests at another host",
        tls: false,
        behaviour: |asked, content, attacker| match basic(asked) {
            Ok(()) if !is_blob(asked) => Answer::redirect(format!("{attacker}{}", asked.target)),
            Ok(()) => content.answer(asked),
            Err(challenge) => challenge,
        },
        attacker: |asked, content| content.answer(asked),
        works: true,
        asked: true,
    },
    Case {
        name: "another host after a step at home",
        tls: false,
        behaviour: |asked, content, attacker| match basic(asked) {
            Ok(()) if asked.target.starts_with("/step") => {
                Answer::redirect(format!("{attacker}{}", &asked.target[5..]))
            }
            Ok(()) if is_blob(asked) => Answer::redirect(format!("/step{}", asked.target)),
            Ok(()) => content.answer(asked),
            Err(challenge) => challenge,
        },
        attacker: |asked, content| content.answer(asked),
        works: true,
        asked: true,
    },
    Case {
        name: "another host that asks for a password",
        tls: false,
        behaviour: |asked, content, attacker| match basic(asked) {
            Ok(()) if is_blob(asked) => Answer::redirect(format!("{attacker}{}", asked.target)),
            Ok(()) => content.answer(asked),
            Err(challenge) => challenge,
        },
        attacker: |_, _| Answer::challenge(r#"Basic realm="give""#),
        works: false,
        asked: true,
    },
    Case {
        name: "another host that asks for a token of the registry's own service",
        tls: false,
        behaviour: |asked, content, attacker| match basic(asked) {
            Ok(()) if is_blob(asked) => Answer::redirect(format!("{attacker}{}", asked.target)),
            Ok(()) => content.answer(asked),
            Err(challenge) => challenge,
        },
        attacker: |_, _| Answer::challenge(r#"Bearer realm="http://127.0.0.1/token""#),
        works: false,
        asked: true,
    },
    Case {
        name: "from https to http",
        tls: true,
        behaviour: |asked, content, attacker| match basic(asked) {
            Ok(()) if is_blob(asked) => Answer::redirect(format!("{attacker}{}", asked.target)),
            Ok(()) => content.answer(asked),
            Err(challenge) => challenge,
        },
        attacker: |asked, content| content.answer(asked),
        works: false,
        asked: false,
    },
    Case {
        name: "from https to http at home",
        tls: true,
        behaviour: |asked, _, _| match basic(asked) {
            Ok(()) => {
                let host = asked.header("host").unwrap_or_default();
                Answer::redirect(format!("http://{host}{}", asked.target))
            }
            Err(challenge) => challenge,
        },
        attacker: |asked, content| content.answer(asked),
        works: false,
        asked: false,
    },
    Case {
        name: "a realm on another host",
        tls: false,
        behaviour: |asked, content, attacker| token(asked, content, &format!("{attacker}/token")),
        attacker: |_, _| Answer::new(200, r#"{"token":"anonymous"}"#),
        // A token for anybody is what an open registry with a foreign token service gives.
        works: true,
        asked: true,
    },
    Case {
        name: "a realm on another host that wants a password",
        tls: false,
        behaviour: |asked, content, attacker| token(asked, content, &format!("{attacker}/token")),
        attacker: |asked, _| match asked.header("authorization") {
            Some(_) => Answer::new(200, r#"{"token":"stolen"}"#),
            None => Answer::challenge(r#"Basic realm="give""#),
        },
        works: false,
        asked: true,
    },
    Case {
        name: "a realm without encryption, of a registry that has it",
        tls: true,
        behaviour: |asked, content, attacker| token(asked, content, &format!("{attacker}/token")),
        attacker: |_, _| Answer::new(200, r#"{"token":"stolen"}"#),
        works: false,
        asked: false,
    },
    Case {
        name: "a realm that is a metadata service",
        tls: false,
        behaviour: |asked, content, _| token(asked, content, "http://169.254.169.254/latest/token"),
        attacker: |_, _| Answer::new(200, "{}"),
        works: false,
        asked: false,
    },
    Case {
        name: "a realm that is a metadata service, with encryption",
        tls: true,
        behaviour: |asked, content, _| token(asked, content, "https://[fd00:ec2::254]/latest"),
        attacker: |_, _| Answer::new(200, "{}"),
        works: false,
        asked: false,
    },
    Case {
        name: "a realm that looks like home",
        tls: false,
        behaviour: |asked, content, attacker| {
            let host = asked.header("host").unwrap_or_default();
            let at = attacker.strip_prefix("http://").unwrap_or_default();
            token(asked, content, &format!("http://{host}@{at}/token"))
        },
        attacker: |_, _| Answer::new(200, r#"{"token":"stolen"}"#),
        works: false,
        asked: false,
    },
    Case {
        name: "a token service that sends on to another host",
        tls: false,
        behaviour: |asked, content, attacker| {
            if asked.target.starts_with("/token") {
                return Answer::redirect(format!("{attacker}/token"));
            }
            let host = asked.header("host").unwrap_or_default();
            token(asked, content, &format!("http://{host}/token"))
        },
        attacker: |_, _| Answer::new(200, r#"{"token":"stolen"}"#),
        works: false,
        asked: false,
    },
];

/// A password, a refresh token and a token for the registry itself: none of them may get away.
fn keys(host: &str) -> Vec<Keys> {
    let own = |credential| Keys([(host.to_owned(), credential)].into());
    vec![
        Keys::of(&[host]),
        own(Credential::Identity(SECRET.to_owned())),
        own(Credential::Bearer(SECRET.to_owned())),
    ]
}

#[tokio::test]
async fn t_auth_no_credential_goes_astray() {
    assert!(CASES.len() >= 12);
    let content = Content::new(&[5_000]);
    let no_tls = crate::tls::server_pair().is_none();
    if no_tls {
        crate::support::skip("t_auth: cases with TLS", "there is no openssl");
    }
    for case in CASES.iter().filter(|case| !(case.tls && no_tls)) {
        // Another address, and another port of the registry's own.
        for ip in [ATTACKER, "127.0.0.1"] {
            // A token service on the registry's own host is its own, whatever the port.
            if ip == "127.0.0.1" && case.name.contains("realm on another host") {
                continue;
            }
            let (answer, served) = (case.attacker, content.clone());
            let attacker = Server::start(ip, move |asked| answer(asked, &served));
            let registry = registry(&content, &attacker.url(""), case.tls, case.behaviour);
            let name = registry.address.to_string();
            let trust = Trust { insecure: case.tls, ..Trust::default() };
            let host = Host { trust, ..Host::default() };
            for (kind, keys) in keys(&name).into_iter().enumerate() {
                let client = client(keys, &[(&name, host.clone())]);
                let result = pull(&client, &registry.reference("a/b:v1")).await;
                let which = format!("{} ({ip}, credential {kind})", case.name);
                assert!(!leaked(&attacker), "{which}: {:?}", attacker.asked());
                if kind == 0 {
                    assert_eq!(result.is_ok(), case.works, "{which}: {:?}", result.err());
                    assert_eq!(!attacker.asked().is_empty(), case.asked, "{which}");
                }
                if let Err(error) = result {
                    let kinds = [ErrorKind::Denied, ErrorKind::Invalid];
                    assert!(kinds.contains(&error.kind()), "{which}: {error}");
                    assert!(!format!("{error} {error:?}").contains(SECRET), "{which}: {error:?}");
                }
            }
        }
    }
}

#[tokio::test]
async fn t_auth_what_left_does_not_come_back_with_a_credential() {
    let content = Content::new(&[5_000]);
    let home = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let way = std::sync::Arc::clone(&home);
    let attacker = Server::start(ATTACKER, move |asked| {
        Answer::redirect(format!("{}/back{}", way.lock().expect("set"), asked.target))
    });
    let (served, elsewhere) = (content.clone(), attacker.url(""));
    let registry = Server::start("127.0.0.1", move |asked| {
        if asked.target.starts_with("/back") {
            return served.answer(asked);
        }
        match basic(asked) {
            Ok(()) => Answer::redirect(format!("{elsewhere}{}", asked.target)),
            Err(challenge) => challenge,
        }
    });
    *home.lock().expect("fresh") = registry.url("");
    let name = registry.address.to_string();
    let reference: Reference = registry.reference("a/b:v1");
    pull(&client(Keys::of(&[&name]), &[]), &reference).await.expect("served in the end");
    assert!(!leaked(&attacker), "{:?}", attacker.asked());
    let back: Vec<Asked> =
        registry.asked().into_iter().filter(|asked| asked.target.starts_with("/back")).collect();
    assert!(back.len() >= 4 && back.iter().all(|asked| asked.header("authorization").is_none()));
}

#[tokio::test]
async fn t_auth_mirrors_see_their_own_credentials_only() {
    let content = Content::new(&[5_000]);
    let lacking = Server::start(ATTACKER, |asked| match basic(asked) {
        Ok(()) => Answer::new(404, ""),
        Err(challenge) => challenge,
    });
    let registry = registry(&content, "", false, |asked, content, _| match basic(asked) {
        Ok(()) => content.answer(asked),
        Err(challenge) => challenge,
    });
    let (name, mirror) = (registry.address.to_string(), lacking.address.to_string());
    let host = Host { mirrors: vec![mirror.parse().expect("a mirror")], ..Host::default() };
    let client = client(Keys::of(&[&name]), &[(&name, host)]);
    pull(&client, &registry.reference("a/b:v1")).await.expect("the registry has it");
    assert!(!lacking.asked().is_empty() && !leaked(&lacking), "{:?}", lacking.asked());
}
