//! Lowers the needed stages of one platform, in the order of the file, to nodes of the graph.

use crate::ast::{Instruction, Kind, Stage};
use crate::expand::{self, Expansion, Lookup, Options};
use crate::image::{DEFAULT_PATH, Image, has_layers};
use crate::lint::{Linter, steps};
use crate::platform::Platform;
use crate::vars::Vars;
use crate::{Code, Failure, Span, Text};

use super::host::{Attrs, FileAction, FileOp, Output};
use super::outline::Taken;
use super::stages::{Graph, Place, StagePlan, bad_config};
use super::{Session, expand_word};

/// A stage as it stands after some of its instructions.
#[derive(Clone)]
pub(super) struct State {
    /// Its files; none as long as there are none.
    pub root: Option<Output>,
    pub image: Image,
    /// What words and commands see: `ENV` and `ARG`, the later of a name wins.
    pub vars: Vars,
    /// Declared arguments in order, for history.
    pub arguments: Vars,
    /// Arguments that hide a variable of the image, in this stage only.
    pub shadowing: Vec<String>,
    /// `WORKDIR` stood in this stage or in one below it.
    pub workdir_set: bool,
    pub platform: Platform,
}

/// Arguments that the builder reads and no step sees.
pub(super) const UNSEEN: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

impl State {
    /// Takes all but the files, which other stages may still copy from.
    fn take(&mut self) -> State {
        let left = State {
            root: self.root,
            image: Image::empty(&self.platform),
            vars: Vars::default(),
            arguments: Vars::default(),
            shadowing: Vec::new(),
            workdir_set: false,
            platform: self.platform.clone(),
        };
        std::mem::replace(self, left)
    }

    /// Notes the variables of a word that nothing has set.
    pub fn undefined(
        &self,
        lint: &mut Linter,
        comments: &[Text],
        word: &Text,
        expansion: &Expansion,
    ) {
        let known = (&self.vars, &self.arguments, &UNSEEN[..]);
        steps::undefined(lint, comments, (word, expansion), known);
    }
}

/// A stage being lowered.
pub(super) struct Lowering<'l, 'a> {
    pub session: &'l mut Session<'a>,
    pub graph: &'l Graph,
    pub states: &'l [Option<State>],
    pub plan: &'l StagePlan,
    pub state: State,
    /// The last of this stage. An `ENTRYPOINT` keeps a `CMD` above it, but none of the base.
    pub cmd: Option<Span>,
    pub entrypoint: Option<Span>,
    pub healthcheck: Option<Span>,
    pub escape: char,
    /// Nodes run even if their results are known.
    pub ignore_cache: bool,
    /// The instruction in hand.
    pub span: Span,
    /// The comments above it.
    pub comments: &'l [Text],
    /// What the stage takes from outside.
    pub taken: Taken,
    title: Title,
}

/// Names of nodes: `[build 2/5] RUN make`.
struct Title {
    /// Nothing, or the stage's name and a blank.
    stage: String,
    with_platform: bool,
    index: usize,
    total: usize,
    trigger: bool,
}

