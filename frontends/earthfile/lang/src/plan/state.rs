//! What a recipe has come to after some of its commands.

use std::collections::BTreeMap;

use wbuild_dockerfile::expand::Lookup;
use wbuild_dockerfile::{CacheDir, Image, Output, Platform, Vars};

use super::outputs::Left;

use super::place::Place;

/// Which target, for what, and with what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// Of its Earthfile.
    pub place: Place,
    /// `base` is what stands before the first target.
    pub name: String,
    pub platform: Platform,
    /// Arguments from outside.
    pub overrides: BTreeMap<String, String>,
    /// Its steps may ask for privileges: it is of the main context, or who names it allows that.
    pub privileged: bool,
}

impl Key {
    /// As it is shown.
    pub fn shown(&self) -> String {
        format!("{}+{}", self.place.shown, self.name)
    }
}

/// What IMPORT names.
#[derive(Clone, Debug)]
pub(super) struct Import {
    pub place: Place,
    /// `--allow-privileged`.
    pub privileged: bool,
}

/// A variable of a recipe.
#[derive(Clone, Debug)]
struct Variable {
    name: String,
    value: String,
    /// SET may change it.
    local: bool,
    /// Handed on to the file's other recipes.
    global: bool,
}

/// Variables of a recipe in nested scopes: ARG and LET, the innermost last.
#[derive(Clone, Debug, Default)]
pub(super) struct Scopes {
    variables: Vec<Variable>,
    /// Where each open scope begins.
    begins: Vec<usize>,
}

impl Scopes {
    pub fn declare(&mut self, name: &str, value: &str, local: bool, global: bool) {
        let begin = self.begins.last().copied().unwrap_or(0);
        let known = self.variables.iter().skip(begin).position(|known| known.name == name);
        if let Some(at) = known {
            self.variables.remove(begin + at);
        }
        let (name, value) = (name.to_owned(), value.to_owned());
        self.variables.push(Variable { name, value, local, global });
    }

    /// Changes a variable of LET. None if there is none of this name, false if it is an ARG.
    pub fn set(&mut self, name: &str, value: &str) -> Option<bool> {
        let known = self.variables.iter_mut().rev().find(|known| known.name == name)?;
        if known.local {
            known.value = value.to_owned();
        }
        Some(known.local)
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let known = self.variables.iter().rev().find(|known| known.name == name)?;
        Some(&known.value)
    }

    pub fn forget(&mut self, name: &str) {
        // Scopes that are open begin where they did.
        for variable in self.variables.iter_mut().filter(|known| known.name == name) {
            variable.name.clear();
        }
    }

    pub fn open(&mut self) {
        self.begins.push(self.variables.len());
    }

    pub fn close(&mut self) {
        if let Some(begin) = self.begins.pop() {
            self.variables.truncate(begin);
        }
    }

    /// What other recipes of the file begin with.
    pub fn globals(&self) -> Scopes {
        let variables = self.variables.iter().filter(|known| known.global).cloned().collect();
        Scopes { variables, begins: Vec::new() }
    }

    /// All that is in force, each name once.
    pub fn pairs(&self) -> Vars {
        let mut vars = Vars::default();
        for variable in self.variables.iter().filter(|known| !known.name.is_empty()) {
            vars.set(&variable.name, &variable.value);
        }
        vars
    }

    /// The names that are in force.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.variables.iter().map(|known| known.name.as_str()).filter(|name| !name.is_empty())
    }
}

/// A recipe as it stands after some of its commands.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// Its files; none as long as there are none.
    pub root: Option<Output>,
    pub image: Image,
    /// FROM or the like has been there.
    pub begun: bool,
    pub platform: Platform,
    pub scopes: Scopes,
    pub overrides: BTreeMap<String, String>,
    /// What SAVE ARTIFACT has saved.
    pub artifacts: Option<Output>,
    /// CACHE, which holds in its own recipe only.
    pub caches: Vec<CacheDir>,
    /// HOST, which goes with the files.
    pub hosts: Vec<(String, String)>,
    /// A CMD stood in this recipe, so that an ENTRYPOINT keeps it.
    pub cmd: bool,
    /// What it leaves behind, in the order of the commands.
    pub left: Vec<Left>,
    /// What the last RUN --push was begun with, and what it has come to: the next one may go on there.
    pub pushed: Option<(Option<Output>, Output)>,
    /// IMPORT, by alias.
    pub imports: BTreeMap<String, Import>,
    /// Its steps may ask for privileges.
    pub privileged: bool,
    /// Of the Earthfile whose target it is: files are taken from there and saved there.
    pub place: Place,
    /// As steps are named.
    pub title: String,
}

impl Lookup for State {
    fn lookup(&self, name: &str) -> Option<&str> {
        self.scopes.get(name).or_else(|| self.image.env().get(name))
    }
}

impl State {
    /// Without files.
    pub fn new(key: &Key) -> State {
        State {
            root: None,
            image: Image::empty(&key.platform),
            begun: false,
            platform: key.platform.clone(),
            scopes: Scopes::default(),
            overrides: key.overrides.clone(),
            artifacts: None,
            caches: Vec::new(),
            hosts: Vec::new(),
            cmd: false,
            left: Vec::new(),
            pushed: None,
            imports: BTreeMap::new(),
            privileged: key.privileged,
            place: key.place.clone(),
            title: key.shown(),
        }
    }

    /// Variables of the processes it runs.
    pub fn env(&self) -> Vec<(String, String)> {
        let mut vars = self.image.env().clone();
        for (name, value) in self.scopes.pairs().pairs() {
            vars.set(name, value);
        }
        vars.pairs().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}
