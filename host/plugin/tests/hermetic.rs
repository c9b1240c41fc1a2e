//! Components whose runtimes use WASI: they run, and see the same everywhere.
//!
//! The components are core modules of the kind that compilers for WASI make, joined with the adapter
//! that those compilers join theirs with: what is linked are its real imports.

mod common;

use std::path::Path;
use std::sync::Arc;

use common::*;
use wasi_preview1_component_adapter_provider as adapter;
use wbuild_graph::{Failure, FailureKind};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

/// A frontend whose `build` runs `body`. `$say` writes a line to standard error: each byte of memory
/// from one address on as two letters.
fn component(body: &str) -> Vec<u8> {
    let text = format!(
        r#"(module
        (import "wasi_snapshot_preview1" "fd_write"
            (func $fd_write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_read"
            (func $fd_read (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "clock_time_get"
            (func $clock (param i32 i64 i32) (result i32)))
        (import "wasi_snapshot_preview1" "random_get"
            (func $random (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "environ_sizes_get"
            (func $environ (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "args_sizes_get"
            (func $args (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "fd_prestat_get"
            (func $prestat (param i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (import "wasi_snapshot_preview1" "poll_oneoff"
            (func $poll (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (func $line (param $address i32) (param $length i32)
            (i32.store (i32.const 1024) (local.get $address))
            (i32.store (i32.const 1028) (local.get $length))
            (drop (call $fd_write
                (i32.const 2) (i32.const 1024) (i32.const 1) (i32.const 1032))))
        (func $say (param $address i32) (param $length i32)
            (local $n i32) (local $byte i32) (local $out i32)
            (local.set $out (i32.const 4096))
            (loop $next
                (local.set $byte
                    (i32.load8_u (i32.add (local.get $address) (local.get $n))))
                (i32.store8 (local.get $out)
                    (i32.add (i32.const 97) (i32.shr_u (local.get $byte) (i32.const 4))))
                (i32.store8 (i32.add (local.get $out) (i32.const 1))
                    (i32.add (i32.const 97) (i32.and (local.get $byte) (i32.const 15))))
                (local.set $out (i32.add (local.get $out) (i32.const 2)))
                (local.set $n (i32.add (local.get $n) (i32.const 1)))
                (br_if $next (i32.lt_u (local.get $n) (local.get $length))))
            (i32.store8 (local.get $out) (i32.const 10))
            (call $line (i32.const 4096)
                (i32.add (i32.mul (local.get $length) (i32.const 2)) (i32.const 1))))
        (func (export "wbuild:frontend/build@0.1.0#build") (result i32)
            {body}
            (i32.store8 (i32.const 2048) (i32.const 0))
            (i32.const 2048))
        (func (export "cabi_post_wbuild:frontend/build@0.1.0#build") (param i32))
        (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
            (i32.shl
                (memory.grow
                    (i32.shr_u (i32.add (local.get 3) (i32.const 65535)) (i32.const 16)))
                (i32.const 16))))"#
    );
    let mut module = wat(&text);
    let mut resolve = Resolve::default();
    let mut world = None;
    for package in ["types", "frontend"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join(format!("../../wit/{package}/{package}.wit"));
        let text = std::fs::read_to_string(&path).expect("the package");
        let id = resolve.push_str(&path, &text).expect("it is WIT");
        world = resolve.packages[id].worlds.get("frontend").copied().or(world);
    }
    let world = world.expect("the world of frontends");
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false)
        .expect("embedded");
    let mut encoder = ComponentEncoder::default();
    encoder.module(&module).expect("a module");
    let bytes = adapter::WASI_SNAPSHOT_PREVIEW1_REACTOR_ADAPTER;
    encoder.adapter(adapter::WASI_SNAPSHOT_PREVIEW1_ADAPTER_NAME, bytes).expect("the adapter");
    encoder.validate(true).encode().expect("a component")
}

/// Runs a component and answers what it said.
fn said(component: &[u8], world: &Arc<World>) -> (Result<(), Failure>, Vec<String>) {
    let plugin = host().load("x", component.to_vec()).expect("it loads");
    let frontend = plugin.frontend().expect("a frontend");
    let result = run(frontend.build(world.host()));
    let log = world.log.lock().expect("lock");
    (result, log.iter().map(|(_, text)| text.clone()).collect())
}

/// Time of day, monotonic clock twice, random bytes, sizes of environment and arguments.
const LOOKS: &str = "
    (drop (call $clock (i32.const 0) (i64.const 1) (i32.const 0)))
    (drop (call $clock (i32.const 1) (i64.const 1) (i32.const 8)))
    (drop (call $clock (i32.const 1) (i64.const 1) (i32.const 16)))
    (call $say (i32.const 0) (i32.const 24))
    (drop (call $random (i32.const 0) (i32.const 16)))
    (call $say (i32.const 0) (i32.const 16))
    (drop (call $environ (i32.const 0) (i32.const 4)))
    (drop (call $args (i32.const 8) (i32.const 12)))
    (call $say (i32.const 0) (i32.const 16))";

#[test]
fn two_runs_see_the_same_and_nothing_of_the_machine() {
    let component = component(LOOKS);
    let (result, one) = said(&component, &World::new("from a", &[]));
    result.expect("it builds");
    assert_eq!(one.len(), 3, "{one:?}");
    let (_, again) = said(&component, &World::new("from a", &[]));
    assert_eq!(one, again);
    // 1970; then a clock that has been asked once, and twice.
    let zero = "aa".repeat(8);
    assert_eq!(one[0], format!("{zero}ab{}ac{}", "aa".repeat(7), "aa".repeat(7)));
    assert_eq!(one[2], "aa".repeat(16), "no variables, no arguments");
    // Other input, other random bytes.
    let (_, other) = said(&component, &World::new("from b", &[]));
    assert_eq!(one[0], other[0]);
    assert_ne!(one[1], other[1]);
    assert_ne!(one[1], "aa".repeat(16));
}

#[test]
fn there_are_no_files_and_no_input() {
    let body = "
        (i32.store (i32.const 0) (call $prestat (i32.const 3) (i32.const 64)))
        (i32.store (i32.const 1024) (i32.const 64))
        (i32.store (i32.const 1028) (i32.const 16))
        (i32.store (i32.const 4)
            (call $fd_read (i32.const 0) (i32.const 1024) (i32.const 1) (i32.const 8)))
        (call $say (i32.const 0) (i32.const 12))";
    let (result, said) = said(&component(body), &World::new("", &[]));
    result.expect("it builds");
    // EBADF; success with nothing read.
    assert_eq!(said, [format!("ai{}{}", "aa".repeat(3), "aa".repeat(8))]);
}

/// A wait for one of two times, of which the second comes first; then for the other.
#[test]
fn waiting_moves_the_clock_to_what_is_due_first() {
    let subscription = |at: u32, name: u32, nanoseconds: u32| {
        format!(
            "(i64.store (i32.const {at}) (i64.const {name}))
            (i32.store (i32.const {}) (i32.const 1))
            (i64.store (i32.const {}) (i64.const {nanoseconds}))",
            at + 16,
            at + 24,
        )
    };
    let body = format!(
        "{}{}
        (drop (call $poll (i32.const 256) (i32.const 512) (i32.const 2) (i32.const 0)))
        (i32.store (i32.const 4) (i32.load (i32.const 512)))
        (drop (call $clock (i32.const 1) (i64.const 1) (i32.const 8)))
        (call $say (i32.const 0) (i32.const 10))
        (drop (call $poll (i32.const 256) (i32.const 512) (i32.const 1) (i32.const 0)))
        (drop (call $clock (i32.const 1) (i64.const 1) (i32.const 8)))
        (call $say (i32.const 8) (i32.const 2))",
        subscription(256, 1, 0x4000),
        subscription(304, 2, 0x1000),
    );
    let (result, said) = said(&component(&body), &World::new("", &[]));
    result.expect("it builds");
    // One event, the second's, after its time and the question; then the whole time of the other.
    assert_eq!(said, [format!("ab{}ac{}abba", "aa".repeat(3), "aa".repeat(3)), "acfa".to_owned()]);
}

#[test]
fn a_socket_is_denied_by_an_answer() {
    let text = wat_frontend(
        r#"(import "wasi:sockets/tcp-create-socket@0.2.3" (instance $tcp
            (export "tcp-socket" (type $socket (sub resource)))
            (type $code' (enum "unknown" "access-denied" "not-supported"))
            (export "error-code" (type $code (eq $code')))
            (export "create-tcp-socket" (func (result (result (own $socket) (error $code)))))))
        (core module $memory (memory (export "mem") 1))
        (core instance $memory (instantiate $memory))
        (core func $create
            (canon lower (func $tcp "create-tcp-socket") (memory (core memory $memory "mem"))))
        (core instance $host
            (export "create" (func $create)) (export "mem" (memory $memory "mem")))"#,
        r#"(import "h" "create" (func $create (param i32)))
        (import "h" "mem" (memory 1))
        (export "mem" (memory 0))
        (func (export "build") (result i32)
            (call $create (i32.const 64))
            (if (i32.ne (i32.load8_u (i32.const 64)) (i32.const 1)) (then unreachable))
            (if (i32.ne (i32.load8_u (i32.const 68)) (i32.const 1)) (then unreachable))
            i32.const 0)"#,
        r#"(with "h" (instance $host))"#,
    );
    let (result, _) = said(&wat(&text), &World::new("", &[]));
    result.expect("it goes on");
}

#[test]
fn a_program_that_ends_itself_is_a_failure() {
    let (result, said) = said(
        &component(
            "(i32.store (i32.const 0) (i32.const 0x0a_696368))
            (call $line (i32.const 0) (i32.const 3))
            (call $exit (i32.const 3))",
        ),
        &World::new("", &[]),
    );
    let failure = result.expect_err("it ended");
    assert_eq!(failure.kind, FailureKind::Internal);
    // The adapter knows only whether it is 0.
    assert_eq!(failure.message, "the frontend x ended its program instead of answering");
    // What it said last has no end of line, and is said all the same.
    assert_eq!(said, ["hci"]);
}

#[test]
fn what_is_not_of_the_profile_is_named_when_it_is_called() {
    let text = wat_frontend(
        r#"(import "wasi:sockets/instance-network@0.2.3" (instance $network
            (export "network" (type (sub resource)))
            (export "open-the-door" (func (result u32)))))
        (core func $open (canon lower (func $network "open-the-door")))
        (core instance $host (export "open" (func $open)))"#,
        r#"(import "h" "open" (func $open (result i32)))
        (memory (export "mem") 1)
        (func (export "build") (result i32) (drop (call $open)) i32.const 0)"#,
        r#"(with "h" (instance $host))"#,
    );
    let (result, _) = said(&wat(&text), &World::new("", &[]));
    let failure = result.expect_err("there is no such thing");
    assert_eq!(
        failure.message,
        "the frontend x called open-the-door of wasi:sockets/instance-network, which is not there for plugins"
    );
    assert_eq!(failure.kind, FailureKind::Denied);
}

#[test]
fn it_is_said_that_a_plugin_runs_in_the_profile() {
    let plugin = host().load("x", component(LOOKS)).expect("it loads");
    let info = run(plugin.inspect()).expect("it can be looked at");
    assert_eq!(info.refusal, None);
    assert!(info.abilities.contains(&"run in the hermetic WASI profile"), "{:?}", info.abilities);
}
