//! A runner that edits the launch plan as the job's variable `HOSTILE` says. The host's clamp must
//! refuse every edit but those marked `allowed`; the refusal is handed on.
//!
//! ```text
//! ok                 the base plan                                          allowed
//! same               the base spec, unchanged, through from-spec            allowed
//! drop-capability    removes one capability from every set                  allowed
//! add-capability     adds CAP_SYS_ADMIN to every set
//! add-hook           adds a prestart hook
//! host-mount         adds a bind mount of /
//! host-source        points the first mount that has a source to /etc
//! root-path          points the root to /
//! root-writable      sets root.readonly to false and adds nothing else
//! drop-namespace     removes the mount namespace
//! join-namespace     makes the pid namespace that of process 1
//! unmask-path        empties maskedPaths and readonlyPaths
//! privileged         noNewPrivileges off, seccomp gone, all devices
//! device             adds /dev/mem
//! cgroup             sets cgroupsPath to /
//! uid-map            maps container root to host root
//! user               runs as another user
//! args               replaces the program
//! drop-args          removes all arguments but the first
//! env                adds LD_PRELOAD
//! sysctl             sets kernel.core_pattern
//! apparmor           sets the profile to unconfined
//! terminal           asks for a terminal
//! unknown-field      adds a field that no spec has
//! not-json           passes text that is no JSON
//! huge               passes 64 MiB of JSON
//! deep               passes JSON nested 100,000 deep
//! ignore-refusal     tries add-hook, ignores the refusal, returns base      allowed
//! personality        asks for a personality nobody knows
//! trap, spin         as their names say
//! flood FUNCTION     calls it for ever, see [`flood`]
//! ```

mod flood;

mod bindings {
    // Generated: the component ABI is made of raw pointers.
    #![allow(unsafe_code, missing_docs)]
    wit_bindgen::generate!({
        path: ["../../../wit/types", "../../../wit/runner"],
        world: "wbuild:runner/runner",
        generate_all,
    });
    export!(Hostile with_types_in self);
    use super::Hostile;
}

use bindings::exports::wbuild::runner::planner::{Guest, Offer, Platform};
use bindings::wbuild::runner::plan::Plan;
use bindings::wbuild::runner::process::Process;
use bindings::wbuild::types::types::Failure;
use serde_json::{Value, json};

struct Hostile;

impl Guest for Hostile {
    fn supports(platforms: Vec<Platform>) -> Vec<Result<Offer, Failure>> {
        let offer = || Ok(Offer { rank: 0, how: "hostile".to_owned(), attrs: Vec::new() });
        platforms.iter().map(|_| offer()).collect()
    }

    fn make_plan(process: &Process) -> Result<Plan, Failure> {
        let env = process.env();
        let behaviour = env
            .iter()
            .rev()
            .find(|(name, _)| name == "HOSTILE")
            .map_or("ok", |(_, value)| value.as_str());
        if let Some(function) = behaviour.strip_prefix("flood ") {
            flood::flood(function, process);
            return Err(failure(&format!("no function is called {function:?}")));
        }
        let base = process.base_spec();
        match behaviour {
            "ok" => return Ok(Plan::base()),
            "same" => return Plan::from_spec(&base),
            "trap" => panic!("a hostile runner gives up"),
            "spin" => loop {
                std::hint::black_box(());
            },
            "not-json" => return Plan::from_spec("{\"ociVersion\":"),
            "huge" => return Plan::from_spec(&format!("{{\"x\":\"{}\"}}", "y".repeat(64 << 20))),
            "deep" => return Plan::from_spec(&"[".repeat(100_000)),
            "personality" => {
                let plan = Plan::base();
                plan.personality("linux128")?;
                return Ok(plan);
            }
            _ => {}
        }
        let mut spec: Value = serde_json::from_str(&base)
            .map_err(|error| failure(&format!("the base spec is not JSON: {error}")))?;
        if behaviour == "ignore-refusal" {
            edit(&mut spec, "add-hook");
            let _ = Plan::from_spec(&spec.to_string());
            return Ok(Plan::base());
        }
        if !edit(&mut spec, behaviour) {
            return Err(failure(&format!("no behaviour is called {behaviour:?}")));
        }
        Plan::from_spec(&spec.to_string())
    }
}

