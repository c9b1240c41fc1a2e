//! Image configs: JSON kept as it came, with checked access to what the host needs.
//!
//! OCI image specification, config.md. [`ImageConfig::decode`] takes a base image's config;
//! [`ImageConfig::finish`] makes the config of a built image from the frontend's JSON by adding what
//! only the host knows: diff ids and dates. Key order is the author's; keys we do not know stay.

use serde_json::{Map, Value, json};
use wbuild_graph::{ChainId, DiffId, Platform};

use crate::error::{Error, Result};
use crate::media::{Descriptor, MAX_CONFIG, MAX_LAYERS, MediaFamily};
use crate::time::Timestamp;

/// The key under which records of a build cache are kept in a config; they belong to that image and
/// to none that is built on it.
pub const CACHE_KEY: &str = "wbuild.cache.v1";

/// A checked image config.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageConfig {
    bytes: Vec<u8>,
    root: Map<String, Value>,
    platform: Platform,
    diff_ids: Vec<DiffId>,
}

/// What the host adds to a frontend's config.
#[derive(Clone, Debug)]
pub struct Finish<'a> {
    /// Diff ids of all layers, bottom first, those of the base included.
    pub diff_ids: &'a [DiffId],
    /// Platform the image is built for; fills what the JSON leaves out. What it says stays: a stage
    /// may be of another platform than the one that is built for, and the nearest base of an older
    /// variant.
    pub platform: &'a Platform,
    /// Date of the config and of history entries that have none (build time or `SOURCE_DATE_EPOCH`).
    /// `None` leaves them undated.
    pub created: Option<Timestamp>,
    /// What is kept under [`CACHE_KEY`].
    pub cache: Option<Value>,
}

impl ImageConfig {
    /// Decodes the config of an existing image; `what` names it in errors.
    pub fn decode(bytes: &[u8], what: &str) -> Result<Self> {
        let root = object(bytes, what)?;
        Self::from_parts(bytes.to_vec(), root, what)
    }

