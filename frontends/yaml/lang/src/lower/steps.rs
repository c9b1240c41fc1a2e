//! Steps and settings as instructions.

use wbuild_dockerfile::Text;
use wbuild_dockerfile::ast::{
    Command, Heredoc, Instruction, Kind, Mount, MountField, Own, Run, Transfer,
};

use super::{Lower, command, instruction, is_on, key_of, ours, pairs, switch, text, texts, words};
use crate::code::Code;
use crate::node::Node;
use crate::schema::{MOUNT, STEPS};
use crate::text::{Part, joined, word};

/// The longest text of a command in the name of a step, in characters.
const SHOWN: usize = 120;

impl Lower {
    /// The instructions of a step.
    pub(super) fn step(&mut self, node: &Node) -> Vec<Instruction> {
        let verbs = STEPS.iter().map(|object| object.keys[0].name);
        let Some(verb) = verbs.into_iter().find(|verb| node.get(verb).is_some()) else {
            // A step whose value is nothing has been refused, unless it may be.
            return Vec::new();
        };
        let mut made = match verb {
            "run" | "script" => vec![self.run(node, verb)],
            "copy" => vec![self.copy(node)],
            "add" => vec![add(node)],
            "write" => self.write(node).into_iter().collect(),
            "args" => node.get(verb).map(|args| self.args(verb, args)).unwrap_or_default(),
            _ => self.setting(node, verb).into_iter().collect(),
        };
        if let (Some(at), Some(value)) = (key_of(node, verb), node.get(verb)) {
            let end = value.end();
            for instruction in &mut made {
                // What an alias stands for is elsewhere.
                let behind = end >= instruction.span.end && instruction.span == at.span();
                instruction.span.end = if behind { end } else { instruction.span.end };
            }
        }
        made
    }

    /// A key that stands for an instruction of the image's config.
    pub(super) fn setting(&mut self, node: &Node, key: &str) -> Option<Instruction> {
        let (at, value) = (key_of(node, key)?, node.get(key)?);
        let one = || value.text().map(word).unwrap_or_else(|| ours("", at));
        let shown = texts(node, key);
        let (keyword, kind) = match key {
            "env" | "labels" => {
                let pairs = pairs(value);
                if pairs.is_empty() {
                    return None;
                }
                let (keyword, kind) = match key {
                    "env" => ("ENV", Kind::Env(pairs.clone())),
                    _ => ("LABEL", Kind::Label(pairs.clone())),
                };
                let texts: Vec<Text> = pairs
                    .iter()
                    .map(|pair| {
                        let parts =
                            [Part::Theirs(&pair.name), Part::Ours("="), Part::Theirs(&pair.value)];
                        joined(&pair.name, &parts)
                    })
                    .collect();
                return Some(instruction(keyword, at, &texts.iter().collect::<Vec<_>>(), kind));
            }
            "entrypoint" => ("ENTRYPOINT", Kind::Entrypoint(command(value))),
            "cmd" => ("CMD", Kind::Cmd(command(value))),
            "expose" => ("EXPOSE", Kind::Expose(words(node, key))),
            "volumes" => ("VOLUME", Kind::Volume(words(node, key))),
            "workdir" => ("WORKDIR", Kind::Workdir(one())),
            "user" => ("USER", Kind::User(one())),
            _ => ("STOPSIGNAL", Kind::Stopsignal(one())),
        };
        Some(instruction(keyword, at, &shown, kind))
    }

    fn run(&mut self, node: &Node, verb: &str) -> Instruction {
        let at = key_of(node, verb).expect("it was found by this key");
        let commands = texts(node, verb);
        let command = match node.get(verb) {
            Some(value) if verb == "run" => command(value),
            _ => {
                let mut parts = vec![Part::Ours("set -e")];
                for text in &commands {
                    parts.extend([Part::Ours("\n"), Part::Theirs(text)]);
                }
                Command::Shell(joined(at, &parts))
            }
        };
        let mounts = node.get("mounts").map(Node::items).unwrap_or_default();
        let run = Run {
            command,
            heredocs: Vec::new(),
            mounts: mounts.iter().map(|mount| self.mount(mount, at)).collect(),
            network: text(node, "network").cloned(),
            security: None,
            devices: Vec::new(),
            own: Own {
                env: node.get("env").map(pairs).unwrap_or_default(),
                workdir: text(node, "workdir").map(word),
                user: text(node, "user").map(word),
            },
        };
        let kind = Kind::Run(Box::new(run));
        if let Some(name) = text(node, "name") {
            let mut named = instruction("", at, &[], kind);
            named.line = name.clone();
            return named;
        }
        // Lines of a script as one, of a text its first.
        let between = if verb == "script" { "; " } else { " " };
        let mut parts = vec![Part::Ours("RUN")];
        let mut left = SHOWN;
        let mut all = true;
        let pieces: Vec<Text> = commands
            .iter()
            .map(|text| {
                let line = text.lines().next().unwrap_or_default();
                let end = line.char_indices().nth(left).map_or(line.len(), |(end, _)| end);
                left -= line[..end].chars().count();
                all &= end == text.trim_end().len();
                text.slice(0..end)
            })
            .collect();
        for (number, piece) in pieces.iter().filter(|piece| !piece.is_empty()).enumerate() {
            let before = if number == 0 { " " } else { between };
            parts.extend([Part::Ours(before), Part::Theirs(piece)]);
        }
        if !all {
            parts.push(Part::Ours(" …"));
        }
        let mut shown = instruction("RUN", at, &[], kind);
        shown.line = joined(at, &parts);
        shown
    }

