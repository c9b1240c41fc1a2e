//! `ENV`, `LABEL` and `ARG`.

use super::{Parser, described};
use crate::ast::{Declaration, Pair};
use crate::text::shown;
use crate::words;
use crate::{Code, Diagnostic, Text};

impl Parser<'_, '_> {
    /// `name=value …`, or the old form `name value` with one pair on a line.
    pub(super) fn pairs(
        &mut self,
        instruction: &str,
        keyword: &Text,
        rest: &Text,
    ) -> Option<Vec<Pair>> {
        let (_, rest) = self.flags(instruction, rest, &[])?;
        let words = words::quoted(&rest, self.escape);
        let Some(first) = words.first() else {
            let message = format!("{instruction} needs a name and a value");
            self.missing(keyword, &message, &format!("write e.g. `{instruction} name=value`"));
            return None;
        };
        if !first.contains('=') {
            return self.legacy_pair(instruction, &rest);
        }
        let before = self.problems.len();
        let mut pairs = Vec::with_capacity(words.len());
        for word in &words {
            match word.split_once('=') {
                Some((name, _)) if name.is_empty() => self.blank_name(instruction, word),
                Some((name, value)) => pairs.push(Pair { name, value, legacy: false }),
                None => self.report(
                    Diagnostic::error(
                        Code::MissingEquals,
                        word.span(),
                        format!("{} is not a `name=value` pair", shown(word)),
                    )
                    .help("put double quotes around a value that holds blanks: `name=\"a b\"`"),
                ),
            }
        }
        (self.problems.len() == before).then_some(pairs)
    }

    fn legacy_pair(&mut self, instruction: &str, rest: &Text) -> Option<Vec<Pair>> {
        let (name, value) = words::keyword(rest);
        if value.is_empty() {
            let help = format!("write `{instruction} {name}=value`");
            self.missing(&name, &format!("{} has no value", shown(&name)), &help);
            return None;
        }
        Some(vec![Pair { name, value, legacy: true }])
    }

    fn blank_name(&mut self, instruction: &str, word: &Text) {
        self.report(
            Diagnostic::error(
                Code::MissingName,
                word.span(),
                format!("a name is missing before `=` in {}", shown(word)),
            )
            .help(format!("write `{instruction} name=value` without blanks around the `=`")),
        );
    }

    /// `name` or `name=default`, several on a line.
    pub(super) fn arguments(
        &mut self,
        keyword: &Text,
        rest: &Text,
        doc: &[Text],
    ) -> Option<Vec<Declaration>> {
        // No builder has ever looked at flags of ARG.
        let (_, rest) = words::flags(rest);
        let words = words::quoted(&rest, self.escape);
        if words.is_empty() {
            self.missing(keyword, "ARG needs a name", "write e.g. `ARG VERSION=1.0`");
            return None;
        }
        let before = self.problems.len();
        let mut declarations = Vec::with_capacity(words.len());
        for word in &words {
            let (name, default) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (word.clone(), None),
            };
            if name.is_empty() {
                self.blank_name("ARG", word);
                continue;
            }
            let doc = described(doc, &name);
            declarations.push(Declaration { name, default, doc });
        }
        (self.problems.len() == before).then_some(declarations)
    }
}
