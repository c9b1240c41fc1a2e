//! What the user wrote for a backend.

use cache_records::Attrs;

use crate::{Error, FailureKind, Result};

/// The mode and the options of a backend: `type=NAME,key=value` without what the host is told by it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// It is to be written, and read as well.
    pub writable: bool,
    options: Attrs,
    known: Vec<&'static str>,
}

impl Config {
    /// Of these options.
    pub fn new(writable: bool, options: Attrs) -> Config {
        Config { writable, options, known: Vec::new() }
    }

    /// Takes an option out; the last one counts.
    pub fn take(&mut self, name: &'static str) -> Option<String> {
        self.known.push(name);
        let mut value = None;
        self.options.retain_mut(|(key, text)| {
            let wanted = key == name;
            if wanted {
                value = Some(std::mem::take(text));
            }
            !wanted
        });
        value
    }

    /// Takes an option out that there has to be.
    ///
    /// # Errors
    ///
    /// `Invalid` without it.
    pub fn need(&mut self, name: &'static str) -> Result<String> {
        self.take(name).ok_or_else(|| Error::invalid(format!("the option {name} is missing")))
    }

    /// Ends with the options: one that was not taken is a mistake of the user's, and never ignored. Those
    /// that begin with `x-` are.
    ///
    /// # Errors
    ///
    /// `Unsupported`, with those that are known.
    pub fn finish(self) -> Result<()> {
        let Some((key, _)) = self.options.iter().find(|(key, _)| !key.starts_with("x-")) else {
            return Ok(());
        };
        let error = Error::new(FailureKind::Unsupported, format!("there is no option {key:?}"));
        Err(match self.known.is_empty() {
            true => error,
            false => error.help(format!("known options: {}", self.known.join(", "))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_taken_and_none_is_ignored() {
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let options = vec![pair("url", "a"), pair("x-any", "1"), pair("url", "b")];
        let mut config = Config::new(true, options.clone());
        assert_eq!(config.need("url").expect("there is one"), "b");
        assert_eq!(config.take("auth"), None);
        config.finish().expect("all are known");
        let mut config = Config::new(true, options);
        assert_eq!(config.need("tag").expect_err("none").to_string(), "the option tag is missing");
        let failure = config.finish().expect_err("one is left").into_failure();
        assert_eq!(failure.message, "there is no option \"url\"");
        assert_eq!(failure.hints, ["known options: tag"]);
    }
}
