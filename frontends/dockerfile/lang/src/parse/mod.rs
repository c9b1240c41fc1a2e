//! From bytes to [`Dockerfile`].
//!
//! The parser does not stop at the first mistake: an instruction that cannot be read is reported and
//! left out, and reading goes on with the next one, so that a user sees all mistakes at once.

mod command;
mod flags;
mod mount;
mod pairs;
mod transfer;

use crate::ast::{Dockerfile, Instruction, Kind, Stage, Trigger};
use crate::directives;
use crate::lines::{Logical, Reader};
use crate::suggest::{closest, did_you_mean};
use crate::text::shown;
use crate::words;
use crate::{Code, Diagnostic, Severity, Span, Text};

pub(crate) use command::EMPTY_VOLUME;
pub use mount::{Ownership, Resolved, Sharing, csv as mount_fields, resolve as resolve_mount};

/// Sources above this size are refused: places are kept in 32 bits, and nobody writes them by hand.
const MOST_BYTES: usize = 16 << 20;

/// Most errors that are told: who sends something else than a Dockerfile needs to hear it once.
const MOST_ERRORS: usize = 1000;

/// What came of parsing a file.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// What could be read.
    pub file: Dockerfile,
    /// Errors and warnings in the order of the file.
    pub problems: Vec<Diagnostic>,
    /// Empty lines between continued lines, which a later version of the language may refuse; one
    /// list for each instruction that has any.
    pub empty_continuations: Vec<Vec<Span>>,
}

impl Parsed {
    /// A file that was not written as one.
    pub(crate) fn of(file: Dockerfile) -> Parsed {
        Parsed { file, problems: Vec::new(), empty_continuations: Vec::new() }
    }

    /// Whether there is an error among the problems.
    pub fn failed(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }
}

/// The instructions of the language.
const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// Parses a file. `source` is the number that spans will carry.
pub fn parse(source: u32, bytes: &[u8]) -> Parsed {
    let mut problems = Vec::new();
    let start = Span { source, start: 0, end: 0 };
    let bytes = if bytes.len() > MOST_BYTES {
        let message = format!("the Dockerfile is larger than {} MiB", MOST_BYTES >> 20);
        let help =
            "check that `--file` names a Dockerfile; large data belongs into files of the context";
        problems.push(Diagnostic::error(Code::TooLarge, start, message).help(help));
        &[]
    } else {
        bytes
    };
    let mut reader = Reader::new(source, bytes);
    let directives = directives::read(&mut reader, &mut problems);
    let escape = directives.escape;
    let mut file = Dockerfile { directives, globals: Vec::new(), stages: Vec::new() };
    let mut empty_continuations = Vec::new();
    let mut read_any = !problems.is_empty();
    let mut reported_homeless = false;
    // A FROM that cannot be read still ends the stage before it.
    let mut broken_from = false;
    let is_error = |problem: &Diagnostic| problem.severity == Severity::Error;
    let (mut seen, mut errors) = (0, 0);
    while let Some(mut line) = reader.logical(escape) {
        errors += problems[seen..].iter().filter(|problem| is_error(problem)).count();
        seen = problems.len();
        if errors >= MOST_ERRORS {
            break;
        }
        read_any = true;
        if !line.empty.is_empty() {
            empty_continuations.push(std::mem::take(&mut line.empty));
        }
        let mut parser = Parser { escape, reader: &mut reader, problems: &mut problems, end: None };
        let item = parser.item(line);
        match (item, file.stages.last_mut()) {
            (Item::Stage(stage), _) => {
                broken_from = stage.is_none();
                file.stages.extend(stage);
            }
            (Item::Instruction(None), _) => {}
            (Item::Instruction(Some(instruction)), _) if broken_from => drop(instruction),
            (Item::Instruction(Some(instruction)), Some(stage)) => {
                stage.instructions.push(instruction);
            }
            (Item::Instruction(Some(instruction)), None) => match instruction.kind {
                Kind::Arg(_) => file.globals.push(instruction),
                _ if reported_homeless => {}
                _ => {
                    reported_homeless = true;
                    problems.push(
                        Diagnostic::error(
                            Code::NoStage,
                            instruction.keyword.span(),
                            format!(
                                "{} stands before the first FROM",
                                instruction.keyword.to_uppercase()
                            ),
                        )
                        .help("start the file with FROM; only ARG may stand before it"),
                    );
                }
            },
        }
    }
    if !read_any {
        problems.push(
            Diagnostic::error(Code::EmptyFile, start, "the file holds no instructions")
                .help("the smallest one is a single line, e.g. `FROM alpine`"),
        );
    } else if file.stages.is_empty() && !broken_from && !reported_homeless {
        let failed = problems.iter().any(|problem| problem.severity == Severity::Error);
        if !failed {
            let last = file.globals.last().map_or(start, |last| last.span);
            problems.push(
                Diagnostic::error(Code::NoStage, last, "the file has no FROM")
                    .label("nothing stands below this")
                    .help("say what to start from, e.g. `FROM alpine` or `FROM scratch`"),
            );
        }
    }
    let mut errors = problems.iter().enumerate().filter(|(_, problem)| is_error(problem));
    if let Some((last, _)) = errors.nth(MOST_ERRORS - 1) {
        problems.truncate(last + 1);
    }
    in_order(&mut problems);
    Parsed { file, problems, empty_continuations }
}

