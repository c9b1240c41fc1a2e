//! `RUN`, `CMD`, `ENTRYPOINT`, `SHELL`, `HEALTHCHECK` and `VOLUME`: what may be a JSON array.

use super::flags::{Flags, Type};
use super::{Parser, mount};
use crate::ast::{Command, Healthcheck, Own, Run, Timing};
use crate::suggest::did_you_mean;
use crate::text::shown;
use crate::words::{self, Json};
use crate::{Code, Diagnostic, Text, heredoc, units};

/// Also said where a variable turns out to be empty.
pub(crate) const EMPTY_VOLUME: &str = "the path of a VOLUME cannot be empty";

impl Parser<'_, '_> {
    /// Exec form if it is a valid array of strings, else shell form.
    fn command(&mut self, name: &str, rest: &Text) -> Option<Command> {
        match words::json_array(rest) {
            Json::Strings(words) => Some(Command::Exec(words)),
            Json::Other => Some(Command::Shell(rest.clone())),
            Json::Mixed(element) => {
                self.mixed(name, &element);
                None
            }
        }
    }

    /// An array holds something that is not a string.
    pub(super) fn mixed(&mut self, name: &str, element: &Text) {
        self.report(
            Diagnostic::error(
                Code::InvalidJson,
                element.span(),
                format!("the array of {name} may hold strings only"),
            )
            .help("put double quotes around every element, numbers too"),
        );
    }

    pub(super) fn plain_command(&mut self, name: &str, rest: &Text) -> Option<Command> {
        let (_, rest) = self.flags(name, rest, &[])?;
        self.command(name, &rest)
    }

    pub(super) fn run(&mut self, rest: &Text) -> Option<Run> {
        let known = [
            ("mount", Type::List),
            ("network", Type::Value),
            ("security", Type::Value),
            ("device", Type::List),
        ];
        let (mut flags, rest) = self.flags("RUN", rest, &known)?;
        let command = self.command("RUN", &rest)?;
        let mut heredocs = Vec::new();
        if matches!(command, Command::Shell(_)) {
            (heredocs, self.end) = heredoc::read(&rest, self.reader, self.problems);
        }
        let before = self.problems.len();
        let mut mounts = Vec::new();
        for text in flags.list("mount") {
            match mount::parse(text, self.escape) {
                Ok(mount) => mounts.push(mount),
                Err(problems) => self.problems.extend(problems),
            }
        }
        let network = flags.value("network");
        self.one_of("network", network.as_ref(), &["default", "none", "host"]);
        let security = flags.value("security");
        self.one_of("security", security.as_ref(), &["sandbox", "insecure"]);
        // A shell runs nothing without complaint, but there is no process without a program.
        if matches!(&command, Command::Exec(words) if words.is_empty()) {
            self.missing(&rest, "the command of RUN is empty", "write e.g. `RUN [\"make\"]`");
        }
        let devices = flags.list("device");
        let own = Own::default();
        let run = Run { command, heredocs, mounts, network, security, devices, own };
        (self.problems.len() == before).then_some(run)
    }

