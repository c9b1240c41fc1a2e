//! `COPY` and `ADD`.

use wbuild_git_url::{GitSource, git_source};

use crate::ast::{Instruction, Transfer};
use crate::expand::Options;
use crate::lint::steps;
use crate::text::shown;
use crate::{Code, Diagnostic, Failure, Span, Text, paths};

use super::contexts::hidden;
use super::expand_text;
use super::host::{Attrs, CopyAction, FileAction, FileOp, Output};
use super::lower::Lowering;
use super::remote;

fn attr(name: &str, value: impl Into<String>) -> (String, String) {
    (name.to_owned(), value.into())
}

/// A transfer whose words are expanded.
struct Words {
    chown: String,
    chmod: String,
    checksum: String,
    exclude: Vec<String>,
    sources: Vec<String>,
    /// As written, for history.
    target: String,
    /// Absolute; ends in `/` if it names a directory.
    place: String,
}

impl Lowering<'_, '_> {
    pub(super) fn transfer(
        &mut self,
        instruction: &Instruction,
        transfer: &Transfer,
        add: bool,
    ) -> Result<(), Failure> {
        let words = self.words(transfer)?;
        Self::check_checksum(transfer, &words, add)?;
        let name = self.shown(instruction, &[]);
        let name = self.next_title() + &name;
        let mut history = String::from(if add { "ADD" } else { "COPY" });
        if transfer.parents {
            history.push_str(" --parents");
        }
        for (flag, value) in [("chown", &words.chown), ("chmod", &words.chmod)] {
            if !value.is_empty() {
                history.push_str(&format!(" --{flag}={value}"));
            }
        }
        let mut actions: Vec<(Span, FileAction)> = Vec::new();
        for (source, path) in transfer.sources.iter().zip(&words.sources) {
            history.push_str(&format!(" {path}"));
            let (output, path, mut opts) =
                self.source(transfer, source, path, &words, add, &name)?;
            opts.extend(self.entry(&words));
            let target = words.place.clone();
            let copy = CopyAction { source: output, path, target, opts };
            actions.push((source.span(), FileAction::Copy(copy)));
        }
        for heredoc in &transfer.heredocs {
            history.push_str(&format!(" <<{}", heredoc.name));
            let mut data = heredoc.content();
            if heredoc.expand {
                let expanded = expand_text(&data, Options::heredoc(), &self.state.vars)?;
                self.state.undefined(self.session.lint, self.comments, &data, &expanded);
                data = Text::decode(heredoc.word.span().source, 0, expanded.text.as_bytes());
            }
            let span = heredoc.word.span();
            let source = self.document(&heredoc.name, &data, span)?;
            let mut opts = vec![attr("create-dest", "true")];
            opts.extend(self.entry(&words));
            let (path, target) = (format!("/{}", heredoc.name), words.place.clone());
            let copy = CopyAction { source, path, target, opts };
            actions.push((span, FileAction::Copy(copy)));
        }
        history.push_str(&format!(" {} # buildkit", words.target));
        // A mode makes a linked copy depend on what is below it, as it always has.
        let link = transfer.link && words.chmod.is_empty();
        let named = words.chown.split(':').any(|part| part.parse::<u32>().is_err());
        let op = FileOp {
            base: if link { None } else { self.state.root },
            // Without names to look up a linked copy does not depend on its base.
            names_from: self.state.root.filter(|_| link && named && !words.chown.is_empty()),
            actions,
        };
        let copied = self.session.host.file(&op)?;
        self.name(copied, &name, &Attrs::new())?;
        self.state.root = Some(match self.state.root {
            Some(below) if link => {
                let merged = self.session.host.merge(&[below, copied])?;
                let (prefix, rest) = name.split_once("] ").unwrap_or(("", &name));
                let close = if prefix.is_empty() { "" } else { "] " };
                self.name(merged, &format!("{prefix}{close}LINK {rest}"), &hidden())?;
                merged
            }
            _ => copied,
        });
        self.state.image.add_history(history, true);
        Ok(())
    }

    fn optional(&mut self, word: Option<&Text>) -> Result<String, Failure> {
        word.map_or(Ok(String::new()), |word| self.word(word))
    }

    fn words(&mut self, transfer: &Transfer) -> Result<Words, Failure> {
        let chmod = self.optional(transfer.chmod.as_ref())?;
        if let Some(at) =
            transfer.chmod.as_ref().filter(|_| !chmod.is_empty() && !valid_mode(&chmod))
        {
            let message = format!("{} is not a file mode", shown(&chmod));
            return Err(Diagnostic::error(Code::InvalidMode, at.span(), message)
                .help("write it in octal, e.g. `755`, or as changes, e.g. `u=rwX,go=rX`")
                .into());
        }
        let target = self.word(&transfer.target)?;
        let mut place = paths::join_target(self.state.image.working_dir(), &target);
        // Several files cannot be one file.
        if transfer.sources.len() + transfer.heredocs.len() > 1 && !place.ends_with('/') {
            place.push('/');
        }
        let exclude = transfer.exclude.iter().map(|word| self.word(word));
        let mut exclude = exclude.collect::<Result<Vec<_>, _>>()?;
        exclude.retain(|pattern| !pattern.is_empty());
        Ok(Words {
            chown: self.optional(transfer.chown.as_ref())?,
            chmod,
            checksum: self.optional(transfer.checksum.as_ref())?,
            exclude,
            sources: transfer
                .sources
                .iter()
                .map(|word| self.word(word))
                .collect::<Result<_, _>>()?,
            target,
            place,
        })
    }

