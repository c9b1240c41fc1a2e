use proptest::prelude::*;
use serde_json::json;
use wbuild_graph::op::Ulimit;

use super::*;
use crate::spec::{ExecSpec, MountKind, MountSpec, base as base_spec};

fn base() -> Spec {
    let mut exec = ExecSpec::new(vec!["/bin/sh".into(), "-c".into(), "make".into()]);
    exec.env = vec![("PATH".into(), "/bin".into()), ("HOME".into(), "/root".into())];
    exec.user.additional_gids = vec![5, 6];
    exec.ulimits = vec![Ulimit { name: "nofile".into(), soft: 100, hard: 200 }];
    let slot = |target: &str, slot, readonly| MountSpec {
        target: target.into(),
        kind: MountKind::Slot { slot, readonly },
    };
    exec.mounts = vec![
        slot("/src", 1, true),
        slot("/src/out", 2, false),
        slot("/cache", 3, false),
        MountSpec { target: "/t".into(), kind: MountKind::Tmpfs { size: Some(1), mode: None } },
    ];
    let mut spec = base_spec(&exec).unwrap();
    spec.set_annotations(Some([("other".to_owned(), "x".to_owned())].into()));
    spec
}

fn grants() -> Grants {
    Grants {
        tools: ["qemu".to_owned()].into(),
        bound: ["/bound/tool".to_owned()].into(),
        env: ["QEMU_CPU".to_owned()].into(),
    }
}

fn edit(change: impl FnOnce(&mut Value)) -> Result<Plan, Failure> {
    let mut value = to_json(&base());
    change(&mut value);
    clamp(&base(), &value.to_string(), &grants())
}

fn at<'a>(value: &'a mut Value, path: &str) -> &'a mut Value {
    value.pointer_mut(path).unwrap_or_else(|| panic!("no {path}"))
}

fn list<'a>(value: &'a mut Value, path: &str) -> &'a mut Vec<Value> {
    at(value, path).as_array_mut().unwrap()
}

fn mount_index(value: &Value, target: &str) -> usize {
    value["mounts"].as_array().unwrap().iter().position(|m| m["destination"] == target).unwrap()
}

const TOOL: &str = r#"{"destination":"/.wbuild/qemu","type":"bind","source":"tool:qemu","options":["rbind","ro","nosuid"]}"#;

#[test]
fn accepts_the_base_and_what_makes_it_stricter() {
    assert_eq!(to_json(&edit(|_| {}).unwrap().spec), to_json(&base()));
    let plan = edit(|v| {
        *at(v, "/process/noNewPrivileges") = json!(true);
        *at(v, "/root/readonly") = json!(true);
        list(v, "/process/capabilities/bounding").retain(|c| c != "CAP_MKNOD");
        *at(v, "/process/capabilities/effective") = json!([]);
        list(v, "/linux/maskedPaths").push(json!("/proc/cpuinfo"));
        list(v, "/linux/readonlyPaths").push(json!("/usr"));
        *at(v, "/process/rlimits/0/soft") = json!(50);
        at(v, "/annotations")["org.wbuild.how"] = json!("emulated");
        list(v, "/process/env").push(json!("QEMU_CPU=max"));
        let i = mount_index(v, "/cache");
        v["mounts"][i]["options"] = json!(["rbind", "rprivate", "ro", "noexec"]);
        let cache = list(v, "/mounts").remove(i);
        list(v, "/mounts").push(cache);
    })
    .unwrap();
    assert_eq!(plan.spec.root().as_ref().unwrap().readonly(), Some(true));
    assert!(plan.tools.is_empty());
}

#[test]
fn accepts_a_granted_tool_in_front_of_the_command() {
    let plan = edit(|v| {
        list(v, "/mounts").push(serde_json::from_str(TOOL).unwrap());
        let args = list(v, "/process/args");
        args.insert(0, json!("/.wbuild/qemu"));
        args.insert(1, json!("-0"));
        args.insert(2, json!("/bin/sh"));
    })
    .unwrap();
    assert_eq!(plan.tools, [("qemu".to_owned(), "/.wbuild/qemu".to_owned())]);
    assert!(edit(|v| list(v, "/process/args").insert(0, json!("/bound/tool"))).is_ok());
}

