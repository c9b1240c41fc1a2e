//! YAML as nodes with places.
//!
//! What is taken of YAML: one document of mappings with text for keys, sequences and scalars, in
//! block and flow style; anchors, aliases and `<<` merges. Tags are refused, since there is one type
//! of scalar. A key may stand once.

use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Span as Range};
use wbuild_dockerfile::{Diagnostic, Failure, Span, Text};

use crate::code::Code;
use crate::text::placed;

/// The largest document, in bytes.
pub const MAX_BYTES: usize = 4 << 20;
/// How deep nodes are nested.
const MAX_DEPTH: usize = 50;
/// Most nodes of a document, those that aliases stand for counted each time.
const MAX_NODES: usize = 100_000;

/// A node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Where it stands; of a mapping or sequence its first line.
    pub at: Span,
    /// What it is.
    pub value: Value,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum Value {
    /// Nothing: `~`, `null`, or no text at all.
    Null,
    /// A text.
    Scalar(Scalar),
    /// A sequence.
    List(Rc<[Node]>),
    /// A mapping, in the order of the document.
    Map(Rc<[(Text, Node)]>),
}

/// A text, and how it is written.
#[derive(Clone, Debug)]
pub struct Scalar {
    /// The text.
    pub text: Text,
    /// Without quotes, so that it may be a boolean.
    pub plain: bool,
}

impl Node {
    /// The kind in words.
    pub fn kind(&self) -> &'static str {
        match &self.value {
            Value::Null => "nothing",
            Value::Scalar(_) => "a text",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }

    /// The text of a scalar.
    pub fn text(&self) -> Option<&Text> {
        match &self.value {
            Value::Scalar(scalar) => Some(&scalar.text),
            _ => None,
        }
    }

    /// The items of a list; none of anything else.
    pub fn items(&self) -> &[Node] {
        match &self.value {
            Value::List(items) => items,
            _ => &[],
        }
    }

    /// The entries of a mapping; none of anything else.
    pub fn entries(&self) -> &[(Text, Node)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The value of a key; what is nothing is not there.
    pub fn get(&self, key: &str) -> Option<&Node> {
        let found = self.entries().iter().find(|(name, _)| name.as_str() == key);
        found.map(|(_, node)| node).filter(|node| !matches!(node.value, Value::Null))
    }

    /// Where it ends.
    pub fn end(&self) -> u32 {
        let last = match &self.value {
            Value::Null | Value::Scalar(_) => None,
            Value::List(items) => items.last(),
            Value::Map(entries) => entries.last().map(|(_, node)| node),
        };
        last.map_or(self.at.end, Node::end)
    }

    /// How many nodes it is.
    fn size(&self) -> usize {
        match &self.value {
            Value::Null | Value::Scalar(_) => 1,
            Value::List(items) => 1 + items.iter().map(Node::size).sum::<usize>(),
            Value::Map(entries) => 1 + entries.iter().map(|(_, node)| node.size()).sum::<usize>(),
        }
    }
}

/// Reads a document.
pub fn parse(source: u32, document: &[u8]) -> Result<Node, Failure> {
    let nowhere = Span { source, start: 0, end: 0 };
    if document.len() > MAX_BYTES {
        let message = format!("the document has more than {} MiB", MAX_BYTES >> 20);
        return Err(Diagnostic::error(Code::TooLarge, nowhere, message).into());
    }
    let text = std::str::from_utf8(document).map_err(|error| {
        let at = narrow(error.valid_up_to());
        let span = Span { source, start: at, end: at + 1 };
        Diagnostic::error(Code::InvalidYaml, span, "the document is not UTF-8")
    })?;
    Reader::new(source, text).document().map_err(Failure::from)
}

fn narrow(offset: usize) -> u32 {
    u32::try_from(offset).unwrap_or(u32::MAX)
}

struct Reader<'a> {
    source: u32,
    text: &'a str,
    /// The byte of each character; none if all are of one byte.
    offsets: Option<Vec<u32>>,
    events: Parser<'a, saphyr_parser::StrInput<'a>>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

type Step<'a> = (Event<'a>, Range);

impl<'a> Reader<'a> {
    fn new(source: u32, text: &'a str) -> Self {
        let offsets = (!text.is_ascii()).then(|| {
            text.char_indices().map(|(at, _)| narrow(at)).chain([narrow(text.len())]).collect()
        });
        let events = Parser::new_from_str(text);
        Reader { source, text, offsets, events, anchors: HashMap::new(), nodes: 0 }
    }

    fn byte(&self, character: usize) -> usize {
        match &self.offsets {
            None => character.min(self.text.len()),
            Some(offsets) => offsets.get(character).map_or(self.text.len(), |byte| *byte as usize),
        }
    }

    /// A range of the document without the white space at its end.
    fn span(&self, range: Range) -> Span {
        let start = self.byte(range.start.index());
        let end = self.byte(range.end.index()).max(start);
        let end = start + self.text[start..end].trim_end().len();
        Span { source: self.source, start: narrow(start), end: narrow(end) }
    }

    /// The first line of what begins at a range.
    fn line(&self, range: Range) -> Span {
        let start = self.byte(range.start.index());
        let line = self.text[start..].lines().next().unwrap_or_default();
        let end = start + line.trim_end().len();
        Span { source: self.source, start: narrow(start), end: narrow(end) }
    }

