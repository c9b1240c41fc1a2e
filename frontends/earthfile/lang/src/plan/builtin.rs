//! Arguments whose values the builder knows: platforms, the target, and facts of the git repository
//! that an Earthfile lies in.
//!
//! The host is asked for a fact only where an ARG declares it, so a commit makes nothing run that
//! does not use it.

use std::rc::Rc;

use wbuild_dockerfile::{Failure, Platform, Text};

use super::place::Place;
use super::state::{Key, State};
use super::{File, Session};
use crate::Code;
use crate::features::fact;

/// The most characters of a tag of an image.
const TAG: usize = 127;

/// What is known of the repository that an Earthfile lies in.
pub(super) struct Facts<'s, 'h> {
    session: &'s Session<'h>,
    place: &'s Place,
}

impl Facts<'_, '_> {
    /// A fact by its name in `vcs:…`; empty if it is not known.
    fn get(&self, name: &str) -> Result<String, Failure> {
        let Some(hosted) = &self.place.repository else {
            let fact = self.session.host.borrow_mut().opt(&format!("vcs:{name}"));
            return Ok(fact.unwrap_or_default());
        };
        let known = self.session.facts.borrow().get(hosted).cloned();
        let facts = match known {
            Some(facts) => facts,
            None => {
                let mut host = self.session.host.borrow_mut();
                let facts = Rc::new(host.repository_facts(&hosted.url(), &hosted.reference)?);
                self.session.facts.borrow_mut().insert(hosted.clone(), Rc::clone(&facts));
                facts
            }
        };
        let fact = facts.iter().find(|(known, _)| known == name);
        Ok(fact.map(|(_, value)| value.clone()).unwrap_or_default())
    }

    /// The repository, and the directory in it, as a reference names them; empty outside of one.
    fn project(&self) -> Result<String, Failure> {
        let repository = repository(&self.get("source")?);
        if repository.is_empty() {
            return Ok(repository);
        }
        // That of the main context, below which this one lies.
        let above = self.get("directory")?;
        let parts = [repository, above, self.place.directory.clone()];
        let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
        Ok(parts.join("/"))
    }

    /// The tag of a reference to what is checked out: as it is named, else a tag, the branch, or the
    /// commit.
    fn tag(&self) -> Result<String, Failure> {
        if let Some(hosted) = &self.place.repository
            && !hosted.reference.is_empty()
        {
            return Ok(hosted.reference.clone());
        }
        if self.get("source")?.is_empty() {
            return Ok(String::new());
        }
        let tags = self.get("tags")?;
        if let Some(first) = tags.split(' ').next().filter(|tag| !tag.is_empty()) {
            return Ok(first.to_owned());
        }
        match self.get("branch")? {
            branch if branch.is_empty() => self.get("revision"),
            branch => Ok(branch),
        }
    }

    /// Project and tag.
    fn canonical(&self) -> Result<String, Failure> {
        let (project, tag) = (self.project()?, self.tag()?);
        Ok(match tag.as_str() {
            "" => project,
            tag => format!("{project}:{tag}"),
        })
    }
}

/// `host/path` of a repository's address.
fn repository(address: &str) -> String {
    let (scheme, rest) = match address.split_once("://") {
        Some((_, rest)) => (true, rest),
        None => (false, address),
    };
    let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
    let rest = if scheme { rest.to_owned() } else { rest.replacen(':', "/", 1) };
    rest.trim_end_matches('/').trim_end_matches(".git").to_owned()
}

/// What can be the tag of an image: other characters become `_`.
fn docker_tag(tag: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    let tag: String = tag.chars().map(|c| if plain(c) { c } else { '_' }).take(TAG).collect();
    match tag.as_str() {
        "" => "latest".to_owned(),
        tag if tag.starts_with(['.', '-']) => format!("_{}", &tag[1..]),
        _ => tag,
    }
}

/// Last parts of the names of references, each once.
fn short_names(references: &str) -> String {
    let mut names: Vec<&str> = Vec::new();
    for reference in references.split(' ').filter(|reference| !reference.is_empty()) {
        let name = reference.rsplit('/').next().unwrap_or(reference);
        if name != "HEAD" && !names.contains(&name) {
            names.push(name);
        }
    }
    names.join(" ")
}

fn platform(platform: &Platform, part: &str) -> String {
    match part {
        "PLATFORM" => platform.to_string(),
        "OS" => platform.os.clone(),
        "ARCH" => platform.architecture.clone(),
        _ => platform.variant.clone().unwrap_or_default(),
    }
}

