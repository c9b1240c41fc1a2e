//! From a parsed file to a build graph.
//!
//! A target is planned when something needs it, once for each platform and set of arguments
//! ([`state::Key`]). Planning it means carrying out its commands one after the other ([`recipe`]):
//! most add nodes to the graph and are not waited for. What depends on the outcome of a command
//! (IF, `$(…)`) waits for that, while others go on ([`schedule`]).
//!
//! What a target saves for outside counts only if the target is the one that was asked for, or is
//! reached from that by BUILD.

mod attempt;
mod base;
mod builtin;
mod cache;
mod config;
mod dockerfile;
mod files;
mod locally;
mod outputs;
mod place;
mod recipe;
mod run;
mod schedule;
mod scopes;
mod state;
mod values;
mod wait;
mod wildcard;
mod words;

pub mod host;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use wbuild_dockerfile::lexer::shown;
use wbuild_dockerfile::suggest::did_you_mean;
use wbuild_dockerfile::{Attrs, Diagnostic, Failure, Output, Platform, Severity, Span};
use wbuild_git_url::Hosted;

use crate::Code;
use crate::ast::{Earthfile, Recipe};
use crate::{Parsed, describe};
use attempt::Failed;
use host::DynamicHost;
use outputs::Collected;
use place::Place;
use schedule::Schedule;
use state::{Key, State};
use wait::Need;

/// How many targets, with their platforms and arguments, a build may come to.
const MOST_TARGETS: usize = 10_000;

/// A file that takes part in the build.
struct File {
    parsed: Earthfile,
    /// Where it lies.
    place: Place,
    /// Where it begins.
    start: Span,
}

/// A target, planned or being planned.
#[derive(Default)]
struct Slot {
    done: Option<Result<Rc<State>, Failure>>,
    /// The target that it waits for.
    waits: Option<Key>,
    need: Need,
    /// What it needs itself.
    needs: Vec<(Key, Need)>,
    /// Tasks that wait for it to be done, or to be needed.
    waiting: Vec<Waker>,
}

impl Slot {
    /// Lets those go on that wait for something of the target.
    fn wake(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }
}

/// A build.
struct Session<'h> {
    host: RefCell<&'h mut (dyn DynamicHost + 'h)>,
    schedule: Schedule<'h>,
    /// Of the Earthfile that is built.
    main: Place,
    files: RefCell<BTreeMap<Place, Rc<File>>>,
    repositories: RefCell<BTreeMap<Rc<Hosted>, Output>>,
    /// What is known of repositories, as far as somebody asked.
    facts: RefCell<BTreeMap<Rc<Hosted>, Rc<Attrs>>>,
    slots: RefCell<BTreeMap<Key, Slot>>,
    contexts: RefCell<BTreeMap<Place, Output>>,
    /// Files with those of a cache in them.
    copied: RefCell<BTreeMap<(Option<Output>, String), Output>>,
    build_platform: Platform,
    explicit_platform: bool,
    no_cache: bool,
    resolve: Option<String>,
    /// The caller pushes.
    pushes: bool,
    /// The build is part of a pipeline.
    ci: bool,
    /// What was asked for.
    asked: Vec<Key>,
    /// Targets of which all was left behind already.
    published: RefCell<BTreeSet<Key>>,
    /// What images besides the build's own are called.
    image_names: RefCell<BTreeSet<String>>,
    /// What has failed in TRY.
    failed: RefCell<Vec<Failed>>,
}

/// The file to build, parsed; there are no errors in it.
pub(crate) fn read(host: &mut dyn DynamicHost) -> Result<(u32, Earthfile), Failure> {
    let definition = host.definition()?;
    parse_source(host, (&definition.name, &definition.data), Parsed::failed)
}

