//! Programs run to their end, with a deadline.

use std::io::{Read, Seek as _, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

/// Nothing in these tests takes longer, on a slow and busy machine.
pub const DEADLINE: Duration = Duration::from_secs(180);

/// A program that has ended.
#[derive(Clone, Debug)]
pub struct Run {
    /// As one types it.
    pub command: String,
    /// Exit code; `128 + signal` for one that was killed, as shells have it.
    pub code: i32,
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: String,
    /// Wall time.
    pub took: Duration,
}

impl Run {
    /// Runs a command to its end.
    pub fn of(command: &mut Command) -> Result<Run> {
        Running::start(command)?.wait(DEADLINE)
    }

    /// Fails unless the exit code is this one.
    pub fn expect(self, code: i32) -> Result<Run> {
        ensure!(
            self.code == code,
            "expected exit code {code}, got {} of: {}\n--- stdout\n{}\n--- stderr\n{}",
            self.code,
            self.command,
            String::from_utf8_lossy(&self.stdout),
            self.stderr
        );
        Ok(self)
    }

    /// Fails unless the exit code is 0.
    pub fn success(self) -> Result<Run> {
        self.expect(0)
    }

    /// Fails unless standard error contains this.
    pub fn says(&self, text: &str) -> Result<()> {
        ensure!(
            self.stderr.contains(text),
            "expected {text:?} in the output of: {}\n{}",
            self.command,
            self.stderr
        );
        Ok(())
    }

    /// Fails if standard error contains this.
    pub fn never_says(&self, text: &str) -> Result<()> {
        ensure!(
            !self.stderr.contains(text),
            "did not expect {text:?} in the output of: {}\n{}",
            self.command,
            self.stderr
        );
        Ok(())
    }

    /// Standard output as text.
    pub fn text(&self) -> Result<&str> {
        std::str::from_utf8(&self.stdout).context("the output is not UTF-8")
    }

    /// Standard output as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.stdout).with_context(|| {
            format!(
                "not JSON: the output of {}: {}",
                self.command,
                String::from_utf8_lossy(&self.stdout)
            )
        })
    }

    /// The steps of a build shown with `--progress plain`, in the order of their numbers.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps: Vec<Step> = Vec::new();
        for line in self.stderr.lines() {
            let Some((number, rest)) = line.strip_prefix('#').and_then(|line| line.split_once(' '))
            else {
                continue;
            };
            let Ok(number) = number.parse::<u32>() else { continue };
            let Some(step) = steps.iter_mut().find(|step| step.number == number) else {
                // The first line of a step is its name.
                steps.push(Step { number, name: rest.to_owned(), end: String::new() });
                continue;
            };
            let word = rest.split([' ', ':']).next().unwrap_or("");
            if matches!(word, "CACHED" | "DONE" | "ERROR" | "CANCELLED") {
                step.end = word.to_owned();
            }
        }
        steps.sort_by_key(|step| step.number);
        steps
    }

    /// How a step ended whose name contains this text: `CACHED`, `DONE`, ….
    pub fn end_of(&self, name: &str) -> Result<String> {
        let steps = self.steps();
        let found: Vec<&Step> = steps.iter().filter(|step| step.name.contains(name)).collect();
        match found[..] {
            [step] => Ok(step.end.clone()),
            _ => bail!(
                "{} steps are called {name:?} in the output of: {}\n{}",
                found.len(),
                self.command,
                self.stderr
            ),
        }
    }
}

/// A step of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// As shown.
    pub number: u32,
    /// As shown.
    pub name: String,
    /// `CACHED`, `DONE`, `ERROR`, `CANCELLED`, or empty: it did not say.
    pub end: String,
}

/// A program that runs. Killed when dropped.
pub struct Running {
    child: Child,
    command: String,
    started: Instant,
    stdout: Collector,
    stderr: Collector,
}

impl Running {
    /// Starts a command without input; its output is collected.
    pub fn start(command: &mut Command) -> Result<Running> {
        Self::start_with(command, Stdio::null())
    }

    /// Starts a command with bytes for standard input.
    pub fn start_with_input(command: &mut Command, input: &[u8]) -> Result<Running> {
        // A file and not a pipe: a program that reads nothing must not block the writer.
        let mut file = tempfile::tempfile()?;
        file.write_all(input)?;
        file.rewind()?;
        Self::start_with(command, file.into())
    }

