//! What plugins cost: compiling, loading, starting, a graph, a plan, a look-up; with the host's side in
//! memory. On an idle machine:
//!
//! ```text
//! cargo bench --profile dev --bench plugins -- [FILE.wasm=DEFINITION …]
//! ```
//!
//! measures the bundled `steps`, `native` and `cache-local`, and each frontend that is named with a
//! definition for it (what `wbuild plugin build` makes of templates and their `example/definition`, say).
//! What a frontend costs that is an image instead stands beside them, where crun and the right to use it
//! are: the start of the smallest container, and its end.

#[path = "../tests/common/mod.rs"]
mod common;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use common::*;
use wbuild_graph::{Attrs, CacheKey, Digest};
use wbuild_plugin::{Plugin, PluginHost, PluginHostOptions};
use wbuild_tests::container::Container;

/// Instances of each component.
const STARTS: usize = 10_000;
/// Loads of each component.
const LOADS: usize = 100;
/// After which the code cache trusts the file of an entry that it has hashed, until the next boot.
const RESTED: Duration = Duration::from_millis(3100);
/// Containers.
const CONTAINERS: usize = 30;
/// Keys of one look-up.
const KEYS: u64 = 1000;

struct Times(Vec<Duration>);

impl Times {
    fn of(n: usize, mut run: impl FnMut() -> Duration) -> Times {
        Times::sorted((0..n).map(|_| run()).collect())
    }

    fn sorted(mut times: Vec<Duration>) -> Times {
        times.sort();
        Times(times)
    }

    /// `per_mille` of them were at most this long.
    fn at(&self, per_mille: usize) -> Duration {
        self.0[(self.0.len() * per_mille / 1000).min(self.0.len() - 1)]
    }
}

impl std::fmt::Display for Times {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [best, half, most, nearly] = [0, 500, 900, 990].map(|part| self.at(part));
        write!(f, "{best:9.1?} best {half:9.1?} median {most:9.1?} of 90 % {nearly:9.1?} of 99 %")
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> Duration {
    let begin = Instant::now();
    let kept = work();
    let took = begin.elapsed();
    drop(kept);
    took
}

/// What all components have in common.
fn common_costs(name: &str, bytes: &[u8]) -> Plugin {
    let runtime = runtime();
    let folder = tempfile::tempdir().expect("a directory");
    let host = || PluginHost::new(PluginHostOptions::new(folder.path().join("code")));
    let load = |host: &PluginHost| host.load(name, bytes.to_vec()).expect("it loads");
    println!("{name}: {} bytes", bytes.len());
    let compile = timed(|| runtime.block_on(host().warm(&[load(&host())])).expect("it compiles"));
    println!("  compile        {compile:9.1?}");
    let shared = host();
    let loads = || {
        let plugins: Vec<Plugin> = (0..LOADS).map(|_| load(&shared)).collect();
        let mut next = plugins.iter();
        Times::of(LOADS, || {
            let plugin = std::slice::from_ref(next.next().expect("as many as runs"));
            timed(|| runtime.block_on(shared.warm(plugin)).expect("it loads"))
        })
    };
    println!("  load, hashed   {}", loads());
    std::thread::sleep(RESTED);
    println!("  load           {}", loads());
    let plugin = load(&shared);
    let starts = runtime.block_on(plugin.start_times(STARTS)).expect("it starts");
    println!("  start          {}", Times::sorted(starts));
    // The directory may go: what is loaded stays.
    plugin
}

fn frontend(plugin: &Plugin, definition: &str) {
    let runtime = runtime();
    let frontend = plugin.frontend().expect("a frontend");
    let graphs = Times::of(500, || {
        let world = World::new(definition, &[]);
        timed(|| runtime.block_on(frontend.build(world.host())).expect("it builds"))
    });
    println!("  a graph        {graphs}");
}

fn runner(plugin: &Plugin) {
    let runtime = runtime();
    let runner = plugin.runner().expect("a runner");
    let plans = Times::of(500, || {
        let machine = std::sync::Arc::new(Machine::default());
        timed(|| runtime.block_on(runner.make_plan(machine.host(), job(""))).expect("it plans"))
    });
    println!("  a plan         {plans}");
}

fn cache(plugin: &Plugin) {
    let runtime = runtime();
    let cache = plugin.cache().expect("a cache backend");
    let storage = std::sync::Arc::new(Storage::default());
    let backend = runtime.block_on(cache.connect(storage.host())).expect("an instance");
    runtime.block_on(backend.open("read".to_owned(), Attrs::default())).expect("it opens");
    let keys: Vec<CacheKey> =
        (0..KEYS).map(|key| CacheKey(Digest::of(&key.to_le_bytes()))).collect();
    let finds = Times::of(500, || {
        let keys = keys.clone();
        timed(|| runtime.block_on(backend.find(keys)).expect("it answers"))
    });
    println!("  {KEYS} keys      {finds}");
}

fn container() {
    let Some(container) = Container::prepare().expect("a bundle") else {
        return println!(
            "container: not measured, there is no crun or busybox, or no right to use them"
        );
    };
    let starts = Times::of(CONTAINERS, || container.times(1).expect("it runs"));
    println!("container\n  start          {starts}");
}

fn main() {
    container();
    frontend(&common_costs("steps", &dist("steps")), "from base\nrun true\n");
    runner(&common_costs("native", &dist("native")));
    cache(&common_costs("cache-local", &dist("cache-local")));
    for arg in std::env::args().skip(1).filter(|arg| !arg.starts_with('-')) {
        let (file, definition) = arg.split_once('=').expect("FILE.wasm=DEFINITION");
        let read = |path: &Path| std::fs::read(path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let bytes = read(&PathBuf::from(file));
        let definition = String::from_utf8(read(&PathBuf::from(definition))).expect("a text");
        frontend(&common_costs(file, &bytes), &definition);
    }
}