    fn mount(&mut self, node: &Node, at: &Text) -> Mount {
        let field = |(name, value): &(Text, Node)| {
            let key = MOUNT.keys.iter().find(|key| key.name == name.as_str())?.name;
            let value = value.text()?;
            // Names of stages are looked up as they are written.
            let value = if key == "from" { value.clone() } else { word(value) };
            Some(MountField { key, name: name.clone(), value: Some(value) })
        };
        let fields: Vec<MountField> = node.entries().iter().filter_map(field).collect();
        if let Some(from) = text(node, "from") {
            self.is_literal(from);
        }
        let kind = text(node, "type").map_or("bind", |kind| kind.as_str());
        if !matches!(kind, "secret" | "ssh") && node.get("target").is_none() {
            let message = format!("a mount of the type `{kind}` has no `target`");
            self.error(Code::MissingKey, node.at, message);
        }
        let place = node.entries().first().map_or(at, |(name, _)| name);
        Mount { text: place.clone(), fields }
    }

    fn copy(&mut self, node: &Node) -> Instruction {
        let from = text(node, "from").filter(|from| from.as_str() != "context").cloned();
        if let Some(from) = &from {
            self.is_literal(from);
        }
        let mut shown = texts(node, "copy");
        shown.extend(text(node, "to"));
        let at = key_of(node, "copy").expect("it was found by this key");
        let transfer = Transfer { from, ..transfer(node, "copy") };
        let mut made = instruction("COPY", at, &shown, Kind::Copy(Box::new(transfer)));
        if let Some(from) = text(node, "from") {
            let rest = made.line.slice("COPY".len()..made.line.len());
            let parts = [Part::Ours("COPY --from="), Part::Theirs(from), Part::Theirs(&rest)];
            made.line = joined(at, &parts);
        }
        made
    }

    fn write(&mut self, node: &Node) -> Option<Instruction> {
        let (path, content) = (text(node, "write")?, text(node, "text"));
        let name = path.rsplit('/').next().unwrap_or_default();
        if matches!(name, "" | "." | "..") {
            let message = format!("`{path}` names a directory, and a file is written");
            self.error(Code::InvalidValue, path.span(), message);
            return None;
        }
        let at = key_of(node, "write")?;
        let expand = is_on(node, "expand");
        let raw = match content {
            Some(text) if expand => word(text),
            Some(text) => text.clone(),
            None => ours("", path),
        };
        // What the file is called where it is put together; its target has the path in full.
        let name = if name.contains('$') { "file" } else { name };
        let heredoc =
            Heredoc { word: path.clone(), name: name.to_owned(), expand, strip_tabs: false, raw };
        let transfer = Transfer {
            sources: Vec::new(),
            heredocs: vec![heredoc],
            target: word(path),
            ..transfer(node, "write")
        };
        Some(instruction("WRITE", at, &[path], Kind::Copy(Box::new(transfer))))
    }
}

fn add(node: &Node) -> Instruction {
    let mut shown = texts(node, "add");
    shown.extend(text(node, "to"));
    let at = key_of(node, "add").expect("it was found by this key");
    instruction("ADD", at, &shown, Kind::Add(Box::new(transfer(node, "add"))))
}

/// What copies have in common.
fn transfer(node: &Node, verb: &str) -> Transfer {
    let at = key_of(node, verb).expect("it was found by this key");
    Transfer {
        sources: words(node, verb),
        heredocs: Vec::new(),
        target: text(node, "to").map_or_else(|| ours("/", at), word),
        from: None,
        chown: text(node, "chown").map(word),
        chmod: text(node, "chmod").map(word),
        link: is_on(node, "link"),
        parents: is_on(node, "parents"),
        exclude: words(node, "exclude"),
        checksum: text(node, "checksum").map(word),
        keep_git_dir: switch(node, "keep-git-dir"),
        unpack: switch(node, "unpack"),
    }
}
