//! Which stages a target needs and what they are made of.
//!
//! A stage may refer only to stages above it, so one pass from the target upwards finds everything,
//! and there are no circles.

use std::collections::BTreeMap;

use super::Session;
use super::globals::{FromLine, Globals};
use super::host::ImageRequest;
use crate::ast::{Instruction, Kind, Stage};
use crate::image::Image;
use crate::parse;
use crate::platform::Platform;
use crate::suggest::did_you_mean;
use crate::text::shown;
use crate::{Code, Diagnostic, Failure, Span, Text};

/// Where files come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Nowhere: an empty tree.
    Scratch,
    /// A stage above.
    Stage(usize),
    /// An image, by its number in the session.
    Image(usize),
    /// A named context, by its number in the session.
    Context(usize),
}

/// A stage that is needed.
pub(super) struct StagePlan {
    /// What it starts from.
    pub base: Place,
    /// A named context takes the place of the whole stage.
    pub replaced: bool,
    /// What `--from` and `from=` name.
    pub places: BTreeMap<String, Place>,
    /// Instructions that the base stored for this build.
    pub triggers: Vec<Instruction>,
    /// The base is a context that the caller supplied, whatever name it has in the file.
    pub named: bool,
    /// They are stored in an image, without the directives of the file they come from.
    pub stored: bool,
    triggers_known: bool,
}

/// The needed part of a file for one target platform.
pub(super) struct Graph {
    pub platform: Platform,
    /// What `FROM` lines see.
    pub globals: Globals,
    /// The words of all `FROM` lines.
    pub lines: Vec<FromLine>,
    pub target: usize,
    /// By the stage's number; none if it is not needed.
    pub stages: Vec<Option<StagePlan>>,
    needed: Vec<bool>,
}

impl Graph {
    /// Finds the stages that the target needs, or takes all of them.
    pub fn new(session: &mut Session<'_>, platform: Platform, all: bool) -> Result<Graph, Failure> {
        let target = find_target(session)?;
        let globals = Globals::new(session, &platform, target)?;
        let lines = globals.lines(session);
        let count = session.file.stages.len();
        let mut graph = Graph {
            platform,
            globals,
            lines,
            target,
            stages: std::iter::repeat_with(|| None).take(count).collect(),
            needed: vec![all; count],
        };
        graph.needed[target] = true;
        graph.plan_needed(session)?;
        Ok(graph)
    }

    fn plan_needed(&mut self, session: &mut Session<'_>) -> Result<(), Failure> {
        let mut failures = Vec::new();
        for index in (0..=self.target).rev() {
            if self.needed[index] && self.stages[index].is_none() {
                match self.plan(session, index) {
                    Ok(plan) => self.stages[index] = Some(plan),
                    Err(failure) => failures.push(failure),
                }
            }
        }
        Failure::joined(failures).map_or(Ok(()), Err)
    }

    fn plan(&mut self, session: &mut Session<'_>, index: usize) -> Result<StagePlan, Failure> {
        let file = session.file;
        let stage = &file.stages[index];
        let platform = self.stage_platform(session, index)?;
        let mut plan = StagePlan {
            base: Place::Scratch,
            replaced: false,
            places: BTreeMap::new(),
            triggers: Vec::new(),
            named: false,
            stored: false,
            triggers_known: false,
        };
        if let Some(name) = stage.folded_name()
            && let Some(place) = session.named_context(&name, &platform, stage.span)?
        {
            plan.base = place;
            plan.replaced = true;
            plan.triggers_known = true;
            return Ok(plan);
        }
        (plan.base, plan.named) = self.base(session, index, &platform)?;
        if let Place::Stage(base) = plan.base {
            self.needed[base] = true;
            plan.triggers_known = true;
            for instruction in &file.stages[base].instructions {
                if let Kind::Onbuild(trigger) = &instruction.kind {
                    plan.triggers.push((*trigger.instruction).clone());
                }
            }
        } else if plan.base == Place::Scratch {
            plan.triggers_known = true;
        }
        let mut failures = Vec::new();
        for instruction in plan.triggers.iter().chain(&stage.instructions) {
            let added = self.add_places(session, index, &mut plan.places, instruction);
            failures.extend(added.err());
        }
        Failure::joined(failures).map_or(Ok(plan), Err)
    }