    fn one_of(&mut self, flag: &str, value: Option<&Text>, known: &[&'static str]) {
        let Some(value) = value.filter(|value| !known.contains(&value.as_str())) else { return };
        let list = known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        self.report(
            Diagnostic::error(
                Code::InvalidFlag,
                value.span(),
                format!("`--{flag}` cannot be {}", shown(value)),
            )
            .help(format!("it is one of {list}"))
            .maybe_help(did_you_mean(value, known.iter().copied())),
        );
    }

    pub(super) fn shell(&mut self, keyword: &Text, rest: &Text) -> Option<Vec<Text>> {
        let (_, rest) = self.flags("SHELL", rest, &[])?;
        match words::json_array(&rest) {
            Json::Strings(words) if !words.is_empty() => Some(words),
            Json::Mixed(element) => {
                self.mixed("SHELL", &element);
                None
            }
            _ => {
                let at = if rest.is_empty() { keyword.span() } else { rest.span() };
                self.report(
                    Diagnostic::error(
                        Code::InvalidJson,
                        at,
                        "SHELL needs a JSON array of at least one string",
                    )
                    .help("write e.g. `SHELL [\"/bin/bash\", \"-c\"]`, with double quotes"),
                );
                None
            }
        }
    }

    pub(super) fn volumes(&mut self, keyword: &Text, rest: &Text) -> Option<Vec<Text>> {
        let (_, rest) = self.flags("VOLUME", rest, &[])?;
        let paths = match words::json_array(&rest) {
            Json::Strings(words) => words.iter().map(Text::trimmed).collect(),
            Json::Other => words::blank_separated(&rest),
            Json::Mixed(element) => {
                self.mixed("VOLUME", &element);
                return None;
            }
        };
        if paths.is_empty() {
            let at = if rest.is_empty() { keyword } else { &rest };
            self.missing(at, "VOLUME needs at least one path", "write e.g. `VOLUME /data`");
            return None;
        }
        if let Some(empty) = paths.iter().find(|path| path.is_empty()) {
            self.missing(empty, EMPTY_VOLUME, "name a directory, e.g. `/data`, or leave it out");
            return None;
        }
        Some(paths)
    }

    pub(super) fn healthcheck(&mut self, keyword: &Text, rest: &Text) -> Option<Healthcheck> {
        let known = [
            ("interval", Type::Value),
            ("timeout", Type::Value),
            ("start-period", Type::Value),
            ("start-interval", Type::Value),
            ("retries", Type::Value),
        ];
        let form = "write `HEALTHCHECK CMD command`, or `HEALTHCHECK NONE` to switch one off";
        // Flags say how the command is run. Where there is none, nobody has ever looked at them.
        let none = words::keyword(&words::flags(rest).1).0.eq_ignore_ascii_case("NONE");
        let (mut flags, rest) = if none {
            (Flags::default(), words::flags(rest).1)
        } else {
            self.flags("HEALTHCHECK", rest, &known)?
        };
        let (kind, rest) = words::keyword(&rest);
        let before = self.problems.len();
        let timing = Timing {
            interval: self.duration("interval", flags.value("interval")),
            timeout: self.duration("timeout", flags.value("timeout")),
            start_period: self.duration("start-period", flags.value("start-period")),
            start_interval: self.duration("start-interval", flags.value("start-interval")),
            retries: self.retries(flags.value("retries")),
        };
        let check = match kind.to_ascii_uppercase().as_str() {
            "NONE" if rest.is_empty() => Some(Healthcheck::None),
            "NONE" => {
                self.report(
                    Diagnostic::error(
                        Code::UnexpectedArgument,
                        rest.span(),
                        "HEALTHCHECK NONE takes no arguments",
                    )
                    .help(form),
                );
                None
            }
            "CMD" if rest.is_empty() => {
                self.missing(&kind, "the command is missing after HEALTHCHECK CMD", form);
                None
            }
            "CMD" => match self.command("HEALTHCHECK", &rest)? {
                Command::Exec(words) if words.is_empty() => {
                    self.missing(&rest, "the command of HEALTHCHECK is empty", form);
                    None
                }
                command => Some(Healthcheck::Check { command, timing }),
            },
            "" => {
                self.missing(keyword, "HEALTHCHECK needs CMD or NONE", form);
                None
            }
            _ => {
                self.report(
                    Diagnostic::error(
                        Code::UnexpectedArgument,
                        kind.span(),
                        format!("{} is neither CMD nor NONE", shown(&kind)),
                    )
                    .help(form)
                    .maybe_help(did_you_mean(&kind, ["CMD", "NONE"])),
                );
                None
            }
        };
        check.filter(|_| self.problems.len() == before)
    }

    fn duration(&mut self, flag: &str, value: Option<Text>) -> i64 {
        let Some(value) = value.filter(|value| !value.is_empty()) else { return 0 };
        const MILLISECOND: i64 = 1_000_000;
        match units::duration(&value) {
            Some(0) => 0,
            Some(time) if time >= MILLISECOND => time,
            Some(_) => {
                self.report(
                    Diagnostic::error(
                        Code::InvalidFlag,
                        value.span(),
                        format!("`--{flag}` cannot be less than a millisecond"),
                    )
                    .help("write a longer time, e.g. `30s`, or leave the flag out"),
                );
                0
            }
            None => {
                self.report(
                    Diagnostic::error(
                        Code::InvalidFlag,
                        value.span(),
                        format!("{} is not a span of time", shown(&value)),
                    )
                    .help("write numbers with units, e.g. `30s`, `1m30s` or `500ms`"),
                );
                0
            }
        }
    }

    fn retries(&mut self, value: Option<Text>) -> i64 {
        let Some(value) = value.filter(|value| !value.is_empty()) else { return 0 };
        match value.parse::<i32>() {
            Ok(count) if count >= 0 => i64::from(count),
            _ => {
                self.report(
                    Diagnostic::error(
                        Code::InvalidFlag,
                        value.span(),
                        format!("{} is not a number of retries", shown(&value)),
                    )
                    .help("write a whole number that is not negative"),
                );
                0
            }
        }
    }
}
