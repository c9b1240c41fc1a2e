//! What targets leave behind: files, images, and what is done when the caller pushes.
//!
//! All of it counts along chains of BUILD that begin at the target that was asked for; before version
//! 0.6 also that of targets that only files are taken from. Images that go
//! by the same names are one image, for a platform each: so targets for one platform may make up an
//! image together.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use wbuild_dockerfile::lexer::shown;
use wbuild_dockerfile::{
    Attrs, CopyAction, Diagnostic, Failure, FileAction, FileOp, Output, Platform, Span, Text,
};

use super::Session;
use super::files::{ALLOW_MISSING, REQUIRED};
use super::host::DynamicHost;
use super::place;
use super::state::{Key, State};
use super::wait::Need;
use crate::Code;
use crate::flags::{self, Flags};

/// What AS LOCAL asks for.
#[derive(Clone, Debug)]
pub(super) struct Local {
    pub root: Output,
    /// In the target.
    pub path: String,
    /// What it is called as an artifact, if not as it is in the target.
    pub name: Option<String>,
    /// A directory of the main context.
    pub base: String,
    /// Below that, with a leading slash.
    pub target: String,
    pub opts: Vec<(String, String)>,
    pub span: Span,
}

impl Local {
    /// What is missing is no error any more.
    pub fn pass_over_missing(&mut self) {
        self.opts.retain(|(name, _)| name != REQUIRED);
        self.opts.push((ALLOW_MISSING.to_owned(), "true".to_owned()));
    }

    /// The files, and where they are among them: in the target, or as the artifact alone.
    fn saved(&self, host: &mut dyn DynamicHost) -> Result<(Output, String, Attrs), Failure> {
        let (source, path, opts) = (self.root, self.path.clone(), self.opts.clone());
        let Some(name) = &self.name else { return Ok((source, path, opts)) };
        // What follows takes one thing by its name.
        let one = opts.iter().filter(|(name, _)| !matches!(&**name, "wildcard" | "contents-only"));
        let one = one.cloned().collect();
        let copy = CopyAction { source, path, target: name.clone(), opts };
        let actions = vec![(self.span, FileAction::Copy(copy))];
        let saved = host.file(&FileOp { base: None, names_from: None, actions })?;
        host.annotate(saved, "save artifact", &[self.span], &Vec::new());
        Ok((saved, name.clone(), one))
    }
}

/// A name of SAVE IMAGE.
#[derive(Clone, Debug)]
pub(super) struct SavedName {
    pub name: String,
    pub push: bool,
    pub span: Span,
}

/// What SAVE IMAGE saves: the target as it was there.
#[derive(Clone, Debug)]
pub(super) struct Saved {
    pub names: Vec<SavedName>,
    pub root: Option<Output>,
    /// As JSON.
    pub config: String,
    pub platform: Platform,
    /// It may be for several platforms.
    pub indexed: bool,
}

/// Something that a target leaves behind, or that does.
#[derive(Clone, Debug)]
pub(super) enum Left {
    /// `SAVE ARTIFACT … AS LOCAL`.
    Local(Local),
    /// `SAVE IMAGE` with a name.
    Image(Saved),
    /// `RUN --push`, with its line.
    Effect(Output, String),
    /// `BUILD`.
    Build(Key),
}

/// What several targets leave behind, in the order of their commands.
#[derive(Default)]
pub(super) struct Collected {
    pub locals: Vec<Local>,
    pub images: Vec<(Key, Saved)>,
    pub effects: Vec<(Output, String)>,
    /// The files that they have come to; a target that was asked for is the first.
    pub roots: Vec<Output>,
    /// All of them.
    pub keys: BTreeSet<Key>,
}

/// Images that differ, each with its platform.
#[derive(Default)]
struct Members(Vec<(Platform, Option<Output>, String)>);

/// A name, and which of the images go by it.
struct Tag<'s> {
    name: &'s SavedName,
    push: bool,
    indexed: bool,
    key: &'s Key,
    members: Vec<usize>,
}

