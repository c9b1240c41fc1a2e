//! Names of plugins, and the files and manifests that say where they come from and what they may do.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use wbuild_graph::Digest;
use wbuild_oci::Document;
use wbuild_supply::artifact::{self, Found, MAX_COMPONENT};
use wbuild_supply::{ConfigFile, Lock, PluginRef, Policy, Problem, Project, Signature};

fn file(data: &[u8]) -> ConfigFile {
    ConfigFile::new("/p/file.toml".into(), "file", data.into())
}

/// A mistake is shown in the file.
fn in_file(problem: &Problem, data: &[u8]) {
    for diagnostic in &problem.failure.diagnostics {
        for label in &diagnostic.labels {
            assert!(label.at.start <= label.at.end && label.at.end as usize <= data.len());
        }
    }
}

/// The input is the name of a plugin.
pub fn check_reference(data: &[u8]) {
    let Ok(parsed) = PluginRef::parse(OsStr::from_bytes(data), Path::new("/w")) else { return };
    let text = parsed.to_string();
    match &parsed {
        PluginRef::File { path, .. } => assert!(path.starts_with("/")),
        PluginRef::Named(name) | PluginRef::Bundled(name) => assert!(!name.contains('/')),
        _ => {
            let again = PluginRef::remote(&text).expect("it was written by us");
            assert_eq!(again.as_ref(), Some(&parsed));
            // What versions have in common holds neither tag nor digest.
            assert!(!parsed.source().contains(['@', '#']));
        }
    }
}

/// The input is a project's file.
pub fn check_project(data: &[u8]) {
    match Project::read("/p".into(), file(data)) {
        Ok(project) => {
            for alias in project.aliases() {
                assert!(!matches!(alias.source, PluginRef::Named(_)), "names lead to no names");
                if let PluginRef::File { path, .. } = &alias.source {
                    assert!(path.starts_with("/p") && !path.display().to_string().contains("/../"));
                }
                assert_eq!(
                    project.alias(alias.kind, &alias.name).map(|a| &a.name),
                    Some(&alias.name)
                );
            }
            for path in ["/p/Dockerfile", "/p/a/b.x", "/elsewhere"] {
                if let Err(problem) = project.frontend_for(Path::new(path)) {
                    in_file(&problem, data);
                }
            }
        }
        Err(problem) => in_file(&problem, data),
    }
}

/// The input is a lock file.
pub fn check_lock(data: &[u8]) {
    match Lock::read(&file(data)) {
        Ok(lock) => {
            let text = lock.to_text();
            let again = Lock::read(&file(text.as_bytes())).expect("it was written by us");
            assert_eq!(again, lock);
            assert_eq!(again.to_text(), text, "there is one way to write it");
        }
        Err(problem) => in_file(&problem, data),
    }
}

/// The input is a policy.
pub fn check_policy(data: &[u8]) {
    match Policy::read(&file(data)) {
        Ok(policy) => {
            for name in ["oci://r.example/team/x:1", "builtin:steps", "/p/x.wasm"] {
                let source = PluginRef::parse(name.as_ref(), Path::new("/w")).expect("a name");
                let digest = Digest::of(b"component");
                let rule = policy.rule(&source, &digest);
                if policy.check_name(&source).is_err() {
                    assert!(rule.is_err(), "what is refused by its name is refused");
                }
                if let Ok(Some(rule)) = rule {
                    assert!(rule.allow);
                    assert!(rule.signed_by.iter().all(|key| policy.keys().has(key)));
                }
            }
        }
        Err(problem) => in_file(&problem, data),
    }
}

/// The input is a manifest of a registry, or a signature.
pub fn check_artifact(data: &[u8]) {
    let _ = Signature::read(data, "it");
    let Ok(document) = Document::decode(data, None, "it") else { return };
    match artifact::find(&document, "it") {
        Ok(Found::Component(layer)) => assert!(layer.size <= MAX_COMPONENT),
        Ok(Found::Entry(entry)) => assert!(entry.is_manifest()),
        Err(failure) => assert!(!failure.hints.is_empty() || failure.message.contains("larger")),
    }
    let subject = Digest::of(data);
    assert_eq!(artifact::signature_of(&document, &subject), None, "nothing refers to itself");
}