/// Puts problems in the order of the file. Within a line they were found in the order of the
/// checks, so few are out of place, and only by a few others.
fn in_order(problems: &mut [Diagnostic]) {
    let place = |problem: &Diagnostic| problem.labels.first().map(|label| label.at);
    for end in 1..problems.len() {
        let mut at = end;
        while at > 0 && place(&problems[at - 1]) > place(&problems[at]) {
            problems.swap(at - 1, at);
            at -= 1;
        }
    }
}

/// What to do about a trigger that cannot be carried out.
const FAULTY_BASE: &str =
    "the trigger is part of the base image; use another image, or build it anew";

/// Parses one instruction that an image stores for builds on top of it. Its text is a source of
/// its own.
pub fn parse_trigger(source: u32, text: &str) -> Result<Instruction, Vec<Diagnostic>> {
    let mut problems = Vec::new();
    let mut reader = Reader::new(source, text.as_bytes());
    let whole = Text::decode(source, 0, text.as_bytes()).span();
    let Some(line) = reader.logical('\\') else {
        let message = "an ONBUILD trigger of the base image is empty";
        let empty = Diagnostic::error(Code::InvalidTrigger, whole, message).help(FAULTY_BASE);
        return Err(vec![empty]);
    };
    let mut parser =
        Parser { escape: '\\', reader: &mut reader, problems: &mut problems, end: None };
    let item = parser.item(line);
    if reader.logical('\\').is_some() {
        let message = "an ONBUILD trigger of the base image holds more than one instruction";
        problems.push(Diagnostic::error(Code::InvalidTrigger, whole, message).help(FAULTY_BASE));
    }
    match item {
        Item::Instruction(Some(instruction)) if problems.is_empty() => Ok(instruction),
        Item::Stage(_) if problems.is_empty() => {
            let message = "FROM cannot be an ONBUILD trigger";
            Err(vec![Diagnostic::error(Code::InvalidTrigger, whole, message).help(FAULTY_BASE)])
        }
        _ => Err(problems),
    }
}

/// Parses one instruction that stands in the source of another language, which has joined its lines
/// and has no texts inside the file.
pub fn parse_instruction(line: Text) -> Result<Instruction, Vec<Diagnostic>> {
    let mut problems = Vec::new();
    let mut reader = Reader::new(line.span().source, b"");
    let mut parser =
        Parser { escape: '\\', reader: &mut reader, problems: &mut problems, end: None };
    let (keyword, rest) = words::keyword(&line);
    let instruction = parser.instruction(line.span(), keyword, line, &rest, Vec::new());
    instruction.filter(|_| problems.is_empty()).ok_or(problems)
}

enum Item {
    Stage(Option<Stage>),
    Instruction(Option<Instruction>),
}

/// Reads one instruction. Errors go to `problems`; a method that returns none has reported why.
struct Parser<'p, 'a> {
    escape: char,
    reader: &'p mut Reader<'a>,
    problems: &'p mut Vec<Diagnostic>,
    /// The last line of the last heredoc.
    end: Option<Span>,
}

impl Parser<'_, '_> {
    fn report(&mut self, problem: Diagnostic) {
        self.problems.push(problem);
    }

    fn item(&mut self, logical: Logical) -> Item {
        let Logical { text: line, span, doc, .. } = logical;
        let (keyword, rest) = words::keyword(&line);
        if keyword.eq_ignore_ascii_case("FROM") {
            return Item::Stage(self.from(span, keyword, &rest, doc));
        }
        // Of a misspelt FROM one error is enough: what follows stands below it.
        match self.instruction(span, keyword.clone(), line, &rest, doc) {
            None if closest(&keyword, KEYWORDS) == Some("FROM") => Item::Stage(None),
            instruction => Item::Instruction(instruction),
        }
    }

