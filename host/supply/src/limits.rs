//! Limits of plugins as projects and policies write them. Which there are, and what they are unless
//! somebody says so, is [`wbuild_plugin::Limits`]'.

use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;
use wbuild_plugin::{Limits, PluginKind};

use crate::document::{ConfigFile, Problem};
use crate::units;

/// Limits that somebody wrote down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitChanges {
    /// Linear memory, in bytes.
    pub memory: Option<usize>,
    /// What the host holds for the plugin, in bytes.
    pub host_memory: Option<usize>,
    /// Processor time of a call.
    pub cpu: Option<Duration>,
    /// Time of a call on the wall.
    pub call_timeout: Option<Duration>,
    /// Handles at once.
    pub handles: Option<usize>,
}

/// As it is written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct LimitsTable {
    memory: Option<Spanned<String>>,
    host_memory: Option<Spanned<String>>,
    cpu: Option<Spanned<String>>,
    call_timeout: Option<Spanned<String>>,
    handles: Option<Spanned<u32>>,
}

/// Most memory that a policy may grant: what 32 bits address.
const MOST_MEMORY: u64 = 4 << 30;
/// Longest time that a policy may grant.
const MOST_TIME: Duration = Duration::from_secs(24 * 3600);

impl LimitsTable {
    pub(crate) fn read(self, file: &ConfigFile) -> Result<LimitChanges, Problem> {
        let size = |written: Option<Spanned<String>>| {
            written.map(|written| {
                let bytes = units::parse_size(written.get_ref()).and_then(|bytes| match bytes {
                    1..=MOST_MEMORY => Ok(usize::try_from(bytes).unwrap_or(usize::MAX)),
                    _ => Err("expected more than nothing and at most 4GiB".to_owned()),
                });
                bytes.map_err(|why| file.wrong(written.span(), &why, None))
            })
        };
        let time = |written: Option<Spanned<String>>| {
            written.map(|written| {
                let time = units::parse_duration(written.get_ref()).and_then(|time| {
                    if time.is_zero() || time > MOST_TIME {
                        return Err("expected more than nothing and at most 24h".to_owned());
                    }
                    Ok(time)
                });
                time.map_err(|why| file.wrong(written.span(), &why, None))
            })
        };
        Ok(LimitChanges {
            memory: size(self.memory).transpose()?,
            host_memory: size(self.host_memory).transpose()?,
            cpu: time(self.cpu).transpose()?,
            call_timeout: time(self.call_timeout).transpose()?,
            handles: self.handles.map(|handles| *handles.get_ref() as usize),
        })
    }
}

/// A limit that holds for a plugin, and who has said so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitLine {
    /// As it is written in policies and projects.
    pub name: &'static str,
    /// For people.
    pub value: String,
    /// `default`, `policy` or `project`.
    pub from: &'static str,
}

/// What holds for a plugin of a kind, by a policy and a project.
pub(crate) fn lines(
    kind: PluginKind,
    policy: &LimitChanges,
    project: &LimitChanges,
) -> Vec<LimitLine> {
    let (set, lowered) =
        (policy.set(Limits::of(kind)), project.lower(policy.set(Limits::of(kind))));
    let size = |bytes: usize| format!("{} KiB", bytes >> 10);
    let size = |bytes: usize| match bytes % (1 << 20) {
        0 => format!("{} MiB", bytes >> 20),
        _ => size(bytes),
    };
    let time = |time: Duration| format!("{} s", time.as_secs());
    let wall = |limits: Limits| limits.wall.map_or_else(|| "none".to_owned(), time);
    let line = |name, value: &dyn Fn(Limits) -> String, said: bool| {
        let from = match (value(set) == value(lowered), said) {
            (false, _) => "project",
            (true, true) => "policy",
            (true, false) => "default",
        };
        LimitLine { name, value: value(lowered), from }
    };
    vec![
        line("memory", &|limits| size(limits.memory_bytes), policy.memory.is_some()),
        line("host-memory", &|limits| size(limits.buffered_bytes), policy.host_memory.is_some()),
        line("cpu", &|limits| time(limits.cpu), policy.cpu.is_some()),
        line("call-timeout", &wall, policy.call_timeout.is_some()),
        line("handles", &|limits| limits.handles.to_string(), policy.handles.is_some()),
    ]
}

