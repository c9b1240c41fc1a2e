//! `COPY` and `ADD`.

use super::Parser;
use super::flags::Type;
use crate::ast::{Heredoc, Kind, Transfer};
use crate::text::shown;
use crate::words::{self, Json};
use crate::{Code, Diagnostic, Text, TextBuilder, heredoc};

impl Parser<'_, '_> {
    pub(super) fn transfer(&mut self, name: &str, keyword: &Text, rest: &Text) -> Option<Kind> {
        let mut known = vec![
            ("chown", Type::Value),
            ("chmod", Type::Value),
            ("link", Type::Switch),
            ("exclude", Type::List),
        ];
        if name == "COPY" {
            known.extend([("from", Type::Value), ("parents", Type::Switch)]);
        } else {
            known.extend([
                ("checksum", Type::Value),
                ("keep-git-dir", Type::Switch),
                ("unpack", Type::Switch),
            ]);
        }
        let (mut flags, rest) = self.flags(name, rest, &known)?;
        let mut heredocs = Vec::new();
        let mut words = match words::json_array(&rest) {
            Json::Strings(words) => words,
            Json::Mixed(element) => {
                self.mixed(name, &element);
                return None;
            }
            Json::Other => {
                let before = self.problems.len();
                (heredocs, self.end) = heredoc::read(&rest, self.reader, self.problems);
                if self.problems.len() > before {
                    return None;
                }
                join_detached(words::blank_separated(&rest), &heredocs)
            }
        };
        let target = words.pop();
        let Some(target) = target else {
            let message = format!("{name} needs a source and a destination");
            self.missing(keyword, &message, &format!("write e.g. `{name} src/ /app/`"));
            return None;
        };
        if words.is_empty() {
            let message = format!("{name} needs a destination after {}", shown(&target));
            self.missing(&target, &message, &format!("write e.g. `{name} {target} /app/`"));
            return None;
        }
        let is_heredoc = |word: &Text| heredocs.iter().any(|heredoc| *heredoc.word == **word);
        if is_heredoc(&target) {
            let message = format!("the destination of {name} cannot be a heredoc");
            let help = format!("write the destination last: `{name} {target} /path`");
            self.missing(&target, &message, &help);
            return None;
        }
        let sources = words.iter().filter(|word| !is_heredoc(word)).cloned().collect();
        let transfer = Transfer {
            sources,
            target,
            // An empty name is none.
            from: flags.value("from").filter(|from| !from.is_empty()),
            chown: flags.value("chown"),
            chmod: flags.value("chmod"),
            link: flags.switch("link").unwrap_or(false),
            parents: flags.switch("parents").unwrap_or(false),
            exclude: flags.list("exclude"),
            checksum: flags.value("checksum"),
            keep_git_dir: flags.switch("keep-git-dir"),
            unpack: flags.switch("unpack"),
            heredocs,
        };
        if let Some(from) = transfer.from.as_ref().filter(|from| from.contains('$')) {
            self.report(
                Diagnostic::error(
                    Code::VariableInFrom,
                    from.span(),
                    "variables are not expanded in `--from`",
                )
                .help(format!("name a stage for it: `FROM {from} AS name`, then `--from=name`")),
            );
            return None;
        }
        let transfer = Box::new(transfer);
        Some(if name == "COPY" { Kind::Copy(transfer) } else { Kind::Add(transfer) })
    }
}

/// Makes one word of `<<` and the name behind it where they form a heredoc.
fn join_detached(words: Vec<Text>, heredocs: &[Heredoc]) -> Vec<Text> {
    let mut joined: Vec<Text> = Vec::with_capacity(words.len());
    for word in words {
        if let Some(opener) = joined.last().filter(|last| last.contains("<<")) {
            let both = format!("{}{}", opener.as_str(), word.as_str());
            if heredocs.iter().any(|heredoc| *heredoc.word == *both) {
                let mut builder = TextBuilder::like(opener);
                builder.push(opener, 0..opener.len());
                builder.push(&word, 0..word.len());
                joined.pop();
                joined.push(builder.finish());
                continue;
            }
        }
        joined.push(word);
    }
    joined
}