#[test]
fn a_guest_may_write_nulls_and_leave_out_what_is_empty() {
    edit(|v| {
        v["hooks"] = Value::Null;
        v["windows"] = Value::Null;
        at(v, "/process/capabilities").as_object_mut().unwrap().shift_remove("ambient");
        at(v, "/process").as_object_mut().unwrap().shift_remove("noNewPrivileges");
    })
    .unwrap();
}

#[test]
fn refuses_what_adds_privileges() {
    type Edit = fn(&mut Value);
    let cases: &[(&str, Edit)] = &[
        ("args dropped", |v| drop(list(v, "/process/args").pop())),
        ("args reordered", |v| list(v, "/process/args").swap(0, 1)),
        ("args ungranted prefix", |v| list(v, "/process/args").insert(0, json!("/bin/evil"))),
        ("args appended", |v| list(v, "/process/args").push(json!("x"))),
        ("args removed", |v| drop(at(v, "/process").as_object_mut().unwrap().shift_remove("args"))),
        ("env foreign", |v| list(v, "/process/env").push(json!("LD_PRELOAD=/x"))),
        ("env overridden", |v| list(v, "/process/env").push(json!("PATH=/x"))),
        ("env twice", |v| {
            list(v, "/process/env").extend([json!("QEMU_CPU=a"), json!("QEMU_CPU=b")])
        }),
        ("env dropped", |v| drop(list(v, "/process/env").pop())),
        ("env reordered", |v| list(v, "/process/env").swap(0, 1)),
        ("env nameless", |v| list(v, "/process/env").push(json!("QEMU_CPU"))),
        ("cwd", |v| *at(v, "/process/cwd") = json!("/proc/self/fd/7")),
        ("uid", |v| *at(v, "/process/user/uid") = json!(1)),
        ("gids", |v| list(v, "/process/user/additionalGids").push(json!(0))),
        ("umask", |v| at(v, "/process/user")["umask"] = json!(0)),
        ("capability", |v| list(v, "/process/capabilities/effective").push(json!("CAP_SYS_ADMIN"))),
        ("ambient", |v| at(v, "/process/capabilities")["ambient"] = json!(["CAP_CHOWN"])),
        ("new set", |v| at(v, "/process/capabilities")["special"] = json!(["CAP_SYS_ADMIN"])),
        ("no capabilities at all", |v| {
            drop(at(v, "/process").as_object_mut().unwrap().shift_remove("capabilities"))
        }),
        ("rlimit raised", |v| *at(v, "/process/rlimits/0/hard") = json!(201)),
        ("rlimit negative", |v| *at(v, "/process/rlimits/0/hard") = json!(-1)),
        ("rlimit dropped", |v| {
            drop(at(v, "/process").as_object_mut().unwrap().shift_remove("rlimits"))
        }),
        ("rlimit type", |v| *at(v, "/process/rlimits/0/type") = json!("RLIMIT_CORE")),
        ("terminal", |v| *at(v, "/process/terminal") = json!(true)),
        ("oom", |v| at(v, "/process")["oomScoreAdj"] = json!(-1000)),
        ("apparmor", |v| at(v, "/process")["apparmorProfile"] = json!("unconfined")),
        ("selinux", |v| at(v, "/process")["selinuxLabel"] = json!("x")),
        ("root path", |v| *at(v, "/root/path") = json!("/")),
        ("hooks", |v| v["hooks"] = json!({"prestart": [{"path": "/bin/sh"}]})),
        ("empty hooks", |v| v["hooks"] = json!({})),
        ("annotation", |v| at(v, "/annotations")["run.oci.handler"] = json!("wasm")),
        ("annotation changed", |v| at(v, "/annotations")["other"] = json!("y")),
        ("annotation dropped", |v| {
            drop(at(v, "/annotations").as_object_mut().unwrap().shift_remove("other"))
        }),
        ("annotation no string", |v| at(v, "/annotations")["org.wbuild.x"] = json!({"a": 1})),
        ("namespace dropped", |v| drop(list(v, "/linux/namespaces").pop())),
        ("namespace joined", |v| at(v, "/linux/namespaces/0")["path"] = json!("/proc/1/ns/pid")),
        ("namespace added", |v| list(v, "/linux/namespaces").push(json!({"type": "network"}))),
        ("device", |v| {
            at(v, "/linux")["devices"] =
                json!([{"path": "/dev/sda", "type": "b", "major": 8, "minor": 0}])
        }),
        ("resources", |v| at(v, "/linux")["resources"] = json!({"devices": [{"allow": true}]})),
        ("cgroup", |v| at(v, "/linux")["cgroupsPath"] = json!("/")),
        ("uid map", |v| {
            at(v, "/linux")["uidMappings"] = json!([{"hostID": 0, "containerID": 0, "size": 1}])
        }),
        ("propagation", |v| at(v, "/linux")["rootfsPropagation"] = json!("shared")),
        ("sysctl", |v| at(v, "/linux")["sysctl"] = json!({"kernel.core_pattern": "|/x"})),
        ("personality", |v| at(v, "/linux")["personality"] = json!({"domain": "LINUX32"})),
        ("masked dropped", |v| drop(list(v, "/linux/maskedPaths").pop())),
        ("masked odd", |v| list(v, "/linux/maskedPaths").push(json!("../../etc"))),
        ("readonly emptied", |v| *at(v, "/linux/readonlyPaths") = json!([])),
        ("seccomp dropped", |v| {
            drop(at(v, "/linux").as_object_mut().unwrap().shift_remove("seccomp"))
        }),
        ("seccomp default", |v| *at(v, "/linux/seccomp/defaultAction") = json!("SCMP_ACT_ALLOW")),
        ("seccomp name", |v| list(v, "/linux/seccomp/syscalls/0/names").push(json!("mount"))),
        ("mount dropped", |v| drop(list(v, "/mounts").pop())),
        ("mount added", |v| {
            list(v, "/mounts").push(
                json!({"destination": "/h", "type": "bind", "source": "/", "options": ["rbind"]}),
            )
        }),
        ("mount doubled", |v| {
            let m = v["mounts"][7].clone();
            list(v, "/mounts").push(m)
        }),
        ("mount source", |v| {
            let i = mount_index(v, "/src");
            v["mounts"][i]["source"] = json!("/")
        }),
        ("mount source slot", |v| {
            let i = mount_index(v, "/src");
            v["mounts"][i]["source"] = json!("slot:2")
        }),
        ("mount target", |v| {
            let i = mount_index(v, "/src");
            v["mounts"][i]["destination"] = json!("/etc")
        }),
        ("mount type", |v| {
            let i = mount_index(v, "/src");
            v["mounts"][i]["type"] = json!("overlay")
        }),
        ("mount ro to rw", |v| {
            let i = mount_index(v, "/src");
            v["mounts"][i]["options"] = json!(["rbind", "rprivate", "rw"])
        }),
        ("mount ro dropped", |v| {
            let i = mount_index(v, "/src");
            v["mounts"][i]["options"] = json!(["rbind", "rprivate"])
        }),
        ("mount ro undone", |v| {
            let i = mount_index(v, "/src");
            list(v, &format!("/mounts/{i}/options")).push(json!("rw"))
        }),
        ("mount nosuid dropped", |v| {
            let i = mount_index(v, "/proc");
            v["mounts"][i]["options"] = json!(["noexec", "nodev"])
        }),
        ("mount option shared", |v| {
            let i = mount_index(v, "/src");
            list(v, &format!("/mounts/{i}/options")).push(json!("rshared"))
        }),
        ("mount option size", |v| {
            let i = mount_index(v, "/dev/shm");
            v["mounts"][i]["options"][4] = json!("size=1t")
        }),
        ("mount mappings", |v| {
            let i = mount_index(v, "/src");
            v["mounts"][i]["uidMappings"] = json!([]);
            v["mounts"][i]["gidMappings"] = json!([{"hostID": 0, "containerID": 0, "size": 1}])
        }),
        ("mounts swapped, nested", |v| {
            let (a, b) = (mount_index(v, "/src"), mount_index(v, "/src/out"));
            list(v, "/mounts").swap(a, b)
        }),
        ("mounts swapped, system", |v| {
            let (a, b) = (mount_index(v, "/dev"), mount_index(v, "/dev/shm"));
            list(v, "/mounts").swap(a, b)
        }),
        ("tool ungranted", |v| {
            list(v, "/mounts")
                .push(serde_json::from_str(&TOOL.replace("tool:qemu", "tool:sh")).unwrap())
        }),
        ("tool writable", |v| {
            list(v, "/mounts").push(serde_json::from_str(&TOOL.replace("\"ro\",", "")).unwrap())
        }),
        ("tool undone", |v| {
            list(v, "/mounts")
                .push(serde_json::from_str(&TOOL.replace("\"ro\"", "\"ro\",\"rw\"")).unwrap())
        }),
        ("tool over root", |v| {
            list(v, "/mounts")
                .push(serde_json::from_str(&TOOL.replace("/.wbuild/qemu", "/")).unwrap())
        }),
        ("tool over proc", |v| {
            list(v, "/mounts")
                .push(serde_json::from_str(&TOOL.replace("/.wbuild/qemu", "/proc/sys")).unwrap())
        }),
        ("tool over etc", |v| {
            list(v, "/mounts")
                .push(serde_json::from_str(&TOOL.replace("/.wbuild/qemu", "/etc/passwd")).unwrap())
        }),
        ("tool dotted", |v| {
            list(v, "/mounts").push(
                serde_json::from_str(&TOOL.replace("/.wbuild/qemu", "/x/../etc/passwd")).unwrap(),
            )
        }),
        ("tool over a mount", |v| {
            list(v, "/mounts")
                .push(serde_json::from_str(&TOOL.replace("/.wbuild/qemu", "/src/x")).unwrap())
        }),
        ("tool above a mount", |v| {
            list(v, "/mounts")
                .push(serde_json::from_str(&TOOL.replace("/.wbuild/qemu", "/cache")).unwrap())
        }),
        ("tool type", |v| {
            list(v, "/mounts")
                .push(serde_json::from_str(&TOOL.replace("\"bind\"", "\"overlay\"")).unwrap())
        }),
        ("tool field", |v| {
            list(v, "/mounts").push(
                serde_json::from_str(&TOOL.replace("\"type\"", "\"uidMappings\":[],\"type\""))
                    .unwrap(),
            )
        }),
        ("unknown at the top", |v| v["zos2"] = json!({})),
        ("unknown in process", |v| {
            at(v, "/process")["ioPriority"] = json!({"class": "IOPRIO_CLASS_RT"})
        }),
        ("unknown in linux", |v| at(v, "/linux")["timeOffsets"] = json!({})),
        ("hostname", |v| v["hostname"] = json!("h")),
        ("version", |v| v["ociVersion"] = json!("9.9.9")),
        ("linux dropped", |v| drop(v.as_object_mut().unwrap().shift_remove("linux"))),
        ("not an object", |v| *v = json!([])),
    ];
    for (name, change) in cases {
        match edit(change) {
            Err(failure) => assert_eq!(failure.kind, FailureKind::Denied, "{name}: {failure}"),
            Ok(_) => panic!("{name} was accepted"),
        }
    }
}

