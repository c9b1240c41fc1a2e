//! The config of the image that a stage makes (OCI image config, with Docker's extensions).
//!
//! Starts from the base's config, whose unknown fields are kept, and is changed by instructions.
//! `rootfs` is left out, and dates are the base's: the host knows the layers and the time. A change costs
//! next to nothing whatever has gathered already, so a file of thousands of `ENV` and `LABEL` lines
//! costs no more than its size.

use serde_json::{Map, Value, json};

use crate::ast::{Command, Healthcheck, Timing};
use crate::platform::Platform;
use crate::vars::Vars;
use crate::{gostyle, paths};

/// What builders and engines wrote into a config about how they made it. It is about the base, so an
/// image on top of it does not take it over.
const ABOUT_THE_BASE: [&str; 11] = [
    "id",
    "parent",
    "parent_id",
    "comment",
    "container",
    "container_config",
    "docker_version",
    "checksum",
    "Size",
    "moby.buildkit.buildinfo.v0",
    "moby.buildkit.cache.v0",
];

/// The same below `config`, where old engines kept the state of the container that was committed.
const ABOUT_A_CONTAINER: [&str; 15] = [
    "Hostname",
    "Domainname",
    "AttachStdin",
    "AttachStdout",
    "AttachStderr",
    "Tty",
    "OpenStdin",
    "StdinOnce",
    "Image",
    "NetworkDisabled",
    "MacAddress",
    "Memory",
    "MemorySwap",
    "CpuShares",
    "PublishService",
];

/// Marks history entries as made by this language.
const COMMENT: &str = "buildkit.dockerfile.v0";

/// What an entry of ours is longer than its text; an estimate.
const OWN_ENTRY: usize = 80;

/// Where programs are looked for if the base does not say.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An image config under construction.
#[derive(Clone, Debug)]
pub struct Image {
    /// Everything but `config` and `history`.
    fields: Map<String, Value>,
    /// `config` without `Env`.
    config: Map<String, Value>,
    env: Vars,
    history: Vec<Entry>,
}

/// An entry of the history.
#[derive(Clone, Debug)]
enum Entry {
    /// The base's, as it is.
    Base(Value),
    /// Of an instruction.
    Own { created_by: String, layer: bool },
}

impl Image {
    /// The config of an image without files.
    pub fn empty(platform: &Platform) -> Image {
        let mut image = Image {
            fields: Map::new(),
            config: Map::new(),
            env: Vars::default(),
            history: Vec::new(),
        };
        image.set_platform(platform);
        image.config.insert("WorkingDir".to_owned(), json!("/"));
        image
    }

    /// Takes over a base's config.
    pub fn parse(json: &str) -> Result<Image, String> {
        let mut fields: Map<String, Value> = match serde_json::from_str(json) {
            Ok(Value::Object(fields)) => fields,
            Ok(_) => return Err("the image config is not a JSON object".to_owned()),
            Err(error) => return Err(format!("the image config is not valid JSON: {error}")),
        };
        fields.shift_remove("rootfs");
        fields.retain(|name, _| !ABOUT_THE_BASE.contains(&name.as_str()));
        let mut config = match fields.shift_remove("config") {
            Some(Value::Object(config)) => config,
            None | Some(Value::Null) => Map::new(),
            Some(_) => return Err("`config` of the image config is not an object".to_owned()),
        };
        let history = match fields.shift_remove("history") {
            Some(Value::Array(history)) => history.into_iter().map(Entry::Base).collect(),
            None | Some(Value::Null) => Vec::new(),
            Some(_) => return Err("`history` of the image config is not a list".to_owned()),
        };
        let mut env = Vars::default();
        match config.shift_remove("Env") {
            Some(Value::Array(list)) => {
                for entry in &list {
                    let Some(entry) = entry.as_str() else {
                        return Err("`Env` of the image config holds more than strings".to_owned());
                    };
                    let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
                    env.set(name, value);
                }
            }
            None | Some(Value::Null) => {}
            Some(_) => return Err("`Env` of the image config is not a list".to_owned()),
        }
        config.retain(|name, value| {
            !ABOUT_A_CONTAINER.contains(&name.as_str()) && !means_nothing(value)
        });
        Ok(Image { fields, config, env, history })
    }

