//! `--mount` of `RUN` (Dockerfile reference, "RUN --mount").
//!
//! A mount is one CSV record of `key=value` fields. Values may hold variables, so a mount is split
//! when the file is parsed and resolved when the variables are known. A mount without variables is
//! resolved once at parse time too, so that its mistakes are reported with all others.

use crate::ast::{Mount, MountField};
use crate::directives::parse_bool;
use crate::suggest::did_you_mean;
use crate::text::shown;
use crate::{Code, Diagnostic, Span, Text, TextBuilder, units};

/// Keys with the name that stands for them.
const KEYS: [(&str, &str); 19] = [
    ("type", "type"),
    ("from", "from"),
    ("source", "source"),
    ("src", "source"),
    ("target", "target"),
    ("dst", "target"),
    ("destination", "target"),
    ("readonly", "readonly"),
    ("ro", "readonly"),
    ("readwrite", "readwrite"),
    ("rw", "readwrite"),
    ("id", "id"),
    ("sharing", "sharing"),
    ("required", "required"),
    ("mode", "mode"),
    ("uid", "uid"),
    ("gid", "gid"),
    ("size", "size"),
    ("env", "env"),
];

const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];

/// Which keys mean something for a type.
fn means(kind: &str, key: &str) -> bool {
    match key {
        "type" | "target" => true,
        "from" | "readonly" | "readwrite" => matches!(kind, "bind" | "cache"),
        "source" => matches!(kind, "bind" | "cache" | "secret"),
        "id" | "mode" | "uid" | "gid" => matches!(kind, "cache" | "secret" | "ssh"),
        "sharing" => kind == "cache",
        "required" => matches!(kind, "secret" | "ssh"),
        "size" => kind == "tmpfs",
        "env" => kind == "secret",
        _ => false,
    }
}

/// Keys that everybody ignores where they mean nothing.
fn ignored(kind: &str, key: &str) -> bool {
    match key {
        "readonly" | "readwrite" | "id" | "env" => true,
        "from" => kind != "secret",
        "source" => kind != "ssh",
        _ => false,
    }
}

/// The keys of a type, for a message.
fn keys_of(kind: &str) -> String {
    let names = KEYS.iter().filter(|(name, key)| name == key && means(kind, key));
    names.map(|(name, _)| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// How steps share a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Several writers at once.
    Shared,
    /// Each writer has one of its own.
    Private,
    /// One writer at a time.
    Locked,
}

impl Sharing {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Sharing::Shared => "shared",
            Sharing::Private => "private",
            Sharing::Locked => "locked",
        }
    }
}

/// Owner and mode of what the host makes for a mount; none means the kind's default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ownership {
    /// Permission bits.
    pub mode: Option<u32>,
    /// User.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
}

/// A mount whose values are known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resolved {
    /// Files of the context, a stage or an image.
    Bind {
        /// Where the files are; none means the context.
        from: Option<Text>,
        /// Path in there.
        source: String,
        /// Where they appear.
        target: String,
        /// Writes are allowed, and dropped.
        writable: bool,
    },
    /// A directory that outlives the build.
    Cache {
        /// Where a new one's content comes from.
        from: Option<Text>,
        /// Path in there.
        source: String,
        /// Where it appears.
        target: String,
        /// Which one; none means that of the target.
        id: Option<String>,
        /// How it is shared.
        sharing: Sharing,
        /// Writes are refused.
        readonly: bool,
        /// Of a new one.
        ownership: Ownership,
    },
    /// Memory.
    Tmpfs {
        /// Where it appears.
        target: String,
        /// Limit in bytes.
        size: Option<u64>,
    },
    /// A secret as a file, a variable, or both.
    Secret {
        /// Which one.
        id: String,
        /// File.
        target: Option<String>,
        /// Variable.
        env: Option<String>,
        /// Fail without it.
        required: bool,
        /// Of the file.
        ownership: Ownership,
    },
    /// An ssh agent's socket.
    Ssh {
        /// Which one.
        id: String,
        /// Where it appears.
        target: Option<String>,
        /// Fail without it.
        required: bool,
        /// Of the socket.
        ownership: Ownership,
    },
}

