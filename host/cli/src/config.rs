//! Files of configuration: where they are looked for, and how a mistake in one is shown.
//!
//! A file of a name is the one that the command line or the environment gives, else the user's, else
//! the machine's:
//!
//! ```text
//! $XDG_CONFIG_HOME/wbuild/NAME   (~/.config/wbuild/NAME)
//! /etc/wbuild/NAME
//! ```
//!
//! `config.toml` is about wbuild itself:
//!
//! ```toml
//! [cache]
//! max = "50GB"          # most that is kept; of the disk: "30%"
//! min-free = "10%"      # what is left free for others
//! reserved = "5GB"      # what is kept even where the disk has less free
//!
//! [[cache.policy]]      # further wishes, one after the other
//! filter = ["type=exec.cachemount"]   # about what, as `wbuild prune --filter`; all if it is missing
//! keep-for = "7d"       # what was used within this time stays
//! max = "10GB"          # of what is older, or of all if keep-for is missing, so much stays
//! ```

use std::path::Path;

use serde::Deserialize;
use toml::Spanned;
use wbuild_store::{Limits, Policy, Space};
use wbuild_supply::ConfigFile;
pub use wbuild_supply::read_file;

use crate::environment::{Environment, vars};
use crate::exit::Fault;
use crate::filter::{self, Filter};
use crate::units;

/// Where the files of the machine are, for those who have none of their own.
const OF_MACHINE: &str = "/etc/wbuild";