#[test]
fn refuses_what_is_no_spec() {
    assert_eq!(clamp(&base(), "{", &grants()).unwrap_err().kind, FailureKind::Invalid);
    let large = format!("\"{}\"", "x".repeat(SPEC_LIMIT));
    assert_eq!(clamp(&base(), &large, &grants()).unwrap_err().kind, FailureKind::Limit);
    let deep = "[".repeat(100_000);
    assert_eq!(clamp(&base(), &deep, &grants()).unwrap_err().kind, FailureKind::Invalid);
}

/// All places of a document.
fn places(value: &Value, path: String, out: &mut Vec<String>) {
    out.push(path.clone());
    match value {
        Value::Object(map) => {
            for (key, inner) in map {
                places(inner, format!("{path}/{}", key.replace('~', "~0").replace('/', "~1")), out);
            }
        }
        Value::Array(entries) => {
            for (i, inner) in entries.iter().enumerate() {
                places(inner, format!("{path}/{i}"), out);
            }
        }
        _ => {}
    }
}

/// An independent statement of "no more privileged than the base and the grants".
fn no_more_privileged(base: &Value, edited: &Value, grants: &Grants) -> bool {
    let set = |v: &Value, path: &str| -> BTreeSet<String> {
        v.pointer(path)
            .and_then(Value::as_array)
            .map(|l| l.iter().filter_map(|e| e.as_str().map(str::to_owned)).collect())
            .unwrap_or_default()
    };
    let same = |path: &str| base.pointer(path) == edited.pointer(path);
    let caps =
        ["bounding", "effective", "permitted", "inheritable", "ambient"].iter().all(|name| {
            let path = format!("/process/capabilities/{name}");
            set(edited, &path).is_subset(&set(base, &path))
        });
    let hidden = ["/linux/maskedPaths", "/linux/readonlyPaths"]
        .iter()
        .all(|path| set(edited, path).is_superset(&set(base, path)));
    let flags = ["/process/noNewPrivileges", "/root/readonly"].iter().all(|path| {
        let on = |v: &Value| v.pointer(path) == Some(&json!(true));
        on(edited) || !on(base)
    });
    let identical = [
        "/hostname",
        "/ociVersion",
        "/root/path",
        "/process/user",
        "/process/cwd",
        "/linux/namespaces",
        "/linux/seccomp",
        "/linux/uidMappings",
        "/linux/devices",
        "/linux/cgroupsPath",
        "/hooks",
        "/linux/rootfsPropagation",
        "/linux/sysctl",
        "/linux/resources",
    ]
    .iter()
    .all(|path| same(path));
    let sources = edited["mounts"].as_array().is_some_and(|mounts| {
        mounts.iter().all(|mount| {
            let source = mount["source"].as_str().unwrap_or("");
            let tool = source.strip_prefix("tool:").is_some_and(|t| grants.tools.contains(t));
            tool || base["mounts"].as_array().unwrap().iter().any(|original| {
                let ro = |m: &Value| {
                    m["options"].as_array().is_some_and(|o| {
                        o.iter().rev().find(|o| *o == "ro" || *o == "rw").is_some_and(|o| o == "ro")
                    })
                };
                original["source"] == mount["source"]
                    && original["destination"] == mount["destination"]
                    && original["type"] == mount["type"]
                    && (ro(mount) || !ro(original))
            })
        })
    });
    let env = set(edited, "/process/env")
        .difference(&set(base, "/process/env"))
        .all(|v| grants.env.contains(v.split('=').next().unwrap_or("")));
    let known = |pointer: &str| -> bool {
        let keys = |v: &Value| -> BTreeSet<String> {
            v.pointer(pointer)
                .and_then(Value::as_object)
                .map(|m| m.keys().cloned().collect())
                .unwrap_or_default()
        };
        keys(edited).is_subset(&keys(base))
    };
    caps && hidden
        && flags
        && identical
        && sources
        && env
        && known("")
        && known("/process")
        && known("/linux")
}

