//! What a package of `wit/` has a component call, read from its text: so no list of it is kept here
//! that could be forgotten.

use crate::support::versions;

/// A function that components import.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Function {
    /// "graph.image", "exec-op.env", "exec-op.constructor".
    pub name: String,
    /// Whether it is one of a handle, or makes one.
    pub of_handle: bool,
    /// Whether it takes a text.
    pub takes_text: bool,
    /// Whether it takes a list that is not of bytes.
    pub takes_list: bool,
    /// Whether it takes a platform.
    pub takes_platform: bool,
}

/// The functions of some interfaces of `PACKAGE/PACKAGE.wit` of the version that is tried, those of
/// their resources included.
pub fn functions(package: &str, interfaces: &[&str]) -> Vec<Function> {
    let path = versions::packages().join(package).join(format!("{package}.wit"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    read(&text, interfaces)
}

fn read(text: &str, interfaces: &[&str]) -> Vec<Function> {
    let mut found = Vec::new();
    let (mut interface, mut resource) = (None::<&str>, None::<&str>);
    for line in text.lines().map(str::trim) {
        let opens = |word: &str| line.strip_prefix(word)?.strip_suffix('{').map(str::trim);
        if let Some(name) = opens("interface ") {
            interface = interfaces.contains(&name).then_some(name);
            resource = None;
        } else if let Some(name) = opens("resource ") {
            resource = Some(name);
        } else if line == "}" {
            resource = None;
        }
        let Some(interface) = interface else { continue };
        let place = resource.unwrap_or(interface);
        let (name, signature) = match line.split_once(": ") {
            _ if line.starts_with("constructor(") => ("constructor", line),
            Some((name, rest)) if rest.contains("func(") && !line.starts_with('/') => (name, rest),
            _ => continue,
        };
        let takes = signature.split("->").next().unwrap_or_default().replace("list<u8>", "");
        let takes_text = takes.contains("string");
        let takes_list = ["list<", ": attrs"].iter().any(|of| takes.contains(of));
        let takes_platform = takes.contains("platform");
        found.push(Function {
            name: format!("{place}.{}", name.trim_start_matches('%')),
            of_handle: resource.is_some(),
            takes_text,
            takes_list,
            takes_platform,
        });
    }
    found
}