    fn instruction(
        &mut self,
        span: Span,
        keyword: Text,
        line: Text,
        rest: &Text,
        comments: Vec<Text>,
    ) -> Option<Instruction> {
        let name = keyword.to_ascii_uppercase();
        let kind = match name.as_str() {
            "ADD" | "COPY" => self.transfer(&name, &keyword, rest),
            "ARG" => self.arguments(&keyword, rest, &comments).map(Kind::Arg),
            "CMD" => self.plain_command(&name, rest).map(Kind::Cmd),
            "ENTRYPOINT" => self.plain_command(&name, rest).map(Kind::Entrypoint),
            "ENV" => self.pairs(&name, &keyword, rest).map(Kind::Env),
            "LABEL" => self.pairs(&name, &keyword, rest).map(Kind::Label),
            "EXPOSE" => self.list(&name, &keyword, rest).map(Kind::Expose),
            "HEALTHCHECK" => self.healthcheck(&keyword, rest).map(Box::new).map(Kind::Healthcheck),
            "MAINTAINER" => self.rest(&name, &keyword, rest).map(Kind::Maintainer),
            "ONBUILD" => self.trigger(span, &keyword, (&line, rest), &comments).map(Kind::Onbuild),
            "RUN" => self.run(rest).map(Box::new).map(Kind::Run),
            "SHELL" => self.shell(&keyword, rest).map(Kind::Shell),
            "STOPSIGNAL" => self.signal(&keyword, rest).map(Kind::Stopsignal),
            "USER" => self.rest(&name, &keyword, rest).map(Kind::User),
            "VOLUME" => self.volumes(&keyword, rest).map(Kind::Volume),
            "WORKDIR" => self.rest(&name, &keyword, rest).map(Kind::Workdir),
            _ => {
                self.unknown(&keyword);
                None
            }
        }?;
        let span = self.end.take().map_or(span, |end| span.to(end));
        Some(Instruction { span, keyword, line: line.trimmed(), comments, kind })
    }

    fn unknown(&mut self, keyword: &Text) {
        let escape = self.escape;
        let continued = format!(
            "if the line belongs to the instruction above, end the line above with `{escape}`"
        );
        self.report(
            Diagnostic::error(
                Code::UnknownInstruction,
                keyword.span(),
                format!("{} is not an instruction", shown(keyword)),
            )
            .help(continued)
            .maybe_help(did_you_mean(keyword, KEYWORDS)),
        );
    }

    fn from(
        &mut self,
        span: Span,
        keyword: Text,
        rest: &Text,
        comments: Vec<Text>,
    ) -> Option<Stage> {
        let (mut flags, rest) = self.flags("FROM", rest, &[("platform", flags::Type::Value)])?;
        let platform = flags.value("platform");
        let words = words::blank_separated(&rest);
        let form = "write `FROM image` or `FROM image AS name`";
        let (base, alias) = match &words[..] {
            [base] => (base, None),
            [base, as_keyword, name] if as_keyword.eq_ignore_ascii_case("AS") => {
                (base, Some((as_keyword, name)))
            }
            [] => {
                let help = "name an image, an earlier stage, or `scratch` for an empty one";
                self.missing(&keyword, "FROM needs an image", help);
                return None;
            }
            [_, as_keyword] if as_keyword.eq_ignore_ascii_case("AS") => {
                self.missing(as_keyword, "the stage's name is missing after AS", form);
                return None;
            }
            [_, first, ..] => {
                let extra = match (first.eq_ignore_ascii_case("AS"), words.get(3)) {
                    (true, Some(extra)) => extra,
                    _ => first,
                };
                let last = &words[words.len() - 1];
                self.report(
                    Diagnostic::error(
                        Code::UnexpectedArgument,
                        extra.span().to(last.span()),
                        format!("{} is not expected here", shown(extra)),
                    )
                    .help(form)
                    .maybe_help(did_you_mean(extra, ["AS"])),
                );
                return None;
            }
        };
        if let Some((_, name)) = alias {
            let folded = name.to_lowercase();
            let valid = folded.starts_with(|c: char| c.is_ascii_lowercase())
                && folded.bytes().all(|b| {
                    b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.')
                });
            if !valid {
                self.report(
                    Diagnostic::error(
                        Code::InvalidStageName,
                        name.span(),
                        format!("{} cannot be the name of a stage", shown(name)),
                    )
                    .help("a name starts with a letter; letters, digits, `-`, `_` and `.` follow"),
                );
                return None;
            }
        }
        // Names of stages are compared in small letters, here too.
        let doc = alias.and_then(|(_, name)| described(&comments, &name.to_lowercase()));
        Some(Stage {
            span,
            keyword,
            base: base.clone(),
            platform,
            name: alias.map(|(_, name)| name.clone()),
            as_keyword: alias.map(|(as_keyword, _)| as_keyword.clone()),
            doc,
            comments,
            instructions: Vec::new(),
        })
    }

