//! `wbuild doctor --platforms`.
//!
//! `--json` prints an object with `platforms`, of which each has `platform`, `works`, `how`
//! (`native`, `personality`, `kernel-handler`, `own-handler`, or what another runner calls it),
//! `runner`, `ran` (a program was run), `emulators` (`name`, `path`, `version`), or `error` and
//! `fixes`.

use serde_json::{Value, json};
use wbuild_cli::environment::Environment;
use wbuild_cli::exit::{Exit, Fault};
use wbuild_cli::progress::{Display, Ending, Quiet};
use wbuild_cli::report::style::{Paint, Style};
use wbuild_cli::resolve::{self, Lends, RUNNERS};
use wbuild_cli::terminal;
use wbuild_engine::platforms::{Emulator, PlatformOptions, Way, platforms};
use wbuild_exec::namespace;
use wbuild_graph::{Failure, Platform};

use super::engine::{alone, launcher, with_session};
use crate::plugins;

/// What is asked where no platform is named: what images are usually made for.
const USUAL: [&str; 14] = [
    "linux/amd64",
    "linux/amd64/v2",
    "linux/amd64/v3",
    "linux/amd64/v4",
    "linux/386",
    "linux/arm64",
    "linux/arm/v7",
    "linux/arm/v6",
    "linux/arm/v5",
    "linux/riscv64",
    "linux/ppc64le",
    "linux/s390x",
    "linux/loong64",
    "linux/mips64le",
];

/// Runs the command; `named` are the platforms the user cares about, all usual ones if there are none.
pub fn run(named: &[Platform], as_json: bool, environment: &Environment) -> Result<Exit, Fault> {
    let asked: Vec<Platform> = match named {
        [] => USUAL.iter().map(|name| name.parse().expect("a platform")).collect(),
        named => named.to_vec(),
    };
    // Before the first thread, as for a build.
    let entered = namespace::enter(&environment.search_path())?;
    let options = PlatformOptions {
        launcher: launcher(),
        runtime: resolve::runtime(None, environment)?,
        search: environment.search_path(),
        user_namespace: entered.step_user_namespace(),
        runners: plugins::runners(&RUNNERS, environment)?,
    };
    let display = Display::start(Box::new(Quiet), Box::new(std::io::stderr()));
    let sink = display.sink();
    let lends = Lends::default();
    let result = with_session(lends, environment, display.sink(), async |_, cancel| {
        tokio::select! {
            answers = platforms(options, sink, &asked) => Ok(answers),
            () = cancel.cancelled() => Err(alone(Failure::cancelled())),
        }
    });
    display.finish(if result.is_ok() { Ending::Finished } else { Ending::Failed });
    let answers = result.map_err(|error| Fault::from(error.failure))?;
    if as_json {
        let list: Vec<Value> = answers.iter().map(to_json).collect();
        super::print_json(&json!({ "platforms": list }))?;
    } else {
        let colour = environment.stdout_terminal && environment.colour();
        terminal::print(render(&answers, Style::new(colour)).as_bytes())?;
    }
    let works = named.is_empty() || answers.iter().all(|(_, answer)| answer.is_ok());
    Ok(if works { Exit::Success } else { Exit::Failed })
}

type Answer = (Platform, Result<Way, Failure>);

/// How it is called: an emulator is the kernel's own, or registered for the step alone.
fn how(way: &Way) -> &str {
    match (&*way.how, &way.emulators[..]) {
        ("emulated", []) => "kernel-handler",
        (_, [_, ..]) => "own-handler",
        ("native", []) if way.personality.is_some() => "personality",
        (how, []) => how,
    }
}

fn to_json((platform, answer): &Answer) -> Value {
    let platform = platform.to_string();
    match answer {
        Ok(way) => {
            let emulators = way.emulators.iter().map(|Emulator { path, tool }| {
                let name = tool.as_ref().map(|tool| &tool.name);
                let version = tool.as_ref().and_then(|tool| tool.version.as_ref());
                json!({ "name": name, "path": path, "version": version })
            });
            json!({
                "platform": platform, "works": true, "how": how(way), "runner": way.runner,
                "ran": way.ran, "emulators": emulators.collect::<Vec<_>>(),
            })
        }
        Err(failure) => json!({
            "platform": platform, "works": false, "error": why(failure), "fixes": failure.hints,
        }),
    }
}