    /// Owner, mode and time of what a copy makes.
    fn entry(&self, words: &Words) -> Attrs {
        let mut opts = Attrs::new();
        if !words.chown.is_empty() {
            opts.push(attr("chown", &words.chown));
        }
        if !words.chmod.is_empty() {
            opts.push(attr("mode", &words.chmod));
        }
        // The source's times are kept unless the caller fixed the time of everything.
        opts.push(self.timestamp().unwrap_or_else(|| attr("keep-times", "true")));
        opts
    }

    /// A heredoc as a file of a tree of its own.
    fn document(&mut self, name: &str, data: &Text, span: Span) -> Result<Output, Failure> {
        if name.contains('/') || matches!(name, "." | "..") {
            let message = format!("{} cannot be the name of a file", shown(name));
            return Err(Diagnostic::error(Code::InvalidHeredoc, span, message)
                .help("end it by a name without `/`, e.g. `EOF`")
                .into());
        }
        let mut opts = vec![attr("mode", "0644")];
        opts.extend(self.timestamp());
        let path = format!("/{name}");
        let action = FileAction::Write { path, data: data.as_bytes().to_vec(), opts };
        let op = FileOp { base: None, names_from: None, actions: vec![(span, action)] };
        let output = self.session.host.file(&op)?;
        let title = "[internal] preparing inline document";
        self.session.host.annotate(output, title, &[span], &hidden());
        Ok(output)
    }

    /// Where a source's files are, the path in there, and how they are copied.
    fn source(
        &mut self,
        transfer: &Transfer,
        source: &Text,
        path: &str,
        words: &Words,
        add: bool,
        name: &str,
    ) -> Result<(Output, String, Attrs), Failure> {
        let git = git_source(path);
        if git.is_some() || remote::is_http(path) {
            if !add {
                let message = format!("COPY cannot fetch {}", shown(path));
                return Err(Diagnostic::error(Code::RemoteCopy, source.span(), message)
                    .help("ADD copies from URLs and git repositories")
                    .into());
            }
            return match git {
                Some(git) => self.git(transfer, source, git, words, name),
                None => self.download(transfer, source, path, words, name),
            };
        }
        let output = match &transfer.from {
            None => {
                let root = self.session.main_context()?;
                let ignored = self.session.contexts.ignored(path);
                steps::ignored(self.session.lint, self.comments, (source, path), ignored);
                root
            }
            Some(from) => {
                let place = self.plan.places.get(from.as_str()).copied();
                let place = place.expect("every `--from` was looked up when the stage was planned");
                match self.place(place, from)? {
                    Some(output) => output,
                    // There is always a root, and a pattern need not match anything.
                    None if paths::rooted(path) == "/" || path.contains(['*', '?', '[']) => {
                        let nothing = FileOp { base: None, names_from: None, actions: Vec::new() };
                        let output = self.session.host.file(&nothing)?;
                        let title = format!("[internal] empty {from}");
                        self.session.host.annotate(output, &title, &[from.span()], &hidden());
                        output
                    }
                    None => {
                        let message = format!("{} holds no files", shown(from));
                        let error = Diagnostic::error(Code::EmptySource, from.span(), message);
                        return Err(error
                            .help("it starts from `scratch` and nothing was added to it")
                            .into());
                    }
                }
            }
        };
        let mut opts = vec![
            attr("create-dest", "true"),
            attr("follow-links", "true"),
            attr("contents-only", "true"),
            attr("wildcard", "true"),
        ];
        if transfer.parents {
            opts.push(attr("parents", "true"));
        }
        // What a stage or an image holds belongs to whom it belongs there; the context to nobody.
        if transfer.from.is_some() && words.chown.is_empty() {
            opts.push(attr("keep-owner", "true"));
        }
        opts.extend(words.exclude.iter().map(|pattern| attr("exclude", pattern)));
        if add && transfer.unpack != Some(false) || transfer.unpack == Some(true) {
            opts.push(attr("unpack", "auto"));
        }
        // The pivot of `--parents` must survive cleaning.
        let path = match path.split_once("/./").filter(|_| transfer.parents) {
            Some((base, rest)) => {
                let base = paths::rooted(base);
                format!("{}/.{}", base.trim_end_matches('/'), paths::rooted(rest))
            }
            None => paths::rooted(path),
        };
        Ok((output, path, opts))
    }

