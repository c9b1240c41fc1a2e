//! `steps`: a small frontend, and an example of how to write one.
//!
//! A steps file holds one step a line; blank lines and lines that start with `#` are skipped:
//!
//! ```text
//! from IMAGE            begin with an image, or with nothing: `scratch`. Comes first, once
//! run COMMAND           run a shell command; what it changes becomes a layer
//! env NAME=VALUE        set a variable for the steps that follow and in the image
//! env NAME=$(COMMAND)   the same with what the command prints, without trailing newlines;
//!                       the command must succeed, its changes to files are dropped
//! if COMMAND            the steps up to `else` or `end` happen only if the command succeeds;
//! else                  its changes to files are dropped
//! end
//! copy SRC DST          copy from the build context; a DST that ends in `/` is a directory
//! workdir PATH          make a directory and run the following steps in it
//! cmd COMMAND           what a container of the image runs by default, through /bin/sh
//! ```
//!
//! `if` and `$(…)` ask the host to solve what stands above them before the rest of the graph is
//! made. Every step is annotated with its line, so that the host can show the line when the step
//! fails long after this component has returned. [`syntax`] reads the file and calls no host.

mod syntax;

use syntax::{Step, StepKind, Value};
use wbuild_frontend::{
    Build, Copy, ImageConfig, Platform, Result, ResultExt as _, Source, State, Wanted, sh,
};

/// How much of a command's output `$(…)` may take.
const CAPTURE: u32 = 64 * 1024;

wbuild_frontend::frontend!(build);

fn build(build: &Build) -> Result<()> {
    let source = build.definition("steps")?;
    let steps = syntax::parse(source.bytes()).map_err(|e| source.error(e.at, e.message))?;
    for platform in build.platforms() {
        let config = ImageConfig::new(&platform);
        let state = State::scratch().platform(&platform);
        let mut stage = Stage { build, source: &source, platform, state, config };
        stage.steps(&steps)?;
        build.image(&stage.state, &stage.config).done()?;
    }
    Ok(())
}

/// The image so far, for one platform.
struct Stage<'a> {
    build: &'a Build,
    source: &'a Source,
    platform: Platform,
    state: State,
    config: ImageConfig,
}

impl Stage<'_> {
    fn steps(&mut self, steps: &[Step]) -> Result<()> {
        // A failure of the host is shown at the step that asked for it.
        steps.iter().try_for_each(|step| self.step(step).at(self.source.span(step.at.clone())))
    }

    fn step(&mut self, step: &Step) -> Result<()> {
        let (at, state) = (self.source.span(step.at.clone()), self.state.clone());
        let run = |command: &str| state.run(sh(command)).named(&step.text).at(at);
        match &step.kind {
            StepKind::From(image) => {
                let wanted = Wanted::new(image, &self.platform).named(&step.text).at(at);
                let base = self.build.bases(vec![wanted]).remove(0)?;
                (self.state, self.config) = (base.state, base.config);
                return Ok(());
            }
            StepKind::If { condition, then, otherwise } => {
                let holds = run(condition).succeeds()?;
                return self.steps(if holds { then } else { otherwise });
            }
            StepKind::Run(command) => self.state = run(command).done()?,
            StepKind::Env(name, value) => {
                let value = match value {
                    Value::Text(text) => text.clone(),
                    Value::Output(command) => run(command).outcome(CAPTURE)?.text()?,
                };
                self.state = state.env(name, value);
            }
            StepKind::Copy { from, to } => {
                let context = self.build.context_of("context", None)?.unwrap_or_default();
                let how = Copy::new().create_dest().wildcard().contents().keep_times();
                let files = state.files().copy_with(&context, &[from], to, how);
                self.state = files.named(&step.text).at(at).done()?;
            }
            StepKind::Workdir(path) => {
                let state = state.dir(path);
                self.state = state.files().mkdir(".").named(&step.text).at(at).done()?;
            }
            StepKind::Cmd(command) => self.config = self.config.clone().cmd(sh(command)),
        }
        let layer =
            matches!(step.kind, StepKind::Run(_) | StepKind::Copy { .. } | StepKind::Workdir(_));
        self.config = self.config.clone().of_state(&self.state).history(&step.text, layer);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn cases() {
        wbuild_testkit::cases::check("tests/cases", super::frontend());
    }
}