    /// The whole config as JSON.
    pub fn into_json(mut self) -> String {
        for set in ["ExposedPorts", "Labels", "Volumes"] {
            if let Some(Value::Object(set)) = self.config.get_mut(set) {
                set.sort_keys();
            }
        }
        if self.env.pairs().len() > 0 {
            let env = self.env.pairs().map(|(name, value)| [name, "=", value].concat());
            self.config.insert("Env".to_owned(), env.map(Value::from).collect());
        }
        self.fields.insert("config".to_owned(), Value::Object(self.config));
        let mut out = Vec::new();
        push_value(&mut out, &Value::Object(self.fields));
        // History may be far longer than the rest, so it does not become values first.
        out.pop();
        let length = |entry: &Entry| match entry {
            Entry::Base(_) => 0,
            Entry::Own { created_by, .. } => created_by.len() + OWN_ENTRY,
        };
        out.reserve(self.history.iter().map(length).sum());
        out.extend(b",\"history\":[");
        for (at, entry) in self.history.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            match entry {
                Entry::Base(value) => push_value(&mut out, value),
                Entry::Own { created_by, layer } => {
                    out.extend(b"{\"created_by\":");
                    push_string(&mut out, created_by);
                    out.extend(b",\"comment\":");
                    push_string(&mut out, COMMENT);
                    out.extend(if *layer { &b"}"[..] } else { b",\"empty_layer\":true}" });
                }
            }
        }
        out.extend(b"]}");
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    /// Says where the image runs.
    fn set_platform(&mut self, platform: &Platform) {
        let mut set = |name: &str, value: Option<Value>| match value {
            Some(value) => {
                self.fields.insert(name.to_owned(), value);
            }
            None => {
                self.fields.shift_remove(name);
            }
        };
        set("architecture", Some(json!(platform.architecture)));
        set("os", Some(json!(platform.os)));
        set("variant", platform.variant.as_ref().map(|variant| json!(variant)));
        set("os.version", platform.os_version.as_ref().map(|version| json!(version)));
        if !platform.os_features.is_empty() {
            set("os.features", Some(json!(platform.os_features)));
        }
    }

    /// Where the config says that the image runs, by the common names; none if it does not say.
    pub fn platform(&self) -> Option<Platform> {
        let field = |name: &str| self.fields.get(name).and_then(Value::as_str).unwrap_or_default();
        let (os, architecture) = (field("os"), field("architecture"));
        if os.is_empty() || architecture.is_empty() {
            return None;
        }
        let mut platform = Platform::new(os, architecture, Some(field("variant")));
        platform.os_version = Some(field("os.version").to_owned()).filter(|v| !v.is_empty());
        Some(platform)
    }

    /// Settles where the image runs when its stage is done. If the caller `asked` for `target`, it
    /// is of that platform, with what the base says more of the same one; if not, what the base
    /// says holds.
    pub fn settle_platform(&mut self, target: &Platform, asked: bool) {
        let platform = match self.platform() {
            Some(own) if !asked => own,
            Some(own) if own.os == target.os && own.architecture == target.architecture => {
                Platform {
                    variant: target.variant.clone().or(own.variant),
                    os_version: target.os_version.clone().or(own.os_version),
                    ..target.clone()
                }
            }
            _ => target.clone(),
        };
        self.set_platform(&platform);
    }

    /// The operating system, or nothing.
    pub fn os(&self) -> &str {
        self.fields.get("os").and_then(Value::as_str).unwrap_or_default()
    }

    /// The environment that containers start with.
    pub fn env(&self) -> &Vars {
        &self.env
    }