/// Lowers all needed stages of a platform, and names the target's image as the result. Answers
/// with what each stage takes from outside.
pub(super) fn lower(session: &mut Session<'_>, graph: &Graph) -> Result<Vec<Taken>, Failure> {
    let mut states: Vec<Option<State>> = Vec::with_capacity(graph.stages.len());
    let mut taken: Vec<Taken> = Vec::with_capacity(graph.stages.len());
    let mut mistakes = Vec::new();
    let several = session.file.stages.len() > 1 || refers_outside(session, graph);
    // A stage is copied for each that starts from it but the last, which takes it: long chains of
    // stages would hold everything many times.
    let mut open = vec![0_usize; graph.stages.len()];
    open[graph.target] += 1;
    for plan in graph.stages.iter().flatten() {
        if let Place::Stage(base) = plan.base {
            open[base] += 1;
        }
    }
    for index in 0..graph.stages.len() {
        let (state, takes) = match &graph.stages[index] {
            None => (None, Taken::default()),
            Some(plan) => {
                let base = match plan.base {
                    Place::Stage(base) => states[base].as_mut().map(|state| {
                        open[base] -= 1;
                        if open[base] == 0 { state.take() } else { state.clone() }
                    }),
                    _ => None,
                };
                let from = (&states[..], base);
                let lowered = stage(session, graph, plan, index, from, several, &mut mistakes);
                // What is wrong with the file comes first: it must be mended anyway.
                match lowered {
                    Err(failure) if mistakes.is_empty() => return Err(failure),
                    Err(_) => break,
                    Ok((mut state, takes)) => {
                        if open[index] == 0 {
                            state.take();
                        }
                        (Some(state), takes)
                    }
                }
            }
        };
        states.push(state);
        taken.push(takes);
    }
    if let Some(failure) = Failure::joined(mistakes) {
        return Err(failure);
    }
    let mut state = states[graph.target].take().expect("the target is always needed");
    for (name, value) in session.request.labels.clone() {
        state.image.set_label(&name, &value);
    }
    state.image.settle_platform(&graph.platform, session.request.explicit_platform);
    session.host.result(&graph.platform, state.root, &state.image.into_json())?;
    Ok(taken)
}

/// Whether anything but the context and the base is mounted or copied from. It decides whether a
/// lone stage is named in titles.
fn refers_outside(session: &Session<'_>, graph: &Graph) -> bool {
    let plans = graph.stages.iter().flatten();
    let places = plans.clone().any(|plan| !plan.places.is_empty());
    let own = session.file.stages.iter().flat_map(|stage| &stage.instructions);
    let mut all = own.chain(plans.flat_map(|plan| &plan.triggers));
    places || all.any(|i| matches!(&i.kind, Kind::Run(run) if !run.mounts.is_empty()))
}

fn stage(
    session: &mut Session<'_>,
    graph: &Graph,
    plan: &StagePlan,
    index: usize,
    (states, below): (&[Option<State>], Option<State>),
    several: bool,
    mistakes: &mut Vec<Failure>,
) -> Result<(State, Taken), Failure> {
    let file = session.file;
    let stage = &file.stages[index];
    let name = match (&stage.name, several) {
        (Some(name), true) => format!("{} ", name.to_lowercase()),
        (None, true) => format!("stage-{index} "),
        (_, false) => String::new(),
    };
    let instructions = || plan.triggers.iter().chain(&stage.instructions);
    let makes_node = |i: &&Instruction| {
        matches!(i.kind, Kind::Add(_) | Kind::Copy(_) | Kind::Run(_) | Kind::Workdir(_))
    };
    let from_outside = matches!(plan.base, Place::Image(_) | Place::Context(_));
    let mut title = Title {
        stage: name,
        with_platform: session.request.several_platforms,
        index: 0,
        total: instructions().filter(makes_node).count() + usize::from(from_outside),
        trigger: false,
    };
    let state = base(session, graph, plan, stage, below, &mut title)?;
    if plan.replaced {
        return Ok((state, Taken::default()));
    }
    let ignore_cache = session.request.ignores_cache(stage.name.as_deref());
    let mut lowering = Lowering {
        graph,
        states,
        plan,
        state,
        cmd: None,
        entrypoint: None,
        healthcheck: None,
        escape: file.directives.escape,
        ignore_cache,
        span: stage.span,
        comments: &stage.comments,
        taken: Taken::default(),
        title,
        session,
    };
    lowering.start();
    for (at, instruction) in instructions().enumerate() {
        lowering.title.trigger = at < plan.triggers.len();
        let stored = plan.stored && lowering.title.trigger;
        lowering.escape = if stored { '\\' } else { file.directives.escape };
        match lowering.instruction(instruction) {
            // Left out, so that the rest can be judged as well.
            Err(failure) if is_mistake(&failure) && !sets_variables(instruction) => {
                mistakes.push(failure);
            }
            Err(failure) if is_mistake(&failure) => {
                mistakes.push(failure.clone());
                return Err(failure);
            }
            other => other?,
        }
    }
    Ok((lowering.state, lowering.taken))
}

