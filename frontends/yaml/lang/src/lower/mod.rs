//! A valid document as the stages of a Dockerfile.
//!
//! Stages come out in an order in which each stands behind those that it uses, whatever the order of
//! the document: a tool may write its mapping in any.

mod steps;

use std::collections::{BTreeMap, HashMap};

use wbuild_dockerfile::ast::{
    Command, Declaration, Dockerfile, Instruction, Kind, Pair, Stage, Transfer,
};
use wbuild_dockerfile::suggest::did_you_mean;
use wbuild_dockerfile::{Diagnostic, Directives, Text};

use crate::code::Code;
use crate::node::{Node, Value};
use crate::text::{Part, joined, word};

/// What a document has become.
pub struct Lowered {
    /// The stages, and artifacts as stages of their own.
    pub file: Dockerfile,
    /// What is built if nothing is named.
    pub default: Option<String>,
}

/// Names that mean something else where a stage could be named.
const TAKEN: [&str; 2] = ["scratch", "context"];

/// Lowers a document.
pub fn document(root: &Node) -> Result<Lowered, Vec<Diagnostic>> {
    let mut lower = Lower::default();
    let globals = root.get("args").map(|args| lower.args("args", args)).unwrap_or_default();
    let mut stages: Vec<Stage> = Vec::new();
    for (key, is_artifact) in [("stages", false), ("artifacts", true)] {
        for (name, node) in root.get(key).map(Node::entries).unwrap_or_default() {
            lower.stage_name(name);
            let stage = match is_artifact {
                true => lower.artifacts(name, node),
                false => lower.stage(name, node),
            };
            stages.push(stage);
        }
    }
    let last = root.get("stages").and_then(|stages| stages.entries().last());
    let mut default = last.map(|(name, _)| name.as_str().to_owned());
    if last.is_none()
        && let Some(stages) = root.get("stages")
    {
        lower.error(Code::MissingKey, stages.at, "there is no stage".to_owned());
    }
    if let Some(wanted) = root.get("default").and_then(Node::text) {
        let names = stages.iter().filter_map(|stage| stage.name.as_deref());
        if !names.clone().any(|name| name == wanted.as_str()) {
            let message = format!("there is no stage `{wanted}`, and there are no such artifacts");
            let error = Diagnostic::error(Code::UnknownName, wanted.span(), message);
            lower.problems.push(error.maybe_help(did_you_mean(wanted, names)));
        }
        default = Some(wanted.as_str().to_owned());
    }
    if lower.problems.is_empty() {
        stages = lower.in_order(stages);
    }
    if !lower.problems.is_empty() {
        return Err(lower.problems);
    }
    let directives = Directives { syntax: None, escape: '\\', check: None };
    Ok(Lowered { file: Dockerfile { directives, globals, stages }, default })
}

#[derive(Default)]
struct Lower {
    problems: Vec<Diagnostic>,
    /// Where the name of a stage stood first.
    names: HashMap<String, wbuild_dockerfile::Span>,
}

/// A text of ours in place of one of the document.
fn ours(text: &str, at: &Text) -> Text {
    joined(at, &[Part::Ours(text)])
}

/// A key of a mapping.
fn key_of<'n>(node: &'n Node, key: &str) -> Option<&'n Text> {
    node.entries().iter().find(|(name, _)| name.as_str() == key).map(|(name, _)| name)
}

/// The text of a key.
fn text<'n>(node: &'n Node, key: &str) -> Option<&'n Text> {
    node.get(key).and_then(Node::text)
}

/// The texts of a key that holds one or several.
fn texts<'n>(node: &'n Node, key: &str) -> Vec<&'n Text> {
    match node.get(key) {
        Some(node) => match node.text() {
            Some(text) => vec![text],
            None => node.items().iter().filter_map(Node::text).collect(),
        },
        None => Vec::new(),
    }
}

fn words(node: &Node, key: &str) -> Vec<Text> {
    texts(node, key).into_iter().map(word).collect()
}

fn is_on(node: &Node, key: &str) -> bool {
    text(node, key).is_some_and(|text| text.as_str() == "true")
}