impl<'h> Session<'h> {
    /// What the builder sets, whatever anybody says.
    pub(super) fn built_in(
        &self,
        (key, file): (&Key, &File),
        state: &State,
        name: &Text,
    ) -> Result<Option<String>, Failure> {
        for (prefix, of) in [
            ("TARGET", &state.platform),
            ("NATIVE", &self.build_platform),
            ("USER", &self.build_platform),
        ] {
            if let Some(part @ ("PLATFORM" | "OS" | "ARCH" | "VARIANT")) = name.strip_prefix(prefix)
            {
                return Ok(Some(platform(of, part)));
            }
        }
        let Some(fact) = fact(name) else { return Ok(None) };
        let value = self.builder_fact((key, file), state, fact);
        value.map_err(|failure| failure.at(Code::FailedCommand, name.span()))
    }

    /// `EARTHLY_…`; none if there is none of this name.
    fn builder_fact(
        &self,
        (key, file): (&Key, &File),
        state: &State,
        name: &str,
    ) -> Result<Option<String>, Failure> {
        let facts = Facts { session: self, place: &key.place };
        let value = match name {
            "TARGET" => match facts.canonical()? {
                project if project.is_empty() => key.shown(),
                project => format!("{project}+{}", key.name),
            },
            "TARGET_NAME" => key.name.clone(),
            "TARGET_PROJECT" => facts.canonical()?,
            "TARGET_PROJECT_NO_TAG" => facts.project()?,
            "TARGET_TAG" => facts.tag()?,
            "TARGET_TAG_DOCKER" => docker_tag(&facts.tag()?),
            "GIT_HASH" => facts.get("revision")?,
            "GIT_SHORT_HASH" => facts.get("short-revision")?,
            "GIT_BRANCH" => facts.get("branch")?,
            "GIT_TAG" => facts.get("tags")?.split(' ').next().unwrap_or_default().to_owned(),
            "GIT_REFS" => short_names(&facts.get("refs")?),
            // Never with credentials.
            "GIT_ORIGIN_URL" | "GIT_ORIGIN_URL_SCRUBBED" => facts.get("source")?,
            "GIT_PROJECT_NAME" => {
                let repository = repository(&facts.get("source")?);
                repository.split_once('/').map_or_else(String::new, |(_, path)| path.to_owned())
            }
            "GIT_AUTHOR"
                if !file.has("earthly-git-author-individual-args")
                    && !file.has("git-author-email-name-args") =>
            {
                facts.get("author-email")?
            }
            "GIT_AUTHOR" => match (facts.get("author-name")?, facts.get("author-email")?) {
                (name, email) if !name.is_empty() && !email.is_empty() => {
                    format!("{name} <{email}>")
                }
                (_, email) => email,
            },
            "GIT_AUTHOR_NAME" => facts.get("author-name")?,
            "GIT_AUTHOR_EMAIL" => facts.get("author-email")?,
            "GIT_CO_AUTHORS" => facts.get("co-authors")?,
            "GIT_COMMIT_AUTHOR_TIMESTAMP" => facts.get("author-timestamp")?,
            "GIT_COMMIT_TIMESTAMP" => facts.get("commit-timestamp")?,
            "SOURCE_DATE_EPOCH" => match facts.get("commit-timestamp")? {
                time if time.is_empty() => "0".to_owned(),
                time => time,
            },
            // Of the language that this is, and of no commit of Earthly's.
            "VERSION" => concat!("wbuild-", env!("CARGO_PKG_VERSION")).to_owned(),
            "BUILD_SHA" => String::new(),
            "CI" => self.ci.to_string(),
            "PUSH" => self.pushes.to_string(),
            "LOCALLY" => state.locally.to_string(),
            // There is no such service.
            "CI_RUNNER" => "false".to_owned(),
            _ => return Ok(None),
        };
        Ok(Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_of_repositories() {
        for (address, want) in [
            ("git@github.com:bar/buz.git", "github.com/bar/buz"),
            ("https://github.com/bar/buz.git", "github.com/bar/buz"),
            ("ssh://git@h.org:2222/a/b", "h.org:2222/a/b"),
            ("/srv/git/a.git", "/srv/git/a"),
            ("", ""),
        ] {
            assert_eq!(repository(address), want);
        }
        for (tag, want) in [
            ("john/work", "john_work"),
            ("", "latest"),
            ("-x", "_x"),
            ("v1.2", "v1.2"),
            ("ä b", "__b"),
        ] {
            assert_eq!(docker_tag(tag), want);
        }
        assert_eq!(short_names("refs/heads/john/work refs/tags/work refs/remotes/o/HEAD"), "work");
    }
}