/// Splits a flag's value, and checks what can be checked without variables.
pub(super) fn parse(text: Text, escape: char) -> Result<Mount, Vec<Diagnostic>> {
    let mut problems = Vec::new();
    let mut fields = Vec::new();
    for field in csv(&text).map_err(|problem| vec![problem])? {
        let (name, value) = match field.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (field, None),
        };
        if name.is_empty() {
            problems.push(
                Diagnostic::error(
                    Code::UnknownMountKey,
                    name.span(),
                    "a mount needs a key here, before `=` or after a comma",
                )
                .help("write it without blanks: `--mount=type=cache,target=/x`"),
            );
            continue;
        }
        let folded = name.to_ascii_lowercase();
        let Some((_, key)) = KEYS.iter().find(|(key, _)| *key == folded) else {
            problems.push(
                Diagnostic::error(
                    Code::UnknownMountKey,
                    name.span(),
                    format!("a mount has no key {}", shown(&name)),
                )
                .help("the keys are `type`, `from`, `source`, `target`, `readonly`, `readwrite`, `id`, `sharing`, `required`, `mode`, `uid`, `gid`, `size` and `env`")
                .maybe_help(did_you_mean(&name, KEYS.iter().map(|(key, _)| *key))),
            );
            continue;
        };
        let bare = matches!(*key, "readonly" | "readwrite" | "required" | "env");
        if value.is_none() && !bare {
            problems.push(
                Diagnostic::error(
                    Code::InvalidMount,
                    name.span(),
                    format!("{} needs a value", shown(&name)),
                )
                .help(format!("write `{name}=…`")),
            );
            continue;
        }
        if let ("from", Some(value)) = (*key, &value)
            && value.contains('$')
        {
            problems.push(
                Diagnostic::error(
                    Code::VariableInFrom,
                    value.span(),
                    "variables are not expanded in `from`",
                )
                .help(format!("name a stage for it: `FROM {value} AS name`, then `from=name`")),
            );
            continue;
        }
        fields.push(MountField { key, name, value });
    }
    let mount = Mount { text, fields };
    if problems.is_empty() && !mount.text.contains(['$', '\'', '"', escape]) {
        let literal = &mut |value: &Text| Ok(value.as_str().to_owned());
        if let Err(problem) = resolve(&mount, literal) {
            problems.push(problem);
        }
    }
    if problems.is_empty() { Ok(mount) } else { Err(problems) }
}

/// Cuts a record into fields; a field in double quotes may hold commas (RFC 4180).
pub fn csv(text: &Text) -> Result<Vec<Text>, Diagnostic> {
    let mut fields = Vec::new();
    let mut at = 0;
    loop {
        if text[at..].starts_with('"') {
            let mut builder = TextBuilder::within(text, at);
            let open = at;
            at += 1;
            loop {
                let Some(length) = text[at..].find('"') else {
                    return Err(Diagnostic::error(
                        Code::InvalidMount,
                        text.span_of(open..text.len()),
                        "this double quote is not closed",
                    )
                    .help("it belongs around a whole field of the mount: `\"target=/a,b\"`"));
                };
                builder.push(text, at..at + length);
                at += length + 1;
                if !text[at..].starts_with('"') {
                    break;
                }
                builder.push(text, at..at + 1);
                at += 1;
            }
            fields.push(builder.finish());
            if at < text.len() && !text[at..].starts_with(',') {
                let end = text[at..].find(',').map_or(text.len(), |offset| at + offset);
                return Err(Diagnostic::error(
                    Code::InvalidMount,
                    text.span_of(at..end),
                    "a comma is missing before this",
                )
                .help("the double quote before it ends the field of the mount"));
            }
        } else {
            let end = text[at..].find(',').map_or(text.len(), |offset| at + offset);
            if let Some(offset) = text[at..end].find('"') {
                let quote = at + offset;
                return Err(Diagnostic::error(
                    Code::InvalidMount,
                    text.span_of(quote..quote + 1),
                    "a double quote cannot stand within a field of a mount",
                )
                .help("put it before the key, around the whole field: `\"target=/a,b\"`"));
            }
            fields.push(text.slice(at..end));
            at = end;
        }
        if at >= text.len() {
            return Ok(fields);
        }
        at += 1;
    }
}

