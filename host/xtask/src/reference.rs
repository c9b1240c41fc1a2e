//! The reference pages of the WIT packages, made of the comments in the WIT files.
//!
//! The comments are the manual; a page only gives them headings, links and an index. A test
//! compares `wit/reference/` with what would be written.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use wit_parser::{
    Docs, Function, FunctionKind, Handle, Interface, InterfaceId, PackageId, Resolve, Type,
    TypeDef, TypeDefKind, TypeId, World, WorldItem,
};

use crate::wit::PACKAGES;
use crate::{read_text, write_if_changed};

/// Writes the pages that differ.
pub fn write(root: &Path) -> Result<()> {
    for (name, page) in pages(root)? {
        write_if_changed(&root.join("wit/reference").join(name), page.as_bytes())?;
    }
    Ok(())
}

/// The pages by their file names.
pub fn pages(root: &Path) -> Result<BTreeMap<String, String>> {
    let mut resolve = Resolve::default();
    let mut packages = Vec::new();
    for package in PACKAGES {
        let path = format!("wit/{package}/{package}.wit");
        let text = read_text(&root.join(&path))?;
        let (introduction, text) = introduction(&text);
        let id = resolve.push_str(&path, &text).with_context(|| path.clone())?;
        packages.push((package, id, introduction));
    }
    let page = |(package, id, introduction): (&str, PackageId, String)| {
        let page = Page { resolve: &resolve, package: id, out: String::new() };
        (format!("{package}.md"), page.all(&introduction))
    };
    Ok(packages.into_iter().map(page).collect())
}

/// What plain comments say before the first item, and the text without any: the parser would take
/// them for documentation of what follows.
fn introduction(text: &str) -> (String, String) {
    let plain = |line: &str| {
        let comment = line.trim_start().strip_prefix("//")?;
        (!comment.starts_with('/')).then(|| comment.strip_prefix(' ').unwrap_or(comment).to_owned())
    };
    let mut comments: Vec<String> = Vec::new();
    let mut rest = String::new();
    let mut begun = false;
    for line in text.lines() {
        match plain(line) {
            Some(comment) if !begun => comments.push(comment),
            Some(_) => {}
            None => {
                begun |= line.starts_with("///") || line.starts_with("interface");
                rest.push_str(line);
                rest.push('\n');
            }
        }
    }
    (comments.join("\n"), rest)
}

struct Page<'r> {
    resolve: &'r Resolve,
    package: PackageId,
    out: String,
}