/// A file by its name, unless it is `refused`.
fn parse_source(
    host: &mut dyn DynamicHost,
    (name, data): (&str, &[u8]),
    refused: impl Fn(&Parsed) -> bool,
) -> Result<(u32, Earthfile), Failure> {
    let source = host.add_source(name, "earthfile", data)?;
    let parsed = crate::parse(source, data);
    if refused(&parsed) {
        return Err(Failure::of(parsed.problems));
    }
    // Errors are told by what needs the recipe that they are in.
    let problems = parsed.problems.into_iter();
    let told = problems.filter(|problem| problem.severity != Severity::Error);
    told.for_each(|problem| host.report(problem));
    Ok((source, parsed.file))
}

/// Builds what the host asks for.
pub fn build<'h>(host: &'h mut (dyn DynamicHost + 'h)) -> Result<(), Failure> {
    let definition = host.definition()?;
    let file = (&definition.name[..], &definition.data[..]);
    let (source, parsed) = parse_source(host, file, Parsed::refused)?;
    let directory = definition.attrs.into_iter().find(|(name, _)| name == "directory");
    let main = Place::main(directory.map(|(_, directory)| directory).unwrap_or_default());
    let start = Span { source, start: 0, end: 0 };
    let mut targets = host.targets();
    let target = targets.pop().or_else(|| host.opt("target")).filter(|name| !name.is_empty());
    if !targets.is_empty() {
        let message = "an Earthfile is built for one target at a time";
        return Err(Failure::new("unsupported", message));
    }
    let name = target.unwrap_or_else(|| "base".to_owned());
    let name = name.strip_prefix('+').unwrap_or(&name);
    let (name, artifact) = match name.split_once('/') {
        Some((name, path)) => (name.to_owned(), Some(format!("/{path}"))),
        None => (name.to_owned(), None),
    };
    let overrides: BTreeMap<String, String> = host.opts("build-arg:").into_iter().collect();
    let build_platform = host.build_platform();
    let mut platforms = host.target_platforms();
    if platforms.is_empty() {
        platforms.push(build_platform.clone());
    }
    let keys: Vec<Key> = platforms
        .into_iter()
        .map(|platform| {
            let (place, overrides) = (main.clone(), overrides.clone());
            Key { place, name: name.clone(), platform, overrides, privileged: true }
        })
        .collect();
    let session = Rc::new(Session {
        pushes: host.opt("push").as_deref() == Some("true"),
        ci: host.opt("ci").as_deref() == Some("true"),
        asked: keys.clone(),
        published: RefCell::default(),
        image_names: RefCell::default(),
        failed: RefCell::default(),
        explicit_platform: host.opt("platform").is_some_and(|value| !value.is_empty()),
        no_cache: host.opt("no-cache").is_some(),
        resolve: host.opt("image-resolve-mode").filter(|mode| !mode.is_empty()),
        host: RefCell::new(host),
        schedule: Schedule::new(),
        main: main.clone(),
        files: RefCell::default(),
        repositories: RefCell::default(),
        facts: RefCell::default(),
        slots: RefCell::default(),
        contexts: RefCell::default(),
        copied: RefCell::default(),
        build_platform,
    });
    session.add_earthfile(&main, parsed, start)?;
    for key in &keys {
        session.begin(key);
        if let Some(slot) = session.slots.borrow_mut().get_mut(key) {
            slot.need = Need::Outside;
        }
    }
    let finished = session.schedule.run(&session.host);
    session.note_unused(&overrides);
    session.results(&keys, finished, artifact.as_deref())
}

impl<'h> Session<'h> {
    /// Begins to plan a target, unless that was done.
    fn begin(self: &Rc<Self>, key: &Key) {
        let mut slots = self.slots.borrow_mut();
        if slots.contains_key(key) {
            return;
        }
        let mut slot = Slot::default();
        if slots.len() >= MOST_TARGETS {
            let message = format!("the build comes to more than {MOST_TARGETS} targets");
            slot.done = Some(Err(Failure::new("limit", message)));
        } else {
            let (session, key) = (Rc::clone(self), key.clone());
            self.schedule.begin(async move {
                let planned = session.plan(&key).await.map(Rc::new);
                if let Some(slot) = session.slots.borrow_mut().get_mut(&key) {
                    slot.done = Some(planned);
                    slot.wake();
                }
            });
        }
        slots.insert(key.clone(), slot);
    }

