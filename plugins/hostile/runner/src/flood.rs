//! Calls one function of the host for ever, whatever it answers, with texts of 16 KiB. A method has a
//! handle of its own for each call if there can be several.

use std::hint::black_box;

use crate::bindings::wbuild::runner::machine::{self, Tool};
use crate::bindings::wbuild::runner::plan::Plan;
use crate::bindings::wbuild::runner::process::Process;
use crate::bindings::wbuild::types::log::log;
use crate::bindings::wbuild::types::types::{Diagnostic, Label, Platform, Severity, Span};

const SIZE: usize = 16 << 10;

fn forever<U>(call: impl Fn() -> U) -> ! {
    loop {
        black_box(call());
    }
}

fn holding<T, U>(make: impl Fn() -> T, call: impl Fn(&T) -> U) -> ! {
    let mut held = Vec::new();
    loop {
        held.push(make());
        black_box(held.last().map(&call));
    }
}

fn tools<U>(call: impl Fn(&Tool) -> U) -> ! {
    holding(|| machine::find_tool("qemu"), |tool| tool.as_ref().map(&call))
}

fn plans<U>(call: impl Fn(&Plan) -> U) -> ! {
    holding(Plan::base, call)
}

/// Calls `function`; comes back only if there is none of that name.
pub(crate) fn flood(function: &str, process: &Process) {
    let text = "x".repeat(SIZE);
    let (attrs, data) = (vec![(text.clone(), text.clone())], vec![b'x'; SIZE]);
    match function.split_once('.') {
        Some(("log", "log")) => forever(|| log(Severity::Warning, &text)),
        Some(("machine", name)) => in_machine(name, &text),
        Some(("tool", "name")) => tools(Tool::name),
        Some(("tool", "digest")) => tools(Tool::digest),
        Some(("tool", "is-static")) => tools(Tool::is_static),
        Some(("tool", "version")) => tools(Tool::version),
        Some(("process", name)) => of_process(name, process),
        Some(("plan", "base")) => holding(Plan::base, |_| ()),
        Some(("plan", "from-spec")) => {
            let base = process.base_spec();
            holding(|| Plan::from_spec(&base), |_| ())
        }
        Some(("plan", name)) => {
            if let Some(tool) = machine::find_tool("qemu") {
                of_plan(name, &tool, &text, &attrs, &data);
            }
        }
        _ => {}
    }
}

fn in_machine(name: &str, text: &str) {
    match name {
        "native-platforms" => forever(machine::native_platforms),
        "kernel-binfmt" => {
            let platform = Platform {
                os: text.to_owned(),
                architecture: text.to_owned(),
                variant: Some(text.to_owned()),
                os_version: Some(text.to_owned()),
                os_features: vec![text.to_owned()],
            };
            forever(|| machine::kernel_binfmt(&platform))
        }
        "features" => forever(machine::features),
        "find-tool" => holding(|| (machine::find_tool(text), machine::find_tool("qemu")), |_| ()),
        _ => {}
    }
}

fn of_process(name: &str, process: &Process) {
    match name {
        "platform" => forever(|| process.platform()),
        "args" => forever(|| process.args()),
        "env" => forever(|| process.env()),
        "cwd" => forever(|| process.cwd()),
        "mounts" => forever(|| process.mounts()),
        "entry-format" => forever(|| process.entry_format()),
        "base-spec" => forever(|| process.base_spec()),
        "attrs" => forever(|| process.attrs()),
        _ => {}
    }
}

fn of_plan(name: &str, tool: &Tool, text: &str, attrs: &[(String, String)], data: &[u8]) {
    match name {
        "bind-tool" => {
            let target = format!("/{text}");
            plans(|plan| plan.bind_tool(tool, &target))
        }
        "binfmt-rule" => plans(|plan| plan.binfmt_rule(tool, data, data, text)),
        "personality" => plans(|plan| plan.personality(text)),
        "warn" => {
            let at = Span { source: 0, start: 0, end: 1 };
            let label = Label { at, text: text.to_owned(), primary: true };
            let diagnostic = Diagnostic {
                severity: Severity::Warning,
                code: Some(text.to_owned()),
                message: String::new(),
                labels: vec![label; 20],
                help: Some(text.to_owned()),
                url: Some(text.to_owned()),
                attrs: Vec::new(),
            };
            plans(|plan| plan.warn(&diagnostic))
        }
        "attrs" => plans(|plan| plan.attrs(attrs)),
        _ => {}
    }
}
