//! Templates of `--format`: the part of Go's text/template that asks documents for something.
//!
//! ```text
//! {{.Manifest.Digest}}     {{json .Image}}     {{index .Image "linux/arm64"}}
//! {{range .Manifest.Manifests}}{{println .Digest .Platform.Architecture}}{{end}}
//! {{if .Manifest.Annotations}}…{{else}}…{{end}}     {{- … -}}
//! ```
//!
//! Names are those of Go's types or of the documents: capitals and what is neither letter nor digit
//! do not count. What a document does not have is empty; what is no name at all at the top is an error.

mod render;

use serde_json::Value;

use render::{render, same};

/// Deepest nesting of blocks and parentheses.
const MAX_DEPTH: usize = 32;

/// A template that was understood.
#[derive(Clone, Debug, PartialEq)]
pub struct Template(Vec<Node>);

#[derive(Clone, Debug, PartialEq)]
enum Node {
    Text(String),
    Show(Expression),
    Range(Expression, Vec<Node>, Vec<Node>),
    If(Expression, Vec<Node>, Vec<Node>),
}

#[derive(Clone, Debug, PartialEq)]
enum Expression {
    /// Names behind the dot, none for the dot itself.
    Path(Vec<String>),
    Constant(Value),
    Call(Function, Vec<Expression>),
    /// Names behind a parenthesis.
    Of(Box<Expression>, Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Json,
    Index,
    Println,
    Print,
    Len,
}

/// What one pair of braces says.
enum Action {
    Show(Expression),
    Range(Expression),
    If(Expression),
    Else,
    End,
}

impl std::str::FromStr for Template {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut pieces = pieces(text)?.into_iter();
        let (nodes, end) = block(&mut pieces, 0)?;
        match end {
            None => Ok(Template(nodes)),
            Some(_) => Err("{{end}} or {{else}} without a {{range}} or {{if}}".to_owned()),
        }
    }
}

impl Template {
    /// What the template makes of a document.
    pub fn render(&self, document: &Value) -> Result<String, String> {
        let mut out = String::new();
        render(&self.0, document, document, &mut out)?;
        Ok(out)
    }

    /// Whether it asks for this name of the document's, or for the whole document.
    pub fn asks_for(&self, name: &str) -> bool {
        fn nodes(list: &[Node], name: &str) -> bool {
            list.iter().any(|node| match node {
                Node::Text(_) => false,
                Node::Show(what) => expression(what, name),
                Node::Range(what, body, other) | Node::If(what, body, other) => {
                    expression(what, name) || nodes(body, name) || nodes(other, name)
                }
            })
        }
        fn expression(what: &Expression, name: &str) -> bool {
            match what {
                Expression::Path(path) => path.first().is_none_or(|first| same(first, name)),
                Expression::Constant(_) => false,
                Expression::Call(_, given) => given.iter().any(|what| expression(what, name)),
                Expression::Of(what, _) => expression(what, name),
            }
        }
        nodes(&self.0, name)
    }
}

enum Piece {
    Text(String),
    Action(Action),
}

fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let mut out = Vec::new();
    let mut rest = text;
    let mut trim = false;
    while let Some(start) = rest.find("{{") {
        let (before, inside) = (&rest[..start], &rest[start + 2..]);
        let end = closing(inside).ok_or("a }} is missing")?;
        let (inside, after) = (&inside[..end], &inside[end + 2..]);
        let left = inside.strip_prefix('-').filter(|rest| rest.starts_with(char::is_whitespace));
        let inside = left.unwrap_or(inside);
        let right = inside.strip_suffix('-').filter(|rest| rest.ends_with(char::is_whitespace));
        let mut before = if trim { before.trim_start() } else { before };
        if left.is_some() {
            before = before.trim_end();
        }
        out.push(Piece::Text(before.to_owned()));
        trim = right.is_some();
        let inside = right.unwrap_or(inside).trim();
        let comment = inside.starts_with("/*") && inside.ends_with("*/");
        if !comment {
            out.push(Piece::Action(action(inside)?));
        }
        rest = after;
    }
    out.push(Piece::Text(if trim { rest.trim_start() } else { rest }.to_owned()));
    Ok(out)
}

/// Where the braces end; those in a string do not count.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            Some('"') if escaped => escaped = false,
            Some('"') if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '`' => quote = Some(c),
            None if text[at..].starts_with("}}") => return Some(at),
            None => {}
        }
    }
    None
}

fn action(text: &str) -> Result<Action, String> {
    let words = words(text)?;
    let (first, rest) = words.split_first().ok_or("{{}} says nothing")?;
    Ok(match &first[..] {
        "end" if rest.is_empty() => Action::End,
        "else" if rest.is_empty() => Action::Else,
        "range" => Action::Range(expression(rest, 0)?),
        "if" => Action::If(expression(rest, 0)?),
        _ => Action::Show(expression(&words, 0)?),
    })
}

