//! A machine as values, and what a runner plans for it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde::Deserialize;
use serde_json::{Value, json};
use wbuild_api::extension::{
    BinfmtEntry, ClampCap, Job, LaunchPlan, LogCap, MachineCap, MountView, Runner, RunnerHost, Tool,
};
use wbuild_graph::{Attrs, Digest, Failure, Platform, Severity, SourceMap};

use crate::bench::lock;
use crate::case::{CASE_FILE, platforms};
use crate::cases::{Outcome, compare};
use crate::snapshot::{self, severity_name};

/// A machine, and what is to run on it: platforms that a runner is asked about, and a process that it
/// plans for each of those that it offers. Made by a test, or read from a folder.
#[derive(Clone, Debug)]
pub struct Machine {
    platforms: Vec<Platform>,
    native: Vec<Platform>,
    features: Vec<String>,
    handlers: BTreeMap<String, String>,
    tools: BTreeMap<String, FakeTool>,
    job: Process,
}

/// A program of the machine that the policy grants.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FakeTool {
    /// It needs no libraries.
    #[serde(default, rename = "static")]
    pub is_static: bool,
    /// What it says of itself.
    #[serde(default)]
    pub version: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct Process {
    args: Vec<String>,
    env: BTreeMap<String, String>,
    cwd: String,
    entry_format: Vec<String>,
    mounts: BTreeMap<String, String>,
}