    /// A target that `from` needs at `span`, planned.
    async fn need(
        self: &Rc<Self>,
        key: &Key,
        from: &Key,
        span: Span,
    ) -> Result<Rc<State>, Failure> {
        self.begin(key);
        self.note_need(key, from, self.taken(key, from));
        self.check_cycle(key, from, span)?;
        if let Some(slot) = self.slots.borrow_mut().get_mut(from) {
            slot.waits = Some(key.clone());
        }
        let done = self.slot(key, |slot| slot.done.clone()).await;
        if let Some(slot) = self.slots.borrow_mut().get_mut(from) {
            slot.waits = None;
        }
        done
    }

    /// Waits for something of a target that was begun.
    async fn slot<T>(&self, key: &Key, get: impl Fn(&Slot) -> Option<T>) -> T {
        poll_fn(|context| {
            let mut slots = self.slots.borrow_mut();
            let Some(slot) = slots.get_mut(key) else { return Poll::Pending };
            match get(slot) {
                Some(found) => Poll::Ready(found),
                None => {
                    slot.waiting.push(context.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Refuses to wait for what waits for the one that would wait.
    fn check_cycle(&self, key: &Key, from: &Key, span: Span) -> Result<(), Failure> {
        let slots = self.slots.borrow();
        let mut chain = vec![from.shown(), key.shown()];
        let mut at = key;
        while at != from {
            match slots.get(at).and_then(|slot| slot.waits.as_ref()) {
                Some(next) => at = next,
                None => return Ok(()),
            }
            chain.push(at.shown());
        }
        let message = format!("the target {} needs itself", shown(&from.shown()));
        let help = format!("the targets need each other in a circle: {}", chain.join(" → "));
        Err(Diagnostic::error(Code::InvalidReference, span, message).help(help).into())
    }

    /// The commands of a target.
    async fn plan(self: &Rc<Self>, key: &Key) -> Result<State, Failure> {
        // Whoever names a target has read its file.
        let file = self.file(&key.place, Span { source: 0, start: 0, end: 0 })?;
        if key.name == "base" {
            let mut state = State::new(key);
            self.commands(key, &file, &mut state, &file.parsed.base).await?;
            state.root = self.persisted(&state, None)?;
            return Ok(state);
        }
        let recipe = find(&file.parsed.targets, &key.name)
            .ok_or_else(|| unknown(&file, "target", &key.name, None))?;
        readable(recipe)?;
        self.begin_ahead(key, &file, recipe);
        let base = Key { name: "base".to_owned(), ..key.clone() };
        let below = self.need(&base, key, recipe.name.span()).await?;
        let mut state = State::new(key);
        state.root = below.root;
        state.image = below.image.clone();
        state.begun = below.begun;
        state.locally = below.locally;
        state.platform = below.platform.clone();
        state.scopes = below.scopes.globals();
        state.hosts = below.hosts.clone();
        state.imports = below.imports.clone();
        self.commands(key, &file, &mut state, &recipe.body).await?;
        state.root = self.persisted(&state, None)?;
        Ok(state)
    }

    /// An argument that nothing declares has no effect; say so, as it is often misspelt.
    fn note_unused(&self, overrides: &BTreeMap<String, String>) {
        let mut found = Vec::new();
        for file in self.files.borrow().values() {
            let recipes = file.parsed.targets.iter().chain(&file.parsed.functions);
            let bodies = recipes.map(|recipe| &recipe.body).chain([&file.parsed.base]);
            bodies.for_each(|body| describe::collect(body, &mut found));
        }
        let declared: BTreeSet<&str> = found
            .iter()
            .filter(|parameter| parameter.kind == "arg")
            .map(|parameter| parameter.name.as_str())
            .collect();
        for name in overrides.keys().filter(|name| !declared.contains(name.as_str())) {
            let at = Span { source: 0, start: 0, end: 0 };
            let message = format!("the argument {} is not declared by any ARG", shown(name));
            let mut note = Diagnostic::note(Code::UnusedArgument, at, message)
                .maybe_help(did_you_mean(name, declared.iter().copied()));
            // It is about the command line, not about a place in the file.
            note.labels.clear();
            self.host.borrow_mut().report(note);
        }
    }

    /// Names what was planned as the build's results: all of it, or one artifact.
    fn results(&self, keys: &[Key], finished: bool, artifact: Option<&str>) -> Result<(), Failure> {
        for key in keys {
            let slots = self.slots.borrow();
            match slots.get(key).and_then(|slot| slot.done.as_ref()) {
                Some(Ok(_)) => {}
                Some(Err(failure)) => {
                    let failure = failure.clone();
                    drop(slots);
                    return self.fail(&failure);
                }
                None if finished => {
                    return Err(Failure::new("internal", "a target was not planned"));
                }
                None => {
                    let message = format!("targets that {} needs wait for each other", key.shown());
                    return Err(Failure::new("invalid", message));
                }
            }
        }
        if let Some(path) = artifact {
            return self.artifact(keys, path);
        }
        let mut all = Collected::default();
        keys.iter().for_each(|key| self.collect(key, &mut all));
        let main = self.main_images(keys, &all);
        // Steps of other targets are run, though nothing of them may be yielded.
        let yielded: BTreeSet<Output> = main.iter().filter_map(|saved| saved.root).collect();
        let roots: BTreeSet<Output> = all.roots.iter().copied().collect();
        let others = roots.difference(&yielded);
        others.copied().try_for_each(|root| self.host.borrow_mut().require(root))?;
        self.yield_files("", &all.locals)?;
        self.yield_images(&all.images, &main)?;
        self.yield_effects(&all.effects)
    }
}

impl File {
    /// Whether its VERSION switches something on.
    fn has(&self, feature: &str) -> bool {
        self.parsed.has(feature)
    }
}

/// A recipe by its name.
fn find<'r>(recipes: &'r [Recipe], name: &str) -> Option<&'r Recipe> {
    recipes.iter().find(|recipe| recipe.name.as_str() == name)
}

/// Refuses a recipe that there is an error in.
fn readable(recipe: &Recipe) -> Result<(), Failure> {
    match recipe.problems.is_empty() {
        true => Ok(()),
        false => Err(Failure::of(recipe.problems.clone())),
    }
}

/// There is no recipe of a name.
fn unknown(file: &File, kind: &str, name: &str, at: Option<Span>) -> Failure {
    let recipes = if kind == "target" { &file.parsed.targets } else { &file.parsed.functions };
    let names: Vec<&str> = recipes.iter().map(|recipe| recipe.name.as_str()).collect();
    let help = match names.len() {
        0 => format!("the Earthfile has no {kind}s"),
        1..=20 => format!("the {kind}s are {}", names.join(", ")),
        _ => "`--call=targets` lists those that there are".to_owned(),
    };
    let message = format!("there is no {kind} {}", shown(name));
    let mut problem = Diagnostic::error(Code::UnknownTarget, at.unwrap_or(file.start), message)
        .help(help)
        .maybe_help(did_you_mean(name, names));
    if at.is_none() {
        // It is about the command line, not about a place in the file.
        problem.labels.clear();
    }
    Failure { kind: "not-found".to_owned(), ..problem.into() }
}

/// Something that is known but not carried out yet.
fn unsupported(what: &str, at: Span) -> Failure {
    Diagnostic::error(Code::Unsupported, at, format!("{what} is not supported yet")).into()
}