#[test]
fn every_field_mutated_alone_is_refused_or_harmless() {
    let original = to_json(&base());
    let mut all = Vec::new();
    places(&original, String::new(), &mut all);
    // The names of system calls are alike; a few stand for all.
    let tail = |path: &String| path.strip_prefix("/linux/seccomp/syscalls/0/names/")?.parse().ok();
    all.retain(|path| tail(path).is_none_or(|n: usize| n < 3));
    assert!(all.len() > 200, "{}", all.len());
    let mut accepted = Vec::new();
    for path in &all {
        let old = original.pointer(path).unwrap();
        let mut values = vec![
            json!(null),
            json!(true),
            json!(false),
            json!(0),
            json!(99999),
            json!("x"),
            json!([]),
            json!({}),
            json!(["CAP_SYS_ADMIN"]),
        ];
        if let Value::Array(list) = old {
            let mut longer = list.clone();
            longer.extend(list.first().cloned());
            values.push(Value::Array(longer));
            if !list.is_empty() {
                values.push(Value::Array(list[1..].to_vec()));
                values.push(Value::Array(list.iter().rev().cloned().collect()));
            }
        }
        if let Value::Object(map) = old {
            let mut more = map.clone();
            more.insert("zzz".into(), json!("zzz"));
            values.push(Value::Object(more));
        }
        for new in values.into_iter().filter(|new| new != old) {
            let mut edited = original.clone();
            if path.is_empty() {
                edited = new.clone()
            } else {
                *at(&mut edited, path) = new.clone()
            }
            if let Ok(plan) = clamp(&base(), &edited.to_string(), &grants()) {
                assert!(
                    no_more_privileged(&original, &to_json(&plan.spec), &grants()),
                    "{path} = {new}"
                );
                accepted.push(format!("{path} = {new}"));
            }
        }
    }
    // What is accepted lies in the few places the table names.
    for entry in &accepted {
        assert!(
            [
                "/process/capabilities",
                "/process/noNewPrivileges",
                "/root/readonly",
                "/process/rlimits/",
                "/linux/maskedPaths",
                "/linux/readonlyPaths",
                "/annotations",
            ]
            .iter()
            .any(|place| entry.starts_with(place))
                || entry.starts_with("/mounts/") && entry.contains("/options = "),
            "{entry}"
        );
    }
}