/// An image of the build, for one platform or several.
struct Group<'s> {
    /// Which target's it is; none if it is the image of the build.
    key: Option<&'s Key>,
    members: Vec<usize>,
    attrs: Vec<(String, String)>,
}

impl<'h> Session<'h> {
    pub(super) async fn save_image(
        self: &Rc<Self>,
        key: &Key,
        state: &mut State,
        flags: &Flags,
        names: &[Text],
    ) -> Result<(), Failure> {
        let push = self.switch(state, flags, "push").await?;
        let indexed = !self.switch(state, flags, "no-manifest-list").await?;
        for flag in &flags.0 {
            // The image has no labels of the builder.
            let (message, help) = match flag.name {
                "cache-from" => {
                    ("`--cache-from` has no effect", "give it to `wbuild --cache-from`")
                }
                "cache-hint" => ("`--cache-hint` has no effect", "every step is cached"),
                "insecure" if self.switch(state, flags, "insecure").await? => {
                    let message = "an Earthfile cannot give up the protection of a connection";
                    let help =
                        "leave it out: the configuration says which registries are `insecure`";
                    let at = flags::span(flag);
                    return Err(Diagnostic::error(Code::Unsupported, at, message)
                        .help(help)
                        .into());
                }
                _ => continue,
            };
            let note = Diagnostic::note(Code::Unsupported, flags::span(flag), message).help(help);
            self.host.borrow_mut().report(note);
        }
        let mut saved = Vec::new();
        for name in names {
            let text = self.word(state, name).await?;
            if !text.is_empty() {
                saved.push(SavedName { name: text, push, span: name.span() });
            }
        }
        if !saved.is_empty() {
            // With the files of caches that become part of it.
            let whole = State { root: self.persisted(state, None)?, ..state.clone() };
            let image = self.image_of(key, &whole, saved, indexed);
            state.left.push(Left::Image(image));
        }
        Ok(())
    }

    /// A target as an image.
    fn image_of(&self, key: &Key, state: &State, names: Vec<SavedName>, indexed: bool) -> Saved {
        let mut image = state.image.clone();
        let asked = self.asked.contains(key);
        // What was asked for on the command line is what the image is said to be for.
        let platform = match asked && (self.explicit_platform || self.asked.len() > 1) {
            true => &key.platform,
            false => &state.platform,
        };
        image.settle_platform(platform, asked && self.explicit_platform);
        let (root, platform) = (state.root, platform.clone());
        Saved { names, root, config: image.into_json(), platform, indexed }
    }

    /// All that a target leaves behind with those that it builds, as far as that is not done.
    pub(super) fn collect(&self, key: &Key, all: &mut Collected) {
        self.collect_left(key, &[Left::Build(key.clone())], all);
    }

    /// The same of a part of a target.
    pub(super) fn collect_left(&self, key: &Key, left: &[Left], all: &mut Collected) {
        // A stack of its own: chains may be long.
        let mut open = vec![(key.clone(), left.iter().cloned().collect::<VecDeque<Left>>())];
        while let Some((key, left)) = open.last_mut() {
            match left.pop_front() {
                Some(Left::Local(local)) => all.locals.push(local),
                Some(Left::Image(saved)) => all.images.push((key.clone(), saved)),
                Some(Left::Effect(at, line)) => all.effects.push((at, line)),
                Some(Left::Build(key)) => {
                    let left = self.left_of(&key, all);
                    open.extend(left.map(|left| (key, left)));
                }
                None => drop(open.pop()),
            }
        }
    }

    /// What a target leaves behind by itself; none if that was collected, or left behind, before.
    fn left_of(&self, key: &Key, all: &mut Collected) -> Option<VecDeque<Left>> {
        if self.published.borrow().contains(key) || !all.keys.insert(key.clone()) {
            return None;
        }
        let slots = self.slots.borrow();
        let slot = slots.get(key)?;
        let state = slot.done.as_ref()?.as_ref().ok()?;
        all.roots.extend(state.root);
        let keeps_all = self.keeps_all(key);
        let needed = slot.needs.iter().filter(|(_, how)| keeps_all && *how == Need::Outside);
        let needed = needed.map(|(key, _)| Left::Build(key.clone()));
        Some(needed.chain(state.left.iter().cloned()).collect())
    }

