//! Puts a command line into the order that the parser understands: `wbuild -t x build .` becomes
//! `wbuild build -t x .`, and `--pull=true` becomes `--pull`.
//!
//! Only words that cannot mean anything else are moved: the first word that is neither an option
//! nor the value of one, if it names a command. A directory of that name is `./du`.
//!
//! The target of an Earthfile becomes what it is short for: `./dir+name --ARG=value` is
//! `--frontend=earthfile --target=name --build-arg=ARG=value ./dir`. What stands behind the target is
//! for it, so options stand before. A directory with such a name is `./dir+name/`. In the same way an
//! artifact, `+name/path DEST`, is `--target=name/path --artifact-dest=DEST`, and a repository,
//! `host/org/repo/dir:tag`, its URL.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use clap::{ArgAction, Command};
use wbuild_git_url::Hosted;

/// See the module.
pub fn normalise(command: &Command, argv: Vec<OsString>) -> Vec<OsString> {
    let mut out: Vec<OsString> = Vec::with_capacity(argv.len());
    let mut words = argv.into_iter();
    out.extend(words.next());

    let mut found_word = false;
    while let Some(word) = words.next() {
        if word == "--" {
            out.push(word);
            break;
        }
        if !is_option(&word) {
            let builds = !found_word || builds(&out);
            if !found_word && names_command(command, &word) {
                out.insert(1, word);
            } else if let Some((context, target)) = earthfile_target(&word).filter(|_| builds) {
                // Before those that are written: the last one counts.
                let place = 1 + usize::from(self::builds(&out));
                out.insert(place, "--frontend=earthfile".into());
                out.push(format!("--target={target}").into());
                out.extend(target_arguments(words, target.contains('/')));
                out.push(context.into());
                return out;
            } else {
                out.push(word);
            }
            found_word = true;
            continue;
        }
        if let Some(switch) = switch_with_value(command, &word) {
            out.extend(switch);
            continue;
        }
        let wants_value = takes_next_word(command, &word);
        out.push(word);
        if wants_value {
            out.extend(words.next());
        }
    }
    out.extend(words);
    out
}

/// Whether the command is one that takes what a build takes.
fn builds(out: &[OsString]) -> bool {
    out.get(1).is_some_and(|first| first == "build" || first == "plan")
}

/// `-` alone stands for standard input and is no option.
fn is_option(word: &OsStr) -> bool {
    let bytes = word.as_bytes();
    bytes.len() > 1 && bytes[0] == b'-'
}

/// The context and the target, perhaps with the path of an artifact, if a word is one.
fn earthfile_target(word: &OsStr) -> Option<(String, &str)> {
    let word = word.to_str()?;
    let is_target = |text: &str| {
        let (name, path) = text.split_once('/').unwrap_or((text, "x"));
        let named = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-'));
        // A path that ends in a slash is one to a directory.
        named && !path.is_empty() && !path.ends_with('/')
    };
    // A directory may have a plus in its name.
    let (directory, target) = match word.strip_prefix('+') {
        Some(target) => ("", target),
        None => word
            .rmatch_indices('+')
            .map(|(at, _)| (&word[..at], &word[at + 1..]))
            .find(|(_, target)| is_target(target))?,
    };
    if !is_target(target) || directory.contains("://") || directory.starts_with("git@") {
        return None;
    }
    if !Hosted::is_meant(directory) {
        let directory = if directory.is_empty() { "." } else { directory };
        return Some((directory.to_owned(), target));
    }
    // One that names no repository is shown as it is by whoever looks for the directory.
    let Ok(hosted) = Hosted::parse(directory) else { return Some((directory.to_owned(), target)) };
    let url = match (hosted.reference.as_str(), hosted.directory.as_str()) {
        ("", "") => hosted.url(),
        (tag, "") => format!("{}#{tag}", hosted.url()),
        (tag, below) => format!("{}#{tag}:{below}", hosted.url()),
    };
    Some((url, target))
}

/// `--NAME=value` and `--NAME value` behind a target, as options; anything else as it is, but for the
/// destination of an artifact.
fn target_arguments(words: impl Iterator<Item = OsString>, artifact: bool) -> Vec<OsString> {
    let mut out = Vec::new();
    let mut words = words;
    let mut places = 0;
    while let Some(word) = words.next() {
        let Some(argument) = word.to_str().and_then(|text| text.strip_prefix("--")) else {
            places += 1;
            if artifact && places == 1 && !is_option(&word) {
                let mut option = OsString::from("--artifact-dest=");
                option.push(word);
                out.push(option);
            } else {
                out.push(word);
            }
            continue;
        };
        let mut assignment: OsString = format!("--build-arg={argument}").into();
        if !argument.contains('=')
            && let Some(value) = words.next()
        {
            assignment.push("=");
            assignment.push(value);
        }
        out.push(assignment);
    }
    out
}

fn names_command(command: &Command, word: &OsStr) -> bool {
    command.get_subcommands().any(|known| OsStr::new(known.get_name()) == word)
}