impl LimitChanges {
    /// The user's limits in place of the defaults.
    #[must_use]
    pub fn set(&self, mut limits: Limits) -> Limits {
        limits.memory_bytes = self.memory.unwrap_or(limits.memory_bytes);
        limits.buffered_bytes = self.host_memory.unwrap_or(limits.buffered_bytes);
        limits.cpu = self.cpu.unwrap_or(limits.cpu);
        limits.wall = self.call_timeout.or(limits.wall);
        limits.handles = self.handles.unwrap_or(limits.handles);
        limits
    }

    /// The project's limits where they are lower.
    #[must_use]
    pub fn lower(&self, mut limits: Limits) -> Limits {
        let least = |ours: Option<usize>, theirs: usize| ours.unwrap_or(theirs).min(theirs);
        limits.memory_bytes = least(self.memory, limits.memory_bytes);
        limits.buffered_bytes = least(self.host_memory, limits.buffered_bytes);
        limits.cpu = self.cpu.unwrap_or(limits.cpu).min(limits.cpu);
        limits.wall = match (self.call_timeout, limits.wall) {
            (Some(ours), Some(theirs)) => Some(ours.min(theirs)),
            (ours, theirs) => ours.or(theirs),
        };
        limits.handles = least(self.handles, limits.handles);
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<LimitChanges, Problem> {
        let file = ConfigFile::new("x.toml".into(), "test", text.into());
        file.parse::<LimitsTable>()?.read(&file)
    }

    #[test]
    fn a_policy_sets_and_a_project_lowers() {
        let defaults = Limits::of(PluginKind::Frontend);
        let high =
            read("memory = \"1GiB\"\ncpu = \"1m\"\ncall-timeout = \"5s\"\n").expect("limits");
        let raised = high.set(defaults);
        assert_eq!((raised.memory_bytes, raised.cpu.as_secs()), (1 << 30, 60));
        assert_eq!(raised.handles, defaults.handles);
        let lowered = high.lower(defaults);
        assert_eq!((lowered.memory_bytes, lowered.cpu), (defaults.memory_bytes, defaults.cpu));
        assert_eq!(lowered.wall, Some(Duration::from_secs(5)), "less than as long as it takes");
        let from = |project: &LimitChanges| {
            let lines = lines(PluginKind::Frontend, &high, project);
            lines.iter().map(|line| line.from).collect::<Vec<_>>()
        };
        assert_eq!(
            from(&LimitChanges::default()),
            ["policy", "default", "policy", "policy", "default"]
        );
        let low = read("memory = \"1MiB\"\nhandles = 3\nhost-memory = \"2MiB\"\n").expect("limits");
        let lowered = low.lower(raised);
        assert_eq!((lowered.memory_bytes, lowered.handles), (1 << 20, 3));
        assert_eq!(lowered.buffered_bytes, 2 << 20);
        assert_eq!(from(&low), ["project", "project", "policy", "policy", "project"]);
    }

    #[test]
    fn what_is_no_limit() {
        for (text, says) in [
            ("memory = \"0\"", "nothing"),
            ("memory = \"5GiB\"", "4GiB"),
            ("memory = 5", "string"),
            ("cpu = \"soon\"", "duration"),
            ("cpu = \"25h\"", "24h"),
            ("memroy = \"1MiB\"", "memroy"),
        ] {
            let problem = read(text).expect_err(text);
            let diagnostic = &problem.failure.diagnostics[0];
            assert!(diagnostic.message.contains(says), "{text}: {diagnostic:?}");
        }
    }
}