    /// Yields files for the client, by a name: a tree for what lies below the directory of the main
    /// Earthfile, and one for each other directory. False if there are none.
    pub(super) fn yield_files(&self, name: &str, locals: &[Local]) -> Result<bool, Failure> {
        let main = &self.main.directory;
        let mut trees: Vec<(&str, Vec<(Span, FileAction)>)> = Vec::new();
        for local in locals {
            let whole = format!("{}{}", local.base, local.target);
            let (base, target) = match place::strip(whole.trim_start_matches('/'), main) {
                Some(below) => (main, format!("/{}", below.trim_start_matches('/'))),
                None => (&local.base, local.target.clone()),
            };
            let (source, path, opts) = local.saved(&mut **self.host.borrow_mut())?;
            let copy = CopyAction { source, path, target, opts };
            let action = (local.span, FileAction::Copy(copy));
            match trees.iter_mut().find(|(known, _)| known == base) {
                Some((_, actions)) => actions.push(action),
                None => trees.push((base, vec![action])),
            }
        }
        let mut host = self.host.borrow_mut();
        for (base, actions) in trees {
            let spans: Vec<Span> = actions.iter().map(|(span, _)| *span).collect();
            let root = host.file(&FileOp { base: None, names_from: None, actions })?;
            host.annotate(root, "save artifacts", &spans, &Vec::new());
            host.files(name, root, &place::relative(main, base))?;
        }
        Ok(!locals.is_empty())
    }

    /// Yields work that is done when the caller pushes.
    pub(super) fn yield_effects(&self, effects: &[(Output, String)]) -> Result<(), Failure> {
        let mut host = self.host.borrow_mut();
        effects.iter().try_for_each(|(at, line)| host.effect(line, *at))
    }

