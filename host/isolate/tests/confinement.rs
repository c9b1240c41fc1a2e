//! A process that runs a plugin has nothing but its socket, whatever code runs in it.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};

const PROBES: &str = env!("CARGO_BIN_EXE_isolate-child");

fn probe(number: usize, mode: &str) -> (ExitStatus, String) {
    let output = Command::new(PROBES)
        .args(["probe", &number.to_string(), mode])
        .stdin(Stdio::null())
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert_ne!(output.status.code(), Some(3), "it could not be confined: {said}");
    (output.status, said.trim().to_owned())
}

/// Names of all attempts, in order.
fn names() -> Vec<String> {
    (0..).map(|n| probe(n, "name")).take_while(|(s, _)| s.success()).map(|(_, n)| n).collect()
}

/// Attempts that do no harm, and that anybody may make who is not confined.
const ALLOWED_ELSE: [&str; 14] = [
    "read a file",
    "write a file",
    "open a directory",
    "look at a file",
    "read a link",
    "a file in memory",
    "an internet socket",
    "a local socket",
    "a pair of sockets",
    "signal the parent",
    "memory that others see",
    "memory to write and run",
    "dump memory",
    "the machine's name",
];

#[test]
fn no_way_out_is_open() {
    let names = names();
    assert!(names.len() >= 45, "{} attempts", names.len());
    for (n, name) in names.iter().enumerate() {
        // Whoever makes a call that is not allowed makes no other.
        let (status, said) = probe(n, "confined");
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{name}: {status} {said}");
    }
    // The attempts are real: these succeed where nothing is confined.
    for wanted in ALLOWED_ELSE {
        let n = names.iter().position(|name| name == wanted).expect(wanted);
        assert_eq!(probe(n, "free").0.code(), Some(0), "{wanted}");
    }
}

#[test]
fn there_is_no_more_memory_than_was_allowed() {
    let memory = |mode: &str| {
        let mut probe = Command::new(PROBES);
        probe.args(["probe", "memory", mode]).stdin(Stdio::null());
        probe.status().expect("it starts").code()
    };
    assert_eq!(memory("free"), Some(0));
    assert_eq!(memory("confined"), Some(1), "64 MiB, and what the engine needs");
}

#[test]
fn files_are_out_of_reach_even_if_the_filter_had_a_hole() {
    let names = names();
    for wanted in ["read a file", "write a file", "open a directory"] {
        let n = names.iter().position(|name| name == wanted).expect(wanted);
        let output = Command::new(PROBES)
            .args(["probe", &n.to_string(), "landlock"])
            .stdin(Stdio::null())
            .output()
            .expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.code() == Some(3) && said.contains("the kernel does not have it") {
            eprintln!("skipped: this kernel has no Landlock");
            return;
        }
        assert_eq!(output.status.code(), Some(1), "{wanted}: {said}");
        assert_eq!(probe(n, "free").0.code(), Some(0), "{wanted} is possible else");
    }
}