/// The file `name`, or the one that was `named` instead; none if there is none, and none was named.
pub fn find(
    named: Option<&Path>,
    name: &str,
    what: &'static str,
    environment: &Environment,
) -> Result<Option<ConfigFile>, Fault> {
    match named {
        Some(path) => Ok(Some(ConfigFile::named(environment.absolute(path), what)?)),
        None => {
            let dirs = environment.config_dir().into_iter().chain([OF_MACHINE.into()]);
            Ok(ConfigFile::first(dirs.map(|dir| dir.join(name)), what)?)
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    cache: Cache,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Cache {
    max: Option<Spanned<String>>,
    min_free: Option<Spanned<String>>,
    reserved: Option<Spanned<String>>,
    #[serde(default)]
    policy: Vec<Spanned<PolicyTable>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct PolicyTable {
    #[serde(default)]
    filter: Vec<Spanned<String>>,
    keep_for: Option<Spanned<String>>,
    max: Option<Spanned<String>>,
}

/// What may be kept on the disk.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Of everything together.
    pub limits: Limits,
    /// Of some of it.
    pub policies: Vec<Policy>,
}

/// What may be kept on the disk: as the command line says, else the environment, else `config.toml`.
pub fn kept(flag: Option<Space>, environment: &Environment) -> Result<Kept, Fault> {
    let named = environment.var_os(vars::CONFIG).map(Path::new);
    let Kept { mut limits, mut policies } = Kept::default();
    if let Some(file) = find(named, "config.toml", "configuration", environment)? {
        let Document { cache } = file.parse()?;
        limits = Limits {
            max_used: read(&file, cache.max, units::parse_ceiling)?,
            min_free: read(&file, cache.min_free, units::parse_space)?,
            reserved: read(&file, cache.reserved, units::parse_space)?,
        };
        let written = cache.policy.into_iter();
        policies = written.map(|written| policy(&file, written)).collect::<Result<_, _>>()?;
    }
    let from_environment = match environment.var(vars::CACHE_MAX)? {
        None => None,
        Some(text) => Some(
            units::parse_ceiling(text)
                .map_err(|why| Fault::usage(format!("{} is {text:?}: {why}", vars::CACHE_MAX)))?,
        ),
    };
    limits.max_used = flag.or(from_environment).or(limits.max_used);
    Ok(Kept { limits, policies })
}

/// What stands in a file, if it stands there.
fn read<T>(
    file: &ConfigFile,
    written: Option<Spanned<String>>,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<Option<T>, Fault> {
    let parsed = written.map(|written| {
        parse(written.get_ref()).map_err(|why| file.wrong(written.span(), &why, None).into())
    });
    parsed.transpose()
}

fn policy(file: &ConfigFile, written: Spanned<PolicyTable>) -> Result<Policy, Fault> {
    let at = written.span();
    let PolicyTable { filter, keep_for, max } = written.into_inner();
    if keep_for.is_none() && max.is_none() {
        let hint = Some("add keep-for or max, or both");
        let message = "a policy that says neither how long nor how much";
        return Err(file.wrong(at, message, hint).into());
    }
    let condition = |text: &str| match text.parse()? {
        Filter::Until(_) => Err("the age is said by keep-for".to_owned()),
        condition => Ok(condition),
    };
    let conditions = filter.into_iter().map(|text| read(file, Some(text), condition));
    let conditions: Vec<Option<Filter>> = conditions.collect::<Result<_, _>>()?;
    Ok(Policy {
        only: filter::choice(&conditions.into_iter().flatten().collect::<Vec<_>>()),
        keep_for: read(file, keep_for, units::parse_duration)?,
        max_used: read(file, max, units::parse_space)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_comes_first_then_the_environment_then_the_file() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let config = dir.path().join("wbuild/config.toml");
        std::fs::create_dir_all(config.parent().expect("a directory")).expect("made");
        let home = dir.path().to_str().expect("UTF-8");
        let read = |text: &str, vars: &[(&str, &str)], flag| {
            std::fs::write(&config, text).expect("written");
            let vars: Vec<_> = [("XDG_CONFIG_HOME", home)].iter().chain(vars).copied().collect();
            kept(flag, &Environment::of_parts(dir.path(), &vars))
        };
        let text = "[cache]\nmax = \"50GB\"\nmin-free = \"10%\"\nreserved = \"1 GiB\"\n";
        let of_file = Limits {
            max_used: Some(Space::Bytes(50_000_000_000)),
            min_free: Some(Space::Percent(10)),
            reserved: Some(Space::Bytes(1 << 30)),
        };
        let limits = |text| read(text, &[], None).expect("read").limits;
        assert_eq!((limits(text), limits("")), (of_file, Limits::default()));
        let variable = [("WBUILD_CACHE_MAX", "5 %")];
        let max = |kept: Kept| kept.limits.max_used;
        assert_eq!(max(read(text, &variable, None).expect("read")), Some(Space::Percent(5)));
        let flag = Some(Space::Bytes(7));
        assert_eq!(max(read(text, &variable, flag).expect("read")), flag);
        for (bad, says) in [
            ("[cache]\nmax = \"much\"\n", "unit"),
            ("[cache]\nmax = \"0\"\n", "100%"),
            ("[cache]\nmax = 5\n", "string"),
            ("[cache]\nmin-free = \"101%\"\n", "100%"),
            ("[cahce]\n", "cahce"),
            ("[cache]\nmaximum = \"1\"\n", "maximum"),
            ("[[cache.policy]]\nfilter = [\"shared\"]\n", "neither"),
            ("[[cache.policy]]\nkeep-for = \"soon\"\n", "duration"),
            ("[[cache.policy]]\nmax = \"1\"\nkeep = \"1h\"\n", "keep"),
            ("[[cache.policy]]\nmax = \"1 MB\"\nfilter = [\"type=mount\"]\n", "mount"),
            ("[[cache.policy]]\nmax = \"1 MB\"\nfilter = [\"until=1h\"]\n", "keep-for"),
        ] {
            let fault = read(bad, &[], None).expect_err(bad);
            let diagnostic = &fault.failure.diagnostics[0];
            assert!(diagnostic.message.contains(says), "{bad}: {diagnostic:?}");
            assert_eq!(diagnostic.labels.len(), 1, "{bad}");
        }
        let named = [("WBUILD_CONFIG", "nowhere.toml")];
        let fault = read("", &named, None).expect_err("it is not there");
        assert!(fault.failure.message.contains("nowhere.toml"), "{fault}");
        assert!(read("", &[("WBUILD_CACHE_MAX", "x")], None).is_err());
    }
    #[test]
    fn policies() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let text = "[[cache.policy]]\nfilter = [\"type=exec.cachemount\", \"private\"]\n\
            keep-for = \"7d\"\nmax = \"10GB\"\n[[cache.policy]]\nmax = \"5%\"\n";
        std::fs::write(dir.path().join("c.toml"), text).expect("written");
        let environment = Environment::of_parts(dir.path(), &[("WBUILD_CONFIG", "c.toml")]);
        let policies = kept(None, &environment).expect("read").policies;
        let seen = policies.iter().map(|policy| {
            (policy.only.is_some(), policy.keep_for.map(|age| age.as_secs()), policy.max_used)
        });
        let expected = [
            (true, Some(7 * 86_400), Some(Space::Bytes(10_000_000_000))),
            (false, None, Some(Space::Percent(5))),
        ];
        assert_eq!(seen.collect::<Vec<_>>(), expected);
    }
}