impl Page<'_> {
    fn all(mut self, introduction: &str) -> String {
        let package = &self.resolve.packages[self.package];
        let _ = writeln!(
            self.out,
            "# {}\n\nMade of [{name}.wit](../{name}/{name}.wit) by `cargo xtask wit --reference`.",
            package.name,
            name = package.name.name,
        );
        if !introduction.is_empty() {
            let _ = write!(self.out, "\n{}", paragraphs(introduction, ""));
        }
        let worlds: Vec<&World> =
            package.worlds.values().map(|id| &self.resolve.worlds[*id]).collect();
        let interfaces: Vec<(&str, &Interface)> = package
            .interfaces
            .iter()
            .map(|(name, id)| (name.as_str(), &self.resolve.interfaces[*id]))
            .collect();
        self.out.push_str("\n| | |\n| --- | --- |\n");
        for world in &worlds {
            let _ = writeln!(
                self.out,
                "| [world {0}](#world-{0}) | {1} |",
                world.name,
                summary(&world.docs)
            );
        }
        for (name, interface) in &interfaces {
            let _ = writeln!(
                self.out,
                "| [interface {name}](#interface-{name}) | {} |",
                summary(&interface.docs)
            );
        }
        for world in worlds {
            self.world(world);
        }
        for (name, interface) in interfaces {
            self.interface(name, interface);
        }
        self.out
    }

    fn world(&mut self, world: &World) {
        let _ = writeln!(self.out, "\n## world {}", world.name);
        self.docs(&world.docs, "\n", "");
        self.out.push_str("\n| | |\n| --- | --- |\n");
        for (word, items) in [("import", &world.imports), ("export", &world.exports)] {
            for item in items.values() {
                if let WorldItem::Interface { id, .. } = item {
                    let name = self.resolve.id_of(*id).unwrap_or_default();
                    let _ = writeln!(self.out, "| {word} | [{name}]({}) |", self.place(*id));
                }
            }
        }
    }

    fn interface(&mut self, name: &str, interface: &Interface) {
        let _ = writeln!(self.out, "\n## interface {name}");
        self.docs(&interface.docs, "\n", "");
        for (type_name, id) in &interface.types {
            let of = &self.resolve.types[*id];
            if !self.is_use(of) {
                self.type_def(name, type_name, *id, of, interface);
            }
        }
        for function in interface.functions.values() {
            if matches!(function.kind, FunctionKind::Freestanding) {
                let _ = writeln!(self.out, "\n### {name}.{}", function.name);
                self.function(function, &function.name);
            }
        }
    }

    /// Whether a type is only the name of another interface's.
    fn is_use(&self, of: &TypeDef) -> bool {
        match of.kind {
            TypeDefKind::Type(Type::Id(id)) => self.resolve.types[id].name == of.name,
            _ => false,
        }
    }

    fn type_def(&mut self, interface: &str, name: &str, id: TypeId, of: &TypeDef, all: &Interface) {
        let kind = match &of.kind {
            TypeDefKind::Record(_)
            | TypeDefKind::Variant(_)
            | TypeDefKind::Enum(_)
            | TypeDefKind::Flags(_)
            | TypeDefKind::Resource => of.kind.as_str(),
            _ => "type",
        };
        let _ = writeln!(self.out, "\n### {kind} {interface}.{name}");
        if kind == "type" {
            let _ = writeln!(self.out, "\n`{name} = {}`", self.shape(&of.kind));
        }
        self.docs(&of.docs, "\n", "");
        let mut items = String::new();
        match &of.kind {
            TypeDefKind::Record(record) => {
                for field in &record.fields {
                    let of = self.type_name(&field.ty);
                    item(&mut items, &format!("{}: {of}", field.name), &field.docs);
                }
            }
            TypeDefKind::Variant(variant) => {
                for case in &variant.cases {
                    let of = case.ty.as_ref().map(|of| format!("({})", self.type_name(of)));
                    let head = format!("{}{}", case.name, of.unwrap_or_default());
                    item(&mut items, &head, &case.docs);
                }
            }
            TypeDefKind::Enum(of) => {
                of.cases.iter().for_each(|case| item(&mut items, &case.name, &case.docs));
            }
            TypeDefKind::Flags(of) => {
                of.flags.iter().for_each(|flag| item(&mut items, &flag.name, &flag.docs));
            }
            _ => {}
        }
        if !items.is_empty() {
            let _ = write!(self.out, "\n{items}");
        }
        for function in all.functions.values() {
            let (owner, word) = match function.kind {
                FunctionKind::Method(owner) => (owner, "."),
                FunctionKind::Static(owner) => (owner, "::"),
                FunctionKind::Constructor(owner) => (owner, ""),
                _ => continue,
            };
            if owner == id {
                let own = function.name.rsplit_once('.').map_or("constructor", |(_, own)| own);
                let title = match word {
                    "" => format!("{name} (constructor)"),
                    word => format!("{name}{word}{own}"),
                };
                let _ = writeln!(self.out, "\n#### {title}");
                self.function(function, own);
            }
        }
    }

    fn function(&mut self, function: &Function, name: &str) {
        let own = matches!(function.kind, FunctionKind::Method(_));
        let params: Vec<String> = function
            .params
            .iter()
            .skip(usize::from(own))
            .map(|param| format!("{}: {}", param.name, self.type_name(&param.ty)))
            .collect();
        let result = match (&function.kind, &function.result) {
            (FunctionKind::Constructor(_), _) | (_, None) => String::new(),
            (_, Some(result)) => format!(" -> {}", self.type_name(result)),
        };
        let word =
            if matches!(function.kind, FunctionKind::Constructor(_)) { "" } else { ": func" };
        let _ = writeln!(self.out, "\n```wit\n{name}{word}({}){result}\n```", params.join(", "));
        self.docs(&function.docs, "\n", "");
    }

    fn docs(&mut self, docs: &Docs, before: &str, indent: &str) {
        let Some(text) = &docs.contents else { return };
        self.out.push_str(before);
        self.out.push_str(&paragraphs(text, indent));
    }

    /// A type as WIT writes it.
    fn type_name(&self, of: &Type) -> String {
        let id = match of {
            Type::Id(id) => *id,
            Type::Bool => return "bool".to_owned(),
            Type::U8 => return "u8".to_owned(),
            Type::U16 => return "u16".to_owned(),
            Type::U32 => return "u32".to_owned(),
            Type::U64 => return "u64".to_owned(),
            Type::S8 => return "s8".to_owned(),
            Type::S16 => return "s16".to_owned(),
            Type::S32 => return "s32".to_owned(),
            Type::S64 => return "s64".to_owned(),
            Type::F32 => return "f32".to_owned(),
            Type::F64 => return "f64".to_owned(),
            Type::Char => return "char".to_owned(),
            Type::String => return "string".to_owned(),
            Type::ErrorContext => return "error-context".to_owned(),
        };
        let def = &self.resolve.types[id];
        if let Some(name) = &def.name {
            return name.clone();
        }
        self.shape(&def.kind)
    }

    fn shape(&self, kind: &TypeDefKind) -> String {
        let some = |of: &Option<Type>| of.as_ref().map_or("_".to_owned(), |of| self.type_name(of));
        match kind {
            TypeDefKind::Option(of) => format!("option<{}>", self.type_name(of)),
            TypeDefKind::List(of) => format!("list<{}>", self.type_name(of)),
            TypeDefKind::Tuple(tuple) => {
                let types: Vec<String> = tuple.types.iter().map(|of| self.type_name(of)).collect();
                format!("tuple<{}>", types.join(", "))
            }
            TypeDefKind::Result(result) => match (&result.ok, &result.err) {
                (None, None) => "result".to_owned(),
                (ok, None) => format!("result<{}>", some(ok)),
                (ok, err) => format!("result<{}, {}>", some(ok), some(err)),
            },
            TypeDefKind::Handle(Handle::Own(id)) => self.type_name(&Type::Id(*id)),
            TypeDefKind::Handle(Handle::Borrow(id)) => {
                format!("borrow<{}>", self.type_name(&Type::Id(*id)))
            }
            TypeDefKind::Type(of) => self.type_name(of),
            kind => kind.as_str().to_owned(),
        }
    }

    /// Where an interface is described, as seen from this page.
    fn place(&self, id: InterfaceId) -> String {
        let interface = &self.resolve.interfaces[id];
        let name = interface.name.as_deref().unwrap_or_default();
        match interface.package {
            Some(package) if package != self.package => {
                let file = &self.resolve.packages[package].name.name;
                format!("{file}.md#interface-{name}")
            }
            _ => format!("#interface-{name}"),
        }
    }
}