struct Values<'m> {
    mount: &'m Mount,
    values: Vec<(&'static str, String, Span)>,
}

impl Values<'_> {
    fn find(&self, key: &str) -> Option<(&str, Span)> {
        let found = self.values.iter().rev().find(|(name, ..)| *name == key);
        found.map(|(_, value, span)| (value.as_str(), *span))
    }

    /// A value that is not empty.
    fn text(&self, key: &str) -> Option<String> {
        self.find(key).map(|(value, _)| value.to_owned()).filter(|value| !value.is_empty())
    }

    fn number(&self, key: &str, radix: u32) -> Result<Option<u32>, Diagnostic> {
        let Some((value, span)) = self.find(key) else { return Ok(None) };
        let plain = value.bytes().all(|b| b.is_ascii_digit());
        match u32::from_str_radix(value, radix) {
            Ok(number) if plain => Ok(Some(number)),
            _ => {
                let (what, help) = match radix {
                    8 => ("a file mode", format!("write it in octal, e.g. `{key}=0755`")),
                    _ => (
                        "a number",
                        format!("write a number that is not negative, e.g. `{key}=1000`"),
                    ),
                };
                let message = format!("{} is not {what}", shown(value));
                Err(Diagnostic::error(Code::InvalidMount, span, message).help(help))
            }
        }
    }

    fn switch(&self, key: &str) -> Result<Option<bool>, Diagnostic> {
        let Some((value, span)) = self.find(key) else { return Ok(None) };
        match parse_bool(value) {
            Some(on) => Ok(Some(on)),
            None => Err(Diagnostic::error(
                Code::InvalidMount,
                span,
                format!("{} is neither true nor false", shown(value)),
            )
            .help(format!("write `{key}`, `{key}=true` or `{key}=false`"))),
        }
    }

    fn ownership(&self) -> Result<Ownership, Diagnostic> {
        Ok(Ownership {
            mode: self.number("mode", 8)?,
            uid: self.number("uid", 10)?,
            gid: self.number("gid", 10)?,
        })
    }

    fn target(&self) -> String {
        self.text("target").unwrap_or_default()
    }

    fn error(&self, message: &str, help: &str) -> Diagnostic {
        Diagnostic::error(Code::InvalidMount, self.mount.text.span(), message).help(help)
    }
}

