//! What frontends may call. Nothing here is fetched: what may not be called is refused before.

use std::path::Path;
use std::sync::Arc;

use wbuild_graph::{Attrs, Digest, Failure, FailureKind};
use wbuild_plugin::{PluginHost, PluginHostOptions, PluginKind};
use wbuild_supply::{
    ConfigFile, Consents, POLICY, PluginRef, PluginStore, Policy, Project, Supplier,
    SupplierOptions, Unattended,
};

const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

const PROJECT: &str = "[frontend.ours]\nsource = \"oci://r.example/ours:1\"\n\
    [frontend.own]\nsource = \"own.wasm\"\n\
    [runner.mine]\nsource = \"oci://r.example/runner:1\"\n";

/// A supplier of a project in a directory, with a policy.
fn supplier(dir: &Path, project: Option<&str>, lock: &str, policy: &str) -> Supplier {
    let file = |name: &str, text: &str| ConfigFile::new(dir.join(name), POLICY, text.into());
    std::fs::write(dir.join("wbuild.lock"), format!("version = 1\n{lock}")).expect("lock");
    let project = project.map(|text| {
        std::fs::write(dir.join("wbuild.toml"), text).expect("project");
        Arc::new(Project::around(dir).expect("project"))
    });
    let options = SupplierOptions {
        host: PluginHost::new(PluginHostOptions::new(dir.join("code"))),
        project,
        policy: Policy::read(&file("policy.toml", policy)).expect("policy"),
        policy_path: "~/policy.toml".to_owned(),
        consents: Consents::default(),
        store: PluginStore::new(dir.join("plugins")),
        fetcher: Box::new(|| panic!("nothing is to be fetched")),
        locked: false,
        offline: false,
    };
    Supplier::new(options).unwrap_or_else(|problem| panic!("{problem}"))
}

#[test]
fn what_frontends_may_call() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let lock = format!(
        "[[plugin]]\nsource = \"oci://r.example/locked:1\"\nmanifest = \"sha256:{HEX}\"\n\
         component = \"sha256:{HEX}\"\n"
    );
    let web = format!("https://h.example/x.wasm#sha256:{HEX}");
    let team = "[[plugin]]\nmatch = \"oci://r.example/team/*\"\n";
    let never = "[[plugin]]\nmatch = \"oci://r.example/team/*\"\nallow = false\n";
    let digest = format!("[[plugin]]\nmatch = \"sha256:{HEX}\"\n");
    for (text, project, policy, means) in [
        ("steps", true, "", Some("steps")),
        ("builtin:steps", true, "", Some("builtin:steps")),
        ("ours", true, "", Some("ours")),
        // By what it is as well, and then with what the project says of it.
        ("oci://r.example/ours:1", true, "", Some("ours")),
        ("oci://r.example/ours:2", true, "", None),
        ("oci://r.example/ours:1", false, "", None),
        ("oci://r.example/runner:1", true, "", None),
        ("oci://r.example/team/x:1", true, "", None),
        ("oci://r.example/team/x:1", true, team, Some("oci://r.example/team/x:1")),
        ("oci://r.example/team/x:1", false, team, Some("oci://r.example/team/x:1")),
        // The entry is about it; that it may not be used is said when it is supplied.
        ("oci://r.example/team/x:1", true, never, Some("oci://r.example/team/x:1")),
        ("oci://r.example/teams/x:1", true, team, None),
        (&web, true, "", None),
        (&web, true, &digest, Some(&*web)),
        ("oci://r.example/locked:1", true, "", None),
        ("oci://r.example/locked:1", true, &digest, Some("oci://r.example/locked:1")),
        ("oci://r.example/other:1", true, &digest, None),
        ("own", true, "", Some("own")),
        ("own.wasm", true, "", None),
        ("./x", true, "", None),
        ("docker/dockerfile:1", true, "", None),
        ("/etc/x.wasm", true, "[[plugin]]\nmatch = \"/**\"\n", None),
    ] {
        let supplier = supplier(dir.path(), project.then_some(PROJECT), &lock, policy);
        let found = supplier.callee(text);
        match means {
            Some(means) => {
                let found = found.unwrap_or_else(|failure| panic!("{text}: {failure}"));
                assert_eq!(found.to_string(), means, "{policy}");
            }
            None => {
                let failure = found.expect_err(text);
                assert_eq!(failure.kind, FailureKind::Denied, "{text}: {failure}");
                assert!(!failure.hints.is_empty(), "{text}: {failure}");
            }
        }
    }
    let nameless = supplier(dir.path(), Some(PROJECT), "", "");
    for text in ["", "builtin:", "ftp://x", &"x".repeat(5000), "https://h.example/x.wasm"] {
        assert!(nameless.callee(text).is_err(), "{text}");
    }
    let failure = nameless.callee("oci://r.example/team/x").expect_err("nobody names it");
    assert_eq!(
        failure.hints,
        [
            "to let frontends call it, give it a name in wbuild.toml:\n[frontend.NAME]\n\
             source = \"oci://r.example/team/x:latest\"",
            "or name it in ~/policy.toml:\n[[plugin]]\nmatch = \"oci://r.example/team/x\""
        ]
    );
}

/// The grants of a called frontend are its own.
#[test]
fn what_is_called_is_granted_nothing_by_its_caller() {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/guests/dist");
    let Ok(component) = std::fs::read(guests.join("hostile-nested.wasm")) else {
        eprintln!("skipped: run cargo xtask guests");
        return;
    };
    let dir = tempfile::tempdir().expect("temporary directory");
    std::fs::write(dir.path().join("own.wasm"), &component).expect("component");
    let supply = |policy: &str| -> Result<bool, Failure> {
        let supplier = supplier(dir.path(), Some(PROJECT), "", policy);
        let reference = supplier.callee("own")?;
        assert_eq!(reference, PluginRef::Named("own".to_owned()));
        let (kind, none) = (PluginKind::Frontend, Attrs::default());
        let supplied = supplier.supply(kind, &reference, &none, &Unattended);
        Ok(now(supplied)?.plugin.grants().nested)
    };
    let failure = supply("").expect_err("nobody grants it");
    assert!(failure.message.contains("own.wasm is not granted what it wants"), "{failure}");
    let digest = Digest::of(&component);
    let entry = |more: &str| format!("[[plugin]]\nmatch = \"{digest}\"\n{more}\n");
    assert!(supply(&entry("nested = true")).expect("granted"));
    let failure = supply(&entry("allow = false")).expect_err("forbidden");
    assert!(failure.message.contains("does not allow"), "{failure}");
}

/// Files are supplied at once.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(future).poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("it waits for something"),
    }
}