    /// The platform of a stage that starts from an image or context.
    fn stage_platform(&self, session: &Session<'_>, index: usize) -> Result<Platform, Failure> {
        let line = self.lines[index].platform.as_ref();
        let (Some(text), Some(line)) = (&session.file.stages[index].platform, line) else {
            return Ok(self.platform.clone());
        };
        let expansion = line.as_ref().map_err(Clone::clone)?;
        if expansion.text.is_empty() {
            return Err(Diagnostic::error(
                Code::InvalidPlatform,
                text.span(),
                format!("the platform {} is empty", shown(text)),
            )
            .help(self.globals.help(session.file, expansion))
            .into());
        }
        Platform::parse(&expansion.text, &session.request.build_platform).ok_or_else(|| {
            let message = format!("{} is not a platform", shown(&expansion.text));
            Diagnostic::error(Code::InvalidPlatform, text.span(), message)
                .help("write os/architecture or os/architecture/variant, e.g. `linux/arm64`")
                .into()
        })
    }

    /// What a stage starts from, and whether the caller supplied it as a context.
    fn base(
        &self,
        session: &mut Session<'_>,
        index: usize,
        platform: &Platform,
    ) -> Result<(Place, bool), Failure> {
        let file = session.file;
        let stage = &file.stages[index];
        let expansion = self.lines[index].base.as_ref().map_err(Clone::clone)?;
        let name = expansion.text.clone();
        if name.is_empty() {
            return Err(Diagnostic::error(
                Code::EmptyBase,
                stage.base.span(),
                format!("the image {} of FROM is empty", shown(&stage.base)),
            )
            .help(self.globals.help(file, expansion))
            .into());
        }
        if let Some(base) = earlier(&file.stages[..index], &name) {
            return Ok((Place::Stage(base), false));
        }
        if name == "scratch" {
            return Ok((Place::Scratch, false));
        }
        if let Some(place) = session.named_context(&name, platform, stage.base.span())? {
            return Ok((place, true));
        }
        let attrs = session.image_attrs(&Vec::new());
        let request = ImageRequest { reference: name, platform: platform.clone(), attrs };
        let image = session.images.add(request, stage.base.span());
        if let Some((name, _)) = expansion.unset.first_key_value() {
            let help = self.globals.help(file, expansion);
            session.images.hint(image, format!("{} is not set: {help}", shown(name)));
        }
        Ok((Place::Image(image), false))
    }

    /// Finds what an instruction copies or mounts from.
    fn add_places(
        &mut self,
        session: &mut Session<'_>,
        index: usize,
        places: &mut BTreeMap<String, Place>,
        instruction: &Instruction,
    ) -> Result<(), Failure> {
        let names: Vec<&Text> = match &instruction.kind {
            Kind::Copy(transfer) => transfer.from.iter().collect(),
            Kind::Run(run) => run.mounts.iter().filter_map(|mount| mount.from()).collect(),
            _ => return Ok(()),
        };
        for name in names.into_iter().filter(|name| !name.is_empty()) {
            if places.contains_key(name.as_str()) {
                continue;
            }
            let place = self.place(session, index, name)?;
            if let Place::Stage(stage) = place {
                self.needed[stage] = true;
            }
            places.insert(name.as_str().to_owned(), place);
        }
        Ok(())
    }

    fn place(
        &self,
        session: &mut Session<'_>,
        index: usize,
        name: &Text,
    ) -> Result<Place, Failure> {
        let file = session.file;
        let above = &file.stages[..index];
        if let Ok(number) = name.parse::<usize>() {
            if number < index {
                return Ok(Place::Stage(number));
            }
            let help = match index {
                0 => "this is the first stage, so there is none to copy from".to_owned(),
                1 => "only stage 0 stands above this one".to_owned(),
                _ => format!("stages 0 to {} stand above this one", index - 1),
            };
            return Err(Diagnostic::error(
                Code::UnknownStage,
                name.span(),
                format!("there is no stage {number} above this one"),
            )
            .help(help)
            .into());
        }
        if let Some(stage) = earlier(above, name) {
            return Ok(Place::Stage(stage));
        }
        if let Some(at) = earlier(&file.stages, name) {
            let later = &file.stages[at];
            let (message, help) = if at == index {
                (
                    format!("the stage {} cannot take files from itself", shown(name)),
                    "what the stage holds is there already; name another stage or an image",
                )
            } else {
                (
                    format!("the stage {} stands below this one", shown(name)),
                    "move the stage that files are taken from above the one that takes them",
                )
            };
            return Err(Diagnostic::error(Code::UnknownStage, name.span(), message)
                .related(later.span, "this stage")
                .help(help)
                .into());
        }
        if name.as_str() == "scratch" {
            return Ok(Place::Scratch);
        }
        let platform = self.platform.clone();
        if let Some(place) = session.named_context(name, &platform, name.span())? {
            return Ok(place);
        }
        let attrs = session.image_attrs(&Vec::new());
        let request = ImageRequest { reference: name.as_str().to_owned(), platform, attrs };
        Ok(Place::Image(session.images.add(request, name.span())))
    }