    /// The rest of the line as one argument.
    fn rest(&mut self, name: &str, keyword: &Text, rest: &Text) -> Option<Text> {
        let (_, rest) = self.flags(name, rest, &[])?;
        if rest.is_empty() {
            let (what, example) = match name {
                "WORKDIR" => ("a directory", "/app"),
                "USER" => ("a user", "1000:1000"),
                _ => ("a name", "someone@example.org"),
            };
            let help = format!("write e.g. `{name} {example}`");
            self.missing(keyword, &format!("{name} needs {what}"), &help);
            return None;
        }
        Some(rest)
    }

    /// A signal. No builder has ever looked at flags before it.
    fn signal(&mut self, keyword: &Text, rest: &Text) -> Option<Text> {
        let (_, rest) = words::flags(rest);
        if rest.is_empty() {
            self.missing(keyword, "STOPSIGNAL needs a signal", "write e.g. `STOPSIGNAL SIGQUIT`");
            return None;
        }
        Some(rest)
    }

    fn missing(&mut self, at: &Text, message: &str, help: &str) {
        self.report(Diagnostic::error(Code::MissingArgument, at.span(), message).help(help));
    }

    /// Words between blanks, at least one.
    fn list(&mut self, name: &str, keyword: &Text, rest: &Text) -> Option<Vec<Text>> {
        let (_, rest) = self.flags(name, rest, &[])?;
        let words = words::blank_separated(&rest);
        if words.is_empty() {
            self.missing(keyword, &format!("{name} needs a port"), "write e.g. `EXPOSE 8080`");
            return None;
        }
        Some(words)
    }

    /// An instruction for builds that use the image as their base.
    fn trigger(
        &mut self,
        span: Span,
        keyword: &Text,
        (line, rest): (&Text, &Text),
        comments: &[Text],
    ) -> Option<Trigger> {
        let (_, rest) = self.flags("ONBUILD", rest, &[])?;
        if rest.is_empty() {
            let help = "write e.g. `ONBUILD COPY . /app`";
            self.missing(keyword, "ONBUILD needs an instruction", help);
            return None;
        }
        let (inner, arguments) = words::keyword(&rest);
        let name = inner.to_ascii_uppercase();
        if matches!(name.as_str(), "ONBUILD" | "FROM" | "MAINTAINER") {
            self.report(
                Diagnostic::error(
                    Code::InvalidTrigger,
                    inner.span(),
                    format!("{name} cannot be an ONBUILD trigger"),
                )
                .help("a trigger is any instruction but FROM, MAINTAINER and ONBUILD"),
            );
            return None;
        }
        let comments = comments.to_vec();
        let instruction = self.instruction(span, inner, rest.clone(), &arguments, comments)?;
        // The inner instruction has taken the end of its heredocs; it holds for the outer one too.
        self.end = Some(instruction.span);
        let heredocs = match &instruction.kind {
            Kind::Run(run) => &run.heredocs[..],
            Kind::Copy(transfer) | Kind::Add(transfer) => &transfer.heredocs[..],
            _ => &[],
        };
        // Blanks at the end are stored as well.
        let mut expression = rest.as_str().to_owned() + &line[line.trim_end().len()..];
        for heredoc in heredocs {
            expression.push('\n');
            expression.push_str(&heredoc.raw);
            expression.push_str(&heredoc.name);
        }
        Some(Trigger { expression, instruction: Box::new(instruction) })
    }
}

/// The description in the comments above that begins with `name`.
fn described(doc: &[Text], name: &str) -> Option<String> {
    doc.iter().find_map(|line| {
        let rest = line.strip_prefix(name)?;
        let text = rest.strip_prefix(' ')?;
        Some(text.trim().to_owned())
    })
}