    fn next(&mut self) -> Result<Step<'a>, Diagnostic> {
        match self.events.next_event() {
            Some(Ok(step)) => Ok(step),
            Some(Err(error)) => Err(self.invalid(&error)),
            None => {
                Err(self.refuse(Range::default(), Code::InvalidYaml, "the document ends early"))
            }
        }
    }

    fn invalid(&self, error: &ScanError) -> Diagnostic {
        let at = narrow(self.byte(error.marker().index()));
        let span = Span { source: self.source, start: at, end: at };
        Diagnostic::error(Code::InvalidYaml, span, format!("this is no YAML: {}", error.info()))
    }

    fn refuse(&self, at: Range, code: Code, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(code, self.span(at), message)
    }

    fn document(mut self) -> Result<Node, Diagnostic> {
        let mut found = None;
        loop {
            let (event, at) = self.next()?;
            match event {
                Event::StreamEnd => break,
                Event::Nothing | Event::StreamStart | Event::DocumentEnd => {}
                Event::DocumentStart(_) if found.is_some() => {
                    let message = "there is more than one document";
                    return Err(self.refuse(at, Code::InvalidYaml, message));
                }
                Event::DocumentStart(_) => {
                    let step = self.next()?;
                    found = Some(self.node(step, 0)?);
                }
                _ => return Err(self.refuse(at, Code::InvalidYaml, "this is no document")),
            }
        }
        let nowhere = Span { source: self.source, start: 0, end: 0 };
        Ok(found.unwrap_or(Node { at: nowhere, value: Value::Null }))
    }

    fn node(&mut self, (event, at): Step<'a>, depth: usize) -> Result<Node, Diagnostic> {
        self.count(1, at)?;
        if depth > MAX_DEPTH {
            let message = format!("the document is nested more than {MAX_DEPTH} deep");
            return Err(self.refuse(at, Code::TooLarge, message));
        }
        let (node, anchor) = match event {
            Event::Alias(anchor) => {
                let Some((node, size)) = self.anchors.get(&anchor).cloned() else {
                    let message = "the alias stands for what it is a part of";
                    return Err(self.refuse(at, Code::InvalidYaml, message));
                };
                self.count(size, at)?;
                return Ok(node);
            }
            Event::Scalar(value, style, anchor, tag) => {
                self.no_tag(tag.is_some(), at)?;
                (self.scalar(&value, style, at), anchor)
            }
            Event::SequenceStart(anchor, tag) => {
                self.no_tag(tag.is_some(), at)?;
                let mut items = Vec::new();
                loop {
                    let step = self.next()?;
                    if step.0 == Event::SequenceEnd {
                        break;
                    }
                    items.push(self.node(step, depth + 1)?);
                }
                (Node { at: self.line(at), value: Value::List(items.into()) }, anchor)
            }
            Event::MappingStart(anchor, tag) => {
                self.no_tag(tag.is_some(), at)?;
                let value = Value::Map(self.mapping(depth)?.into());
                (Node { at: self.line(at), value }, anchor)
            }
            _ => return Err(self.refuse(at, Code::InvalidYaml, "something is missing here")),
        };
        if anchor > 0 {
            let size = node.size();
            self.anchors.insert(anchor, (node.clone(), size));
        }
        Ok(node)
    }

    fn count(&mut self, nodes: usize, at: Range) -> Result<(), Diagnostic> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            let message = format!("the document comes to more than {MAX_NODES} values");
            return Err(self
                .refuse(at, Code::TooLarge, message)
                .help("aliases count for what they stand for"));
        }
        Ok(())
    }

    fn no_tag(&self, tagged: bool, at: Range) -> Result<(), Diagnostic> {
        if !tagged {
            return Ok(());
        }
        Err(self
            .refuse(at, Code::InvalidYaml, "tags are not taken")
            .help("leave it out: every scalar is text as it is written"))
    }

    fn scalar(&self, value: &str, style: ScalarStyle, at: Range) -> Node {
        let span = self.span(at);
        let plain = style == ScalarStyle::Plain;
        if plain && matches!(value, "" | "~" | "null") {
            return Node { at: span, value: Value::Null };
        }
        let range = span.start as usize..span.end as usize;
        let text = placed(self.source, self.text.as_bytes(), range, value);
        Node { at: span, value: Value::Scalar(Scalar { text, plain }) }
    }

    fn mapping(&mut self, depth: usize) -> Result<Vec<(Text, Node)>, Diagnostic> {
        let mut entries: Vec<(Text, Node)> = Vec::new();
        let mut merged: Vec<Node> = Vec::new();
        let mut places: HashMap<String, Span> = HashMap::new();
        loop {
            let (event, at) = self.next()?;
            if event == Event::MappingEnd {
                break;
            }
            let key = self.node((event, at), depth + 1)?;
            let Some(key) = key.text().cloned() else {
                let message = format!("a key is a text, and this is {}", key.kind());
                return Err(self.refuse(at, Code::InvalidYaml, message));
            };
            let step = self.next()?;
            let value_at = step.1;
            let value = self.node(step, depth + 1)?;
            if key.as_str() == "<<" {
                let maps = match &value.value {
                    Value::List(items) => items.to_vec(),
                    _ => vec![value],
                };
                if let Some(other) = maps.iter().find(|node| !matches!(node.value, Value::Map(_))) {
                    let message = format!("`<<` merges mappings, and this is {}", other.kind());
                    return Err(self.refuse(value_at, Code::WrongType, message));
                }
                merged.extend(maps);
                continue;
            }
            if let Some(before) = places.insert(key.as_str().to_owned(), key.span()) {
                let message = format!("the key `{key}` stands twice");
                let twice = Diagnostic::error(Code::KeyConflict, key.span(), message);
                return Err(twice.related(before, "here it stood before"));
            }
            entries.push((key, value));
        }
        for (key, value) in merged.iter().flat_map(Node::entries) {
            // What is written here counts, then what was merged first.
            if places.insert(key.as_str().to_owned(), key.span()).is_none() {
                entries.push((key.clone(), value.clone()));
            }
        }
        Ok(entries)
    }
}