/// The options of the program itself and of each command, so that `-f` is known wherever it stands.
fn options(command: &Command) -> impl Iterator<Item = &clap::Arg> {
    let inner = command.get_subcommands().flat_map(Command::get_subcommands);
    let commands = command.get_subcommands().chain(inner);
    command.get_arguments().chain(commands.flat_map(Command::get_arguments))
}

/// `--switch=true` and `--switch=false` of an option that takes no value, as Go's flag parser has
/// them: the switch, or nothing.
fn switch_with_value(command: &Command, word: &OsStr) -> Option<Option<OsString>> {
    let (name, value) = word.to_str()?.strip_prefix("--")?.split_once('=')?;
    let is_switch = options(command)
        .any(|arg| arg.get_long() == Some(name) && matches!(arg.get_action(), ArgAction::SetTrue));
    match value {
        "true" | "1" if is_switch => Some(Some(format!("--{name}").into())),
        "false" | "0" if is_switch => Some(None),
        _ => None,
    }
}

/// Whether the word after an option is its value.
fn takes_next_word(command: &Command, word: &OsStr) -> bool {
    let takes_value = |arg: &clap::Arg| arg.get_action().takes_values();
    let Some(text) = word.to_str() else { return false };
    if let Some(long) = text.strip_prefix("--") {
        return !long.contains('=')
            && options(command).any(|arg| {
                takes_value(arg)
                    && (arg.get_long() == Some(long)
                        || arg.get_all_aliases().is_some_and(|all| all.contains(&long)))
            });
    }
    // `-qf FILE`: the first letter that takes a value takes what is left of the word, else the next.
    let mut letters = text.chars().skip(1);
    while let Some(letter) = letters.next() {
        if options(command).any(|arg| takes_value(arg) && arg.get_short() == Some(letter)) {
            return letters.next().is_none();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::command;

    #[test]
    fn commands_move_to_the_front() {
        let command = command();
        for (words, want) in [
            (".", "."),
            ("build .", "build ."),
            ("-t x build .", "build -t x ."),
            ("-t build .", "-t build ."),
            ("--tag build .", "--tag build ."),
            ("--tag=x build .", "build --tag=x ."),
            ("-qt build .", "-qt build ."),
            ("-tbuild build .", "build -tbuild ."),
            ("--state-dir du du", "du --state-dir du"),
            (". du", ". du"),
            ("-- du", "-- du"),
            ("- du", "- du"),
            ("./du", "./du"),
            ("--pull=true .", "--pull ."),
            ("--pull=false --no-cache=1 .", "--no-cache ."),
            ("--build-arg A=true .", "--build-arg A=true ."),
            ("--build-arg --pull=true .", "--build-arg --pull=true ."),
            ("--help", "--help"),
            ("plugin list", "plugin list"),
            ("+t", "--frontend=earthfile --target=t ."),
            ("--no-cache ./d+t", "--frontend=earthfile --no-cache --target=t ./d"),
            (
                "build -t x d+t --A=b",
                "build --frontend=earthfile -t x --target=t --build-arg=A=b d",
            ),
            ("--frontend x +t", "--frontend=earthfile --frontend x --target=t ."),
            (
                "+t --A b --no-cache=1 d",
                "--frontend=earthfile --target=t --build-arg=A=b --build-arg=no-cache=1 d .",
            ),
            ("./d+t/", "./d+t/"),
            ("./d+t/sub/", "./d+t/sub/"),
            ("./c++/d+t", "--frontend=earthfile --target=t ./c++/d"),
            ("+t/a+b", "--frontend=earthfile --target=t/a+b ."),
            (
                "-a ./d+t/f --A=b out/",
                "--frontend=earthfile -a --target=t/f --build-arg=A=b --artifact-dest=out/ ./d",
            ),
            ("./d+t out", "--frontend=earthfile --target=t out ./d"),
            ("github.com/o/r+t", "--frontend=earthfile --target=t https://github.com/o/r.git"),
            (
                "h.org/o/r/d:a/b+t/f",
                "--frontend=earthfile --target=t/f https://h.org/o/r.git#a/b:d",
            ),
            (
                "localhost:8080/x.git/d+t",
                "--frontend=earthfile --target=t http://localhost:8080/x.git#:d",
            ),
            ("h.org/r+t", "--frontend=earthfile --target=t h.org/r"),
            ("./h.org/o/r+t", "--frontend=earthfile --target=t ./h.org/o/r"),
            ("d+T", "d+T"),
            ("-t a+b .", "-t a+b ."),
            ("du +t", "du +t"),
            ("--all plan .", "plan --all ."),
            ("plan -t x ./d+t", "plan --frontend=earthfile -t x --target=t ./d"),
            ("plan diff a b", "plan diff a b"),
            ("https://example.org/a+b", "https://example.org/a+b"),
            ("", ""),
        ] {
            let argv = std::iter::once("wbuild").chain(words.split_whitespace());
            let got = normalise(&command, argv.map(OsString::from).collect());
            let got: Vec<_> = got[1..].iter().map(|word| word.to_string_lossy()).collect();
            assert_eq!(got.join(" "), want, "{words}");
        }
        assert!(normalise(&command, Vec::new()).is_empty());
    }
}
