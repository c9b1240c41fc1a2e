//! Which words of a command use which variables.
//!
//! Some words are put together by the builder, which knows its own variables only; others are read by
//! a shell, which has variables of its own, too.

use std::collections::BTreeSet;
use std::ops::Range;

use wbuild_dockerfile::Text;
use wbuild_dockerfile::ast::{Command, Kind as Config};

use crate::ast::{BuildArg, Kind, Run, Statement};
use crate::flags::Flags;

/// A word of a command.
#[derive(Clone, Debug)]
pub(super) struct Word<'s> {
    pub text: &'s Text,
    /// All of it is read by a shell, and not only what stands in `$(…)`.
    pub shell: bool,
}

/// A variable that a word uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Use {
    pub name: String,
    /// Bytes of the word, with the `$`.
    pub at: Range<usize>,
    /// The word says what to do if the variable is not set.
    pub guarded: bool,
    /// A shell looks it up.
    pub shell: bool,
}

/// Whether a command runs processes, which are given all variables.
pub(super) fn runs(statement: &Statement) -> bool {
    match &statement.kind {
        Kind::Run(_) | Kind::If { .. } | Kind::Try { .. } | Kind::With { .. } | Kind::Do { .. } => {
            true
        }
        _ => words(statement).iter().any(|word| word.text.contains("$(")),
    }
}

/// The words of a command, without those of the commands in it.
pub(super) fn words(statement: &Statement) -> Vec<Word<'_>> {
    let mut found = Vec::new();
    match &statement.kind {
        Kind::From { flags, base, args } => {
            of_flags(flags, &mut found);
            found.push(word(base));
            of_args(args, &mut found);
        }
        Kind::FromDockerfile { flags, context } => {
            of_flags(flags, &mut found);
            found.push(word(&context.path));
            of_args(&context.args, &mut found);
        }
        Kind::Copy { flags, sources, target } => {
            of_flags(flags, &mut found);
            for source in sources {
                found.push(word(&source.path));
                of_args(&source.args, &mut found);
            }
            found.push(word(target));
        }
        Kind::SaveArtifact { flags, source, target, local } => {
            of_flags(flags, &mut found);
            found.push(word(source));
            found.extend(target.iter().chain(local).map(word));
        }
        Kind::SaveImage { flags, names } => {
            of_flags(flags, &mut found);
            found.extend(names.iter().map(word));
        }
        Kind::Run(run) => of_run(run, &mut found),
        Kind::Build { flags, target, args } | Kind::Do { flags, function: target, args } => {
            of_flags(flags, &mut found);
            found.push(word(target));
            of_args(args, &mut found);
        }
        Kind::Arg { flags, assign } => {
            of_flags(flags, &mut found);
            found.extend(assign.value.iter().map(word));
        }
        Kind::Let(assign) | Kind::Set(assign) | Kind::Env(assign) => {
            found.extend(assign.value.iter().map(word));
        }
        Kind::Label(pairs) => {
            for pair in pairs {
                found.push(word(&pair.name));
                found.extend(pair.value.iter().map(word));
            }
        }
        Kind::Config(instruction) => match &instruction.kind {
            Config::Expose(words) | Config::Volume(words) => found.extend(words.iter().map(word)),
            Config::User(text) | Config::Workdir(text) => found.push(word(text)),
            // They are run when the image is, with variables of that time.
            _ => {}
        },
        Kind::GitClone { flags, url, target } => {
            of_flags(flags, &mut found);
            found.extend([word(url), word(target)]);
        }
        Kind::Import { place, .. } => found.push(word(place)),
        Kind::Cache { flags, path } => {
            of_flags(flags, &mut found);
            found.push(word(path));
        }
        Kind::Host { name, address } => found.extend([word(name), word(address)]),
        Kind::If { branches, .. } => {
            branches.iter().for_each(|branch| of_run(&branch.condition, &mut found));
        }
        Kind::For { flags, values, .. } => {
            of_flags(flags, &mut found);
            found.push(word(values));
        }
        Kind::With { flags, .. } => of_flags(flags, &mut found),
        Kind::Locally | Kind::Service(_) | Kind::Wait(_) | Kind::Try { .. } => {}
    }
    found
}