    fn start_with(command: &mut Command, input: Stdio) -> Result<Running> {
        let words = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| word.to_string_lossy().into_owned());
        let shown = words.collect::<Vec<_>>().join(" ");
        let mut child = command
            .stdin(input)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {shown}"))?;
        Ok(Running {
            stdout: Collector::new(child.stdout.take().expect("it is piped")),
            stderr: Collector::new(child.stderr.take().expect("it is piped")),
            child,
            command: shown,
            started: Instant::now(),
        })
    }

    /// The process id.
    pub fn id(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) -> Result<()> {
        Ok(rustix::process::kill_process(self.id(), signal)?)
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// What it has written to standard error so far.
    pub fn stderr_so_far(&self) -> String {
        self.stderr.so_far()
    }

    /// Waits until standard error contains a text.
    pub fn wait_for(&mut self, text: &str) -> Result<()> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if self.stderr.so_far().contains(text) {
                return Ok(());
            }
            let ended = self.child.try_wait()?;
            if ended.is_some() && !self.stderr.so_far().contains(text) {
                bail!("{} ended before it said {text:?}:\n{}", self.command, self.stderr.so_far());
            }
            ensure!(
                Instant::now() < deadline,
                "{} did not say {text:?} within {DEADLINE:?}:\n{}",
                self.command,
                self.stderr.so_far()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for the end, at most so long.
    pub fn wait(mut self, at_most: Duration) -> Result<Run> {
        let deadline = Instant::now() + at_most;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() >= deadline {
                let _ = self.child.kill();
                let _ = self.child.wait();
                bail!("not ended after {at_most:?}: {}\n{}", self.command, self.stderr.so_far());
            }
            // Short, because a benchmark of these tests' size would notice.
            std::thread::sleep(Duration::from_millis(1));
        };
        let took = self.started.elapsed();
        Ok(Run {
            command: self.command.clone(),
            code: code(status),
            stdout: self.stdout.end()?,
            stderr: String::from_utf8_lossy(&self.stderr.end()?).into_owned(),
            took,
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Reads a pipe to its end in a thread of its own.
struct Collector {
    bytes: Arc<Mutex<Vec<u8>>>,
    thread: Option<JoinHandle<std::io::Result<()>>>,
}

impl Collector {
    fn new(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&bytes);
        let thread = std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            loop {
                match pipe.read(&mut buffer)? {
                    0 => return Ok(()),
                    n => shared.lock().expect("no one panics").extend_from_slice(&buffer[..n]),
                }
            }
        });
        Collector { bytes, thread: Some(thread) }
    }

    fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.bytes.lock().expect("no one panics")).into_owned()
    }

    /// Everything. A process that outlives its parent and holds the pipe would be waited for: that
    /// is a failure, not a hang.
    fn end(&mut self) -> Result<Vec<u8>> {
        let thread = self.thread.take().expect("ended once");
        let deadline = Instant::now() + Duration::from_secs(20);
        while !thread.is_finished() {
            ensure!(Instant::now() < deadline, "a process was left that holds the output open");
            std::thread::sleep(Duration::from_millis(1));
        }
        thread.join().expect("it does not panic").context("cannot read the output")?;
        Ok(std::mem::take(&mut *self.bytes.lock().expect("no one panics")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_from_plain_output() {
        let run = Run {
            command: String::new(),
            code: 0,
            stdout: Vec::new(),
            stderr:
                "#2 [a 1/2] RUN x\n#2 0.001 DONE is what it printed\n#1 [b] FROM y\n#1 CACHED\n\n\
                     #2 [a 1/2] RUN x\n#2 DONE 1.2s\n#3 z\n#3 ERROR: no\n# 4\n"
                    .to_owned(),
            took: Duration::ZERO,
        };
        let step = |number, name: &str, end: &str| Step {
            number,
            name: name.to_owned(),
            end: end.to_owned(),
        };
        assert_eq!(
            run.steps(),
            [
                step(1, "[b] FROM y", "CACHED"),
                step(2, "[a 1/2] RUN x", "DONE"),
                step(3, "z", "ERROR")
            ]
        );
        assert_eq!(run.end_of("RUN x").expect("one step"), "DONE");
        assert!(run.end_of("nothing").is_err());
    }

    #[test]
    fn programs_are_run_and_limited() {
        let run = Run::of(Command::new("sh").args(["-c", "echo out; echo err >&2; exit 3"]))
            .expect("sh runs");
        assert_eq!((run.code, &run.stdout[..], &run.stderr[..]), (3, &b"out\n"[..], "err\n"));
        let killed = Run::of(Command::new("sh").args(["-c", "kill -9 $$"])).expect("sh runs");
        assert_eq!(killed.code, 137);
        let slow = Running::start(Command::new("sleep").arg("100")).expect("sleep runs");
        assert!(slow.wait(Duration::from_millis(20)).is_err());
        let echo = Running::start_with_input(&mut Command::new("cat"), b"input").expect("cat runs");
        assert_eq!(echo.wait(DEADLINE).expect("cat ends").stdout, b"input");
    }
}