    /// Reads the triggers that resolved base images hold. True if they need more stages or images.
    pub fn add_triggers(&mut self, session: &mut Session<'_>) -> Result<bool, Failure> {
        let before = session.images.entries.len();
        let mut grown = false;
        for index in (0..self.stages.len()).rev() {
            let Some(plan) = &mut self.stages[index] else { continue };
            if std::mem::replace(&mut plan.triggers_known, true) {
                continue;
            }
            let base = plan.base;
            let stage = &session.file.stages[index];
            let triggers = match base {
                Place::Image(image) => {
                    let (request, info) = session.images.info(image);
                    let name = request.reference.clone();
                    stored_triggers(session, &name, &info.config.clone(), stage)?
                }
                Place::Context(context) => match session.contexts.config(context) {
                    Some((name, config)) => stored_triggers(session, &name, &config, stage)?,
                    None => Vec::new(),
                },
                Place::Scratch | Place::Stage(_) => Vec::new(),
            };
            let mut places = std::mem::take(&mut plan.places);
            for trigger in &triggers {
                self.add_places(session, index, &mut places, trigger)?;
            }
            if let Some(plan) = &mut self.stages[index] {
                plan.places = places;
                plan.triggers = triggers;
                plan.stored = true;
            }
        }
        for index in 0..self.stages.len() {
            grown |= self.needed[index] && self.stages[index].is_none();
        }
        self.plan_needed(session)?;
        Ok(grown || session.images.entries.len() > before)
    }
}

/// The last stage of a name, compared without regard to case.
pub(super) fn earlier(stages: &[Stage], name: &str) -> Option<usize> {
    let folded = name.to_lowercase();
    // Every name is compared with many others, and nearly all are ASCII.
    let is_named = |own: &Text| {
        own.eq_ignore_ascii_case(name) || !own.is_ascii() && own.to_lowercase() == folded
    };
    stages.iter().rposition(|stage| stage.name.as_ref().is_some_and(is_named))
}

fn stored_triggers(
    session: &mut Session<'_>,
    name: &str,
    config: &str,
    from: &Stage,
) -> Result<Vec<Instruction>, Failure> {
    let image = Image::parse(config);
    let mut image = image.map_err(|why| bad_config(name, &why, from.base.span()))?;
    let mut instructions = Vec::new();
    for text in image.take_triggers() {
        let title = format!("ONBUILD trigger of {name}");
        let source = session.host.add_source(&title, "dockerfile", text.as_bytes())?;
        let whole = Text::decode(source, 0, text.as_bytes()).span();
        session.host.map_source(whole, from.span)?;
        instructions.push(parse::parse_trigger(source, &text).map_err(Failure::of)?);
    }
    Ok(instructions)
}

/// A base whose config cannot be used.
pub(super) fn bad_config(name: &str, why: &str, from: Span) -> Failure {
    let message = format!("the image {} cannot be used: {why}", shown(name));
    let error = Diagnostic::error(Code::InvalidImageConfig, from, message);
    error.help("the image is faulty, not this file; try another tag of it").into()
}

fn find_target(session: &Session<'_>) -> Result<usize, Failure> {
    let stages = &session.file.stages;
    let last = stages.len() - 1;
    let Some(target) = &session.request.target else { return Ok(last) };
    let found = earlier(stages, target)
        .or_else(|| target.parse().ok().filter(|number| *number < stages.len()));
    found.ok_or_else(|| {
        let names: Vec<&str> = stages.iter().filter_map(|stage| stage.name.as_deref()).collect();
        let help = did_you_mean(target, names.iter().copied()).unwrap_or_else(|| {
            if target.parse::<usize>().is_ok() {
                format!("the stages are numbered from 0 to {last}")
            } else if names.is_empty() {
                "no stage of this file has a name; write `FROM image AS name`".to_owned()
            } else {
                let names: Vec<String> = names.iter().map(|name| shown(name)).collect();
                format!("the stages are {}", names.join(", "))
            }
        });
        let at = Span { source: session.source, start: 0, end: 0 };
        let message = format!("there is no stage {}", shown(target));
        let mut diagnostic = Diagnostic::error(Code::UnknownTarget, at, message).help(help);
        // It is about the command line, not about a place in the file.
        diagnostic.labels.clear();
        Failure { kind: "not-found".to_owned(), ..Failure::from(diagnostic) }
    })
}