fn switch(node: &Node, key: &str) -> Option<bool> {
    text(node, key).map(|text| text.as_str() == "true")
}

/// A text for the shell, or the words of a process.
fn command(node: &Node) -> Command {
    match &node.value {
        Value::List(items) => Command::Exec(items.iter().filter_map(Node::text).cloned().collect()),
        _ => Command::Shell(node.text().cloned().expect("the schema allows nothing else")),
    }
}

/// Names and words.
fn pairs(node: &Node) -> Vec<Pair> {
    let pair = |(name, value): &(Text, Node)| {
        let value = value.text().map(word)?;
        Some(Pair { name: word(name), value, legacy: false })
    };
    node.entries().iter().filter_map(pair).collect()
}

/// An instruction that is shown as its keyword and these texts.
fn instruction(keyword: &str, at: &Text, shown: &[&Text], kind: Kind) -> Instruction {
    let mut parts = vec![Part::Ours(keyword)];
    for text in shown {
        parts.extend([Part::Ours(" "), Part::Theirs(text)]);
    }
    let line = joined(at, &parts);
    let keyword = ours(keyword, at);
    Instruction { span: at.span(), keyword, line, comments: Vec::new(), kind }
}

impl Lower {
    fn error(&mut self, code: Code, at: wbuild_dockerfile::Span, message: String) {
        self.problems.push(Diagnostic::error(code, at, message));
    }

    fn stage_name(&mut self, name: &Text) {
        let starts = name.starts_with(|c: char| c.is_ascii_lowercase());
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
        if !starts || !name.chars().all(plain) || TAKEN.contains(&name.as_str()) {
            let message = format!("`{name}` cannot be the name of a stage");
            let error = Diagnostic::error(Code::InvalidValue, name.span(), message);
            let help = "small letters first, then small letters, digits and `._-`; not `scratch` or `context`";
            self.problems.push(error.help(help));
        }
        if let Some(before) = self.names.insert(name.as_str().to_owned(), name.span()) {
            let message = format!("a stage is called `{name}` already");
            let error = Diagnostic::error(Code::KeyConflict, name.span(), message);
            self.problems.push(error.related(before, "here"));
        }
    }

    /// `ARG` instructions.
    fn args(&mut self, key: &str, node: &Node) -> Vec<Instruction> {
        let declaration = |name: &Text, default: Option<Text>| {
            let declared = Declaration { name: name.clone(), default, doc: None };
            instruction("ARG", name, &[name], Kind::Arg(vec![declared]))
        };
        debug_assert_eq!(key, "args");
        match &node.value {
            Value::List(items) => {
                items.iter().filter_map(Node::text).map(|name| declaration(name, None)).collect()
            }
            _ => node
                .entries()
                .iter()
                .map(|(name, value)| declaration(name, value.text().map(word)))
                .collect(),
        }
    }

    fn stage(&mut self, name: &Text, node: &Node) -> Stage {
        let base = text(node, "from").map_or_else(|| ours("scratch", name), word);
        let mut instructions = Vec::new();
        if let Some(args) = node.get("args") {
            instructions.extend(self.args("args", args));
        }
        if let Some(at) = key_of(node, "shell").filter(|_| node.get("shell").is_some()) {
            let shell = texts(node, "shell");
            let kind = Kind::Shell(shell.iter().map(|text| (*text).clone()).collect());
            instructions.push(instruction("SHELL", at, &shell, kind));
        }
        for key in ["env", "workdir", "user"] {
            instructions.extend(self.setting(node, key));
        }
        for step in node.get("steps").map(Node::items).unwrap_or_default() {
            instructions.extend(self.step(step));
        }
        if let Some(image) = node.get("image") {
            let settings = [
                "env",
                "labels",
                "entrypoint",
                "cmd",
                "expose",
                "volumes",
                "workdir",
                "user",
                "stop-signal",
            ];
            for key in settings {
                instructions.extend(self.setting(image, key));
            }
        }
        Stage {
            span: text(node, "from").unwrap_or(name).span(),
            keyword: ours("FROM", name),
            base,
            platform: text(node, "platform").map(word),
            name: Some(name.clone()),
            as_keyword: None,
            doc: text(node, "description").map(|text| text.as_str().to_owned()),
            comments: Vec::new(),
            instructions,
        }
    }