/// Whether a failure says what is wrong with an instruction, as opposed to what stands in its way.
fn is_mistake(failure: &Failure) -> bool {
    let outside = [
        Code::Download,
        Code::FailedInstruction,
        Code::Git,
        Code::InvalidIgnore,
        Code::NamedContext,
        // Of the file, but the next words would only say it again.
        Code::TooLarge,
        Code::UnresolvedImage,
    ];
    let outside = |code: &str| outside.iter().any(|outside| outside.name() == code);
    failure.diagnostics.iter().all(|diagnostic| !outside(&diagnostic.code))
}

/// Whether later instructions may fail for no other reason than that this one did.
fn sets_variables(instruction: &Instruction) -> bool {
    matches!(instruction.kind, Kind::Arg(_) | Kind::Env(_))
}

/// What a stage starts from.
fn base(
    session: &mut Session<'_>,
    graph: &Graph,
    plan: &StagePlan,
    stage: &Stage,
    below: Option<State>,
    title: &mut Title,
) -> Result<State, Failure> {
    let target = &graph.platform;
    let fresh = |root, image, platform: &Platform| State {
        root,
        image,
        vars: Vars::default(),
        arguments: Vars::default(),
        shadowing: Vec::new(),
        workdir_set: false,
        platform: platform.clone(),
    };
    match plan.base {
        Place::Scratch => Ok(fresh(None, Image::empty(target), target)),
        Place::Stage(_) => {
            let mut state = below.expect("a base stands above and is needed");
            state.image.take_triggers();
            Ok(state)
        }
        Place::Context(context) => {
            let mut image = match session.contexts.config(context) {
                None => Image::empty(target),
                Some((name, config)) => Image::parse(&config)
                    .map(without_triggers)
                    .map_err(|why| bad_config(&name, &why, stage.base.span()))?,
            };
            let title = title.next(target, None);
            let Some((copied, name)) = session.context_copy(context, stage.base.span())? else {
                return Ok(fresh(Some(session.context_root(context)?), image, target));
            };
            let from = format!("FROM {name}");
            session.host.annotate(copied, &format!("{title}{from}"), &[stage.span], &Attrs::new());
            image.add_history(from, true);
            Ok(fresh(Some(copied), image, target))
        }
        Place::Image(number) => {
            let (request, info) = session.images.info(number);
            let (request, info) = (request.clone(), info.clone());
            let image = Image::parse(&info.config)
                .map_err(|why| bad_config(&request.reference, &why, stage.base.span()))?;
            let has_layers = has_layers(&info.config);
            if let (true, false, Some(own)) = (has_layers, plan.named, image.platform()) {
                let platforms = (&request.platform, &own);
                steps::other_platform(session.lint, &stage.comments, &stage.base, platforms);
            }
            let root = if has_layers {
                // By digest, so that files and config are of one image.
                let pinned =
                    super::host::ImageRequest { reference: info.reference, ..request.clone() };
                let failed =
                    |failure: Failure| failure.at(Code::UnresolvedImage, stage.base.span());
                let root = session.host.image(&pinned).map_err(failed)?;
                let name = title.next(&request.platform, None);
                let name = format!("{name}FROM {}", pinned.reference);
                session.host.annotate(root, &name, &[stage.span], &Attrs::new());
                Some(root)
            } else {
                None
            };
            // Nobody named a platform, so what the base is of is what its programs need.
            let implied = stage.platform.is_none() && !session.request.explicit_platform;
            let platform = match image.platform().filter(|_| implied) {
                Some(own) if (&own.os, &own.architecture) != (&target.os, &target.architecture) => {
                    own
                }
                _ => request.platform,
            };
            Ok(fresh(root, without_triggers(image), &platform))
        }
    }
}

