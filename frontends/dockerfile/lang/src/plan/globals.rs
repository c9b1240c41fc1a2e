//! What `FROM` lines see: the variables that are there before any stage, and the lines with these
//! filled in.

use std::collections::{BTreeMap, BTreeSet};

use super::request::{EPOCH, epoch};
use super::stages::earlier;
use super::{Session, expand_word};
use crate::ast::{Dockerfile, Kind};
use crate::expand::Expansion;
use crate::lint::from;
use crate::platform::Platform;
use crate::suggest::did_you_mean;
use crate::vars::Vars;
use crate::{Diagnostic, Failure, Span};

/// Variables outside of stages.
pub(super) struct Globals {
    /// All of them.
    pub vars: Vars,
    /// Those that the file declares.
    pub arguments: BTreeMap<String, Argument>,
    defaults: Defaults,
}

/// What the variables are if the caller gives no build arguments.
enum Defaults {
    /// What they are anyway.
    Same,
    Other(Vars),
    /// A default cannot be expanded.
    Unknown,
}

/// An argument above the first `FROM`.
#[derive(Default)]
pub(super) struct Argument {
    pub value: Option<String>,
    /// Where it is declared.
    pub at: Option<Span>,
    pub doc: Option<String>,
    /// Variables that its default is made of, set or not.
    pub uses: BTreeSet<String>,
}

/// A `FROM` line with its variables filled in.
pub(super) struct FromLine {
    pub base: Result<Expansion, Diagnostic>,
    pub platform: Option<Result<Expansion, Diagnostic>>,
}

impl Globals {
    /// Variables that are there before the file declares any (Dockerfile reference, "Automatic platform
    /// ARGs in the global scope"), then those that the file declares before its first stage.
    pub fn new(
        session: &mut Session<'_>,
        platform: &Platform,
        target: usize,
    ) -> Result<Globals, Failure> {
        let file = session.file;
        let arguments = &session.request.build_args;
        let stage = session
            .request
            .target
            .clone()
            .or_else(|| file.stages[target].folded_name())
            .unwrap_or_else(|| "default".to_owned());
        let mut vars = Vars::default();
        for (prefix, platform) in [("BUILD", &session.request.build_platform), ("TARGET", platform)]
        {
            for (name, value) in [
                ("PLATFORM", platform.to_string().as_str()),
                ("OS", &platform.os),
                ("OSVERSION", platform.os_version.as_deref().unwrap_or_default()),
                ("ARCH", &platform.architecture),
                ("VARIANT", platform.variant.as_deref().unwrap_or_default()),
            ] {
                vars.set(&format!("{prefix}{name}"), value);
            }
        }
        vars.set("TARGETSTAGE", &stage);
        let names: Vec<String> = vars.pairs().map(|(name, _)| name.to_owned()).collect();
        for name in names {
            if let Some(value) = arguments.get(&name) {
                vars.set(&name, value);
            }
        }
        let mut defaults = vars.clone();
        let mut declared = declare(file, &mut vars, arguments)?;
        let defaults = match declared.keys().any(|name| arguments.contains_key(name)) {
            false => Defaults::Same,
            true => match declare(file, &mut defaults, &BTreeMap::new()) {
                Ok(_) => Defaults::Other(defaults),
                Err(_) => Defaults::Unknown,
            },
        };
        // A default in the file is the last source of the time.
        let default = vars.get(EPOCH).filter(|value| !value.is_empty()).map(str::to_owned);
        if let (None, Some(value)) = (session.request.epoch, default) {
            let at = file.globals.iter().rfind(|instruction| {
            matches!(&instruction.kind, Kind::Arg(list) if list.iter().any(|d| *d.name == *EPOCH))
        });
            let at = at.map(|instruction| instruction.span);
            session.request.epoch = epoch(session.host, file, &value, at)?;
            let settled = session.request.epoch.map(|epoch| epoch.to_string());
            match &settled {
                Some(epoch) => vars.set(EPOCH, epoch),
                None => vars.remove(EPOCH),
            }
            declared.entry(EPOCH.to_owned()).or_default().value = settled;
        }
        Ok(Globals { vars, arguments: declared, defaults })
    }

    /// Fills in the variables of all `FROM` lines, also of stages that are not needed: what is
    /// doubtful in them is to be known.
    pub fn lines(&self, session: &mut Session<'_>) -> Vec<FromLine> {
        let file = session.file;
        let escape = file.directives.escape;
        let scope = from::Scope {
            file,
            globals: &self.vars,
            build_platform: &session.request.build_platform,
        };
        let mut lines = Vec::with_capacity(file.stages.len());
        for (index, stage) in file.stages.iter().enumerate() {
            let expand = |word| expand_word(word, escape, &self.vars);
            let (base, platform) = (expand(&stage.base), stage.platform.as_ref().map(expand));
            let line = from::Line {
                stage,
                base: base.as_ref().ok(),
                platform: platform.as_ref().and_then(|platform| platform.as_ref().ok()),
            };
            from::check(&line, &scope, session.lint);
            let default = match &self.defaults {
                Defaults::Same => base.clone().ok(),
                Defaults::Other(vars) => expand_word(&stage.base, escape, vars).ok(),
                Defaults::Unknown => None,
            };
            let is_stage = |name: &str| earlier(&file.stages[..index], name).is_some();
            if let Some(default) = default {
                from::check_default(stage, &default, is_stage, session.lint);
            }
            lines.push(FromLine { base, platform });
        }
        lines
    }

    /// What to do about a word of `FROM` of which variables have left nothing, or too little.
    pub fn help(&self, file: &Dockerfile, expansion: &Expansion) -> String {
        let Some((name, _)) = expansion.unset.first_key_value() else {
            return "write a default, e.g. `${NAME:-default}`".to_owned();
        };
        let declared = || from::declared(file);
        if declared().any(|known| known == name) {
            return format!("give `ARG {name}` a default, or build with `--build-arg {name}=…`");
        }
        let known = self.vars.pairs().map(|(name, _)| name);
        did_you_mean(name, known.chain(declared())).unwrap_or_else(|| {
            format!(
                "FROM sees only what is declared above the first FROM; write `ARG {name}=…` there, or `ARG {name}` and give it by `--build-arg {name}=…`"
            )
        })
    }
}

/// Sets the arguments that the file declares before its first stage.
fn declare(
    file: &Dockerfile,
    vars: &mut Vars,
    given: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, Argument>, Diagnostic> {
    let mut declared: BTreeMap<String, Argument> = BTreeMap::new();
    for instruction in &file.globals {
        let Kind::Arg(declarations) = &instruction.kind else { continue };
        for declaration in declarations {
            let name = declaration.name.as_str();
            let mut argument = Argument {
                at: Some(declaration.name.span()),
                doc: declaration.doc.clone(),
                ..Argument::default()
            };
            match (given.get(name), &declaration.default) {
                (Some(given), _) => argument.value = Some(given.clone()),
                (None, Some(default)) => {
                    let expansion = expand_word(default, file.directives.escape, vars)?;
                    argument.uses = expansion.names().cloned().collect();
                    argument.value = Some(expansion.text);
                    // A default that is made of the argument itself has what it had before.
                    if argument.uses.remove(name)
                        && let Some(before) = declared.get(name)
                    {
                        argument.uses.extend(before.uses.iter().cloned());
                    }
                }
                (None, None) => {}
            }
            if let Some(value) = &argument.value {
                vars.set(name, value);
            }
            declared.insert(name.to_owned(), argument);
        }
    }
    Ok(declared)
}
