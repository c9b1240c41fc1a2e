//! `LOCALLY`: commands run on the caller's machine, in the directory of the Earthfile, one after the
//! other.
//!
//! Each hands on an empty tree to the next, which is only there to say what comes after what. Files are
//! taken from the caller's directory as they are after the commands.

use std::rc::Rc;

use wbuild_dockerfile::lexer::shown;
use wbuild_dockerfile::{Diagnostic, Exec, Failure, Image, Output, Span, paths};

use super::place::main_root;
use super::state::State;
use super::{Session, unsupported};
use crate::Code;
use crate::ast::{Kind, Run, Statement};
use crate::flags;

impl<'h> Session<'h> {
    /// What comes is done on the caller's machine.
    pub(super) fn locally(&self, state: &mut State, span: Span) -> Result<(), Failure> {
        if state.place.repository.is_some() {
            return Err(unsupported("LOCALLY of an Earthfile of a repository", span));
        }
        if main_root(&mut **self.host.borrow_mut())?.is_some() {
            return Err(unsupported("LOCALLY in a build whose context is fetched", span));
        }
        state.root = None;
        state.image = Image::empty(&self.build_platform);
        state.platform = self.build_platform.clone();
        state.hosts.clear();
        state.cmd = false;
        state.begun = true;
        state.locally = true;
        Ok(())
    }

    /// Refuses what has no meaning on the caller's machine.
    pub(super) fn check_locally(
        &self,
        state: &State,
        statement: &Statement,
    ) -> Result<(), Failure> {
        if !state.locally {
            return Ok(());
        }
        let message = match &statement.kind {
            Kind::From { .. } | Kind::FromDockerfile { .. } | Kind::Locally => {
                format!("{} cannot follow LOCALLY", statement.name)
            }
            Kind::Copy { .. } => "COPY under LOCALLY is not supported yet".to_owned(),
            Kind::SaveImage { .. }
            | Kind::Config(_)
            | Kind::Label(_)
            | Kind::Cache { .. }
            | Kind::Host { .. }
            | Kind::GitClone { .. }
            | Kind::With { .. } => {
                format!("{} has no meaning under LOCALLY, where there is no image", statement.name)
            }
            _ => return Ok(()),
        };
        let help = "put it into a target of its own";
        Err(Diagnostic::error(Code::Misplaced, statement.span, message).help(help).into())
    }

    /// Refuses flags that are about a container.
    pub(super) fn check_local_run(&self, run: &Run) -> Result<(), Failure> {
        let names = ["mount", "ssh", "network", "privileged", "entrypoint"];
        let flag = names.iter().find_map(|name| run.flags.get(name));
        match flag {
            None => Ok(()),
            Some(flag) => {
                let message = format!("`--{}` has no meaning under LOCALLY", flag.name);
                let help = "the command runs on this machine as it is";
                let at = flags::span(flag);
                Err(Diagnostic::error(Code::Misplaced, at, message).help(help).into())
            }
        }
    }

    /// Makes a process one of the caller's, if it is.
    pub(super) fn settle_locally(&self, state: &State, exec: &mut Exec) {
        if state.locally {
            exec.security = "client".to_owned();
            exec.cwd = paths::join("/", &state.place.directory);
            exec.user.clear();
            exec.hostname.clear();
        }
    }

    /// A path of the caller's directory that is saved.
    pub(super) fn local_path(
        &self,
        state: &State,
        text: &str,
        span: Span,
    ) -> Result<String, Failure> {
        let path = state.place.below(text).filter(|_| !text.starts_with('/'));
        path.map(|path| format!("/{path}")).ok_or_else(|| {
            let message = format!("{} lies outside of the Earthfile's directory", shown(text));
            let help = "write it as seen from the directory of the Earthfile: `./path`";
            Diagnostic::error(Code::InvalidReference, span, message).help(help).into()
        })
    }

    /// The caller's directory as it is after the commands so far.
    pub(super) fn local_files(self: &Rc<Self>, state: &State) -> Result<Output, Failure> {
        self.host.borrow_mut().local_after("context", state.root)
    }
}
