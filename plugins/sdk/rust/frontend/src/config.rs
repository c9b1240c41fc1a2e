//! Image configs.

use serde_json::{Map, Value as Json, json};
use wbuild_graph::Platform;

use crate::{Error, Result, State};

/// An OCI image config. What this type has no method for is kept as it is.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageConfig(Map<String, Json>);

impl ImageConfig {
    /// That of an image of nothing.
    pub fn new(platform: &Platform) -> Self {
        ImageConfig(Map::new()).platform(platform)
    }

    /// Reads one, as `Build::base` does.
    ///
    /// # Errors
    ///
    /// When it is no OCI image config.
    pub fn parse(text: &str) -> Result<Self> {
        let config: Json = serde_json::from_str(text)
            .map_err(|error| Error::invalid(format!("the image config is not JSON: {error}")))?;
        let Json::Object(mut config) = config else {
            return Err(Error::invalid("the image config is no JSON object"));
        };
        for (key, is) in
            [("config", Json::is_object as fn(&Json) -> bool), ("history", Json::is_array)]
        {
            match config.get(key) {
                Some(Json::Null) => drop(config.remove(key)),
                Some(value) if !is(value) => {
                    return Err(Error::invalid(format!("the image config has a wrong {key:?}")));
                }
                _ => {}
            }
        }
        // The host lists the layers itself.
        config.remove("rootfs");
        Ok(ImageConfig(config))
    }

    /// As `results.image` takes it.
    pub fn to_json(&self) -> String {
        // Tools expect these to be there.
        let mut config = self.0.clone();
        config.entry("config").or_insert_with(|| json!({}));
        Json::Object(config).to_string()
    }

    /// A field beside `config`, as it is.
    pub fn get(&self, key: &str) -> Option<&Json> {
        self.0.get(key)
    }

    /// Sets a field beside `config`.
    #[must_use]
    pub fn set(mut self, key: &str, value: impl Into<Json>) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    /// A field of `config`, as it is.
    pub fn get_config(&self, key: &str) -> Option<&Json> {
        self.0.get("config")?.get(key)
    }

    /// Sets a field of `config`.
    #[must_use]
    pub fn set_config(mut self, key: &str, value: impl Into<Json>) -> Self {
        let config = self.0.entry("config").or_insert_with(|| json!({}));
        config[key] = value.into();
        self
    }

    /// What the image is for.
    #[must_use]
    pub fn platform(self, platform: &Platform) -> Self {
        let config = self
            .set("architecture", platform.architecture.as_str())
            .set("os", platform.os.as_str());
        match &platform.variant {
            Some(variant) => config.set("variant", variant.as_str()),
            None => config,
        }
    }

    fn texts(&self, key: &str) -> Vec<String> {
        let list = self.get_config(key).and_then(Json::as_array).into_iter().flatten();
        list.filter_map(Json::as_str).map(str::to_owned).collect()
    }

    /// Its variables.
    pub fn get_env(&self) -> Vec<(String, String)> {
        let pair = |text: String| match text.split_once('=') {
            Some((name, value)) => (name.to_owned(), value.to_owned()),
            None => (text, String::new()),
        };
        self.texts("Env").into_iter().map(pair).collect()
    }

    /// Sets a variable.
    #[must_use]
    pub fn env(self, name: &str, value: &str) -> Self {
        let mut all = self.get_env();
        match all.iter_mut().find(|(known, _)| known == name) {
            Some(known) => known.1 = value.to_owned(),
            None => all.push((name.to_owned(), value.to_owned())),
        }
        self.all_env(&all)
    }

    fn all_env(self, all: &[(String, String)]) -> Self {
        let env: Vec<String> = all.iter().map(|(name, value)| format!("{name}={value}")).collect();
        self.set_config("Env", env)
    }

    fn get_text(&self, key: &str) -> &str {
        self.get_config(key).and_then(Json::as_str).unwrap_or_default()
    }

    /// The directory that its processes run in, or `/`.
    pub fn get_dir(&self) -> &str {
        match self.get_text("WorkingDir") {
            "" => "/",
            dir => dir,
        }
    }

    /// Sets the directory.
    #[must_use]
    pub fn dir(self, path: &str) -> Self {
        self.set_config("WorkingDir", path)
    }

    /// Who its processes run as; empty means root.
    pub fn get_user(&self) -> &str {
        self.get_text("User")
    }

