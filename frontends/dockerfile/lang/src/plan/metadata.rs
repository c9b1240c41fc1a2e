//! Instructions that change the image's config and make no layer.
//!
//! All words of an instruction are expanded before any of them takes effect: `ENV a=1 b=$a` gives
//! `b` the value that `a` had before.

use crate::ast::{Command, Declaration, Healthcheck, Instruction, Kind, Pair};
use crate::expand::Options;
use crate::gostyle;
use crate::image::{healthcheck_history, healthcheck_test};
use crate::lint::steps;
use crate::suggest::did_you_mean;
use crate::text::shown;
use crate::{Code, Diagnostic, Failure, Span, Text};

use super::expand_text;
use super::globals::Argument;
use super::lower::{Lowering, UNSEEN};

/// Signals of Linux by name, without `SIG`.
const SIGNALS: [&str; 36] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
    "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
    "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
];

fn strings(words: &[Text]) -> Vec<String> {
    words.iter().map(|word| word.as_str().to_owned()).collect()
}

impl Lowering<'_, '_> {
    pub(super) fn metadata(&mut self, instruction: &Instruction) -> Result<(), Failure> {
        let keyword = &instruction.keyword;
        let created_by = match &instruction.kind {
            Kind::Env(written) => {
                let pairs = self.pairs("ENV", written)?;
                for (pair, (name, _)) in written.iter().zip(&pairs) {
                    steps::secret(self.session.lint, self.comments, "ENV", (&pair.name, name));
                }
                let mut history = String::from("ENV");
                for (name, value) in &pairs {
                    self.state.image.set_env(name, value);
                    self.state.vars.set(name, value);
                    history.extend([" ", name, "=", value]);
                }
                history
            }
            Kind::Label(pairs) => {
                let pairs = self.pairs("LABEL", pairs)?;
                let mut history = String::from("LABEL");
                for (name, value) in &pairs {
                    self.state.image.set_label(name, value);
                    history.extend([" ", name, "=", value]);
                }
                history
            }
            Kind::Arg(declarations) => self.declare(declarations)?,
            Kind::Cmd(command) => {
                self.once(keyword, command, |lowering| &mut lowering.cmd);
                let words = self.command(command);
                self.state.image.set_cmd(&words);
                format!("CMD {}", gostyle::quoted_list(&words))
            }
            Kind::Entrypoint(command) => {
                self.once(keyword, command, |lowering| &mut lowering.entrypoint);
                let words = self.command(command);
                self.state.image.set_entrypoint(&words);
                if self.cmd.is_none() {
                    // A command of the base was meant for the base's entry point.
                    self.state.image.clear_cmd();
                }
                format!("ENTRYPOINT {}", gostyle::quoted_list(&words))
            }
            Kind::Expose(words) => self.expose(words)?,
            Kind::Healthcheck(check) => {
                let before = self.healthcheck.replace(keyword.span());
                steps::repeated(self.session.lint, self.comments, keyword, before);
                self.healthcheck(check)
            }
            Kind::Maintainer(author) => {
                self.state.image.set_author(author);
                format!("MAINTAINER {author}")
            }
            Kind::Onbuild(trigger) => {
                self.state.image.add_trigger(&trigger.expression);
                // A stored instruction is part of the config, but has never been part of history.
                return Ok(());
            }
            Kind::Shell(words) => {
                let words = strings(words);
                self.state.image.set_shell(&words);
                format!("SHELL {}", gostyle::plain_list(&words))
            }
            Kind::Stopsignal(signal) => {
                let value = self.word(signal)?;
                check_signal(&value, signal)?;
                self.state.image.set_stop_signal(&value);
                format!("STOPSIGNAL {value}")
            }
            Kind::User(user) => {
                let user = self.word(user)?;
                self.state.image.set_user(&user);
                format!("USER {user}")
            }
            Kind::Volume(paths) => {
                let mut volumes = Vec::with_capacity(paths.len());
                for path in paths {
                    let volume = self.word(path)?;
                    if volume.is_empty() {
                        let help = format!("nothing has set {} in this stage", shown(path));
                        return Err(Diagnostic::error(
                            Code::MissingArgument,
                            path.span(),
                            crate::parse::EMPTY_VOLUME,
                        )
                        .help(help)
                        .into());
                    }
                    volumes.push(volume);
                }
                for volume in &volumes {
                    self.state.image.add_volume(volume);
                }
                format!("VOLUME {}", gostyle::plain_list(&volumes))
            }
            Kind::Add(_) | Kind::Copy(_) | Kind::Run(_) | Kind::Workdir(_) => {
                unreachable!("these make layers and are lowered elsewhere")
            }
        };
        self.state.image.add_history(created_by, false);
        Ok(())
    }

