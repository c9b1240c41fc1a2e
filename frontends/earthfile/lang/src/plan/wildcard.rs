//! Wildcards in the directory of a reference: `BUILD ./services/*+build`, `COPY ./*+build/file .`.
//!
//! They stand for the directories that have an Earthfile with this target, in the order of their
//! names; the others are passed over.

use wbuild_dockerfile::lexer::shown;
use wbuild_dockerfile::{Diagnostic, Failure, LocalSource, Output, Span, Text};

use super::place::{Place, is_pattern, main_root, relative};
use super::{File, Session, find};
use crate::Code;
use crate::features::needed;
use crate::reference::{self, Reference};

/// The most directories that one reference may stand for.
const MOST: usize = 1000;

impl<'h> Session<'h> {
    /// What a reference stands for: itself, unless it has wildcards. `feature` is what allows them to
    /// the command.
    pub(super) fn stands_for(
        &self,
        file: &File,
        reference: &Reference,
        (word, command, feature): (&Text, &str, &str),
    ) -> Result<Vec<Reference>, Failure> {
        let span = word.span();
        let pattern = match &reference.place {
            reference::Place::Local(pattern) if is_pattern(pattern) => pattern,
            _ => return Ok(vec![reference.clone()]),
        };
        if !file.has(feature) {
            let what = format!("a reference of {command} with wildcards");
            return Err(needed(&what, feature, span).into());
        }
        if pattern.contains("**") {
            let message = format!("{} has `**` in it", shown(pattern));
            let help = "`*` stands for one directory: `./*/*+target`";
            return Err(Diagnostic::error(Code::InvalidReference, span, message).help(help).into());
        }
        let place = self.local_place(file, pattern, span)?;
        let mut found = Vec::new();
        for directory in self.matching(&place, span)? {
            let place = self.place_of(place.repository.clone(), directory);
            let Some(there) = self.file_if_any(&place, span)? else { continue };
            if find(&there.parsed.targets, &reference.name).is_some() {
                let path = relative(&file.place.directory, &place.directory);
                let place = reference::Place::Local(format!("./{path}"));
                found.push(Reference { place, name: reference.name.clone() });
            }
        }
        if found.is_empty() {
            let message = format!("{} stands for nothing", shown(&reference.to_string()));
            let name = &reference.name;
            let help = format!("no such directory has an Earthfile with a target {name}");
            let note = Diagnostic::note(Code::UnknownTarget, span, message).help(help);
            self.host.borrow_mut().report(note);
        }
        Ok(found)
    }

    /// The directories that the directory of a place, which is a pattern, stands for; sorted.
    fn matching(&self, place: &Place, span: Span) -> Result<Vec<String>, Failure> {
        let at = self.whole(place, span)?;
        let mut directories = vec![String::new()];
        for part in place.directory.split('/') {
            let mut below = Vec::new();
            for directory in &directories {
                let join = |name: &str| match directory.as_str() {
                    "" => name.to_owned(),
                    directory => format!("{directory}/{name}"),
                };
                if !is_pattern(part) {
                    below.push(join(part));
                    continue;
                }
                let names = self
                    .host
                    .borrow_mut()
                    .directories(at, &format!("/{directory}"), part)
                    .map_err(|failure| failure.at(Code::UnknownTarget, span))?;
                below.extend(names.iter().map(|name| join(name)));
            }
            directories = below;
            if directories.len() > MOST {
                let message = format!("the pattern stands for more than {MOST} directories");
                let problem = Diagnostic::error(Code::InvalidReference, span, message)
                    .help("name a directory above them");
                return Err(Failure { kind: "limit".to_owned(), ..problem.into() });
            }
        }
        directories.sort();
        Ok(directories)
    }

    /// All of the context or repository that a place is in.
    pub(super) fn whole(&self, place: &Place, span: Span) -> Result<Output, Failure> {
        if let Some(repository) = &place.repository {
            return self.repository(repository, span);
        }
        let mut host = self.host.borrow_mut();
        match main_root(&mut **host)? {
            Some(root) => Ok(root),
            None => {
                let (name, include, exclude) = ("context".to_owned(), Vec::new(), Vec::new());
                host.local(&LocalSource { name, include, exclude })
            }
        }
    }
}