impl Default for Process {
    fn default() -> Self {
        Process {
            args: vec!["/bin/true".to_owned()],
            env: BTreeMap::new(),
            cwd: "/".to_owned(),
            entry_format: Vec::new(),
            mounts: BTreeMap::new(),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct CaseFile {
    #[serde(deserialize_with = "platforms")]
    platforms: Vec<Platform>,
    machine: MachineFile,
    job: Process,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct MachineFile {
    #[serde(deserialize_with = "platforms")]
    native: Vec<Platform>,
    features: Vec<String>,
    handlers: BTreeMap<String, String>,
    tools: BTreeMap<String, FakeTool>,
}

fn parsed(texts: &[&str]) -> Vec<Platform> {
    let parse = |text: &&str| text.parse().unwrap_or_else(|error| panic!("{text}: {error}"));
    texts.iter().map(parse).collect()
}

impl Machine {
    /// One that runs these platforms by itself, and has nothing else.
    ///
    /// # Panics
    ///
    /// When one is no platform.
    pub fn new(native: &[&str]) -> Machine {
        Machine {
            platforms: Vec::new(),
            native: parsed(native),
            features: Vec::new(),
            handlers: BTreeMap::new(),
            tools: BTreeMap::new(),
            job: Process::default(),
        }
    }

    /// Platforms that the runner is asked about.
    ///
    /// # Panics
    ///
    /// When one is no platform.
    #[must_use]
    pub fn asked(mut self, platforms: &[&str]) -> Machine {
        self.platforms = parsed(platforms);
        self
    }

    /// A feature of the machine, as `machine.features` names it.
    #[must_use]
    pub fn feature(mut self, name: &str) -> Machine {
        self.features.push(name.to_owned());
        self
    }

    /// A handler that the kernel has, with its flags (`OCF`).
    #[must_use]
    pub fn handler(mut self, platform: &str, flags: &str) -> Machine {
        self.handlers.insert(platform.to_owned(), flags.to_owned());
        self
    }

    /// A program that the policy grants.
    #[must_use]
    pub fn tool(mut self, name: &str, tool: FakeTool) -> Machine {
        self.tools.insert(name.to_owned(), tool);
        self
    }

    /// What the process is: its arguments, and the formats of its program and interpreters.
    #[must_use]
    pub fn job(mut self, args: &[&str], entry_format: &[&str]) -> Machine {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        self.job.args = owned(args);
        self.job.entry_format = owned(entry_format);
        self
    }

    /// Reads `case.toml` of a folder.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn read(folder: &Path) -> Result<Machine, Failure> {
        let file = folder.join(CASE_FILE);
        let wrong = |error: &dyn std::error::Error| {
            Failure::invalid(format!("{} is no case of a runner", file.display())).cause(error)
        };
        let text = std::fs::read_to_string(&file).map_err(|error| wrong(&error))?;
        let CaseFile { platforms, machine, job } =
            toml::from_str(&text).map_err(|error| wrong(&error))?;
        if platforms.is_empty() {
            let message = format!("{} names no platform that is asked about", file.display());
            return Err(Failure::invalid(message).hint("platforms = [\"linux/amd64\"]"));
        }
        if job.args.is_empty() {
            return Err(Failure::invalid(format!("{}: a job has a program", file.display())));
        }
        let MachineFile { native, features, handlers, tools } = machine;
        Ok(Machine { platforms, native, features, handlers, tools, job })
    }

    /// Asks a runner, and says what it answered as text. What it makes of a specification is taken as it
    /// is; wbuild compares it with its own, see [`Machine::ask_clamped`].
    pub fn ask(&self, runner: impl Runner + 'static) -> String {
        pollster::block_on(self.ask_clamped(&runner, &(Arc::new(AnyJson) as _))).0
    }

    /// [`Machine::ask`] with what judges edited specifications; and how often the machine was asked.
    pub async fn ask_clamped(
        &self,
        runner: &dyn Runner,
        clamp: &Arc<dyn ClampCap>,
    ) -> (String, usize) {
        let asked = Arc::new(Asked {
            machine: self.clone(),
            calls: Mutex::default(),
            log: Mutex::default(),
        });
        let host = || RunnerHost {
            machine: Arc::clone(&asked) as _,
            clamp: Arc::clone(clamp),
            log: Arc::clone(&asked) as _,
        };
        let mut out = String::new();
        match runner.supports(host(), self.platforms.clone()).await {
            Err(failure) => out.push_str(&told(&failure)),
            Ok(offers) => {
                for (platform, offer) in self.platforms.iter().zip(offers) {
                    match offer {
                        Err(failure) => {
                            let _ = write!(out, "{platform}: {}", told(&failure));
                        }
                        Ok(offer) => {
                            let _ = writeln!(out, "{platform}: rank {}, {}", offer.rank, offer.how);
                            let job = self.job_for(platform);
                            let plan = runner.make_plan(host(), job.clone()).await;
                            let text = match plan {
                                Ok(plan) => plan_text(&job, &plan),
                                Err(failure) => told(&failure),
                            };
                            for line in text.lines() {
                                let _ = writeln!(out, "  {line}");
                            }
                        }
                    }
                }
            }
        }
        for (severity, text) in &*lock(&asked.log) {
            let _ = writeln!(out, "log {}: {text}", severity_name(*severity));
        }
        let calls = *lock(&asked.calls);
        (out, calls)
    }

    fn job_for(&self, platform: &Platform) -> Job {
        let mounts = self.job.mounts.iter().zip(1..);
        let mounts: Vec<MountView> = mounts
            .map(|((target, kind), slot)| MountView {
                slot,
                target: target.clone(),
                kind: kind.clone(),
                readonly: false,
                attrs: Attrs::default(),
            })
            .collect();
        let env: Vec<(String, String)> =
            self.job.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let base_spec = base_spec(&self.job, &env, &mounts).to_string();
        Job {
            platform: platform.clone(),
            args: self.job.args.clone(),
            env,
            cwd: self.job.cwd.clone(),
            mounts,
            entry_format: self.job.entry_format.clone(),
            base_spec,
            attrs: Attrs::default(),
        }
    }
}

/// A specification of the kind that the host proposes (OCI runtime specification 1.2, `config.md`).
fn base_spec(process: &Process, env: &[(String, String)], mounts: &[MountView]) -> Value {
    let capabilities = ["CAP_CHOWN", "CAP_KILL", "CAP_SETGID", "CAP_SETUID"];
    let mounts = mounts.iter().map(|mount| {
        json!({
            "destination": mount.target,
            "type": "bind",
            "source": format!("slot:{}", mount.slot),
            "options": ["rbind", "nosuid", "nodev"],
        })
    });
    json!({
        "ociVersion": "1.2.0",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": process.args,
            "env": env.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>(),
            "cwd": process.cwd,
            "capabilities": {
                "bounding": capabilities,
                "effective": capabilities,
                "permitted": capabilities,
            },
        },
        "root": {"path": "slot:0", "readonly": false},
        "mounts": mounts.collect::<Vec<_>>(),
        "linux": {
            "namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}],
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
        },
    })
}

fn told(failure: &Failure) -> String {
    snapshot::failure(failure, &SourceMap::default())
}

fn plan_text(job: &Job, plan: &LaunchPlan) -> String {
    let mut out = String::new();
    for (tool, target) in &plan.tools {
        let _ = writeln!(out, "tool {tool} at {target}");
    }
    for rule in &plan.binfmt {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let _ = writeln!(out, "handler {} {}", rule.tool, rule.flags);
        let _ = writeln!(out, "  magic {}", hex(&rule.magic));
        let _ = writeln!(out, "  mask  {}", hex(&rule.mask));
    }
    if let Some(domain) = &plan.personality {
        let _ = writeln!(out, "personality {domain}");
    }
    if let Some(spec) = &plan.spec {
        let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
        differences(&mut out, "spec", &parse(&job.base_spec), &parse(spec));
    }
    for warning in &plan.warnings {
        snapshot::diagnostic(&mut out, warning, &SourceMap::default());
    }
    if out.is_empty() {
        out.push_str("as proposed\n");
    }
    out
}

/// Each value that differs, a line; lists are values.
fn differences(out: &mut String, at: &str, base: &Value, edited: &Value) {
    match (base, edited) {
        (Value::Object(old), Value::Object(new)) => {
            let missing = Value::Null;
            let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
            names.sort();
            names.dedup();
            for name in names {
                let (old, new) = (old.get(name), new.get(name));
                differences(
                    out,
                    &format!("{at}.{name}"),
                    old.unwrap_or(&missing),
                    new.unwrap_or(&missing),
                );
            }
        }
        (old, new) if old == new => {}
        (old, new) => {
            let _ = writeln!(out, "{at}: {old} -> {new}");
        }
    }
}

/// The capabilities of a runner, and how often they were used.
struct Asked {
    machine: Machine,
    calls: Mutex<usize>,
    log: Mutex<Vec<(Severity, String)>>,
}

impl Asked {
    fn count(&self) -> &Machine {
        *lock(&self.calls) += 1;
        &self.machine
    }
}

impl MachineCap for Asked {
    fn native_platforms(&self) -> Vec<Platform> {
        self.count().native.clone()
    }

    fn kernel_binfmt(&self, platform: Platform) -> Option<BinfmtEntry> {
        let flags = self.count().handlers.get(&platform.to_string())?;
        Some(BinfmtEntry {
            flags: flags.clone(),
            usable_in_container: flags.contains('F'),
            attrs: Attrs::default(),
        })
    }

    fn features(&self) -> Attrs {
        let on = |name: &String| (name.clone(), "true".to_owned());
        Attrs(self.count().features.iter().map(on).collect())
    }

    fn find_tool(&self, name: String) -> Option<Tool> {
        let tool = self.count().tools.get(&name)?;
        let (is_static, version) = (tool.is_static, tool.version.clone());
        Some(Tool { digest: Digest::of(name.as_bytes()), name, is_static, version })
    }
}

impl LogCap for Asked {
    fn log(&self, severity: Severity, text: String) {
        lock(&self.log).push((severity, text));
    }
}

/// Takes every specification that is one.
struct AnyJson;

impl ClampCap for AnyJson {
    fn clamp(&self, _base: String, edited: String, _tools: Vec<String>) -> Result<String, Failure> {
        match serde_json::from_str::<Value>(&edited) {
            Ok(Value::Object(_)) => Ok(edited),
            Ok(_) => Err(Failure::invalid("the spec is no object")),
            Err(error) => Err(Failure::invalid("the spec is not JSON").cause(&error)),
        }
    }
}

/// Runs a case of a runner twice and compares it with what is expected of it.
pub async fn run(
    folder: &Path,
    runner: &dyn Runner,
    clamp: &Arc<dyn ClampCap>,
    update: bool,
) -> Outcome {
    let machine = match Machine::read(folder) {
        Ok(machine) => machine,
        Err(failure) => return Outcome::unreadable(folder, &failure),
    };
    let (first, calls) = machine.ask_clamped(runner, clamp).await;
    let (second, _) = machine.ask_clamped(runner, clamp).await;
    if first != second {
        let difference = crate::cases::difference(&first, &second);
        let problem = format!("the same questions have two answers:\n{difference}");
        return Outcome { calls, problem: Some(problem), ..Outcome::of(folder) };
    }
    Outcome { calls, ..compare(folder, &first, update) }
}

/// Runs all cases of a folder in a test. With `UPDATE=1` in the environment what is expected is
/// written anew.
///
/// # Panics
///
/// When a case is not as expected.
pub fn check(folder: impl AsRef<Path>, runner: impl Runner + 'static) {
    let clamp: Arc<dyn ClampCap> = Arc::new(AnyJson);
    crate::cases::check_all(folder.as_ref(), async |folder, update| {
        run(folder, &runner, &clamp, update).await
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_is_right() {
        let manual = crate::tests::manual("## A runner\n");
        let file: CaseFile = toml::from_str(manual).expect("the keys are known");
        assert!(file.platforms.len() == 2 && file.machine.tools.len() == 1);
    }
}