#[derive(Clone, Debug)]
enum Change {
    Set(prop::sample::Index, Value),
    Remove(prop::sample::Index),
    Append(prop::sample::Index, Value),
    Insert(prop::sample::Index, String, Value),
    Swap(prop::sample::Index, prop::sample::Index, prop::sample::Index),
}

fn any_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|b| json!(b)),
        any::<i64>().prop_map(|n| json!(n)),
        Just(json!("CAP_SYS_ADMIN")),
        Just(json!("ro")),
        Just(json!("rw")),
        Just(json!("/proc")),
        Just(json!("/proc/cpuinfo")),
        Just(json!("QEMU_CPU=1")),
        Just(json!("/bound/tool")),
        Just(json!("slot:3")),
        Just(
            json!({"destination": "/tool", "type": "bind", "source": "tool:qemu", "options": ["rbind", "ro"]})
        ),
        Just(json!({"type": "network"})),
        Just(json!([])),
        Just(json!({})),
        "[a-z/]{0,6}".prop_map(|s| json!(s)),
    ]
}

fn any_change() -> impl Strategy<Value = Change> {
    let index = any::<prop::sample::Index>;
    let key = prop_oneof![
        Just("hooks"),
        Just("org.wbuild.x"),
        Just("readonly"),
        Just("oomScoreAdj"),
        Just("source"),
        Just("ambient"),
        Just("devices"),
    ];
    prop_oneof![
        (index(), any_value()).prop_map(|(i, v)| Change::Set(i, v)),
        index().prop_map(Change::Remove),
        (index(), any_value()).prop_map(|(i, v)| Change::Append(i, v)),
        (index(), key, any_value()).prop_map(|(i, k, v)| Change::Insert(i, k.to_owned(), v)),
        (index(), index(), index()).prop_map(|(i, a, b)| Change::Swap(i, a, b)),
    ]
}