/// A member of a record, or a case.
fn item(out: &mut String, head: &str, docs: &Docs) {
    let _ = write!(out, "- `{head}`");
    match &docs.contents {
        Some(text) => {
            let text = paragraphs(text, "  ");
            let _ = write!(out, ": {}", text.trim_start());
        }
        None => out.push('\n'),
    }
}

/// The first sentence, for a table.
fn summary(docs: &Docs) -> String {
    let text = docs.contents.as_deref().unwrap_or_default();
    let first = text.split("\n\n").next().unwrap_or_default().replace('\n', " ");
    let end = first.find(". ").map_or(first.len(), |at| at + 1);
    escape(&first[..end]).replace('|', "\\|")
}

/// A comment as Markdown: tables of keys, which are indented, stay as they are, and what looks like a
/// tag does not become one.
fn paragraphs(text: &str, indent: &str) -> String {
    let mut out = String::new();
    let mut fenced = false;
    let mut before_blank = true;
    for line in text.trim_end().lines() {
        let indented = line.starts_with("    ") || (line.starts_with("  ") && before_blank);
        let table = indented && !line.trim_start().starts_with(['-', '*']);
        if fenced && !line.is_empty() && !line.starts_with("  ") {
            let _ = writeln!(out, "{indent}```");
            fenced = false;
        }
        if table && !fenced && before_blank {
            let _ = writeln!(out, "{indent}```text");
            fenced = true;
        }
        before_blank = line.is_empty();
        let line = if fenced || table { line.to_owned() } else { escape(line) };
        let _ = writeln!(out, "{}", format!("{indent}{line}").trim_end());
    }
    if fenced {
        let _ = writeln!(out, "{indent}```");
    }
    out
}

/// Keeps `<NAME>` from being read as HTML outside of code, and a star that ends a word (a key that
/// may repeat) as emphasis.
fn escape(line: &str) -> String {
    let mut code = false;
    let mut emphasised = false;
    let mut out = String::new();
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        code ^= letter == '`';
        if letter == '*' && !code {
            let begins = !out.ends_with(char::is_alphanumeric)
                && letters.peek().is_some_and(|next| next.is_alphabetic());
            if begins || emphasised {
                emphasised = begins;
            } else {
                out.push('\\');
            }
        }
        if letter == '<' && !code {
            out.push('\\');
        }
        out.push(letter);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace_root;

    #[test]
    fn the_pages_are_what_the_files_say() {
        let root = workspace_root();
        let pages = pages(&root).expect("the packages are read");
        for (name, page) in &pages {
            let path = root.join("wit/reference").join(name);
            let written = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(
                written == *page,
                "{} is not up to date; run: cargo xtask wit --reference",
                path.display()
            );
        }
    }

    #[test]
    fn every_function_and_type_is_on_a_page() {
        let root = workspace_root();
        let pages = pages(&root).expect("the packages are read");
        for package in PACKAGES {
            let text = read_text(&root.join(format!("wit/{package}/{package}.wit"))).expect("read");
            let page = &pages[&format!("{package}.md")];
            let words = text.lines().map(str::trim).filter(|line| !line.starts_with("//"));
            for line in words {
                let name = match line.split_once(": func(") {
                    Some((name, _)) => name,
                    None => match line.split_once(' ') {
                        Some((
                            "record" | "resource" | "enum" | "variant" | "world" | "interface",
                            rest,
                        )) => rest.split([' ', ';']).next().unwrap_or_default(),
                        _ => continue,
                    },
                };
                let name = name.trim_start_matches('%');
                assert!(
                    page.lines().any(|line| line.starts_with('#')
                        && line.split([' ', '.', ':']).any(|word| word == name)),
                    "{package}: {name}"
                );
            }
        }
    }

    #[test]
    fn comments_are_kept_readable() {
        let text = "A *fine* list* of <key>.\n\n  a   first\n  b   second\n\nMore: `<code>*`.";
        let expected = "A *fine* list\\* of \\<key>.\n\n```text\n  a   first\n  b   second\n\n\
            ```\nMore: `<code>*`.\n";
        assert_eq!(paragraphs(text, ""), expected);
    }
}
