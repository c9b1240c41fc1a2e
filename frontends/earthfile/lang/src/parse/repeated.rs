//! Variables that are declared twice in a recipe, which version 0.8 does not allow.

use std::collections::BTreeMap;

use wbuild_dockerfile::lexer::shown;
use wbuild_dockerfile::{Diagnostic, Span};

use super::Parser;
use crate::Code;
use crate::ast::{Assign, Earthfile, Kind, Statement};

/// What declares a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum By {
    Arg,
    Global,
    Let,
}

/// Where the names of a recipe are declared so far.
type Declared = BTreeMap<(String, By), Span>;

impl Parser {
    /// Looks at all recipes.
    pub(super) fn repeated(&mut self, file: &Earthfile) {
        if !self.features.has("arg-scope-and-set") {
            return;
        }
        for (_, body) in file.bodies() {
            self.declarations(body, &mut Declared::new());
        }
    }

    fn declarations(&mut self, statements: &[Statement], declared: &mut Declared) {
        for statement in statements {
            match &statement.kind {
                Kind::Arg { flags, assign } => {
                    let global = flags.get("global").is_some();
                    let by = if global { By::Global } else { By::Arg };
                    self.declaration(assign, by, declared);
                }
                Kind::Let(assign) => self.declaration(assign, By::Let, declared),
                _ => {}
            }
            let parts = statement.blocks();
            for block in &parts {
                // Of several blocks one is carried out, so none knows of the others.
                self.declarations(block, &mut declared.clone());
            }
        }
    }

    fn declaration(&mut self, assign: &Assign, by: By, declared: &mut Declared) {
        let name = assign.name.as_str();
        let before = |by| declared.get(&(name.to_owned(), by)).copied();
        let repeated = match by {
            By::Arg => before(By::Let).or_else(|| before(By::Arg)),
            By::Global => before(By::Global).or_else(|| before(By::Arg)),
            By::Let => before(By::Let),
        };
        let Some(first) = repeated else {
            declared.insert((name.to_owned(), by), assign.name.span());
            return;
        };
        let help = match by {
            By::Let => format!("write `SET {name}=…` to change it"),
            By::Arg if before(By::Let).is_some() => {
                "declare the argument before the variable, or give it another name".to_owned()
            }
            By::Global if before(By::Global).is_none() => {
                "write `--global` at the first one, and remove this one".to_owned()
            }
            _ => format!("remove one of them; a variable that changes is `LET {name}=${name}`"),
        };
        let message = format!("{} is declared twice", shown(name));
        self.report(
            Diagnostic::error(Code::RepeatedName, assign.name.span(), message)
                .related(first, "the first time")
                .help(help),
        );
    }
}