    fn pairs(
        &mut self,
        instruction: &str,
        pairs: &[Pair],
    ) -> Result<Vec<(String, String)>, Failure> {
        for pair in pairs {
            steps::legacy(self.session.lint, self.comments, instruction, pair);
        }
        pairs.iter().map(|pair| Ok((self.word(&pair.name)?, self.word(&pair.value)?))).collect()
    }

    /// Remembers an instruction of which the last counts, and looks at its form.
    fn once(
        &mut self,
        keyword: &Text,
        command: &Command,
        last: impl FnOnce(&mut Self) -> &mut Option<Span>,
    ) {
        let before = last(self).replace(keyword.span());
        let lint = &mut *self.session.lint;
        steps::repeated(lint, self.comments, keyword, before);
        if let (Command::Shell(text), false) = (command, self.state.image.has_shell()) {
            steps::shell_form(lint, self.comments, keyword, text);
        }
    }

    /// A command as the words of a process: the shell form behind the stage's shell.
    pub(super) fn command(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(words) => strings(words),
            Command::Shell(text) => {
                let mut words = self.state.image.shell();
                words.push(text.as_str().to_owned());
                words
            }
        }
    }

    /// The caller's value wins over the default, and a name without either takes the global value.
    fn declare(&mut self, declarations: &[Declaration]) -> Result<String, Failure> {
        let mut history = String::from("ARG");
        for declaration in declarations {
            let name = &declaration.name;
            let given = self.session.request.build_args.get(name.as_str()).cloned();
            steps::secret(self.session.lint, self.comments, "ARG", (name, name));
            let (value, own) = match (given, &declaration.default) {
                (Some(given), _) => (Some(given), true),
                (None, Some(default)) => (Some(self.word(default)?), true),
                (None, None) => {
                    let global = self.graph.globals.vars.get(name).map(str::to_owned);
                    let own = global.is_none();
                    (global, own)
                }
            };
            let own = own.then(|| Argument {
                value: value.clone(),
                at: Some(name.span()),
                doc: declaration.doc.clone(),
                ..Argument::default()
            });
            self.taken.argument(name, own);
            history.extend([" ", name]);
            if let Some(value) = &value {
                history.extend(["=", value]);
                if !UNSEEN.contains(&name.as_str()) {
                    self.state.vars.set(name, value);
                    if self.state.image.env().get(name).is_some() {
                        self.state.shadowing.push(name.as_str().to_owned());
                    }
                }
            }
            self.state.arguments.set(name, value.as_deref().unwrap_or_default());
        }
        Ok(history)
    }

    fn expose(&mut self, words: &[Text]) -> Result<String, Failure> {
        let mut ports = Vec::new();
        let mut sorted: Vec<&Text> = words.iter().collect();
        sorted.sort_by_key(|word| word.as_str());
        for word in sorted {
            let options = Options { split: true, ..Options::word(self.escape) };
            for port in expand_text(word, options, &self.state.vars)?.words {
                steps::exposed(self.session.lint, self.comments, word, &port);
                ports.extend(expand_ports(word, &port)?);
            }
        }
        for port in &ports {
            self.state.image.expose(port);
        }
        Ok(format!("EXPOSE {}", gostyle::plain_list(&ports)))
    }

    fn healthcheck(&mut self, check: &Healthcheck) -> String {
        let (test, timing) = healthcheck_test(check);
        self.state.image.set_healthcheck(&test, &timing);
        healthcheck_history(&test, &timing)
    }
}

fn check_signal(value: &str, at: &Text) -> Result<(), Failure> {
    let name = value.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let real_time = |prefix: &str, most: u8| {
        let number = name.strip_prefix(prefix).filter(|number| !number.starts_with(['0', '+']));
        number.is_some_and(|number| number.parse::<u8>().is_ok_and(|number| number <= most))
    };
    let known = value.parse::<i64>().is_ok_and(|number| number != 0)
        || SIGNALS.contains(&name)
        || real_time("RTMIN+", 15)
        || real_time("RTMAX-", 14);
    if known {
        return Ok(());
    }
    let close = if name.contains(['+', '-']) { None } else { did_you_mean(name, SIGNALS) };
    let close = close.map(|text| text.replacen('`', "`SIG", 1));
    Err(Diagnostic::error(
        Code::InvalidSignal,
        at.span(),
        format!("{} is not a signal", shown(value)),
    )
    .help("write a name such as `SIGTERM`, or its number")
    .maybe_help(close)
    .into())
}