    /// Sets a variable of that environment.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.env.set(name, value);
    }

    fn text(&self, name: &str) -> &str {
        self.config.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.config.insert(name.to_owned(), value.into());
    }

    fn list(&self, name: &str) -> Vec<String> {
        let list = self.config.get(name).and_then(Value::as_array);
        let strings = list.into_iter().flatten().filter_map(Value::as_str);
        strings.map(str::to_owned).collect()
    }

    /// An object below `config`, made if it is not there.
    fn object(&mut self, name: &str) -> &mut Map<String, Value> {
        let entry = self.config.entry(name).or_insert_with(|| Value::Object(Map::new()));
        if !entry.is_object() {
            *entry = Value::Object(Map::new());
        }
        entry.as_object_mut().expect("it was just made an object")
    }

    /// A list of the config, or nothing if it is empty.
    fn set_list(&mut self, name: &str, list: &[String]) {
        if list.is_empty() {
            self.config.shift_remove(name);
        } else {
            self.set(name, list);
        }
    }

    /// The working directory; `/` if none is set.
    pub fn working_dir(&self) -> &str {
        match self.text("WorkingDir") {
            "" => "/",
            path => path,
        }
    }

    /// Makes a base's working directory absolute and short, if it has one.
    pub fn tidy_working_dir(&mut self) {
        let path = self.text("WorkingDir");
        if !path.is_empty() {
            let path = paths::rooted(path);
            self.set_working_dir(&path);
        }
    }

    /// Sets the working directory to an absolute path.
    pub fn set_working_dir(&mut self, path: &str) {
        self.set("WorkingDir", path);
    }

    /// The user as written; empty if none is set.
    pub fn user(&self) -> &str {
        self.text("User")
    }

    /// Sets the user.
    pub fn set_user(&mut self, user: &str) {
        self.set("User", user);
    }

    /// Sets a label.
    pub fn set_label(&mut self, name: &str, value: &str) {
        self.object("Labels").insert(name.to_owned(), Value::from(value));
    }

    /// Whether a shell was chosen.
    pub fn has_shell(&self) -> bool {
        !self.list("Shell").is_empty()
    }

    /// The shell that runs the shell form of commands.
    pub fn shell(&self) -> Vec<String> {
        match self.list("Shell") {
            shell if !shell.is_empty() => shell,
            _ if self.os() == "windows" => vec!["cmd".to_owned(), "/S".to_owned(), "/C".to_owned()],
            _ => vec!["/bin/sh".to_owned(), "-c".to_owned()],
        }
    }

    /// Sets that shell.
    pub fn set_shell(&mut self, shell: &[String]) {
        self.set("Shell", shell);
    }

    /// Sets the default command.
    pub fn set_cmd(&mut self, words: &[String]) {
        self.set_list("Cmd", words);
        // Deprecated, but what builders have always written.
        self.set("ArgsEscaped", true);
    }

    /// Drops the default command.
    pub fn clear_cmd(&mut self) {
        self.config.shift_remove("Cmd");
    }

    /// The entry point; empty if there is none.
    pub fn entrypoint(&self) -> Vec<String> {
        self.list("Entrypoint")
    }

    /// Sets the entry point.
    pub fn set_entrypoint(&mut self, words: &[String]) {
        self.set_list("Entrypoint", words);
    }

    /// Adds a port such as `80/tcp`.
    pub fn expose(&mut self, port: &str) {
        let ports = self.object("ExposedPorts");
        ports.insert(port.to_owned(), json!({}));
    }

    /// Adds a volume.
    pub fn add_volume(&mut self, path: &str) {
        let volumes = self.object("Volumes");
        volumes.insert(path.to_owned(), json!({}));
    }

    /// Sets the signal that ends a container.
    pub fn set_stop_signal(&mut self, signal: &str) {
        self.set("StopSignal", signal);
    }

    /// Sets the health check; `test` starts with its kind (`NONE`, `CMD`, `CMD-SHELL`).
    pub fn set_healthcheck(&mut self, test: &[String], timing: &Timing) {
        let mut check = Map::new();
        check.insert("Test".to_owned(), json!(test));
        for (name, value) in [
            ("Interval", timing.interval),
            ("Timeout", timing.timeout),
            ("StartPeriod", timing.start_period),
            ("StartInterval", timing.start_interval),
            ("Retries", timing.retries),
        ] {
            if value != 0 {
                check.insert(name.to_owned(), Value::from(value));
            }
        }
        self.set("Healthcheck", check);
    }

    /// Stores an instruction for builds on top of the image.
    pub fn add_trigger(&mut self, expression: &str) {
        let entry = self.config.entry("OnBuild").or_insert_with(|| json!([]));
        match entry.as_array_mut() {
            Some(triggers) => triggers.push(json!(expression)),
            None => *entry = json!([expression]),
        }
    }

    /// Takes those instructions out: they are carried out once, by the first build on top.
    pub fn take_triggers(&mut self) -> Vec<String> {
        let triggers = self.list("OnBuild");
        self.config.shift_remove("OnBuild");
        triggers
    }

    /// Sets the author.
    pub fn set_author(&mut self, author: &str) {
        self.fields.insert("author".to_owned(), json!(author));
    }

    /// Adds a history entry. `layer`: the instruction made a layer.
    pub fn add_history(&mut self, created_by: String, layer: bool) {
        self.history.push(Entry::Own { created_by, layer });
    }
}

