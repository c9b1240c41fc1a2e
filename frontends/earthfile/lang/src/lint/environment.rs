//! What is known of the environment that a recipe comes to have: the variables that ENV sets in it
//! and in what it begins with.

use std::collections::{BTreeMap, BTreeSet};

use wbuild_dockerfile::Text;

use crate::ast::{Earthfile, Kind, Statement};
use crate::flags::is_literal;
use crate::reference::{self, Place, plus};

/// Variables of ENV.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Environment {
    /// Those that are set in this file.
    pub names: BTreeSet<String>,
    /// An image may set others.
    pub image: bool,
    /// Recipes of other files, or whoever calls, may set others.
    pub foreign: bool,
}

impl Environment {
    /// Adds what another one has.
    pub fn add(&mut self, other: &Environment) {
        self.names.extend(other.names.iter().cloned());
        self.image |= other.image;
        self.foreign |= other.foreign;
    }
}

/// The environments that the targets of a file end with, and what its functions add.
pub(super) struct Environments<'f> {
    ends: BTreeMap<&'f str, Environment>,
}

impl<'f> Environments<'f> {
    pub fn of(file: &'f Earthfile) -> Self {
        let mut all = Environments { ends: BTreeMap::new() };
        // Each round reaches recipes that need one more of the others.
        loop {
            let mut changed = false;
            for (recipe, statements) in file.bodies() {
                let name = recipe.map_or("base", |recipe| recipe.name.as_str());
                let mut end = match recipe {
                    Some(recipe) if recipe.marker.is_none() => all.begin(false),
                    _ => Environment::default(),
                };
                statements.iter().for_each(|statement| all.after(statement, &mut end));
                changed |= all.ends.get(name) != Some(&end);
                all.ends.insert(name, end);
            }
            if !changed {
                return all;
            }
        }
    }

    /// What a target begins with, or a function, which knows nothing of its caller.
    pub fn begin(&self, function: bool) -> Environment {
        match function {
            true => Environment { image: true, foreign: true, ..Environment::default() },
            false => self.ends.get("base").cloned().unwrap_or_default(),
        }
    }

    /// Adds what a command, and all in it, may set.
    pub fn after(&self, statement: &Statement, environment: &mut Environment) {
        statement.walk(&mut |statement| self.one(statement, environment));
    }

    /// Adds what a command by itself may set.
    pub fn one(&self, statement: &Statement, environment: &mut Environment) {
        let unknown = Environment { image: true, foreign: true, ..Environment::default() };
        match &statement.kind {
            Kind::Env(assign) => _ = environment.names.insert(assign.name.as_str().to_owned()),
            Kind::From { base, .. } if base.as_str() == "scratch" => {}
            Kind::From { base, .. } if plus(base).is_none() => environment.image = true,
            Kind::From { base: name, .. } | Kind::Do { function: name, .. } => {
                environment
                    .add(here(name).and_then(|name| self.ends.get(name)).unwrap_or(&unknown));
            }
            Kind::FromDockerfile { .. } | Kind::Locally => environment.add(&unknown),
            _ => {}
        }
    }
}

/// The recipe of this file that a reference names for sure.
pub(super) fn here(word: &Text) -> Option<&str> {
    let at = plus(word).filter(|_| is_literal(word))?;
    (reference::place(&word[..at]).ok()? == Place::Here).then(|| &word[at + 1..])
}