/// Why a word of `EXPOSE` is not a port.
#[derive(Debug)]
struct WrongPort<'t> {
    /// What is wrong of the word.
    part: &'t str,
    message: String,
    help: &'static str,
}

/// The ports that a word of `EXPOSE` means, which variables and all came to `text`.
pub fn expand_ports(word: &Text, text: &str) -> Result<Vec<String>, Diagnostic> {
    ports(text).map_err(|wrong| {
        // The very part, unless it came out of a variable.
        let part = word.find(wrong.part).filter(|_| !wrong.part.is_empty());
        let at = part.map(|at| word.span_of(at..at + wrong.part.len()));
        let at = at.unwrap_or_else(|| word.span());
        Diagnostic::error(Code::InvalidPort, at, wrong.message).help(wrong.help)
    })
}

/// `80`, `80/udp`, `8000-8010/tcp`. What stands before the last `:`, an address and a port of the
/// host, means nothing in an image, but must be well formed.
fn ports(text: &str) -> Result<Vec<String>, WrongPort<'_>> {
    const FORM: &str =
        "write a port or a range, perhaps with a protocol: `80`, `53/udp`, `8000-8010`";
    const OWN: &str =
        "name only the container's port, e.g. `80`; who starts the container says where it appears";
    const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];
    let wrong = |part, message, help| WrongPort { part, message, help };
    let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
    let (range, protocol) = port.split_once('/').unwrap_or((port, ""));
    let named = if protocol.is_empty() { "tcp" } else { protocol };
    let Some(named) = PROTOCOLS.iter().find(|known| known.eq_ignore_ascii_case(named)) else {
        let message = format!("{} is not a protocol", shown(protocol));
        return Err(wrong(protocol, message, "it is one of `tcp`, `udp`, `sctp`"));
    };
    let Some(ports) = port_range(range) else {
        let part = if range.is_empty() { text } else { range };
        return Err(wrong(part, format!("{} is not a port", shown(part)), FORM));
    };
    let (address, published) = host.rsplit_once(':').unwrap_or(("", host));
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    if !bare.is_empty() && bare.parse::<std::net::IpAddr>().is_err() {
        return Err(wrong(address, format!("{} is not an address", shown(address)), OWN));
    }
    if !published.is_empty() {
        let Some(published) = port_range(published) else {
            return Err(wrong(published, format!("{} is not a port", shown(published)), OWN));
        };
        if ports.len() > 1 && published.len() != ports.len() {
            let message = format!("the two ranges of {} differ in length", shown(text));
            return Err(wrong(text, message, OWN));
        }
    }
    Ok(ports.map(|port| format!("{port}/{named}")).collect())
}

/// `80` or `80-90`.
fn port_range(text: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let number =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?;
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_expose() {
        for (text, expect) in [
            ("80", "80/tcp"),
            ("53/UDP", "53/udp"),
            ("8000-8002/sctp", "8000/sctp 8001/sctp 8002/sctp"),
            ("127.0.0.1:8080:80", "80/tcp"),
            ("[::1]::80", "80/tcp"),
            ("8080-8081:80", "80/tcp"),
            ("8080-8081:80-81", "80/tcp 81/tcp"),
            ("0", "0/tcp"),
        ] {
            assert_eq!(ports(text).expect(text).join(" "), expect);
        }
        for bad in [
            "",
            "/tcp",
            "x",
            "80/icmp",
            "70000",
            "9-8",
            "1-2-3",
            "-1",
            "+80",
            "host:80:80",
            "[::1:80:80",
            "x:80",
            "1-3:80-81",
        ] {
            assert!(ports(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn signals() {
        let word = Text::decode(0, 0, b"x");
        for good in ["SIGTERM", "term", "9", "-1", "999", "SIGRTMIN+15", "RTMAX-1", "RTMIN"] {
            assert!(check_signal(good, &word).is_ok(), "{good}");
        }
        for bad in ["SIGTREM", "0", "RTMIN+0", "RTMIN+03", "RTMAX-15", "SIGRTMIN+99", "SIG", ""] {
            assert!(check_signal(bad, &word).is_err(), "{bad}");
        }
    }
}