fn apply(document: &mut Value, change: Change) {
    let mut all = Vec::new();
    places(document, String::new(), &mut all);
    // Rules of system calls are most of the document; look elsewhere most of the time.
    all.retain(|path| !path.starts_with("/linux/seccomp/syscalls/0/names/"));
    let of_kind = |document: &Value, want: fn(&Value) -> bool| -> Vec<String> {
        all.iter().filter(|path| document.pointer(path).is_some_and(want)).cloned().collect()
    };
    match change {
        Change::Set(i, v) => *at(document, i.get::<String>(&all)) = v,
        Change::Remove(i) => {
            let path = i.get::<String>(&all).clone();
            let Some((parent, key)) = path.rsplit_once('/') else { return };
            match at(document, parent) {
                Value::Object(map) => {
                    drop(map.shift_remove(&key.replace("~1", "/").replace("~0", "~")))
                }
                Value::Array(list) => drop(list.remove(key.parse().unwrap())),
                _ => {}
            }
        }
        Change::Append(i, v) => {
            let lists = of_kind(document, Value::is_array);
            if !lists.is_empty() {
                list(document, i.get::<String>(&lists)).push(v);
            }
        }
        Change::Insert(i, k, v) => {
            let maps = of_kind(document, Value::is_object);
            if !maps.is_empty() {
                at(document, i.get::<String>(&maps))[k.as_str()] = v;
            }
        }
        Change::Swap(i, a, b) => {
            let lists = of_kind(document, Value::is_array);
            if !lists.is_empty() {
                let list = list(document, i.get::<String>(&lists));
                if !list.is_empty() {
                    let (a, b) = (a.index(list.len()), b.index(list.len()));
                    list.swap(a, b);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn random_edits_never_gain_privileges(changes in proptest::collection::vec(any_change(), 1..4)) {
        let original = to_json(&base());
        let mut edited = original.clone();
        for change in changes {
            apply(&mut edited, change);
        }
        if let Ok(plan) = clamp(&base(), &edited.to_string(), &grants()) {
            prop_assert!(no_more_privileged(&original, &to_json(&plan.spec), &grants()), "{edited}");
        }
    }
}
