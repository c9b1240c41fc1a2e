//! `policy.toml`: which plugins the user lets run, what they are granted, whose signature they need.
//!
//! ```toml
//! default = "deny"                 # what no entry covers: "deny", or "ask" [default]
//!
//! [keys]                           # of minisign
//! team = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"
//!
//! [[plugin]]                       # the first entry that covers a plugin counts
//! match = "oci://registry.example/team/*"
//! signed-by = ["team"]
//! nested = true                    # may call other frontends
//! images = ["docker.io/library/*"] # the images that it may use; all if this is missing
//! files = ["src", "go.mod"]        # what it may use of local contexts; all if this is missing
//! limits = { memory = "1GiB" }
//!
//! [[plugin]]
//! match = ["https://plugins.example/**", "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"]
//!
//! [[plugin]]
//! match = "builtin:earthfile"
//! allow = false
//! ```
//!
//! A plugin is matched by what its versions have in common (`oci://REGISTRY/NAME` without a tag, the
//! URL without the hash, the absolute path of a file, `builtin:NAME`) or by the digest of the component.
//! Paths of both sides are the real ones: no link and no `..` makes another plugin of a file. A copy is
//! one; what is not to run wherever it lies is named by its digest.
//! An entry counts as a whole: what is not granted in it is asked for, if somebody can be asked.
//!
//! What a frontend calls, which `nested` is about, is a plugin like any other: an entry for it grants, and
//! an entry for its caller grants it nothing.
//!
//! There is nothing here of the buckets in which cache backends keep values. Every backend has its own,
//! by what it is matched by, so there is nothing to grant.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;
use wbuild_api::names::{MAX_PATTERNS, NamePattern};
use wbuild_graph::{Digest, Failure};
use wbuild_ignore::Matcher;

use crate::document::{ConfigFile, Problem, denied};
use crate::limits::{LimitChanges, LimitsTable};
use crate::reference::{PluginRef, real_path};
use crate::signature::PublicKeys;

/// The name of the file.
pub const FILE: &str = "policy.toml";
/// What it is in messages.
pub const WHAT: &str = "plugin policy";
/// Most entries.
const MAX_RULES: usize = 1000;

/// What a user lets plugins do.
#[derive(Clone, Debug, Default)]
pub struct Policy {
    rules: Vec<Rule>,
    deny: bool,
    keys: PublicKeys,
    /// Where it was read from, for messages.
    shown: Option<String>,
}