/// Checks a mount, its values expanded by `expand`.
pub fn resolve(
    mount: &Mount,
    expand: &mut dyn FnMut(&Text) -> Result<String, Diagnostic>,
) -> Result<Resolved, Diagnostic> {
    let mut values = Values { mount, values: Vec::with_capacity(mount.fields.len()) };
    for field in &mount.fields {
        let value = match &field.value {
            Some(value) => (expand(value)?, value.span()),
            // A switch that stands alone is on.
            None if field.key == "env" => (String::new(), field.name.span()),
            None => ("true".to_owned(), field.name.span()),
        };
        values.values.push((field.key, value.0, value.1));
    }
    let kind = values.find("type").map(|(kind, span)| (kind.to_ascii_lowercase(), span));
    let (kind, at) = kind.unwrap_or_else(|| ("bind".to_owned(), mount.text.span()));
    if !TYPES.contains(&kind.as_str()) {
        return Err(Diagnostic::error(
            Code::InvalidMount,
            at,
            format!("a mount cannot be of type {}", shown(&kind)),
        )
        .help("types are `bind`, `cache`, `tmpfs`, `secret` and `ssh`")
        .maybe_help(did_you_mean(&kind, TYPES)));
    }
    if let Some(field) =
        mount.fields.iter().find(|field| !means(&kind, field.key) && !ignored(&kind, field.key))
    {
        return Err(Diagnostic::error(
            Code::InvalidMount,
            field.name.span(),
            format!("{} has no meaning for a mount of type {kind}", shown(&field.name)),
        )
        .help(format!("such a mount takes {}", keys_of(&kind))));
    }
    let from = mount.from().filter(|from| !from.is_empty()).cloned();
    let source = values.text("source").unwrap_or_default();
    // The one that stands last wins.
    let readonly = match values.values.iter().rfind(|(key, ..)| key.starts_with("read")) {
        Some(("readonly", ..)) => values.switch("readonly")?,
        Some(_) => values.switch("readwrite")?.map(|writable| !writable),
        None => None,
    };
    match kind.as_str() {
        "bind" => Ok(Resolved::Bind {
            from,
            source,
            target: values.target(),
            writable: readonly == Some(false),
        }),
        "cache" => Ok(Resolved::Cache {
            from,
            source,
            target: values.target(),
            id: values.text("id"),
            sharing: sharing(&values)?,
            readonly: readonly == Some(true),
            ownership: values.ownership()?,
        }),
        "tmpfs" => {
            let size = match values.find("size") {
                Some((size, span)) => Some(units::bytes(size).ok_or_else(|| {
                    Diagnostic::error(
                        Code::InvalidMount,
                        span,
                        format!("{} is not an amount of memory", shown(size)),
                    )
                    .help("write a number with a unit, e.g. `64m` or `1g`")
                })?),
                None => None,
            };
            Ok(Resolved::Tmpfs { target: values.target(), size })
        }
        "secret" => secret(&values),
        _ => Ok(Resolved::Ssh {
            id: values.text("id").unwrap_or_else(|| "default".to_owned()),
            target: values.text("target"),
            required: values.switch("required")?.unwrap_or(false),
            ownership: values.ownership()?,
        }),
    }
}

fn sharing(values: &Values<'_>) -> Result<Sharing, Diagnostic> {
    let Some((word, span)) = values.find("sharing") else { return Ok(Sharing::Shared) };
    let known = [Sharing::Shared, Sharing::Private, Sharing::Locked];
    known.into_iter().find(|mode| word.eq_ignore_ascii_case(mode.as_str())).ok_or_else(|| {
        Diagnostic::error(
            Code::InvalidMount,
            span,
            format!("a cache cannot be shared in the way {}", shown(word)),
        )
        .help("it is one of `shared`, `private`, `locked`")
        .maybe_help(did_you_mean(word, known.map(Sharing::as_str)))
    })
}

fn secret(values: &Values<'_>) -> Result<Resolved, Diagnostic> {
    let target = values.text("target");
    let id = match (values.text("source"), values.text("id")) {
        (Some(_), Some(_)) => {
            return Err(values.error(
                "this secret has both `id` and `source`, which mean the same",
                "keep `id`",
            ));
        }
        (source, id) => source.or(id),
    };
    let base = |path: &str| {
        let base = path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        base.to_owned()
    };
    let id = id.or_else(|| target.as_deref().map(base)).filter(|id| !id.is_empty());
    let Some(id) = id else {
        return Err(values.error("this secret has no id", "write `type=secret,id=name`"));
    };
    // `env` alone is a variable of the secret's own name.
    let env = values.find("env").map(|(name, _)| name.to_owned());
    let env = env.map(|name| if name.is_empty() { id.clone() } else { name });
    let target = match (target, &env) {
        (None, None) => Some(format!("/run/secrets/{}", base(&id))),
        (target, _) => target,
    };
    Ok(Resolved::Secret {
        id,
        target,
        env,
        required: values.switch("required")?.unwrap_or(false),
        ownership: values.ownership()?,
    })
}
