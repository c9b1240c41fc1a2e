//! Files in TOML that people write or wbuild writes for them: read within a limit, and a mistake in
//! one is shown where it stands.

use std::io::Read as _;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use wbuild_graph::{
    Diagnostic, Failure, FailureKind, Label, Severity, SourceFile, SourceMap, Span,
};

/// Largest file that is read: configuration, certificates, keys or signatures, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// A failure, with the texts it points into.
#[derive(Clone, Debug, PartialEq)]
pub struct Problem {
    /// What is reported. Boxed: most results are no problems.
    pub failure: Box<Failure>,
    /// What the failure points into.
    pub sources: SourceMap,
}

impl Problem {
    /// Adds something the user can try.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.failure.hints.push(hint.into());
        self
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Problem { failure: Box::new(failure), sources: SourceMap::default() }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.failure.fmt(f)
    }
}

impl std::error::Error for Problem {}

/// A place in a definition or in a file of configuration, as a failure shows it.
pub(crate) fn pointed(
    mut failure: Failure,
    message: &str,
    help: Option<&str>,
    source: SourceFile,
    at: Range<usize>,
) -> Problem {
    let mut sources = SourceMap::default();
    let length = source.text.len();
    let source = sources.add(source);
    let offset = |at: usize| u32::try_from(at.min(length)).unwrap_or(u32::MAX);
    let at = Span { source, start: offset(at.start), end: offset(at.end) };
    failure.diagnostics.push(Diagnostic {
        severity: Severity::Error,
        code: None,
        message: message.to_owned(),
        labels: vec![Label { at, text: String::new(), primary: true }],
        help: help.map(str::to_owned),
        url: None,
        attrs: Default::default(),
    });
    Problem { failure: Box::new(failure), sources }
}

/// A file that was read.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    /// Where.
    pub path: PathBuf,
    /// What it is, for messages: `registry configuration`.
    what: &'static str,
    bytes: Vec<u8>,
}

impl ConfigFile {
    /// A file at hand.
    pub fn new(path: PathBuf, what: &'static str, bytes: Vec<u8>) -> ConfigFile {
        ConfigFile { path, what, bytes }
    }

    /// The first of these files that is there; none if none is.
    ///
    /// # Errors
    ///
    /// One is there and cannot be read.
    pub fn first(
        paths: impl IntoIterator<Item = PathBuf>,
        what: &'static str,
    ) -> Result<Option<ConfigFile>, Failure> {
        for path in paths {
            match read_file(&path) {
                Ok(bytes) => return Ok(Some(ConfigFile { path, what, bytes })),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(unreadable(what, &path, &error)),
            }
        }
        Ok(None)
    }

    /// A file that has to be there.
    ///
    /// # Errors
    ///
    /// It cannot be read.
    pub fn named(path: PathBuf, what: &'static str) -> Result<ConfigFile, Failure> {
        match read_file(&path) {
            Ok(bytes) => Ok(ConfigFile { path, what, bytes }),
            Err(error) => Err(unreadable(what, &path, &error)),
        }
    }

    /// What it holds.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What it says.
    ///
    /// # Errors
    ///
    /// It is no TOML, or says what is not understood.
    pub fn parse<T: for<'de> Deserialize<'de>>(&self) -> Result<T, Problem> {
        let text = std::str::from_utf8(&self.bytes).map_err(|error| {
            let at = error.valid_up_to();
            self.wrong(at..at + 1, "it is no text in UTF-8", None)
        })?;
        toml::from_str(text)
            .map_err(|error| self.wrong(error.span().unwrap_or(0..0), error.message(), None))
    }

    /// What is the matter with it, and where.
    pub fn wrong(&self, at: Range<usize>, message: &str, hint: Option<&str>) -> Problem {
        let source = SourceFile {
            name: self.path.display().to_string(),
            language: "toml".to_owned(),
            text: self.bytes.as_slice().into(),
        };
        let failure =
            Failure::invalid(format!("the {} {} is wrong", self.what, self.path.display()));
        pointed(failure, message, hint, source, at)
    }
}

fn unreadable(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::invalid(format!("cannot read the {what} {}", path.display())).cause(error)
}

/// Reads a file that was named in or as configuration.
///
/// # Errors
///
/// It cannot be read, or is larger than any such file is.
pub fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(std::io::Error::other("it is larger than 1 MiB"));
    }
    Ok(bytes)
}

/// Replaces a file as a whole, so that a reader sees the old one or the new one; `mode` as of `chmod`.
///
/// # Errors
///
/// It cannot be written.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::PermissionsExt as _;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::Builder::new()
        .prefix(".wbuild-")
        .permissions(std::fs::Permissions::from_mode(mode))
        .tempfile_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// A failure of policy.
pub(crate) fn denied(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Denied, message)
}