fn texts(texts: &[&str]) -> Vec<Vec<u8>> {
    texts.iter().map(|text| text.replace("DIGEST", &Digest::of(b"x").to_string()).into()).collect()
}

/// One of each form.
pub fn references() -> Vec<Vec<u8>> {
    texts(&[
        "steps",
        "builtin:steps",
        "./x.wasm",
        "oci://r.example:5000/a/b:1@DIGEST",
        "https://h.example/a/../x.wasm?y#DIGEST",
    ])
}

/// Files with all that there is.
pub fn projects() -> Vec<Vec<u8>> {
    texts(&[
        "",
        "[frontend.a]\nsource = \"oci://r.example/a:1\"\nfiles = [\"*.a\", \"!b/c\"]\n",
        "[runner.b]\nsource = \"x/y.wasm\"\nlimits = { memory = \"1MiB\", cpu = \"1s\" }\n",
        "[cache.c]\nsource = \"builtin:registry\"\nconfig = { ref = \"r.example/c\" }\n",
        "[frontend.x]\nsource = \"https://h.example/x#DIGEST\"\n",
    ])
}

/// An empty one, and one with everything.
pub fn locks() -> Vec<Vec<u8>> {
    texts(&[
        "version = 1\n",
        "version = 1\n[[plugin]]\nsource = \"oci://r.example/a:1\"\nmanifest = \"DIGEST\"\n\
         component = \"DIGEST\"\nimports = [\"a\"]\nsigner = \"k\"\n",
    ])
}

/// Some of each.
pub fn policies() -> Vec<Vec<u8>> {
    texts(&[
        "default = \"deny\"\n[[plugin]]\nmatch = \"builtin:*\"\n",
        "[keys]\nt = \"RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3\"\n\
         [[plugin]]\nmatch = [\"oci://r.example/**\", \"DIGEST\"]\nsigned-by = [\"t\"]\nnested = true\n\
         images = [\"docker.io/**\"]\nfiles = [\"src\"]\nhttp = [\"https://h.example\"]\n\
         repositories = [\"r.example/c\"]\ntools = [\"qemu-aarch64\"]\nlimits = { handles = 3 }\n",
    ])
}

/// A component, an image, an index, a signature's manifest, and a signature.
pub fn artifacts() -> Vec<Vec<u8>> {
    let layer =
        |kind: &str| format!("{{\"mediaType\":\"{kind}\",\"digest\":\"DIGEST\",\"size\":3}}");
    let manifest = |more: &str, config: &str, of: &str| {
        let (config, layer) = (layer(config), layer(of));
        format!("{{\"schemaVersion\":2,{more}\"config\":{config},\"layers\":[{layer}]}}")
    };
    let image = "application/vnd.oci.image.config.v1+json";
    let subject = layer("application/vnd.oci.image.manifest.v1+json");
    let index = format!("{{\"schemaVersion\":2,\"manifests\":[{subject}]}}");
    let signs = format!("\"subject\":{subject},\"artifactType\":\"{}\",", artifact::SIGNATURE);
    texts(&[
        &manifest("", artifact::CONFIG, artifact::LAYER),
        &manifest("", image, "application/vnd.oci.image.layer.v1.tar"),
        &index,
        &manifest(&signs, artifact::EMPTY, artifact::SIGNATURE),
        "untrusted comment: x\nRUQf6LRCGA9i559r3g7V1qNyJDApGip8MfqcadIgT9CuhV3EMhHoN1mGTkUidF/z7SrlQgXdy8ofjb7bNJJylDOocrCo8KLzZwo=\n\
         trusted comment: x\ny/rUw2y8/hOUYjZU71eHp/Wo1KZ40fGy2VJEDl34XMJM+TX48Ss/17u3IvIfbVR1FkZZSNCisQbuQY+bHwhEBg==\n",
    ])
}