/// The reason that says most: the last runner's, who could have emulated.
fn why(failure: &Failure) -> String {
    let reason = failure.causes.last().unwrap_or(&failure.message);
    terminal::plain(reason).replace('\n', " ")
}

fn render(answers: &[Answer], style: Style) -> String {
    let mut out = String::new();
    let width = answers.iter().map(|(platform, _)| platform.to_string().len()).max().unwrap_or(0);
    for (platform, answer) in answers {
        let platform = platform.to_string();
        let mut line = |paint, word: &str, detail: &str| {
            let word = style.paint(paint, &format!("{word:<3}"));
            out.push_str(&format!("{word}  {platform:<width$}  {}\n", detail.trim_end()));
        };
        match answer {
            Ok(way) => line(Paint::Good, "yes", &detail(way)),
            Err(failure) => {
                line(Paint::Error, "no", &why(failure));
                if let Some(fix) = failure.hints.last() {
                    let arrow = style.paint(Paint::Hint, "fix:");
                    let fix = terminal::plain(fix).replace('\n', " ");
                    out.push_str(&format!("{:5}{:<width$}  {arrow} {fix}\n", "", ""));
                }
            }
        }
    }
    out
}

fn detail(way: &Way) -> String {
    let mut text = match how(way) {
        "native" => "native".to_owned(),
        "personality" => "native, in the processor's 32 bit mode".to_owned(),
        "kernel-handler" => "emulated, by a handler that the kernel has".to_owned(),
        "own-handler" => {
            let emulators = way.emulators.iter().map(|Emulator { path, tool }| {
                let version = tool.as_ref().and_then(|tool| tool.version.as_deref());
                let version = version.map(|version| format!(" ({})", short(version)));
                format!("{}{}", path.display(), version.unwrap_or_default())
            });
            format!("emulated, by {}", emulators.collect::<Vec<_>>().join(", "))
        }
        other => other.to_owned(),
    };
    if !way.ran {
        text.push_str("; no program was run");
    }
    terminal::plain(&text).replace('\n', " ")
}

/// The number in what `--version` says.
fn short(version: &str) -> &str {
    let number = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
    version.split_whitespace().find(number).unwrap_or(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_how_or_why_not() {
        let way = |how: &str, emulators: &[&str], ran| {
            let emulators = emulators.iter().map(|name| Emulator {
                path: format!("/usr/bin/{name}").into(),
                tool: Some(wbuild_engine::extension::Tool {
                    name: (*name).to_owned(),
                    digest: wbuild_graph::Digest::of(b""),
                    is_static: true,
                    version: Some(format!("{name} version 7.2.1 (Debian)")),
                }),
            });
            Ok(Way {
                runner: "r".to_owned(),
                how: how.to_owned(),
                personality: None,
                emulators: emulators.collect(),
                ran,
            })
        };
        let mut failure = Failure::unsupported("no runner").hint("first").hint("install it");
        failure.causes = vec!["not native".to_owned(), "no emulator qemu-arm".to_owned()];
        let domain = |mut way: Way| {
            way.personality = Some("linux32".to_owned());
            way
        };
        let platform = |name: &str| name.parse::<Platform>().expect("a platform");
        let answers = [
            (platform("linux/amd64"), way("native", &[], true)),
            (platform("linux/386"), way("native", &[], true).map(domain)),
            (platform("linux/s390x"), way("emulated", &[], true)),
            (platform("linux/riscv64"), way("emulated", &["qemu-riscv64"], false)),
            (platform("linux/arm/v7"), Err(failure)),
        ];
        assert_eq!(
            render(&answers, Style::new(false)),
            "yes  linux/amd64    native\n\
             yes  linux/386      native, in the processor's 32 bit mode\n\
             yes  linux/s390x    emulated, by a handler that the kernel has\n\
             yes  linux/riscv64  emulated, by /usr/bin/qemu-riscv64 (7.2.1); no program was run\n\
             no   linux/arm/v7   no emulator qemu-arm\n                    fix: install it\n"
        );
        let all: Vec<Value> = answers.iter().map(to_json).collect();
        assert_eq!(all[2]["how"], "kernel-handler");
        assert_eq!(all[3]["emulators"][0]["name"], "qemu-riscv64");
        assert_eq!(all[4]["fixes"], json!(["first", "install it"]));
    }
}
