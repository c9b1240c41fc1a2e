//! Whether a document is what the schema says.

use wbuild_dockerfile::suggest::did_you_mean;
use wbuild_dockerfile::{Diagnostic, Span, Text};

use crate::code::Code;
use crate::node::{Node, Value};
use crate::schema::{DOCUMENT, Is, Key, Object};

/// Most mistakes that are told.
const MOST: usize = 50;

/// All that is wrong with a document.
pub fn document(root: &Node) -> Vec<Diagnostic> {
    let mut check = Check(Vec::new());
    check.object(root, &DOCUMENT);
    check.0.truncate(MOST);
    check.0
}

/// Whether anybody may use a key for what they want.
fn is_free(name: &str) -> bool {
    name.starts_with("x-")
}

struct Check(Vec<Diagnostic>);

impl Check {
    fn error(&mut self, code: Code, at: Span, message: String, help: Option<String>) {
        self.0.push(Diagnostic::error(code, at, message).maybe_help(help));
    }

    fn wrong(&mut self, node: &Node, expected: &str) {
        let message = format!("expected {expected}, found {}", node.kind());
        self.error(Code::WrongType, node.at, message, None);
    }

    fn object(&mut self, node: &Node, object: &Object) {
        let Value::Map(entries) = &node.value else {
            return self.wrong(node, &format!("the mapping of {}", object.name));
        };
        for (name, value) in entries.iter() {
            match object.keys.iter().find(|key| key.name == name.as_str()) {
                Some(key) => self.value(value, key),
                None if is_free(name) => {}
                None => self.unknown(name, object),
            }
        }
        for key in object.keys.iter().filter(|key| key.required) {
            if node.get(key.name).is_none() && !entries.iter().any(|(name, _)| **name == *key.name)
            {
                let message = format!("{} has no `{}`", object.name, key.name);
                self.error(Code::MissingKey, node.at, message, Some(about(key)));
            }
        }
    }

    fn unknown(&mut self, name: &Text, object: &Object) {
        let known = object.keys.iter().map(|key| key.name);
        let list = known.clone().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let message = format!("{} has no key `{name}`", object.name);
        let help = did_you_mean(name, known).unwrap_or_else(|| format!("it has {list}"));
        self.error(Code::UnknownKey, name.span(), message, Some(help));
    }

    fn value(&mut self, node: &Node, key: &Key) {
        if matches!(node.value, Value::Null) {
            if key.required {
                let message = format!("`{}` has no value", key.name);
                self.error(Code::MissingKey, node.at, message, Some(about(key)));
            }
            return;
        }
        match key.is {
            Is::Text => self.text(node),
            Is::Choice(choices) => match node.text() {
                Some(text) if choices.contains(&text.as_str()) => {}
                Some(text) => {
                    let list = choices.iter().map(|choice| format!("`{choice}`"));
                    let list = list.collect::<Vec<_>>().join(", ");
                    let message = format!("`{}` cannot be `{text}`", key.name);
                    let help = did_you_mean(text, choices.iter().copied());
                    let help = help.unwrap_or_else(|| format!("it can be {list}"));
                    self.error(Code::InvalidValue, node.at, message, Some(help));
                }
                None => self.wrong(node, "a text"),
            },
            Is::Switch => match &node.value {
                Value::Scalar(scalar) if scalar.plain && is_switch(&scalar.text) => {}
                _ => self.wrong(node, "`true` or `false`"),
            },
            Is::Texts => match &node.value {
                Value::List(items) => self.texts(node, items),
                Value::Scalar(_) => {}
                _ => self.wrong(node, "a text or a list of texts"),
            },
            Is::List => match &node.value {
                Value::List(items) => self.texts(node, items),
                _ => self.wrong(node, "a list of texts"),
            },
            Is::Map => match &node.value {
                Value::Map(entries) => self.map(entries, false),
                _ => self.wrong(node, "a mapping of names to texts"),
            },
            Is::Names => match &node.value {
                Value::Map(entries) => self.map(entries, true),
                Value::List(items) => items.iter().for_each(|item| match item.text() {
                    Some(text) => self.name(text),
                    None => self.wrong(item, "a name"),
                }),
                _ => self.wrong(node, "a list of names, or a mapping of names to defaults"),
            },
            Is::Object(object) => self.object(node, object),
            Is::Objects(objects) => match &node.value {
                Value::List(items) => items.iter().for_each(|item| self.one_of(item, objects)),
                _ => self.wrong(node, "a list"),
            },
            Is::Named(object) => match &node.value {
                Value::Map(entries) => {
                    entries.iter().for_each(|(_, node)| self.object(node, object))
                }
                _ => self.wrong(node, "a mapping of names"),
            },
        }
    }

    /// A mapping that its first key tells apart.
    fn one_of(&mut self, node: &Node, objects: &[&Object]) {
        if let [object] = objects {
            return self.object(node, object);
        }
        let Value::Map(entries) = &node.value else {
            return self.wrong(node, "the mapping of a step");
        };
        let has =
            |object: &&&Object| entries.iter().any(|(name, _)| **name == *object.keys[0].name);
        if let Some(object) = objects.iter().find(has) {
            return self.object(node, object);
        }
        let firsts = objects.iter().map(|object| object.keys[0].name);
        let list = firsts.clone().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let close = entries.iter().find_map(|(name, _)| did_you_mean(name, firsts.clone()));
        let at = entries.first().map_or(node.at, |(name, _)| name.span());
        let help = close.unwrap_or_else(|| format!("it is one of {list}"));
        self.error(Code::UnknownKey, at, "this is no step".to_owned(), Some(help));
    }

    fn text(&mut self, node: &Node) {
        if node.text().is_none() {
            self.wrong(node, "a text");
        }
    }

    fn texts(&mut self, node: &Node, items: &[Node]) {
        if items.is_empty() {
            self.error(Code::InvalidValue, node.at, "the list is empty".to_owned(), None);
        }
        items.iter().for_each(|item| self.text(item));
    }

    fn map(&mut self, entries: &[(Text, Node)], may_be_nothing: bool) {
        for (name, value) in entries {
            self.name(name);
            match value.value {
                Value::Null if may_be_nothing => {}
                // An empty variable is written `""`: nothing may be an oversight.
                Value::Null => {
                    let message = format!("`{name}` has no value");
                    let help = Some("an empty text is `\"\"`".to_owned());
                    self.error(Code::MissingKey, name.span(), message, help);
                }
                _ => self.text(value),
            }
        }
    }

    fn name(&mut self, name: &Text) {
        if name.is_empty() || name.contains(['=', '\0', '\n', '$', ' ']) {
            let message = format!("{name:?} cannot be a name", name = name.as_str());
            self.error(Code::InvalidValue, name.span(), message, None);
        }
    }
}

fn about(key: &Key) -> String {
    format!("`{}`: {}", key.name, key.about)
}

fn is_switch(text: &str) -> bool {
    matches!(text, "true" | "false")
}