/// Makes one edit; false if there is none of that name.
fn edit(spec: &mut Value, behaviour: &str) -> bool {
    match behaviour {
        "drop-capability" => each_capability_set(spec, |set| {
            set.pop();
        }),
        "add-capability" => each_capability_set(spec, |set| set.push(json!("CAP_SYS_ADMIN"))),
        "add-hook" => {
            spec["hooks"] =
                json!({ "prestart": [{ "path": "/bin/sh", "args": ["sh", "-c", "id"] }] })
        }
        "host-mount" => {
            let mount = json!({ "destination": "/host", "source": "/", "type": "bind", "options": ["rbind", "rw"] });
            push(&mut spec["mounts"], mount);
        }
        "host-source" => {
            let mounts = spec["mounts"].as_array_mut();
            let sourced = mounts.into_iter().flatten().find(|mount| mount["source"].is_string());
            match sourced {
                Some(mount) => mount["source"] = json!("/etc"),
                None => push(
                    &mut spec["mounts"],
                    json!({ "destination": "/x", "source": "/etc", "type": "bind" }),
                ),
            }
        }
        "root-path" => spec["root"]["path"] = json!("/"),
        "root-writable" => {
            spec["root"]["readonly"] = json!(spec["root"]["readonly"] != json!(true))
        }
        "drop-namespace" => {
            if let Some(namespaces) = spec["linux"]["namespaces"].as_array_mut() {
                namespaces.retain(|namespace| namespace["type"] != "mount");
            }
        }
        "join-namespace" => {
            for namespace in spec["linux"]["namespaces"].as_array_mut().into_iter().flatten() {
                if namespace["type"] == "pid" {
                    namespace["path"] = json!("/proc/1/ns/pid");
                }
            }
        }
        "unmask-path" => {
            spec["linux"]["maskedPaths"] = json!([]);
            spec["linux"]["readonlyPaths"] = json!([]);
        }
        "privileged" => {
            spec["process"]["noNewPrivileges"] = json!(false);
            remove(&mut spec["linux"], "seccomp");
            spec["linux"]["resources"]["devices"] = json!([{ "allow": true, "access": "rwm" }]);
            each_capability_set(spec, |set| set.push(json!("CAP_SYS_ADMIN")));
        }
        "device" => {
            push(
                &mut spec["linux"]["devices"],
                json!({ "path": "/dev/mem", "type": "c", "major": 1, "minor": 1 }),
            );
        }
        "cgroup" => spec["linux"]["cgroupsPath"] = json!("/"),
        "uid-map" => {
            spec["linux"]["uidMappings"] = json!([{ "containerID": 0, "hostID": 0, "size": 1 }])
        }
        "user" => spec["process"]["user"] = json!({ "uid": 4242, "gid": 4242 }),
        "args" => spec["process"]["args"] = json!(["/bin/sh", "-c", "id"]),
        "drop-args" => {
            if let Some(args) = spec["process"]["args"].as_array_mut() {
                args.truncate(1);
                args.push(json!("--other"));
            }
        }
        "env" => push(&mut spec["process"]["env"], json!("LD_PRELOAD=/tmp/x.so")),
        "sysctl" => spec["linux"]["sysctl"]["kernel.core_pattern"] = json!("|/bin/sh"),
        "apparmor" => spec["process"]["apparmorProfile"] = json!("unconfined"),
        "terminal" => spec["process"]["terminal"] = json!(true),
        "unknown-field" => spec["linux"]["noSuchField"] = json!(1),
        _ => return false,
    }
    true
}

fn each_capability_set(spec: &mut Value, mut edit: impl FnMut(&mut Vec<Value>)) {
    for set in ["bounding", "effective", "inheritable", "permitted", "ambient"] {
        if let Some(set) = spec["process"]["capabilities"][set].as_array_mut() {
            edit(set);
        }
    }
}

fn push(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(list) => list.push(item),
        None => *list = json!([item]),
    }
}

fn remove(object: &mut Value, key: &str) {
    if let Some(object) = object.as_object_mut() {
        object.remove(key);
    }
}

fn failure(message: &str) -> Failure {
    Failure {
        kind: "invalid".to_owned(),
        message: message.to_owned(),
        retryable: false,
        diagnostics: Vec::new(),
        attrs: Vec::new(),
    }
}
