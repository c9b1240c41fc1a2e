//! Prints how long plugins take to load, instantiate and run. Run it optimised, on an idle machine:
//! `cargo run --release -p wbuild-plugin --example bench -- FILE.wasm…`

use std::path::PathBuf;
use std::time::{Duration, Instant};

use wbuild_plugin::{PluginHost, PluginHostOptions};

/// Best and median of `n` runs.
fn time(n: usize, mut run: impl FnMut()) -> (Duration, Duration) {
    let mut times: Vec<Duration> = (0..n)
        .map(|_| {
            let begin = Instant::now();
            run();
            begin.elapsed()
        })
        .collect();
    times.sort();
    (times[0], times[n / 2])
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let dir = tempfile::tempdir()?;
    let host = || PluginHost::new(PluginHostOptions::new(dir.path().join("code")));
    for path in std::env::args_os().skip(1).map(PathBuf::from) {
        let name = path.display().to_string();
        let bytes = std::fs::read(&path)?;
        let info = runtime.block_on(host().load(&name, path.as_path())?.inspect())?;
        println!("{name}: {} bytes, {:?}", info.size, info.kinds);
        println!("  compile           {:9.3?}", info.compile_time.unwrap_or_default());
        println!("  code              {:>9} bytes", info.compiled_size.unwrap_or_default());
        println!("  instantiate       {:9.3?}", info.instantiate_time.unwrap_or_default());
        let shared = host();
        let (best, median) = time(50, || {
            shared.load(&name, bytes.clone()).expect("it loads");
        });
        println!("  hash and read     {best:9.3?} best, {median:9.3?} median");
        let plugin = |host: &PluginHost| host.load(&name, bytes.clone()).expect("it loads");
        let plugins: Vec<_> = (0..50).map(|_| plugin(&shared)).collect();
        let mut next = plugins.iter();
        let (best, median) = time(50, || {
            let plugin = next.next().expect("as many as runs");
            runtime.block_on(shared.warm(std::slice::from_ref(plugin))).expect("it loads");
        });
        println!("  load code         {best:9.3?} best, {median:9.3?} median");
        let (best, median) = time(20, || {
            let host = host();
            let plugin = plugin(&host);
            runtime.block_on(host.warm(&[plugin])).expect("it loads");
        });
        println!("  all, new engine   {best:9.3?} best, {median:9.3?} median");
    }
    Ok(())
}