fn word(text: &Text) -> Word<'_> {
    Word { text, shell: false }
}

fn of_flags<'s>(flags: &'s Flags, found: &mut Vec<Word<'s>>) {
    found.extend(flags.0.iter().filter_map(|flag| flag.value.as_ref()).map(word));
}

fn of_args<'s>(args: &'s [BuildArg], found: &mut Vec<Word<'s>>) {
    found.extend(args.iter().map(|arg| word(&arg.value)));
}

fn of_run<'s>(run: &'s Run, found: &mut Vec<Word<'s>>) {
    of_flags(&run.flags, found);
    if let Command::Shell(text) = &run.command {
        found.push(Word { text, shell: run.flags.get("entrypoint").is_none() });
    }
}

/// How many bytes of a text are those of a name.
fn name(text: &str) -> usize {
    let digits = text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    if text.starts_with(|c: char| c.is_ascii_digit()) { 0 } else { digits }
}

/// The variables that a word uses, in order.
pub(super) fn uses(word: &Word<'_>) -> Vec<Use> {
    let text = word.text.as_str();
    let mut found = Vec::new();
    // Quotes that are open, for each `$(` that is.
    let mut open: Vec<(bool, bool)> = vec![(false, false)];
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let shell = word.shell || open.len() > 1;
        let depth = open.len();
        let (single, double) = open.last_mut().expect("there is always one");
        let start = at;
        at += c.len_utf8();
        match c {
            '\'' if !*double => *single = !*single,
            _ if *single => {}
            '\\' => at += text[at..].chars().next().map_or(0, char::len_utf8),
            '"' => *double = !*double,
            ')' if depth > 1 && !*double => {
                open.pop();
            }
            '$' if text[at..].starts_with('(') => {
                at += 1;
                open.push((false, false));
            }
            '$' => {
                let brace = usize::from(text[at..].starts_with('{'));
                let length = name(&text[at + brace..]);
                if length == 0 {
                    continue;
                }
                let end = at + brace + length;
                let guarded = brace == 1 && text[end..].starts_with([':', '-', '+', '?', '=']);
                let name = text[at + brace..end].to_owned();
                let close = usize::from(brace == 1 && text[end..].starts_with('}'));
                found.push(Use { name, at: start..end + close, guarded, shell });
                at = end + close;
            }
            _ => {}
        }
    }
    found
}

/// Names that stand in a shell's text without a `$`: it may set or read variables of these.
pub(super) fn bare(text: &str) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    let mut at = 0;
    while at < text.len() {
        let length = name(&text[at..]);
        let before = text[..at].ends_with('$') || text[..at].ends_with("${");
        if length > 0 && !before {
            found.insert(&text[at..at + length]);
        }
        at += length.max(text[at..].chars().next().map_or(1, char::len_utf8));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(text: &str, shell: bool) -> Vec<String> {
        let text = Text::decode(0, 0, text.as_bytes());
        let uses = uses(&Word { text: &text, shell });
        uses.iter()
            .map(|found| {
                let guard = if found.guarded { "?" } else { "" };
                let shell = if found.shell { "!" } else { "" };
                format!("{}{guard}{shell} {}", found.name, &text[found.at.clone()])
            })
            .collect()
    }

    #[test]
    fn variables_of_words() {
        for (text, expect) in [
            ("a$b-${c}d", vec!["b $b", "c ${c}"]),
            ("${a:-$b}${c%x}", vec!["a? ${a", "b $b", "c ${c"]),
            (r"'$a' \$b ü$c", vec!["c $c"]),
            ("\"'$a'\" $1 $ $$ ${}", vec!["a $a"]),
            ("$(x '$a' \"$b\") $c", vec!["b! $b", "c $c"]),
            ("\"$(x \"$a\" 'y)' $b)$c\"", vec!["a! $a", "b! $b", "c $c"]),
        ] {
            assert_eq!(used(text, false), expect, "{text}");
        }
        assert_eq!(used("$a", true), ["a! $a"]);
        let names: Vec<&str> = bare("for x in $y; do z=${w} 1a; done").into_iter().collect();
        assert_eq!(names, ["a", "do", "done", "for", "in", "x", "z"]);
    }
}
