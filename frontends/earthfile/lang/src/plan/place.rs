//! Where Earthfiles lie, and which of them a reference means.
//!
//! A [`Place`] is a directory of the main context or of a git repository. Everything an Earthfile
//! says of paths is meant from its own place, and nothing leads out of the context or the repository
//! that it lies in.

use std::rc::Rc;

use wbuild_dockerfile::lexer::shown;
use wbuild_dockerfile::suggest::did_you_mean;
use wbuild_dockerfile::{Diagnostic, Failure, LocalSource, Output, Span, paths};
use wbuild_git_url::Hosted;

use super::host::DynamicHost;
use super::state::{Import, State};
use super::{File, Session, parse_source};
use crate::Code;
use crate::ast::Earthfile;
use crate::{Parsed, reference};

/// The name of an Earthfile in a directory that is not the main one.
const FILE: &str = "Earthfile";

/// Where an Earthfile lies.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// The repository, without a directory; none means the main context.
    pub repository: Option<Rc<Hosted>>,
    /// The directory in it; empty for its top.
    pub directory: String,
    /// As it stands before a `+` in the main Earthfile; nothing for that itself. Follows from the rest.
    pub shown: Rc<str>,
}

impl Place {
    /// Of the Earthfile that is built.
    pub fn main(directory: String) -> Place {
        Place { repository: None, directory, shown: "".into() }
    }

    /// A path of the directory, from the top of the context or repository, without a leading slash.
    pub fn path(&self, name: &str) -> String {
        match self.directory.as_str() {
            "" => name.to_owned(),
            directory => format!("{directory}/{name}"),
        }
    }

    /// A path that is seen from here, from the top of the context or repository. None if it leads
    /// out of it.
    pub fn join(&self, path: &str) -> Option<String> {
        let from = if self.directory.is_empty() { "." } else { &self.directory };
        let joined = paths::clean(&format!("{from}/{path}"));
        match joined.as_str() {
            "." => Some(String::new()),
            path if path == ".." || path.starts_with("../") || path.starts_with('/') => None,
            _ => Some(joined),
        }
    }

    /// The same; also none if it leads out of this directory.
    pub fn below(&self, path: &str) -> Option<String> {
        self.join(path).filter(|joined| strip(joined, &self.directory).is_some())
    }

    /// What the Earthfile is called in messages.
    fn file_name(&self) -> String {
        match &self.repository {
            Some(repository) => format!("{}/{}", repository.repository, self.path(FILE)),
            None => format!("{}/{FILE}", self.shown.strip_prefix("./").unwrap_or(&self.shown)),
        }
    }
}

/// Whether a path has wildcards.
pub(super) fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?', '['])
}

/// A path below a directory, both from one top; none if it is not.
pub(super) fn strip<'p>(path: &'p str, directory: &str) -> Option<&'p str> {
    match path.strip_prefix(directory)? {
        rest if directory.is_empty() || rest.is_empty() => Some(rest),
        rest => rest.strip_prefix('/'),
    }
}