    /// Files of another stage on nothing.
    fn artifacts(&mut self, name: &Text, node: &Node) -> Stage {
        let from = text(node, "from").cloned().unwrap_or_else(|| name.clone());
        self.is_literal(&from);
        let target = match text(node, "to") {
            Some(to) if to.ends_with('/') => word(to),
            Some(to) => word(&joined(to, &[Part::Theirs(to), Part::Ours("/")])),
            None => ours("/", name),
        };
        let sources = words(node, "paths");
        let shown: Vec<&Text> = [&from].into_iter().chain(texts(node, "paths")).collect();
        let transfer = Transfer {
            sources,
            heredocs: Vec::new(),
            target,
            from: Some(from.clone()),
            chown: None,
            chmod: None,
            link: false,
            parents: false,
            exclude: Vec::new(),
            checksum: None,
            keep_git_dir: None,
            unpack: None,
        };
        let at = key_of(node, "paths").unwrap_or(name);
        let copy = instruction("ARTIFACTS", at, &shown, Kind::Copy(Box::new(transfer)));
        Stage {
            span: name.span(),
            keyword: ours("FROM", name),
            base: ours("scratch", name),
            platform: None,
            name: Some(name.clone()),
            as_keyword: None,
            doc: text(node, "description").map(|text| text.as_str().to_owned()),
            comments: Vec::new(),
            instructions: vec![copy],
        }
    }

    /// Names of stages and images are looked up before values of arguments are known.
    fn is_literal(&mut self, name: &Text) {
        if name.contains('$') {
            let message = format!("`{name}` cannot hold variables");
            let error = Diagnostic::error(Code::InvalidValue, name.span(), message);
            self.problems.push(error.help("give the image a stage, whose `from` may hold them"));
        }
    }

    /// The stages in an order in which each stands behind those that it uses.
    fn in_order(&mut self, stages: Vec<Stage>) -> Vec<Stage> {
        let index: BTreeMap<String, usize> = stages
            .iter()
            .enumerate()
            .filter_map(|(at, stage)| Some((stage.name.as_ref()?.as_str().to_owned(), at)))
            .collect();
        let uses: Vec<Vec<(usize, &Text)>> = stages
            .iter()
            .map(|stage| {
                let found = |name: &'_ &Text| index.get(name.as_str()).copied();
                let names = used(stage);
                names.into_iter().filter_map(|name| Some((found(&name)?, name))).collect()
            })
            .collect();
        // Depth first without recursion: a chain may be as long as the document.
        let (mut order, mut begun, mut done) =
            (Vec::new(), vec![false; stages.len()], vec![false; stages.len()]);
        let mut problem = None;
        for start in 0..stages.len() {
            let mut stack = vec![(start, 0)];
            while let Some((at, next)) = stack.pop() {
                if next == 0 && done[at] {
                    continue;
                }
                begun[at] = true;
                match uses[at].get(next) {
                    None => {
                        done[at] = true;
                        order.push(at);
                    }
                    Some((used, name)) => {
                        stack.push((at, next + 1));
                        if begun[*used] && !done[*used] {
                            problem.get_or_insert_with(|| (*name).clone());
                        } else if !done[*used] {
                            stack.push((*used, 0));
                        }
                    }
                }
            }
        }
        if let Some(name) = problem {
            let message = format!("the stage `{name}` is used by what it is made of");
            self.error(Code::UnknownName, name.span(), message);
        }
        let mut stages: Vec<Option<Stage>> = stages.into_iter().map(Some).collect();
        order.into_iter().filter_map(|at| stages[at].take()).collect()
    }
}

/// What a stage may take from others: names of stages, or of something else.
fn used(stage: &Stage) -> Vec<&Text> {
    let mut names = vec![&stage.base];
    for instruction in &stage.instructions {
        match &instruction.kind {
            Kind::Copy(transfer) => names.extend(&transfer.from),
            Kind::Run(run) => names.extend(run.mounts.iter().filter_map(|mount| mount.from())),
            _ => {}
        }
    }
    names
}