    /// Sets the user.
    #[must_use]
    pub fn user(self, user: &str) -> Self {
        self.set_config("User", user)
    }

    /// Takes over the variables, directory and user of a state.
    #[must_use]
    pub fn of_state(self, state: &State) -> Self {
        let mut config = self;
        if !state.all_env().is_empty() {
            config = config.all_env(state.all_env());
        }
        if state.get_dir() != config.get_dir() {
            config = config.dir(state.get_dir());
        }
        if state.get_user() != config.get_user() {
            config = config.user(state.get_user());
        }
        config
    }

    /// What its containers run.
    #[must_use]
    pub fn entrypoint<S: Into<String>>(self, args: impl IntoIterator<Item = S>) -> Self {
        self.set_config("Entrypoint", args.into_iter().map(Into::into).collect::<Vec<String>>())
    }

    /// What its containers run by default, or the arguments of the entry point.
    #[must_use]
    pub fn cmd<S: Into<String>>(self, args: impl IntoIterator<Item = S>) -> Self {
        self.set_config("Cmd", args.into_iter().map(Into::into).collect::<Vec<String>>())
    }

    fn entry(mut self, key: &str, name: &str, value: Json) -> Self {
        let config = self.0.entry("config").or_insert_with(|| json!({}));
        if !config[key].is_object() {
            config[key] = json!({});
        }
        config[key][name] = value;
        self
    }

    /// A label.
    #[must_use]
    pub fn label(self, name: &str, value: &str) -> Self {
        self.entry("Labels", name, json!(value))
    }

    /// A port, `8080` or `53/udp`.
    #[must_use]
    pub fn expose(self, port: &str) -> Self {
        let port = if port.contains('/') { port.to_owned() } else { format!("{port}/tcp") };
        self.entry("ExposedPorts", &port, json!({}))
    }

    /// A path that holds data.
    #[must_use]
    pub fn volume(self, path: &str) -> Self {
        self.entry("Volumes", path, json!({}))
    }

    /// The signal that ends it.
    #[must_use]
    pub fn stop_signal(self, signal: &str) -> Self {
        self.set_config("StopSignal", signal)
    }

    /// A line of its history. One `layer` each for every layer that is added, in order; without one
    /// for what only changes the config.
    #[must_use]
    pub fn history(mut self, created_by: &str, layer: bool) -> Self {
        let mut entry = json!({ "created_by": created_by });
        if !layer {
            entry["empty_layer"] = json!(true);
        }
        if let Some(history) = self.0.entry("history").or_insert_with(|| json!([])).as_array_mut() {
            history.push(entry);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform() -> Platform {
        Platform::new("linux", "arm", Some("v7"))
    }

    #[test]
    fn a_config_is_what_was_said() {
        let config = ImageConfig::new(&platform())
            .env("A", "1")
            .env("B", "x=y")
            .env("A", "2")
            .dir("/w")
            .user("me")
            .cmd(["run", "it"])
            .label("l", "v")
            .expose("80")
            .volume("/data")
            .history("step", false);
        assert_eq!(
            config.to_json(),
            r#"{"architecture":"arm","os":"linux","variant":"v7","config":{"Env":["A=2","B=x=y"],"WorkingDir":"/w","User":"me","Cmd":["run","it"],"Labels":{"l":"v"},"ExposedPorts":{"80/tcp":{}},"Volumes":{"/data":{}}},"history":[{"created_by":"step","empty_layer":true}]}"#
        );
        assert_eq!(config.get_env(), [("A".into(), "2".into()), ("B".into(), "x=y".into())]);
    }

    #[test]
    fn what_is_not_known_is_kept_and_layers_are_the_hosts() {
        let text =
            r#"{"os":"linux","moon":1,"config":{"Strange":[1],"Env":["P=/bin"]},"rootfs":{}}"#;
        let config = ImageConfig::parse(text).expect("valid").env("Q", "1");
        let back = r#"{"os":"linux","moon":1,"config":{"Strange":[1],"Env":["P=/bin","Q=1"]}}"#;
        assert_eq!(config.to_json(), back);
        assert_eq!(
            ImageConfig::parse(r#"{"config":null}"#).expect("valid").to_json(),
            r#"{"config":{}}"#
        );
    }

    #[test]
    fn what_is_no_config_is_refused() {
        for text in ["", "[]", r#"{"config":[]}"#, r#"{"history":{}}"#] {
            assert!(ImageConfig::parse(text).is_err(), "{text}");
        }
    }
}