/// An entry.
#[derive(Clone, Debug, Default)]
pub struct Rule {
    pub(crate) names: Vec<NamePattern>,
    pub(crate) digests: Vec<Digest>,
    /// It may be used at all.
    pub allow: bool,
    /// It needs a signature of one of these keys; of none if empty.
    pub signed_by: Vec<String>,
    /// It may call other frontends.
    pub nested: bool,
    /// The images that it may use; all, if none.
    pub images: Option<Vec<String>>,
    /// What it may use of local contexts; all, if none.
    pub files: Option<Vec<String>>,
    /// Origins that a project's configuration may lead it to.
    pub http: Vec<String>,
    /// Repositories that a project's configuration may lead it to.
    pub repositories: Vec<String>,
    /// Programs of this machine that a runner may use in steps.
    pub tools: Vec<String>,
    /// Limits in place of the defaults.
    pub limits: LimitChanges,
    /// As it is written first, for messages.
    pub shown: String,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    default: Option<Spanned<String>>,
    #[serde(default)]
    keys: BTreeMap<String, Spanned<String>>,
    #[serde(default)]
    plugin: Vec<Spanned<Table>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Table {
    #[serde(rename = "match")]
    matches: Spanned<OneOrMore>,
    #[serde(default = "yes")]
    allow: bool,
    #[serde(default)]
    signed_by: Vec<Spanned<String>>,
    #[serde(default)]
    nested: bool,
    images: Option<Vec<Spanned<String>>>,
    files: Option<Spanned<Vec<String>>>,
    #[serde(default)]
    http: Vec<Spanned<String>>,
    #[serde(default)]
    repositories: Vec<Spanned<String>>,
    #[serde(default)]
    tools: Vec<Spanned<String>>,
    #[serde(default)]
    limits: LimitsTable,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

fn yes() -> bool {
    true
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    ///
    /// It says what is not understood; shows where.
    pub fn read(file: &ConfigFile) -> Result<Policy, Problem> {
        let Document { default, keys, plugin } = file.parse()?;
        let deny = match &default {
            None => false,
            Some(text) => match text.get_ref().as_str() {
                "ask" => false,
                "deny" => true,
                _ => {
                    let message = "expected \"ask\" or \"deny\"";
                    return Err(file.wrong(text.span(), message, None));
                }
            },
        };
        let mut known = PublicKeys::default();
        for (name, key) in keys {
            known.add(&name, key.get_ref()).map_err(|why| {
                file.wrong(key.span(), &why, Some("expected what minisign -G prints: RW…"))
            })?;
        }
        if plugin.len() > MAX_RULES {
            let message = format!("more than {MAX_RULES} entries");
            return Err(file.wrong(plugin[MAX_RULES].span(), &message, None));
        }
        let rules = plugin.into_iter().map(|table| rule(file, table.into_inner(), &known));
        let rules = rules.collect::<Result<_, _>>()?;
        Ok(Policy { rules, deny, keys: known, shown: Some(file.path.display().to_string()) })
    }

    /// The keys that it knows.
    pub fn keys(&self) -> &PublicKeys {
        &self.keys
    }

    /// Where it was read from.
    pub fn shown(&self) -> Option<&str> {
        self.shown.as_deref()
    }

    /// Whether what no entry covers is refused.
    pub fn denies_by_default(&self) -> bool {
        self.deny
    }

    /// What it says of a plugin that may have any digest: whether it need be fetched at all.
    ///
    /// # Errors
    ///
    /// It may not be used, whichever it is.
    pub fn check_name(&self, source: &PluginRef) -> Result<(), Failure> {
        let name = name_of(source);
        for rule in &self.rules {
            if rule.covers_name(&name) {
                return if rule.allow { Ok(()) } else { Err(self.refusal(source, Some(rule))) };
            }
            if rule.allow && !rule.digests.is_empty() {
                // It may turn out to be this one.
                return Ok(());
            }
        }
        self.otherwise(source)
    }

    /// The entry for a plugin; none where none covers it and that is no reason to refuse it.
    ///
    /// # Errors
    ///
    /// It may not be used.
    pub fn rule(&self, source: &PluginRef, digest: &Digest) -> Result<Option<&Rule>, Failure> {
        let name = name_of(source);
        let covers = |rule: &&Rule| rule.covers_name(&name) || rule.digests.contains(digest);
        match self.rules.iter().find(covers) {
            Some(rule) if rule.allow => Ok(Some(rule)),
            Some(rule) => Err(self.refusal(source, Some(rule))),
            None => self.otherwise(source).map(|()| None),
        }
    }

    /// Whether an entry is about a plugin, whatever it says. `digest` is the component's, if it is
    /// known before it is fetched.
    pub fn names(&self, source: &PluginRef, digest: Option<&Digest>) -> bool {
        let name = name_of(source);
        let known = |rule: &Rule| digest.is_some_and(|digest| rule.digests.contains(digest));
        self.rules.iter().any(|rule| rule.covers_name(&name) || known(rule))
    }

    fn otherwise(&self, source: &PluginRef) -> Result<(), Failure> {
        // What is part of this program was trusted when it was installed.
        match self.deny && !matches!(source, PluginRef::Bundled(_)) {
            true => Err(self.refusal(source, None)),
            false => Ok(()),
        }
    }

    fn refusal(&self, source: &PluginRef, rule: Option<&Rule>) -> Failure {
        let shown = self.shown.as_deref().unwrap_or(FILE);
        let failure = denied(format!("the policy does not allow the plugin {source}"));
        match rule {
            Some(rule) => failure.hint(format!("{shown} says allow = false of {}", rule.shown)),
            None => failure.hint(format!(
                "{shown} refuses what it does not name; an entry for it is\n{}",
                entry(&name_of(source), &[])
            )),
        }
    }
}

/// The lines that grant something to a plugin.
pub(crate) fn entry(name: &str, grants: &[String]) -> String {
    let grants = grants.iter().map(|grant| format!("\n{grant}")).collect::<String>();
    format!("[[plugin]]\nmatch = {}{grants}", toml::Value::from(name))
}

/// By what patterns match a plugin.
pub(crate) fn name_of(source: &PluginRef) -> String {
    match source {
        PluginRef::Bundled(_) | PluginRef::Named(_) => source.to_string(),
        _ => source.source(),
    }
}

impl Rule {
    fn covers_name(&self, name: &str) -> bool {
        self.names.iter().any(|pattern| pattern.matches(name))
    }
}

fn rule(file: &ConfigFile, table: Table, keys: &PublicKeys) -> Result<Rule, Problem> {
    let at = table.matches.span();
    let matches = match table.matches.into_inner() {
        OneOrMore::One(one) => vec![one],
        OneOrMore::More(more) => more,
    };
    if matches.is_empty() || matches.len() > MAX_PATTERNS {
        return Err(file.wrong(at, "no pattern, or too many", None));
    }
    let mut rule = Rule {
        allow: table.allow,
        nested: table.nested,
        shown: matches[0].clone(),
        limits: table.limits.read(file)?,
        ..Rule::default()
    };
    for text in &matches {
        match named(text) {
            Ok(Named::Digest(digest)) => rule.digests.push(digest),
            Ok(Named::Pattern(pattern)) => rule.names.push(pattern),
            Err(why) => {
                let hint = "expected oci://REGISTRY/NAME, https://HOST/PATH, an absolute path, \
                            builtin:NAME (parts may be *, the end /**), or sha256:DIGEST";
                return Err(file.wrong(at, &format!("{text:?}: {why}"), Some(hint)));
            }
        }
    }
    for key in table.signed_by {
        if !keys.has(key.get_ref()) {
            let hint = Some("name a key of the section [keys]");
            return Err(file.wrong(key.span(), "this key is not known", hint));
        }
        rule.signed_by.push(key.into_inner());
    }
    let patterns = |written: Vec<Spanned<String>>| {
        let read = |text: Spanned<String>| match NamePattern::new(text.get_ref()) {
            Ok(_) => Ok(text.into_inner()),
            Err(why) => Err(file.wrong(text.span(), &why, None)),
        };
        written.into_iter().map(read).collect::<Result<Vec<_>, Problem>>()
    };
    rule.images = table.images.map(patterns).transpose()?;
    rule.repositories = patterns(table.repositories)?;
    rule.http = patterns(table.http)?;
    if let Some(files) = table.files {
        if let Err(error) = Matcher::new(files.get_ref()) {
            return Err(file.wrong(files.span(), &error.to_string(), None));
        }
        if files.get_ref().iter().any(|pattern| pattern.trim_start().starts_with('!')) {
            let message = "what may be used is said without !";
            return Err(file.wrong(files.span(), message, None));
        }
        rule.files = Some(files.into_inner());
    }
    for tool in table.tools {
        if !tool.get_ref().starts_with("qemu-") {
            let hint =
                Some("the tools that there are are emulators: qemu-aarch64, qemu-riscv64, …");
            return Err(file.wrong(tool.span(), "a tool that is not known", hint));
        }
        rule.tools.push(tool.into_inner());
    }
    Ok(rule)
}

enum Named {
    Digest(Digest),
    Pattern(NamePattern),
}

fn named(text: &str) -> Result<Named, String> {
    if text.starts_with("sha256:") {
        let digest = text.parse().map_err(|_| "this is no digest".to_owned())?;
        return Ok(Named::Digest(digest));
    }
    let schemes = ["oci://", "https://", "builtin:", "/"];
    if text != "**" && !schemes.iter().any(|scheme| text.starts_with(scheme)) {
        return Err("no plugin is called so".to_owned());
    }
    if let Some(rest) = text.strip_prefix("oci://") {
        let (_, last) = rest.rsplit_once('/').ok_or("the name behind the registry is missing")?;
        if last.contains([':', '@']) {
            return Err("leave out the tag: a version is matched by its digest".to_owned());
        }
    }
    if text.starts_with('/') {
        // As far as nothing in it is special; what it really is may have such names, too.
        let special = ['*', '?', '[', '\\'];
        let parts: Vec<&str> = text.split('/').collect();
        let plain = parts.iter().position(|part| part.contains(special)).unwrap_or(parts.len());
        let mut real = String::new();
        for letter in real_path(Path::new(&parts[..plain].join("/"))).display().to_string().chars()
        {
            if special.contains(&letter) {
                real.push('\\');
            }
            real.push(letter);
        }
        let rest = parts[plain..].iter().map(|part| format!("/{part}"));
        let whole = format!("{}{}", real.trim_end_matches('/'), rest.collect::<String>());
        return NamePattern::new(&whole).map(Named::Pattern);
    }
    NamePattern::new(text).map(Named::Pattern)
}

/// Whether a name is one of those of a list of patterns that was checked.
pub(crate) fn covered(patterns: &[String], name: &str) -> bool {
    patterns.iter().filter_map(|text| NamePattern::new(text).ok()).any(|p| p.matches(name))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Policy, Problem> {
        Policy::read(&ConfigFile::new("/c/policy.toml".into(), WHAT, text.into()))
    }

    fn remote(text: &str) -> PluginRef {
        PluginRef::parse(text.as_ref(), std::path::Path::new("/w")).expect(text)
    }

    const KEY: &str = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3";

    #[test]
    fn the_first_entry_that_covers_counts() {
        let digest = Digest::of(b"evil");
        let policy = read(&format!(
            "[keys]\nteam = \"{KEY}\"\n\
             [[plugin]]\nmatch = \"{digest}\"\nallow = false\n\
             [[plugin]]\nmatch = [\"oci://r.example/team/*\", \"https://p.example/**\"]\n\
             signed-by = [\"team\"]\nnested = true\n\
             [[plugin]]\nmatch = \"oci://r.example/**\"\nallow = false\n\
             [[plugin]]\nmatch = \"builtin:earthfile\"\nallow = false\n"
        ));
        let policy = policy.expect("read");
        let fine = Digest::of(b"fine");
        let rule = |text: &str, digest: &Digest| {
            let source = remote(text);
            policy.rule(&source, digest).map(|rule| rule.map(|rule| rule.nested))
        };
        assert_eq!(rule("oci://r.example/team/x:1", &fine).expect("allowed"), Some(true));
        assert!(rule("oci://r.example/team/x:1", &digest).is_err(), "that one never");
        assert!(rule("oci://r.example/other:1", &fine).is_err());
        assert_eq!(rule("oci://else.example/x:1", &fine).expect("asked about"), None);
        assert_eq!(rule("builtin:steps", &fine).expect("bundled"), None);
        assert!(rule("builtin:earthfile", &fine).is_err());
        assert!(policy.check_name(&remote("oci://r.example/other:1")).is_err());
        assert!(policy.check_name(&remote("oci://r.example/team/x:1")).is_ok());
    }

    #[test]
    fn what_is_not_named_is_refused_if_the_user_says_so() {
        let digest = Digest::of(b"x");
        let policy = read(&format!("default = \"deny\"\n[[plugin]]\nmatch = \"{digest}\"\n"));
        let policy = policy.expect("read");
        let source = remote("oci://r.example/x:1");
        assert!(policy.check_name(&source).is_ok(), "it may be that one");
        assert!(policy.rule(&source, &digest).is_ok());
        let failure = policy.rule(&source, &Digest::of(b"y")).expect_err("it is not");
        assert!(failure.hints[0].contains("match = \"oci://r.example/x\""), "{failure:?}");
        assert!(policy.rule(&remote("./x.wasm"), &Digest::of(b"y")).is_err());
        assert!(policy.rule(&remote("builtin:steps"), &Digest::of(b"y")).is_ok());
        let lines = &failure.hints[0][failure.hints[0].find("[[").expect("lines")..];
        let with = format!("default = \"deny\"\n{lines}\n");
        assert!(read(&with).expect("it can be pasted").check_name(&source).is_ok());
    }

    #[test]
    fn a_file_is_matched_by_its_real_path() {
        let folder = tempfile::tempdir().expect("a directory");
        let root = folder.path().canonicalize().expect("a path");
        // A name that would be a pattern is what a link of a plain name leads to.
        std::fs::create_dir(root.join("[x]*")).expect("a directory");
        std::fs::write(root.join("[x]*/p.wasm"), "").expect("a file");
        std::os::unix::fs::symlink("[x]*", root.join("plain")).expect("a link");
        for name in ["in", "out"] {
            std::fs::create_dir(root.join(name)).expect("a directory");
            std::fs::write(root.join(name).join("p.wasm"), "").expect("a file");
        }
        std::os::unix::fs::symlink("in", root.join("link")).expect("a link");
        std::os::unix::fs::symlink("../out/p.wasm", root.join("in/o.wasm")).expect("a link");
        let shown = root.display();
        let file = |text: &str| PluginRef::parse(text.as_ref(), &root.join("in")).expect(text);
        let text = format!("[[plugin]]\nmatch = \"{shown}/plain/p.wasm\"\nallow = false");
        let never = read(&text).expect("read");
        assert!(never.check_name(&file("../[x]*/p.wasm")).is_err());
        assert!(never.check_name(&file("../in/p.wasm")).is_ok());
        // Also where the entry is written by the way of a link.
        for way in ["in", "link", "out/../link"] {
            let only = format!("default = \"deny\"\n[[plugin]]\nmatch = \"{shown}/{way}/**\"");
            let never = format!("[[plugin]]\nmatch = \"{shown}/{way}/p.wasm\"\nallow = false");
            let (only, never) = (read(&only).expect("read"), read(&never).expect("read"));
            let digest = Digest::of(b"");
            for text in ["p.wasm", "../in/p.wasm", "../link/./p.wasm", "../out/../in//p.wasm"] {
                let source = file(text);
                assert!(only.check_name(&source).is_ok(), "{way}: {text}");
                assert!(only.rule(&source, &digest).is_ok(), "{way}: {text}");
                assert!(never.check_name(&source).is_err(), "{way}: {text}");
                assert!(never.rule(&source, &digest).is_err(), "{way}: {text}");
            }
            for text in ["../out/p.wasm", "o.wasm", "../in/../out/p.wasm", "../link/o.wasm"] {
                assert!(only.check_name(&file(text)).is_err(), "{way}: {text}");
                assert!(never.check_name(&file(text)).is_ok(), "{way}: {text}");
            }
        }
    }

    #[test]
    fn mistakes() {
        for (text, says) in [
            ("default = \"maybe\"", "\"ask\" or \"deny\""),
            ("[[plugin]]\nallow = true", "match"),
            ("[[plugin]]\nmatch = []", "no pattern"),
            ("[[plugin]]\nmatch = \"steps\"", "called so"),
            ("[[plugin]]\nmatch = \"oci://r.example/x:1\"", "leave out the tag"),
            ("[[plugin]]\nmatch = \"oci://r.example\"", "missing"),
            ("[[plugin]]\nmatch = \"sha256:12\"", "no digest"),
            ("[[plugin]]\nmatch = \"oci://r/a**\"", "**"),
            ("[[plugin]]\nmatch = \"**\"\nsigned-by = [\"x\"]", "not known"),
            ("[[plugin]]\nmatch = \"**\"\nfiles = [\"!x\"]", "without !"),
            ("[[plugin]]\nmatch = \"**\"\ntools = [\"sh\"]", "tool"),
            ("[[plugin]]\nmatch = \"**\"\nlimits = { cpu = \"x\" }", "duration"),
            ("[keys]\nx = \"RW\"", "key"),
            ("[plugins]", "plugins"),
        ] {
            let problem = read(text).expect_err(text);
            let diagnostic = &problem.failure.diagnostics[0];
            assert!(diagnostic.message.contains(says), "{text}: {diagnostic:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(
            text in "(\\[\\[plugin\\]\\]\n|match = \"(oci://|sha256:|/)?[a-z*/:\\[]{0,9}\"\n|allow = (true|false)\n|default = \"(ask|deny)\"\n|[a-z=\"]{0,4}\n){0,6}",
            name in "(oci|https)://[a-z/]{1,9}(#sha256:[0-9a-f]{64})?",
        ) {
            if let (Ok(policy), Ok(Some(source))) = (read(&text), PluginRef::remote(&name)) {
                let digest = Digest::of(name.as_bytes());
                // What is refused by its name is refused whatever it turns out to be.
                if policy.check_name(&source).is_err() {
                    prop_assert!(policy.rule(&source, &digest).is_err());
                }
            }
        }
    }
}