    fn from_parts(bytes: Vec<u8>, root: Map<String, Value>, what: &str) -> Result<Self> {
        let bad =
            |reason: &str| Error::invalid(format!("{what} is not a valid image config: {reason}"));
        let text = |key: &str| match root.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str())),
            Some(_) => Err(bad(&format!("{key} is not a string"))),
        };
        let os = text("os")?.ok_or_else(|| bad("os is missing"))?;
        let architecture = text("architecture")?.ok_or_else(|| bad("architecture is missing"))?;
        let mut platform = Platform::new(os, architecture, text("variant")?);
        platform.os_version = text("os.version")?.map(str::to_owned);
        match root.get("config") {
            None | Some(Value::Null | Value::Object(_)) => {}
            Some(_) => return Err(bad("config is not an object")),
        }
        let diff_ids = match root.get("rootfs") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Object(rootfs)) => match rootfs.get("diff_ids") {
                None | Some(Value::Null) => Vec::new(),
                Some(Value::Array(ids)) => {
                    if ids.len() > MAX_LAYERS {
                        return Err(Error::limit(format!(
                            "{what} has more than {MAX_LAYERS} layers"
                        )));
                    }
                    let id = |v: &Value| v.as_str().and_then(|text| text.parse::<DiffId>().ok());
                    ids.iter()
                        .map(id)
                        .collect::<Option<_>>()
                        .ok_or_else(|| bad("a diff id is malformed"))?
                }
                Some(_) => return Err(bad("rootfs.diff_ids is not a list")),
            },
            Some(_) => return Err(bad("rootfs is not an object")),
        };
        Ok(ImageConfig { bytes, root, platform, diff_ids })
    }

    /// The config of a built image: `frontend` is the JSON object the frontend wrote (history
    /// included, `created`, `rootfs` and dates left to the host).
    ///
    /// Every layer gets exactly one history entry without `empty_layer`: where the frontend wrote
    /// fewer, entries are appended; where it wrote more, that is an error, as it says the image has
    /// layers that it does not have.
    pub fn finish(frontend: &[u8], with: &Finish<'_>) -> Result<Self> {
        let what = "the image config of the frontend";
        let bad = |reason: String| Error::invalid(format!("{what} cannot be used: {reason}"));
        let mut root = object(frontend, what)?;
        let created = with.created.map(|t| t.to_string());

        let platform = with.platform;
        let says_other = |key: &str, value: &str| {
            root.get(key).and_then(Value::as_str).is_some_and(|said| said != value)
        };
        // A variant is one of an architecture.
        let other =
            says_other("architecture", &platform.architecture) || says_other("os", &platform.os);
        let parts = [
            ("architecture", Some(&platform.architecture)),
            ("os", Some(&platform.os)),
            ("variant", platform.variant.as_ref().filter(|_| !other)),
            ("os.version", platform.os_version.as_ref().filter(|_| !other)),
        ];
        for (key, value) in parts {
            if let (Some(value), None | Some(Value::Null)) = (value, root.get(key)) {
                root.insert(key.to_owned(), json!(value));
            }
        }
        if let Some(created) = &created {
            root.insert("created".to_owned(), json!(created));
        }

        let mut history = match root.shift_remove("history") {
            None | Some(Value::Null) => Vec::new(),
            Some(Value::Array(history)) => history,
            Some(_) => return Err(bad("history is not a list".to_owned())),
        };
        let mut described = 0;
        for entry in &mut history {
            let Value::Object(entry) = entry else {
                return Err(bad("a history entry is not an object".to_owned()));
            };
            match entry.get("empty_layer") {
                None | Some(Value::Null | Value::Bool(false)) => described += 1,
                Some(Value::Bool(true)) => {}
                Some(_) => return Err(bad("empty_layer is not a boolean".to_owned())),
            }
            if let (Some(created), None | Some(Value::Null)) = (&created, entry.get("created")) {
                // First, as every tool writes it.
                entry.shift_insert(0, "created".to_owned(), json!(created));
            }
        }
        let layers = with.diff_ids.len();
        if described > layers {
            return Err(bad(format!(
                "its history describes {described} layers, the image has {layers}"
            )));
        }
        for _ in described..layers {
            let mut entry = Map::new();
            if let Some(created) = &created {
                entry.insert("created".to_owned(), json!(created));
            }
            entry.insert("comment".to_owned(), json!("layer without a history entry"));
            history.push(Value::Object(entry));
        }
        root.insert("history".to_owned(), Value::Array(history));
        let ids: Vec<String> = with.diff_ids.iter().map(ToString::to_string).collect();
        root.insert("rootfs".to_owned(), json!({ "type": "layers", "diff_ids": ids }));

        root.shift_remove(CACHE_KEY);
        if let Some(cache) = &with.cache {
            root.insert(CACHE_KEY.to_owned(), cache.clone());
        }

        let bytes = serde_json::to_vec(&root).expect("JSON values can be written");
        if bytes.len() as u64 > MAX_CONFIG {
            return Err(Error::limit(format!("{what} is larger than {MAX_CONFIG} bytes")));
        }
        Self::from_parts(bytes, root, what)
    }

    /// The JSON, byte for byte.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The descriptor of [`bytes`](Self::bytes).
    pub fn descriptor(&self, family: MediaFamily) -> Descriptor {
        Descriptor::of(family.config(), &self.bytes)
    }

    /// The platform, normalised.
    pub fn platform(&self) -> &Platform {
        &self.platform
    }

    /// Diff ids of the layers, bottom first.
    pub fn diff_ids(&self) -> &[DiffId] {
        &self.diff_ids
    }

    /// Identity of the whole stack of layers; `None` without layers.
    pub fn chain_id(&self) -> Option<ChainId> {
        ChainId::of(&self.diff_ids)
    }

    /// The whole document.
    pub fn root(&self) -> &Map<String, Value> {
        &self.root
    }

    /// `config`: the process defaults.
    pub fn process(&self) -> Option<&Map<String, Value>> {
        self.root.get("config").and_then(Value::as_object)
    }

    /// `config.Env`, as `NAME=value`; entries of other types are passed over.
    pub fn env(&self) -> Vec<&str> {
        let env = self.process().and_then(|c| c.get("Env")).and_then(Value::as_array);
        env.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// A string of `config`, e.g. `User` or `WorkingDir`; empty counts as absent.
    pub fn process_string(&self, key: &str) -> Option<&str> {
        self.process()?.get(key)?.as_str().filter(|text| !text.is_empty())
    }
}

fn object(bytes: &[u8], what: &str) -> Result<Map<String, Value>> {
    if bytes.len() as u64 > MAX_CONFIG {
        return Err(Error::limit(format!("{what} is larger than {MAX_CONFIG} bytes")));
    }
    serde_json::from_slice(bytes)
        .map_err(|error| Error::invalid(format!("{what} is not a JSON object")).because(error))
}

#[cfg(test)]
mod tests {
    use wbuild_graph::Digest;

    use super::*;

