//! The variables of a recipe.
//!
//! They hold from their declaration to the end of the recipe, also if that stands in a block. Of
//! several variables of one name LET comes before ARG, that before ENV of the image, and that before
//! the global arguments of the file.

use wbuild_dockerfile::Vars;

/// Name and value, in the order of their declarations.
type Pairs = Vec<(String, String)>;

/// Variables of ARG and LET, and of FOR.
#[derive(Clone, Debug, Default)]
pub(super) struct Scopes {
    /// SET may change these.
    locals: Pairs,
    arguments: Pairs,
    globals: Pairs,
}

fn put(pairs: &mut Pairs, name: &str, value: &str) {
    pairs.retain(|(known, _)| known != name);
    pairs.push((name.to_owned(), value.to_owned()));
}

fn find<'p>(pairs: &'p Pairs, name: &str) -> Option<&'p str> {
    pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
}

impl Scopes {
    /// Those of a recipe that has only the global arguments so far.
    pub fn globals(&self) -> Scopes {
        Scopes { globals: self.globals.clone(), ..Scopes::default() }
    }

    pub fn argument(&mut self, name: &str, value: &str) {
        put(&mut self.arguments, name, value);
    }

    /// An argument that the file's other recipes have, too.
    pub fn add_global(&mut self, name: &str, value: &str) {
        put(&mut self.globals, name, value);
    }

    /// A variable of LET.
    pub fn local(&mut self, name: &str, value: &str) {
        put(&mut self.locals, name, value);
    }

    /// Changes a variable of LET. None if there is none of this name, false if it is an ARG.
    pub fn set(&mut self, name: &str, value: &str) -> Option<bool> {
        if let Some(known) = self.locals.iter_mut().find(|(known, _)| known == name) {
            value.clone_into(&mut known.1);
            return Some(true);
        }
        self.own(name).or(self.global(name)).map(|_| false)
    }

    /// Ends the variable of a FOR.
    pub fn end(&mut self, name: &str) {
        self.arguments.retain(|(known, _)| known != name);
    }

    /// The value of LET or ARG.
    pub fn own(&self, name: &str) -> Option<&str> {
        find(&self.locals, name).or_else(|| find(&self.arguments, name))
    }

    /// The value of a global argument.
    pub fn global(&self, name: &str) -> Option<&str> {
        find(&self.globals, name)
    }

    /// Global arguments that the environment does not have.
    pub fn globals_below<'s>(&'s self, env: &'s Vars) -> impl Iterator<Item = (&'s str, &'s str)> {
        let pairs = self.globals.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        pairs.filter(|(name, _)| env.get(name).is_none())
    }

    /// What LET and ARG declare, in the order in which later ones count.
    pub fn owned(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.arguments.iter().chain(&self.locals);
        pairs.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The arguments that `--pass-args` hands on: first the global ones.
    pub fn passed(&self) -> impl Iterator<Item = (&str, &str)> {
        let pairs = self.globals.iter().chain(&self.arguments);
        pairs.map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The names that are in force.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let pairs = self.locals.iter().chain(&self.arguments).chain(&self.globals);
        pairs.map(|(name, _)| name.as_str())
    }
}