/// Whether an image has any files. Old configs do not list their layers, but history tells.
pub fn has_layers(config: &str) -> bool {
    let Ok(config) = serde_json::from_str::<Value>(config) else { return true };
    let listed = config["rootfs"]["diff_ids"].as_array().is_some_and(|list| !list.is_empty());
    let history = config["history"].as_array().into_iter().flatten();
    listed || history.into_iter().any(|entry| entry["empty_layer"].as_bool() != Some(true))
}

/// A health check as the config has it: its kind, and the command.
pub fn healthcheck_test(check: &Healthcheck) -> (Vec<String>, Timing) {
    match check {
        Healthcheck::None => (vec!["NONE".to_owned()], Timing::default()),
        Healthcheck::Check { command, timing } => {
            let (kind, words): (&str, Vec<String>) = match command {
                Command::Shell(text) => ("CMD-SHELL", vec![text.as_str().to_owned()]),
                Command::Exec(words) => {
                    ("CMD", words.iter().map(|word| word.as_str().to_owned()).collect())
                }
            };
            (std::iter::once(kind.to_owned()).chain(words).collect(), *timing)
        }
    }
}

/// Appends a value as JSON.
fn push_value(out: &mut Vec<u8>, value: &Value) {
    serde_json::to_writer(out, value).expect("a Vec takes all");
}

/// Appends a string as JSON.
fn push_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a Vec takes all");
}

/// What stands in a config for something that is not set.
fn means_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    }
}

/// A health check as history shows it.
pub(crate) fn healthcheck_history(test: &[String], timing: &Timing) -> String {
    format!(
        "HEALTHCHECK {{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        gostyle::plain_list(test),
        gostyle::duration(timing.interval),
        gostyle::duration(timing.timeout),
        gostyle::duration(timing.start_period),
        gostyle::duration(timing.start_interval),
        timing.retries,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_what_it_does_not_know() {
        let base = r#"{"architecture":"arm64","os":"linux","x-field":[1],"created":"2020","rootfs":{"type":"layers"},
            "config":{"Env":["PATH=/bin","A"],"Cmd":["sh"],"X":{"y":1},"Volumes":null,"OnBuild":["RUN x"]},
            "history":[{"created":"2020","created_by":"base"}]}"#;
        let mut image = Image::parse(base).expect("valid");
        assert_eq!(image.env().get("A"), Some(""));
        assert_eq!(image.take_triggers(), ["RUN x"]);
        image.set_env("PATH", "/usr/bin");
        image.set_env("B", "2");
        image.add_volume("/data");
        image.set_label("a", "b");
        image.add_history("ENV B=2".to_owned(), false);
        assert_eq!(
            image.into_json(),
            r#"{"architecture":"arm64","os":"linux","x-field":[1],"created":"2020","config":{"Cmd":["sh"],"X":{"y":1},"Volumes":{"/data":{}},"Labels":{"a":"b"},"Env":["PATH=/usr/bin","A=","B=2"]},"history":[{"created":"2020","created_by":"base"},{"created_by":"ENV B=2","comment":"buildkit.dockerfile.v0","empty_layer":true}]}"#
        );
    }

    #[test]
    fn refuses_configs_of_another_shape() {
        for bad in ["", "[]", "{\"config\":1}", "{\"history\":{}}", "{\"config\":{\"Env\":[1]}}"] {
            assert!(Image::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn healthchecks_look_as_everywhere() {
        let timing = Timing { interval: 30_000_000_000, retries: 3, ..Timing::default() };
        let test = ["CMD-SHELL".to_owned(), "curl -f http://localhost/".to_owned()];
        assert_eq!(
            healthcheck_history(&test, &timing),
            "HEALTHCHECK {Test:[CMD-SHELL curl -f http://localhost/] Interval:30s Timeout:0s StartPeriod:0s StartInterval:0s Retries:3}"
        );
    }
}