    fn finish(frontend: &str, layers: &[&[u8]]) -> Result<ImageConfig> {
        let ids: Vec<DiffId> = layers.iter().map(|l| DiffId(Digest::of(l))).collect();
        let platform = "linux/arm/v7".parse().expect("platform");
        let created = Some(Timestamp::from_seconds(1_700_000_000));
        ImageConfig::finish(
            frontend.as_bytes(),
            &Finish { diff_ids: &ids, platform: &platform, created, cache: None },
        )
    }

    #[test]
    fn dates_history_and_keeps_what_is_there() {
        let config = finish(
            r#"{"os":"linux","x":{"b":1,"a":2},"config":{"Env":["A=b"],"User":""},"history":[
                {"created":"2020-01-01T00:00:00Z","created_by":"base"},
                {"created_by":"ENV A=b","empty_layer":true},
                {"created_by":"RUN x"}]}"#,
            &[b"a", b"b"],
        )
        .expect("fits");
        let text = std::str::from_utf8(config.bytes()).expect("utf-8");
        assert_eq!(
            text,
            format!(
                concat!(
                    r#"{{"os":"linux","x":{{"b":1,"a":2}},"config":{{"Env":["A=b"],"User":""}},"#,
                    r#""architecture":"arm","variant":"v7","created":"2023-11-14T22:13:20Z","history":["#,
                    r#"{{"created":"2020-01-01T00:00:00Z","created_by":"base"}},"#,
                    r#"{{"created":"2023-11-14T22:13:20Z","created_by":"ENV A=b","empty_layer":true}},"#,
                    r#"{{"created":"2023-11-14T22:13:20Z","created_by":"RUN x"}}],"#,
                    r#""rootfs":{{"type":"layers","diff_ids":["{}","{}"]}}}}"#
                ),
                Digest::of(b"a"),
                Digest::of(b"b")
            )
        );
        assert_eq!(config.env(), ["A=b"]);
        assert_eq!(config.process_string("User"), None);
        assert_eq!(ImageConfig::decode(config.bytes(), "it").expect("own output"), config);
    }

    #[test]
    fn history_matches_layers() {
        let padded =
            finish(r#"{"history":[{"created_by":"one"}]}"#, &[b"a", b"b", b"c"]).expect("padded");
        assert_eq!(padded.root()["history"].as_array().expect("list").len(), 3);
        assert_eq!(padded.chain_id(), ChainId::of(padded.diff_ids()));
        let error = finish(r#"{"history":[{},{}]}"#, &[b"a"]).expect_err("too many");
        assert!(error.to_string().contains("describes 2 layers, the image has 1"), "{error}");
        let empty = finish("{}", &[]).expect("no layers");
        assert_eq!((empty.diff_ids().len(), empty.chain_id()), (0, None));
    }

    #[test]
    fn refuses_malformed_configs() {
        for bad in [
            "",
            "[]",
            "null",
            "{",
            r#"{"os":1}"#,
            r#"{"os":"linux"}"#,
            r#"{"os":"linux","architecture":""}"#,
            r#"{"os":"linux","architecture":"arm","rootfs":[]}"#,
            r#"{"os":"linux","architecture":"arm","rootfs":{"diff_ids":["x"]}}"#,
            r#"{"os":"linux","architecture":"arm","rootfs":{"diff_ids":"x"}}"#,
            r#"{"os":"linux","architecture":"arm","config":[]}"#,
        ] {
            assert!(ImageConfig::decode(bad.as_bytes(), "it").is_err(), "{bad}");
        }
        for bad in [
            r#"{"history":{}}"#,
            r#"{"history":[1]}"#,
            r#"{"history":[{"empty_layer":1}]}"#,
            r#"{"os":"windows","architecture":1}"#,
        ] {
            assert!(finish(bad, &[b"a"]).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_config_says_of_its_platform_stays() {
        let finish = |config: &str, platform: &str| {
            let platform: Platform = platform.parse().expect("a platform");
            let with = Finish { diff_ids: &[], platform: &platform, created: None, cache: None };
            let made = ImageConfig::finish(config.as_bytes(), &with).expect("a config");
            made.platform().to_string()
        };
        for (config, built_for, says) in [
            ("{}", "linux/arm/v6", "linux/arm/v6"),
            (r#"{"os":"linux","architecture":"arm64"}"#, "linux/amd64", "linux/arm64"),
            (r#"{"os":"linux","architecture":"arm64"}"#, "linux/amd64/v3", "linux/arm64"),
            (
                r#"{"os":"linux","architecture":"arm","variant":"v5"}"#,
                "linux/arm/v6",
                "linux/arm/v5",
            ),
            (r#"{"os":"windows"}"#, "linux/amd64/v2", "windows/amd64"),
        ] {
            assert_eq!(finish(config, built_for), says, "{config} for {built_for}");
        }
    }
}