fn without_triggers(mut image: Image) -> Image {
    image.take_triggers();
    image
}

/// Variables of which some come from secrets.
struct Masked<'v> {
    vars: &'v Vars,
    masked: &'v [String],
}

impl Lookup for Masked<'_> {
    fn lookup(&self, name: &str) -> Option<&str> {
        if self.masked.iter().any(|masked| masked == name) {
            return Some("****");
        }
        self.vars.get(name)
    }
}

impl Title {
    /// The prefix of the next node.
    fn next(&mut self, platform: &Platform, built_for: Option<&Platform>) -> String {
        if self.total == 0 {
            return String::new();
        }
        self.index += 1;
        let mut prefix = String::from("[");
        if self.with_platform {
            prefix.push_str(&platform.to_string());
            match built_for {
                Some(other) if other.os != platform.os => prefix.push_str(&format!("->{other}")),
                Some(other) if other.architecture != platform.architecture => {
                    prefix.push_str(&format!("->{}", other.architecture));
                    if let Some(variant) = &other.variant {
                        prefix.push_str(&format!("/{variant}"));
                    }
                }
                _ => {}
            }
            prefix.push(' ');
        }
        let width = self.total.to_string().len();
        prefix.push_str(&format!("{}{:width$}/{}] ", self.stage, self.index, self.total));
        if self.trigger {
            prefix.push_str("ONBUILD ");
        }
        prefix
    }
}