    /// Yields images; `main` are those that the target asked for has come to, if it is among them.
    /// Returns what the others are called.
    pub(super) fn yield_images(
        &self,
        images: &[(Key, Saved)],
        main: &[Saved],
    ) -> Result<Vec<String>, Failure> {
        let mut members = Members::default();
        let tags = self.tags(images, &mut members)?;
        let mut own: Vec<usize> = Vec::new();
        for saved in main {
            own.push(self.member(&mut members, saved)?);
        }
        own.sort_unstable();
        let mut groups: Vec<Group<'_>> = Vec::new();
        if !own.is_empty() {
            groups.push(Group { key: None, members: own, attrs: Vec::new() });
        }
        for tag in tags {
            let at = groups.iter().position(|group| group.members == tag.members);
            let at = at.unwrap_or_else(|| {
                let (key, members) = (Some(tag.key), tag.members.clone());
                groups.push(Group { key, members, attrs: Vec::new() });
                groups.len() - 1
            });
            let attrs = &mut groups[at].attrs;
            let kind = if tag.push { "push-tag" } else { "tag" };
            attrs.push((kind.to_owned(), tag.name.name.clone()));
            let single = ("index".to_owned(), "false".to_owned());
            if !tag.indexed && !attrs.contains(&single) {
                attrs.push(single);
            }
        }
        let mut names = Vec::new();
        for group in groups {
            let name = group.key.map_or_else(String::new, |key| self.image_name(key));
            for member in &group.members {
                let (platform, root, config) = &members.0[*member];
                self.host.borrow_mut().image_result(
                    &name,
                    platform,
                    *root,
                    config,
                    &group.attrs,
                )?;
            }
            if group.key.is_some() {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// Which images go by which name.
    fn tags<'s>(
        &self,
        images: &'s [(Key, Saved)],
        members: &mut Members,
    ) -> Result<Vec<Tag<'s>>, Failure> {
        let mut tags: Vec<Tag<'s>> = Vec::new();
        let mut places: BTreeMap<&'s str, usize> = BTreeMap::new();
        for (key, saved) in images {
            let member = self.member(members, saved)?;
            for name in &saved.names {
                let Some(at) = places.get(name.name.as_str()) else {
                    places.insert(&name.name, tags.len());
                    let (push, indexed) = (name.push, saved.indexed);
                    tags.push(Tag { name, push, indexed, key, members: vec![member] });
                    continue;
                };
                let tag = &mut tags[*at];
                tag.push |= name.push;
                tag.indexed &= saved.indexed;
                if tag.members.contains(&member) {
                    continue;
                }
                let platform = &members.0[member].0;
                if tag.members.iter().any(|other| members.0[*other].0 == *platform) {
                    return Err(twice(tag.name, name, platform));
                }
                tag.members.push(member);
                tag.members.sort_unstable();
            }
        }
        if let Some(tag) = tags.iter().find(|tag| !tag.indexed && tag.members.len() > 1) {
            let name = &tag.name.name;
            let message = format!(
                "{} is saved for {} platforms, but with `--no-manifest-list`",
                shown(name),
                tag.members.len()
            );
            let help = "leave the flag out, or save a name for each platform";
            return Err(Diagnostic::error(Code::InvalidFlag, tag.name.span, message)
                .help(help)
                .into());
        }
        Ok(tags)
    }

    /// The number of an image; two that are built alike are the same.
    fn member(&self, members: &mut Members, saved: &Saved) -> Result<usize, Failure> {
        for (number, (platform, root, config)) in members.0.iter().enumerate() {
            if *platform != saved.platform || *config != saved.config {
                continue;
            }
            let same = match (root, saved.root) {
                (Some(one), Some(other)) if *one != other => {
                    self.host.borrow_mut().same_work(*one, other)?
                }
                (one, other) => *one == other,
            };
            if same {
                return Ok(number);
            }
        }
        members.0.push((saved.platform.clone(), saved.root, saved.config.clone()));
        Ok(members.0.len() - 1)
    }

    /// What tells an image from the others of the build: its target with its arguments.
    fn image_name(&self, key: &Key) -> String {
        let args: String =
            key.overrides.iter().map(|(name, value)| format!(" --{name}={value}")).collect();
        let name = format!("{}{args}", key.shown());
        let mut taken = self.image_names.borrow_mut();
        let mut free = name.clone();
        for number in 2.. {
            if taken.insert(free.clone()) {
                break;
            }
            free = format!("{name} ({number})");
        }
        free
    }

    /// What the target asked for has come to, for each platform: what it saves as an image, or else
    /// all of it. Nothing if it saves none and others do.
    pub(super) fn main_images(&self, keys: &[Key], all: &Collected) -> Vec<Saved> {
        let saved = |key: &Key| {
            let of_key = all.images.iter().rev().find(|(other, _)| other == key);
            of_key.map(|(_, saved)| saved.clone())
        };
        let saves = keys.iter().any(|key| saved(key).is_some());
        if !saves && (!all.images.is_empty() || !self.image_names.borrow().is_empty()) {
            return Vec::new();
        }
        let slots = self.slots.borrow();
        // What is done on the caller's machine is no image.
        let state = |key: &Key| slots.get(key)?.done.clone()?.ok().filter(|s| !s.locally);
        let whole = |key: &Key| Some(self.image_of(key, &*state(key)?, Vec::new(), true));
        keys.iter().filter_map(|key| saved(key).or_else(|| whole(key))).collect()
    }
}

/// Two images for one platform go by one name.
fn twice(first: &SavedName, second: &SavedName, platform: &Platform) -> Failure {
    let message =
        format!("two different images for {platform} are saved as {}", shown(&second.name));
    Diagnostic::error(Code::ImageTwice, second.span, message)
        .help("give each a name of its own, e.g. with an argument in it")
        .related(first.span, "the other one")
        .into()
}