/// A directory as seen from another, both from one top; nothing for the same one.
pub(super) fn relative(from: &str, to: &str) -> String {
    let parts = |path: &str| -> Vec<String> {
        path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let (from, to) = (parts(from), parts(to));
    let common = from.iter().zip(&to).take_while(|(one, other)| one == other).count();
    let up = std::iter::repeat_n("..", from.len() - common);
    let down = to[common..].iter().map(String::as_str);
    up.chain(down).collect::<Vec<_>>().join("/")
}

/// The files of the main context, if it is no directory of the client's.
pub(super) fn main_root(host: &mut dyn DynamicHost) -> Result<Option<Output>, Failure> {
    Ok(host.context("context", None)?.and_then(|context| context.root))
}

impl<'h> Session<'h> {
    /// A directory of the main context or of a repository.
    pub(super) fn place_of(&self, repository: Option<Rc<Hosted>>, directory: String) -> Place {
        let text = match &repository {
            Some(hosted) => {
                let path = match directory.as_str() {
                    "" => hosted.repository.clone(),
                    directory => format!("{}/{directory}", hosted.repository),
                };
                match hosted.reference.as_str() {
                    "" => path,
                    tag => format!("{path}:{tag}"),
                }
            }
            None => match relative(&self.main.directory, &directory) {
                path if path.is_empty() || path == ".." || path.starts_with("../") => path,
                path => format!("./{path}"),
            },
        };
        Place { repository, directory, shown: text.into() }
    }

    /// The Earthfile that a reference in a file means, and whether IMPORT lets it have privileges.
    pub(super) fn place(
        &self,
        file: &File,
        state: &State,
        place: &reference::Place,
        span: Span,
    ) -> Result<(Place, bool), Failure> {
        let wrong = |message: String, help: &str| {
            Failure::from(Diagnostic::error(Code::InvalidReference, span, message).help(help))
        };
        match place {
            reference::Place::Here => Ok((file.place.clone(), false)),
            reference::Place::Local(path) if is_pattern(path) => Err(wrong(
                format!("{} has wildcards", shown(path)),
                "only references of BUILD and COPY may have some",
            )),
            reference::Place::Local(path) => Ok((self.local_place(file, path, span)?, false)),
            reference::Place::Remote { path, tag } => {
                let text = match tag {
                    Some(tag) => format!("{path}:{tag}"),
                    None => path.clone(),
                };
                let hosted = Hosted::parse(&text).map_err(|why| {
                    let help = "write e.g. `github.com/org/repo/dir:main`; where the repository is \
                                not the two parts behind the host, end it with `.git`";
                    wrong(format!("{} {why}", shown(&text)), help)
                })?;
                let directory = hosted.directory.clone();
                let repository = Rc::new(Hosted { directory: String::new(), ..hosted });
                Ok((self.place_of(Some(repository), directory), false))
            }
            reference::Place::Import(alias) => match state.imports.get(alias) {
                Some(Import { place, privileged }) => Ok((place.clone(), *privileged)),
                None => {
                    let message = format!("nothing is imported as {}", shown(alias));
                    let names = state.imports.keys().map(String::as_str);
                    Err(Diagnostic::error(Code::InvalidReference, span, message)
                        .help("an alias is what IMPORT names; a directory begins with `./`")
                        .maybe_help(did_you_mean(alias, names))
                        .into())
                }
            },
        }
    }

    /// A directory that a file names by its path.
    pub(super) fn local_place(
        &self,
        file: &File,
        path: &str,
        span: Span,
    ) -> Result<Place, Failure> {
        let own = &file.place;
        let (message, help) = match own.join(path) {
            _ if path.starts_with('/') => (
                format!("the directory {} of an Earthfile is absolute", shown(path)),
                "write it as seen from the directory of this Earthfile: `./path` or `../path`",
            ),
            Some(directory) => return Ok(self.place_of(own.repository.clone(), directory)),
            None if own.repository.is_some() => (
                format!("{} leads out of the repository", shown(path)),
                "name another repository by its host, as in `github.com/org/repo`",
            ),
            None => (
                format!("{} leads out of what is built from", shown(path)),
                "references reach as far as the git work tree around the Earthfile that is built, \
                 or its directory if there is none",
            ),
        };
        Err(Diagnostic::error(Code::InvalidReference, span, message).help(help).into())
    }

    /// The files of a repository, all of them; one source however many references there are.
    pub(super) fn repository(&self, hosted: &Rc<Hosted>, span: Span) -> Result<Output, Failure> {
        if let Some(known) = self.repositories.borrow().get(hosted) {
            return Ok(*known);
        }
        let mut host = self.host.borrow_mut();
        let at = host
            .git(&hosted.url(), &hosted.reference, &Vec::new())
            .map_err(|failure| failure.at(Code::UnknownTarget, span))?;
        host.annotate(at, &format!("load {}", hosted.repository), &[span], &Vec::new());
        self.repositories.borrow_mut().insert(Rc::clone(hosted), at);
        Ok(at)
    }

    /// A file of the context or repository that a place is in; none if it is not there.
    fn read(&self, place: &Place, path: &str, span: Span) -> Result<Option<Vec<u8>>, Failure> {
        if let Some(repository) = &place.repository {
            let at = self.repository(repository, span)?;
            let found = self.host.borrow_mut().read_file(at, &format!("/{path}"));
            return found.map_err(|failure| failure.at(Code::UnknownTarget, span));
        }
        let mut host = self.host.borrow_mut();
        let at = match main_root(&mut **host)? {
            Some(root) => root,
            None => {
                let (name, include) = ("context".to_owned(), vec![path.to_owned()]);
                host.local(&LocalSource { name, include, exclude: Vec::new() })?
            }
        };
        host.read_file(at, &format!("/{path}"))
    }

    /// The Earthfile of a place, if it has one.
    pub(super) fn file_if_any(
        &self,
        place: &Place,
        span: Span,
    ) -> Result<Option<Rc<File>>, Failure> {
        if let Some(file) = self.files.borrow().get(place) {
            return Ok(Some(Rc::clone(file)));
        }
        let Some(data) = self.read(place, &place.path(FILE), span)? else { return Ok(None) };
        let (parsed, start) = {
            let mut host = self.host.borrow_mut();
            let file = (&place.file_name()[..], &data[..]);
            let (source, parsed) = parse_source(&mut **host, file, Parsed::refused)?;
            (parsed, Span { source, start: 0, end: 0 })
        };
        self.add_earthfile(place, parsed, start).map(Some)
    }

    /// The Earthfile of a place.
    pub(super) fn file(&self, place: &Place, span: Span) -> Result<Rc<File>, Failure> {
        if let Some(file) = self.file_if_any(place, span)? {
            return Ok(file);
        }
        let help = match &place.repository {
            Some(_) => "paths begin at the top of the repository",
            None => "paths begin at the directory of the Earthfile that names them",
        };
        let message = format!("there is no Earthfile in {}", shown(&place.shown));
        let problem = Diagnostic::error(Code::UnknownTarget, span, message)
            .help(help)
            .maybe_help(self.similar(place, span));
        Err(Failure { kind: "not-found".to_owned(), ..problem.into() })
    }

    /// A directory beside one that has no Earthfile, if its name is nearly the same.
    fn similar(&self, place: &Place, span: Span) -> Option<String> {
        let (above, name) = place.directory.rsplit_once('/').unwrap_or(("", &place.directory));
        let at = self.whole(place, span).ok()?;
        let found = self.host.borrow_mut().directories(at, &format!("/{above}"), "*").ok()?;
        did_you_mean(name, found.iter().map(String::as_str).filter(|other| *other != name))
    }

    /// Takes a parsed file.
    pub(super) fn add_earthfile(
        &self,
        place: &Place,
        parsed: Earthfile,
        start: Span,
    ) -> Result<Rc<File>, Failure> {
        let file = Rc::new(File { parsed, place: place.clone(), start });
        self.files.borrow_mut().insert(place.clone(), Rc::clone(&file));
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_seen_from_each_other() {
        for (from, to, want) in [
            ("", "", ""),
            ("", "a/b", "a/b"),
            ("a/b", "a/b", ""),
            ("a/b", "a/c", "../c"),
            ("a/b", "", "../.."),
            ("a", "ab", "../ab"),
        ] {
            assert_eq!(relative(from, to), want, "{from} {to}");
        }
        assert_eq!(strip("a/b", "a"), Some("b"));
        assert_eq!(strip("a", "a"), Some(""));
        assert_eq!(strip("ab", "a"), None);
        assert_eq!(strip("a", ""), Some("a"));
        let place = Place::main("a/b".to_owned());
        assert_eq!(place.join("../../x"), Some("x".to_owned()));
        assert_eq!(place.join("../../../x"), None);
        assert_eq!(place.below("../b/x"), Some("a/b/x".to_owned()));
        assert_eq!(place.below("../x"), None);
    }
}