impl<'l> Lowering<'l, '_> {
    /// Puts the base's environment in force.
    fn start(&mut self) {
        let image = &mut self.state.image;
        if image.env().get("PATH").is_none() && self.state.platform.os != "windows" {
            image.set_env("PATH", DEFAULT_PATH);
        }
        if self.state.vars.pairs().len() == 0 {
            for (name, value) in image.env().pairs() {
                self.state.vars.set(name, value);
            }
        }
        // The stage below has set all others already.
        for name in std::mem::take(&mut self.state.shadowing) {
            let value = image.env().get(&name).unwrap_or_default();
            self.state.vars.set(&name, value);
        }
        image.tidy_working_dir();
    }

    fn instruction(&mut self, instruction: &'l Instruction) -> Result<(), Failure> {
        self.span = instruction.span;
        self.comments = &instruction.comments;
        let lowered = match &instruction.kind {
            Kind::Run(run) => self.run(instruction, run),
            Kind::Copy(transfer) => self.transfer(instruction, transfer, false),
            Kind::Add(transfer) => self.transfer(instruction, transfer, true),
            Kind::Workdir(path) => self.workdir(instruction, path),
            _ => self.metadata(instruction),
        };
        lowered.map_err(|failure| failure.at(Code::FailedInstruction, instruction.span))
    }

    /// Expands a word.
    pub fn word(&mut self, word: &Text) -> Result<String, Failure> {
        let expansion = expand_word(word, self.escape, &self.state.vars)?;
        self.session.count(word, &expansion.text)?;
        self.state.undefined(self.session.lint, self.comments, word, &expansion);
        Ok(expansion.text)
    }

    /// The instruction as it is shown: keyword in capitals, variables filled in. What comes from a
    /// secret is masked, to say that it does.
    pub fn shown(&self, instruction: &Instruction, masked: &[String]) -> String {
        let vars = Masked { vars: &self.state.vars, masked };
        let rest = &instruction.line[instruction.keyword.len()..];
        let keyword = instruction.keyword.to_uppercase();
        match expand::expand(rest, Options::display(self.escape), &vars) {
            Ok(expansion) => keyword + &expansion.text,
            Err(_) => keyword + rest,
        }
    }

    /// The platform that the stage builds for, as far as it has declared so.
    fn built_for(&self) -> Option<Platform> {
        let vars = &self.state.vars;
        if let Some(platform) = vars.get("TARGETPLATFORM") {
            return Platform::parse(platform, &self.state.platform);
        }
        let (os, architecture) = (vars.get("TARGETOS"), vars.get("TARGETARCH"));
        if os.is_none() && architecture.is_none() {
            return None;
        }
        let own = &self.state.platform;
        let os = os.filter(|os| !os.is_empty()).unwrap_or(&own.os);
        let architecture = architecture.filter(|a| !a.is_empty()).unwrap_or(&own.architecture);
        Some(Platform::new(os, architecture, vars.get("TARGETVARIANT")))
    }

    /// The prefix of the next step's name.
    pub fn next_title(&mut self) -> String {
        let built_for = self.built_for();
        self.title.next(&self.state.platform, built_for.as_ref())
    }

    /// Names a step's node and marks it.
    pub fn name(&mut self, at: Output, name: &str, attrs: &Attrs) -> Result<(), Failure> {
        self.session.host.annotate(at, name, &[self.span], attrs);
        if self.ignore_cache {
            self.session.host.ignore_cache(at)?;
        }
        Ok(())
    }

    /// The files of a place. Fails for an empty one, which nothing can be taken from.
    pub fn place(&mut self, place: Place, name: &Text) -> Result<Option<Output>, Failure> {
        match place {
            Place::Scratch => Ok(None),
            Place::Stage(stage) => {
                let state = self.states[stage].as_ref();
                Ok(state.expect("what is copied from stands above and is needed").root)
            }
            Place::Context(context) => self.session.context_root(context).map(Some),
            Place::Image(number) => {
                let (request, info) = self.session.images.info(number);
                let request = super::host::ImageRequest {
                    reference: info.reference.clone(),
                    ..request.clone()
                };
                let root = self
                    .session
                    .host
                    .image(&request)
                    .map_err(|failure| failure.at(Code::UnresolvedImage, name.span()))?;
                let title = format!("FROM {}", request.reference);
                self.session.host.annotate(root, &title, &[name.span()], &Attrs::new());
                Ok(Some(root))
            }
        }
    }

    /// The time that what is made carries, as an option of file actions.
    pub fn timestamp(&self) -> Option<(String, String)> {
        let epoch = self.session.request.epoch?;
        Some(("timestamp".to_owned(), epoch.to_string()))
    }

    /// `WORKDIR` makes the directory, owned by the user in force.
    fn workdir(&mut self, instruction: &Instruction, written: &Text) -> Result<(), Failure> {
        let path = self.word(written)?;
        if !std::mem::replace(&mut self.state.workdir_set, true) {
            let (lint, platform) = (&mut *self.session.lint, &self.state.platform);
            steps::relative(lint, self.comments, (written, &path), platform);
        }
        let path = crate::paths::join(self.state.image.working_dir(), &path);
        self.state.image.set_working_dir(&path);
        let makes = path != "/";
        if makes {
            let name = self.shown(instruction, &[]);
            let name = self.next_title() + &name;
            let mut opts = vec![
                ("parents".to_owned(), "true".to_owned()),
                ("mode".to_owned(), "0755".to_owned()),
            ];
            let user = self.state.image.user();
            if !user.is_empty() {
                opts.push(("chown".to_owned(), user.to_owned()));
            }
            opts.extend(self.timestamp());
            let action = FileAction::Mkdir { path: path.clone(), opts };
            let op = FileOp {
                base: self.state.root,
                names_from: None,
                actions: vec![(self.span, action)],
            };
            let root = self.session.host.file(&op)?;
            self.name(root, &name, &Attrs::new())?;
            self.state.root = Some(root);
        }
        self.state.image.add_history(format!("WORKDIR {path}"), makes);
        Ok(())
    }
}
