//! Commands that change the image's config: `CMD`, `ENTRYPOINT`, `ENV`, `EXPOSE`, `HEALTHCHECK`,
//! `LABEL`, `USER`, `VOLUME`, `WORKDIR`.

use std::rc::Rc;

use wbuild_dockerfile::ast::{Command, Healthcheck, Kind};
use wbuild_dockerfile::shared::{expand_ports, healthcheck_test};
use wbuild_dockerfile::{Diagnostic, Failure, FileAction, FileOp, Text, paths};

use super::Session;
use super::state::State;
use crate::Code;
use crate::ast::Assign;

impl<'h> Session<'h> {
    /// A command as the words of a process. In the form for a shell, variables that are known are
    /// replaced: there are no arguments any more when it is run.
    async fn process_words(
        self: &Rc<Self>,
        state: &State,
        command: &Command,
    ) -> Result<Vec<String>, Failure> {
        Ok(match command {
            Command::Exec(words) => words.iter().map(|word| word.as_str().to_owned()).collect(),
            Command::Shell(text) => {
                let mut words = state.image.shell();
                words.push(self.filled(state, text).await?);
                words
            }
        })
    }

    pub(super) async fn env(
        self: &Rc<Self>,
        state: &mut State,
        assign: &Assign,
        line: &Text,
    ) -> Result<(), Failure> {
        let value = match &assign.value {
            Some(value) => self.word(state, value).await?,
            None => String::new(),
        };
        state.image.set_env(&assign.name, &value);
        state.image.add_history(line.as_str().to_owned(), false);
        Ok(())
    }

    pub(super) async fn label(
        self: &Rc<Self>,
        state: &mut State,
        pairs: &[Assign],
        line: &Text,
    ) -> Result<(), Failure> {
        for pair in pairs {
            let name = self.word(state, &pair.name).await?;
            let value = match &pair.value {
                Some(value) => self.word(state, value).await?,
                None => String::new(),
            };
            state.image.set_label(&name, &value);
        }
        state.image.add_history(line.as_str().to_owned(), false);
        Ok(())
    }

    pub(super) async fn config(
        self: &Rc<Self>,
        state: &mut State,
        kind: &Kind,
        line: &Text,
    ) -> Result<(), Failure> {
        match kind {
            Kind::Cmd(command) => {
                let words = self.process_words(state, command).await?;
                state.image.set_cmd(&words);
                state.cmd = true;
            }
            Kind::Entrypoint(command) => {
                let words = self.process_words(state, command).await?;
                state.image.set_entrypoint(&words);
                if !state.cmd {
                    // A command of the base was meant for the base's entry point.
                    state.image.clear_cmd();
                }
            }
            Kind::Expose(words) => {
                for word in words {
                    for port in self.split(state, word).await? {
                        for port in expand_ports(word, &port)? {
                            state.image.expose(&port);
                        }
                    }
                }
            }
            Kind::Volume(words) => {
                for word in words {
                    let path = self.word(state, word).await?;
                    if path.is_empty() {
                        let message = "the path of a VOLUME cannot be empty";
                        let help = "name a directory, e.g. `/data`, or leave it out";
                        return Err(Diagnostic::error(Code::MissingArgument, word.span(), message)
                            .help(help)
                            .into());
                    }
                    state.image.add_volume(&path);
                }
            }
            Kind::User(user) => {
                let user = self.word(state, user).await?;
                state.image.set_user(&user);
            }
            Kind::Healthcheck(check) => {
                let (mut test, timing) = healthcheck_test(check);
                if let Healthcheck::Check { command: Command::Shell(text), .. } = &**check
                    && let Some(last) = test.last_mut()
                {
                    *last = self.filled(state, text).await?;
                }
                state.image.set_healthcheck(&test, &timing);
            }
            Kind::Workdir(path) => return self.workdir(state, path, line).await,
            _ => return Err(Failure::new("internal", "this command is no part of the language")),
        }
        state.image.add_history(line.as_str().to_owned(), false);
        Ok(())
    }

    async fn workdir(
        self: &Rc<Self>,
        state: &mut State,
        written: &Text,
        line: &Text,
    ) -> Result<(), Failure> {
        let path = self.word(state, written).await?;
        let path = paths::join(state.image.working_dir(), &path);
        state.image.set_working_dir(&path);
        let makes = path != "/";
        if makes {
            let mut opts = vec![
                ("parents".to_owned(), "true".to_owned()),
                ("mode".to_owned(), "0755".to_owned()),
            ];
            let user = state.image.user();
            if !user.is_empty() {
                opts.push(("chown".to_owned(), user.to_owned()));
            }
            let actions = vec![(line.span(), FileAction::Mkdir { path, opts })];
            let op = FileOp { base: state.root, names_from: None, actions };
            state.root = Some(self.add_file(&op, state, line)?);
        }
        state.image.add_history(line.as_str().to_owned(), makes);
        Ok(())
    }
}
