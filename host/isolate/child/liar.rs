//! A child that has been taken over: it speaks the protocol and says what no guest could.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;

use serde_json::{Value, json};

/// Calls of a capability that go on until the parent has had enough.
const FLOOD: usize = 100_000;

fn frontend(call: Value) -> Value {
    json!({"Call": {"Frontend": call}})
}

/// What is said, in order.
fn lies(behaviour: &str) -> Vec<Value> {
    let exec = |attrs: Value, capture: Value| {
        let platform = json!({"os": "linux", "architecture": "amd64"});
        let bind = json!({"bind": {"source": null, "subpath": "", "access": "ro"}});
        let op = json!({"exec": {
            "args": ["x"], "env": [], "volatile_env": [], "cwd": "/", "user": "", "hostname": "",
            "platform": platform, "network": "sandbox", "security": "sandbox", "add_hosts": [],
            "ulimits": [], "devices": [], "resources": [], "valid_exit_codes": [],
            "capture": capture, "mounts": [{"target": "/", "kind": bind}], "secret_env": [],
            "attrs": attrs,
        }});
        frontend(json!({"Insert": [op, []]}))
    };
    let diagnostic = json!({
        "severity": "note", "code": null, "message": "x", "labels": [], "help": null, "url": null,
        "attrs": [],
    });
    let plan = |spec: Value, tools: Value, personality: Value| {
        json!({"Done": {"Ok": {"Plan": {
            "spec": spec, "tools": tools, "binfmt": [], "personality": personality, "warnings": [],
            "attrs": [],
        }}}})
    };
    match behaviour {
        "nested" => vec![frontend(json!({"Nested": []}))],
        "other-kind" => vec![json!({"Call": {"Cache": {"KvClear": "x"}}})],
        "no-message" => vec![json!({"Call": {"Frontend": {"Escape": []}}})],
        "unknown-key" => vec![exec(json!([["client", "1"]]), json!(null))],
        "capture" => vec![exec(json!([]), json!(99_000_000))],
        "good-exec" => vec![exec(json!([]), json!(null)), json!({"Done": {"Ok": "Nothing"}})],
        "forged-edge" => {
            let edge = json!({"node": 999, "index": 0});
            vec![frontend(json!({"Require": edge})), json!({"Done": {"Ok": "Nothing"}})]
        }
        "diagnostics" => vec![frontend(json!({"Report": diagnostic})); FLOOD],
        "log" => {
            let mut all = vec![json!({"Call": {"Log": ["note", "x".repeat(100_000)]}}); 1000];
            all.push(json!({"Done": {"Ok": "Nothing"}}));
            all
        }
        "other-answer" => vec![json!({"Done": {"Ok": {"Each": []}}})],
        "names" => {
            let border = json!({"imports": vec!["x"; 2000], "exports": [], "manifest": null});
            vec![json!({"Done": {"Ok": {"Border": border}}})]
        }
        "failure" => vec![json!({"Done": {"Err": {
            "kind": "gone", "message": "x".repeat(1_000_000), "causes": [], "hints": [],
            "retryable": false, "diagnostics": [], "attrs": [],
        }}})],
        "spec" => vec![plan(json!("{\"hooks\":1}"), json!([]), json!(null))],
        "tool" => vec![plan(json!(null), json!([["qemu", "/q"]]), json!(null))],
        "personality" => vec![plan(json!(null), json!([]), json!("vax"))],
        "clamp-tool" => vec![json!({"Call": {"Runner": {"Clamp": ["{}", ["qemu"]]}}})],
        "bucket" => vec![json!({"Call": {"Cache": {"KvOpen": "../x"}}})],
        "unopened" => vec![json!({"Call": {"Cache": {"KvClear": "records"}}})],
        "repository" => vec![json!({"Call": {"Cache": {"Resolve": "latest"}}})],
        "http" => vec![json!({"Call": {"Cache": {"HttpForget": 1}}})],
        _ => Vec::new(),
    }
}

pub fn main(behaviour: &str) -> i32 {
    let Ok(socket) = std::io::stdin().as_fd().try_clone_to_owned() else { return 2 };
    let mut socket = File::from(socket);
    let say = |socket: &mut File, body: &[u8]| {
        let length = u32::try_from(body.len()).expect("short").to_le_bytes();
        socket.write_all(&[&length, body].concat()).is_ok()
    };
    let hear = |socket: &mut File| {
        let mut head = [0; 4];
        socket.read_exact(&mut head).ok()?;
        let mut body = vec![0; u32::from_le_bytes(head) as usize];
        socket.read_exact(&mut body).ok()
    };
    if hear(&mut socket).is_none() {
        return 2;
    }
    match behaviour {
        "length" => drop(socket.write_all(&[0xff; 100])),
        "garbage" => drop(say(&mut socket, &[0xc1; 100])),
        "grows" => {
            let mut body = vec![0xdd, 0, 0x98, 0x96, 0x80];
            body.resize(body.len() + 10_000_000, 0x90);
            say(&mut socket, &body);
        }
        "silent" => {
            // Until it is ended.
            let mut rest = Vec::new();
            let _ = socket.read_to_end(&mut rest);
        }
        "segv" | "closes" => return 7,
        _ => {}
    }
    for lie in lies(behaviour) {
        let body = rmp_serde::to_vec_named(&lie).expect("a value");
        if !say(&mut socket, &body) {
            return 0;
        }
        if lie.get("Call").is_some() && hear(&mut socket).is_none() {
            return 0;
        }
    }
    // Nothing it does is believed, so it stays until it is ended.
    let mut rest = Vec::new();
    let _ = socket.read_to_end(&mut rest);
    0
}