/// Words, strings with their quotes, and parentheses; names belong to the one they stand behind.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut out = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            c if c.is_whitespace() => {}
            '(' => out.push(c.to_string()),
            '"' | '`' => {
                let mut word = String::from(c);
                let mut escaped = false;
                loop {
                    let next = chars.next().ok_or("a string does not end")?;
                    word.push(next);
                    match next {
                        _ if escaped => escaped = false,
                        '\\' if c == '"' => escaped = true,
                        end if end == c => break,
                        _ => {}
                    }
                }
                out.push(word);
            }
            _ => {
                let mut word = String::from(c);
                while let Some(next) =
                    chars.next_if(|c| !c.is_whitespace() && !matches!(c, '(' | ')' | '"' | '`'))
                {
                    word.push(next);
                }
                out.push(word);
            }
        }
    }
    Ok(out)
}

fn expression(words: &[String], depth: usize) -> Result<Expression, String> {
    let mut at = 0;
    let (first, rest) = words.split_first().ok_or("an expression is missing")?;
    let function = match &first[..] {
        "json" => Function::Json,
        "index" => Function::Index,
        "println" => Function::Println,
        "print" => Function::Print,
        "len" => Function::Len,
        _ => {
            let operand = operand(words, &mut at, depth)?;
            return match words.get(at) {
                None => Ok(operand),
                Some(word) => Err(format!("{word:?} is more than wbuild understands of templates")),
            };
        }
    };
    let mut given = Vec::new();
    while at < rest.len() {
        given.push(operand(rest, &mut at, depth)?);
    }
    let enough = match function {
        Function::Json | Function::Len => given.len() == 1,
        Function::Index => !given.is_empty(),
        Function::Println | Function::Print => true,
    };
    if !enough {
        return Err(format!("{first} is given {} values", given.len()));
    }
    Ok(Expression::Call(function, given))
}

fn operand(words: &[String], at: &mut usize, depth: usize) -> Result<Expression, String> {
    let word = words.get(*at).ok_or("a value is missing")?;
    *at += 1;
    if word == "(" {
        if depth >= MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} parentheses lie in each other"));
        }
        let (start, mut open) = (*at, 1);
        let mut behind = "";
        while open > 0 {
            let word = words.get(*at).ok_or("a ) is missing")?;
            match (word.strip_prefix(')'), &word[..]) {
                (Some(rest), _) => (open, behind) = (open - 1, rest),
                (None, "(") => open += 1,
                (None, _) => {}
            }
            *at += 1;
        }
        let inside = expression(&words[start..*at - 1], depth + 1)?;
        if behind.is_empty() {
            return Ok(inside);
        }
        return Ok(Expression::Of(Box::new(inside), names(behind)?));
    }
    if word == "." {
        return Ok(Expression::Path(Vec::new()));
    }
    if word.starts_with('.') {
        return Ok(Expression::Path(names(word)?));
    }
    if let Some(raw) = word.strip_prefix('`').and_then(|word| word.strip_suffix('`')) {
        return Ok(Expression::Constant(Value::from(raw)));
    }
    if word.starts_with('"') || word.parse::<u32>().is_ok() {
        let value = serde_json::from_str(word).map_err(|_| format!("{word} is no string"))?;
        return Ok(Expression::Constant(value));
    }
    Err(format!(
        "{word:?} is more than wbuild understands of templates; it knows .Name, json, index, range, \
         if, print, println and len"
    ))
}

/// `.A.B`
fn names(path: &str) -> Result<Vec<String>, String> {
    let names = path.strip_prefix('.').map(|path| path.split('.').map(str::to_owned));
    let names: Vec<String> = names.into_iter().flatten().collect();
    if names.is_empty() || names.iter().any(String::is_empty) {
        return Err(format!("{path:?} is no name"));
    }
    Ok(names)
}

/// Nodes up to the end of a block, and what ended it.
fn block(
    pieces: &mut impl Iterator<Item = Piece>,
    depth: usize,
) -> Result<(Vec<Node>, Option<Action>), String> {
    if depth > MAX_DEPTH {
        return Err(format!("more than {MAX_DEPTH} blocks lie in each other"));
    }
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.next() {
        let action = match piece {
            Piece::Text(text) if text.is_empty() => continue,
            Piece::Text(text) => {
                nodes.push(Node::Text(text));
                continue;
            }
            Piece::Action(action) => action,
        };
        match action {
            Action::Show(what) => nodes.push(Node::Show(what)),
            Action::Range(what) => {
                let (body, other) = branches(pieces, depth)?;
                nodes.push(Node::Range(what, body, other));
            }
            Action::If(what) => {
                let (body, other) = branches(pieces, depth)?;
                nodes.push(Node::If(what, body, other));
            }
            end => return Ok((nodes, Some(end))),
        }
    }
    Ok((nodes, None))
}

