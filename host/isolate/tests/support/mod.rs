//! The same plugins in this process and in others, and made for each version of WIT: which, is a
//! property of the test's thread.

#![allow(dead_code, missing_docs)]

#[path = "versions.rs"]
pub mod versions;

use std::cell::Cell;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use wbuild_api::extension::{CachePlugin, Frontend, Runner};
use wbuild_graph::Failure;
use wbuild_isolate::confine::WithoutLandlock;
use wbuild_isolate::{Isolator, Program};
use wbuild_plugin::Plugin;

thread_local! {
    static ISOLATED: Cell<bool> = const { Cell::new(false) };
}

/// Children are the program of these tests.
pub fn isolator() -> Isolator {
    Isolator::new(program("plugin"))
}

pub fn program(subcommand: &str) -> Program {
    Program {
        exe: env!("CARGO_BIN_EXE_isolate-child").into(),
        // What is tried must hold on any kernel; `confinement.rs` tells them apart.
        without_landlock: WithoutLandlock::Accept,
        ..Program::this(subcommand)
    }
}

pub fn isolated() -> bool {
    ISOLATED.get()
}

/// Has a test run with its plugins in this process or in others, those of each version.
pub fn with(isolated: bool, test: impl FnMut()) {
    ISOLATED.set(isolated);
    versions::each(test);
}

/// Gives up a future: after so many polls, or, since one that waits for another process is polled
/// when there is something to do, after as many quarters of a millisecond.
pub async fn given_up<T>(future: impl Future<Output = T>, after: usize) -> Option<T> {
    if isolated() {
        let time = Duration::from_micros(250) * u32::try_from(after).expect("few");
        return tokio::time::timeout(time, future).await.ok();
    }
    crate::common::polls(future, after).await
}

/// A plugin where the test wants it.
pub trait Placed {
    fn frontend_there(&self) -> Result<Arc<dyn Frontend>, Failure>;
    fn runner_there(&self) -> Result<Arc<dyn Runner>, Failure>;
    fn cache_there(&self) -> Result<Arc<dyn CachePlugin>, Failure>;
}

impl Placed for Plugin {
    fn frontend_there(&self) -> Result<Arc<dyn Frontend>, Failure> {
        if isolated() { isolator().frontend(self) } else { self.frontend() }
    }
    fn runner_there(&self) -> Result<Arc<dyn Runner>, Failure> {
        if isolated() { isolator().runner(self) } else { self.runner() }
    }
    fn cache_there(&self) -> Result<Arc<dyn CachePlugin>, Failure> {
        if isolated() { isolator().cache(self) } else { self.cache() }
    }
}

/// Each test twice: with plugins in this process, and in processes of their own.
#[macro_export]
macro_rules! both {
    ($($name:ident),* $(,)?) => {
        mod in_process {
            $(#[test] fn $name() { $crate::support::with(false, super::$name); })*
        }
        mod isolated {
            $(#[test] fn $name() { $crate::support::with(true, super::$name); })*
        }
    };
}
