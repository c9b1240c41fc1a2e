//! What a recipe has come to after some of its commands.

use std::collections::BTreeMap;

use wbuild_dockerfile::expand::Lookup;
use wbuild_dockerfile::{CacheDir, Image, Output, Platform, Span};

use super::outputs::Left;
use super::scopes::Scopes;

use super::place::Place;

/// Which target, for what, and with what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// `base` is what stands before the first target. First, as it tells most keys apart.
    pub name: String,
    /// Of its Earthfile.
    pub place: Place,
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

/// A recipe as it stands after some of its commands.
#[derive(Clone, Debug)]
pub(super) struct State {
    /// Its files; none as long as there are none.
    pub root: Option<Output>,
    pub image: Image,
    /// FROM or the like has been there.
    pub begun: bool,
    /// LOCALLY has been there: there is no image.
    pub locally: bool,
    pub platform: Platform,
    pub scopes: Scopes,
    /// `$(…)` is replaced in all words of the commands that are carried out.
    pub shells_out: bool,
    /// A cache with an id is one for all files.
    pub shares_caches: bool,
    pub overrides: BTreeMap<String, String>,
    /// What SAVE ARTIFACT has saved.
    pub artifacts: Option<Output>,
    /// CACHE, which holds in its own recipe only.
    pub caches: Vec<CacheDir>,
    /// Directories of those whose files become part of the image, with the words that name them.
    pub persisted: Vec<(String, Span)>,
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
    /// Functions and blocks inside each other.
    pub depth: usize,
    /// As steps are named.
    pub title: String,
}

impl Lookup for State {
    fn lookup(&self, name: &str) -> Option<&str> {
        let own = self.scopes.own(name).or_else(|| self.image.env().get(name));
        own.or_else(|| self.scopes.global(name))
    }
}

impl State {
    /// Without files.
    pub fn new(key: &Key) -> State {
        State {
            root: None,
            image: Image::empty(&key.platform),
            begun: false,
            locally: false,
            platform: key.platform.clone(),
            scopes: Scopes::default(),
            shells_out: true,
            shares_caches: true,
            overrides: key.overrides.clone(),
            artifacts: None,
            caches: Vec::new(),
            persisted: Vec::new(),
            hosts: Vec::new(),
            cmd: false,
            left: Vec::new(),
            pushed: None,
            imports: BTreeMap::new(),
            privileged: key.privileged,
            place: key.place.clone(),
            depth: 0,
            title: key.shown(),
        }
    }

    /// Variables of the processes it runs.
    pub fn env(&self) -> Vec<(String, String)> {
        let mut vars = self.image.env().clone();
        for (name, value) in self.scopes.globals_below(self.image.env()) {
            vars.set(name, value);
        }
        for (name, value) in self.scopes.owned() {
            vars.set(name, value);
        }
        vars.pairs().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }
}