fn branches(
    pieces: &mut impl Iterator<Item = Piece>,
    depth: usize,
) -> Result<(Vec<Node>, Vec<Node>), String> {
    // Through an object, or each depth would be a function of its own.
    let pieces: &mut dyn Iterator<Item = Piece> = pieces;
    let mut pieces = pieces;
    let missing = || "an {{end}} is missing".to_owned();
    let (body, end) = block(&mut pieces, depth + 1)?;
    match end.ok_or_else(missing)? {
        Action::Else => match block(&mut pieces, depth + 1)? {
            (other, Some(Action::End)) => Ok((body, other)),
            _ => Err(missing()),
        },
        _ => Ok((body, Vec::new())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_templates_make() {
        let document = json!({
            "name": "r/x",
            "manifest": {"digest": "sha256:a", "size": 7, "manifests": [
                {"digest": "b", "platform": {"architecture": "arm64", "os.version": "1"}},
                {"digest": "c", "annotations": {"y": "2", "x": "1"}},
            ]},
            "image": {"linux/arm64": {"config": {"Env": ["A=1", "B=2"]}}},
        });
        for (template, want) in [
            ("plain", "plain"),
            ("{{.Name}}", "r/x"),
            ("{{ .name }}!", "r/x!"),
            ("{{.Manifest.Digest}} {{.Manifest.Size}}", "sha256:a 7"),
            ("{{json .Name}}", "\"r/x\""),
            ("{{(index .Manifest.Manifests 1).Annotations.x}}", "1"),
            ("{{json (index .Manifest.Manifests 1).nothing}}", "null"),
            ("{{print (.Name).}}", "error: \".\" is no name"),
            (
                "{{(index .Manifest.Manifests 0)}}",
                "map[digest:b platform:map[architecture:arm64 os.version:1]]",
            ),
            ("{{index .Manifest.Manifests 1 \"digest\"}}", "c"),
            ("{{index .Manifest.Manifests 9}}", "error: there is no entry 9"),
            (
                "{{json (index .Image \"linux/arm64\")}}",
                "{\n  \"config\": {\n    \"Env\": [\n      \"A=1\",\n      \"B=2\"\n    ]\n  }\n}",
            ),
            ("{{range .Manifest.Manifests}}{{.Digest}}={{.Platform.OSVersion}};{{end}}", "b=1;c=;"),
            (
                "{{range .Manifest.Manifests}}{{println .Digest .Platform.Architecture}}{{end}}",
                "b arm64\nc \n",
            ),
            ("{{range .Image}}{{range .Config.Env}}<{{.}}>{{end}}{{end}}", "<A=1><B=2>"),
            (
                "{{range .Manifest.Manifests}}{{if .Annotations}}{{.Annotations}}{{else}}-{{end}}{{end}}",
                "-map[x:1 y:2]",
            ),
            ("a {{- .Name -}} b", "ar/xb"),
            ("{{/* none */}}{{len .Manifest.Manifests}}", "2"),
            ("{{print `}}`}}", "}}"),
            ("{{print \"a\\n\"}}", "a\n"),
            ("{{.Manifest.Nothing}}", ""),
            ("{{range .Manifest.Nothing}}x{{else}}none{{end}}", "none"),
            ("{{.Nme}}", "error: there is no .Nme, only .name, .manifest, .image"),
            ("{{.Name", "error: a }} is missing"),
            ("{{range .Name}}", "error: an {{end}} is missing"),
            ("{{range .Name}}{{end}}", "error: range cannot go through \"r/x\""),
            ("{{end}}", "error: {{end}} or"),
            ("{{}}", "error: {{}} says nothing"),
            ("{{.Name | json}}", "error: \"|\" is more"),
            ("{{template \"x\"}}", "error: \"template\" is more"),
            ("{{json}}", "error: json is given 0"),
            ("{{json (.Name}}", "error: a ) is missing"),
            ("{{.Name..x}}", "error: \".Name..x\" is no name"),
        ] {
            let made = template.parse::<Template>().and_then(|it| it.render(&document));
            let made = made.unwrap_or_else(|error| format!("error: {error}"));
            match want.strip_prefix("error: ") {
                Some(_) => assert!(made.starts_with(want), "{template}: {made}"),
                None => assert_eq!(made, want, "{template}"),
            }
        }
        let deep = "{{if .Name}}".repeat(100) + &"{{end}}".repeat(100);
        assert!(deep.parse::<Template>().is_err());
        let deep = format!("{{{{{}.{}}}}}", "(".repeat(100), ")".repeat(100));
        assert!(deep.parse::<Template>().is_err());
    }

    #[test]
    fn what_templates_ask_for() {
        let asks = |text: &str| text.parse::<Template>().expect(text).asks_for("image");
        assert!(asks("{{json .}}") && asks("{{if .Image}}{{end}}"));
        assert!(asks("{{json (index .Image \"x\")}}"));
        assert!(!asks("{{.Name}}") && !asks("{{json .Manifest}}"));
    }
}