    /// A checksum is that of one thing which is fetched.
    fn check_checksum(transfer: &Transfer, words: &Words, add: bool) -> Result<(), Failure> {
        let Some(flag) = transfer.checksum.as_ref().filter(|_| !words.checksum.is_empty()) else {
            return Ok(());
        };
        let (message, help) = match &words.sources[..] {
            [one] if !add || git_source(one).is_some() || remote::is_http(one) => {
                return Ok(());
            }
            [] | [_] => (
                "`--checksum` is for URLs and git repositories",
                "leave it out: what is not fetched cannot change on the way",
            ),
            _ => (
                "`--checksum` can hold for one source only",
                "write an ADD of its own for each source",
            ),
        };
        Err(Diagnostic::error(Code::InvalidFlag, flag.span(), message).help(help).into())
    }

    fn download(
        &mut self,
        transfer: &Transfer,
        source: &Text,
        url: &str,
        words: &Words,
        name: &str,
    ) -> Result<(Output, String, Attrs), Failure> {
        let digest = words.checksum.strip_prefix("sha256:").unwrap_or_default();
        let valid = digest.len() == 64 && digest.bytes().all(|b| b.is_ascii_hexdigit());
        let given = transfer.checksum.as_ref().filter(|_| !words.checksum.is_empty());
        if let Some(at) = given.filter(|_| !valid) {
            let message = format!("{} is not the checksum of a file", shown(&words.checksum));
            return Err(Diagnostic::error(Code::InvalidFlag, at.span(), message)
                .help("write `sha256:` and 64 hexadecimal digits")
                .into());
        }
        let file = remote::file_name(url);
        let attrs = vec![attr("filename", &file)];
        let checksum = given.map(|_| words.checksum.to_ascii_lowercase());
        let output = self
            .session
            .host
            .http(url, checksum.as_deref(), &attrs)
            .map_err(|failure| failure.at(Code::Download, source.span()))?;
        self.session.host.annotate(output, name, &[source.span()], &hidden());
        let mut opts = vec![attr("create-dest", "true")];
        if transfer.unpack == Some(true) {
            opts.push(attr("unpack", "auto"));
        }
        opts.extend(words.exclude.iter().map(|pattern| attr("exclude", pattern)));
        Ok((output, format!("/{file}"), opts))
    }

    fn git(
        &mut self,
        transfer: &Transfer,
        source: &Text,
        mut git: GitSource,
        words: &Words,
        name: &str,
    ) -> Result<(Output, String, Attrs), Failure> {
        let conflict = |what: &str| {
            let message = format!("the URL and a flag ask for different {what}");
            Failure::from(
                Diagnostic::error(Code::InvalidFlag, source.span(), message)
                    .help("keep what the flag says or what the URL says"),
            )
        };
        if let Some(keep) = transfer.keep_git_dir
            && git.keep_git_dir.replace(keep).is_some_and(|other| other != keep)
        {
            return Err(conflict("treatment of `.git`"));
        }
        if !words.checksum.is_empty() {
            if !git.checksum.is_empty() && git.checksum != words.checksum {
                return Err(conflict("checksums"));
            }
            git.checksum.clone_from(&words.checksum);
        }
        let output = self
            .session
            .host
            .git(&git.url, &git.reference, &git.attrs(false))
            .map_err(|failure| failure.at(Code::Git, source.span()))?;
        self.session.host.annotate(output, name, &[source.span()], &hidden());
        let mut opts = vec![attr("create-dest", "true"), attr("contents-only", "true")];
        opts.extend(words.exclude.iter().map(|pattern| attr("exclude", pattern)));
        Ok((output, "/".to_owned(), opts))
    }
}

/// Octal up to 7777, or comma-separated changes such as `u+x` and `go=rX` (POSIX chmod).
fn valid_mode(mode: &str) -> bool {
    if mode.bytes().all(|b| b.is_ascii_digit()) {
        return u32::from_str_radix(mode, 8).is_ok_and(|mode| mode <= 0o7777);
    }
    mode.split(',').all(|clause| {
        let who = clause.trim_start_matches(['u', 'g', 'o', 'a']);
        let mut rest = who;
        while let Some(after) = rest.strip_prefix(['+', '-', '=']) {
            let copied = after.strip_prefix(['u', 'g', 'o']);
            rest =
                copied.unwrap_or_else(|| after.trim_start_matches(['r', 'w', 'x', 'X', 's', 't']));
        }
        rest.is_empty() && !who.is_empty()
    })
}

#[cfg(test)]
mod tests {
    use super::valid_mode;

    #[test]
    fn modes() {
        for good in
            ["0", "755", "0755", "4755", "7777", "u+x", "u=rwX,go=rX", "+x", "a-w", "g=u", "u+x-w"]
        {
            assert!(valid_mode(good), "{good}");
        }
        for bad in ["8", "17777", "u", "x", "u+y", ",", "u+x,", "u=rw,z+x", "0x1"] {
            assert!(!valid_mode(bad), "{bad}");
        }
    }
}
