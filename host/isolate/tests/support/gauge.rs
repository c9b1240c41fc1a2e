//! What a guest costs this process and its children.

#![allow(dead_code, missing_docs)]

use std::time::{Duration, Instant};

/// Measures from when it is made.
pub struct Gauge {
    resident: usize,
    cpu: Duration,
}

/// What something took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// The most memory that this process held at once, above what it held before, in bytes.
    pub memory: usize,
    /// Processor time of this process and its children, which all have ended.
    pub cpu: Duration,
}

/// Gives memory back that was used once and is kept for later: it would hide as much of what is used
/// now.
pub fn trim() {
    // SAFETY: it takes no pointers.
    #[allow(unsafe_code)]
    unsafe {
        libc::malloc_trim(0);
    }
}

impl Gauge {
    pub fn start() -> Gauge {
        trim();
        // The highest resident size is that of now.
        std::fs::write("/proc/self/clear_refs", "5").expect("the peak is reset");
        Gauge { resident: status("VmRSS:"), cpu: cpu() }
    }

    pub fn stop(self) -> Cost {
        let memory = status("VmHWM:").saturating_sub(self.resident);
        no_children();
        Cost { memory, cpu: cpu().saturating_sub(self.cpu) }
    }
}

/// A size of this process, in bytes.
pub fn status(field: &str) -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("status");
    let value = status.lines().find_map(|line| line.strip_prefix(field)).expect("of Linux");
    let kib = value.trim().trim_end_matches("kB").trim();
    kib.parse::<usize>().expect("a number") * 1024
}

/// Processes that this one has started and that are not waited for.
pub fn children() -> Vec<u32> {
    let me = std::process::id().to_string();
    let processes = std::fs::read_dir("/proc").expect("proc").flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter(|id| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // After the name, which may hold anything: the state, and the parent.
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        rest.split_whitespace().nth(1) == Some(&me)
    })
    .collect()
}

/// Waits until all children are gone.
pub fn no_children() {
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(10) {
        if children().is_empty() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("children are left: {:?}", children());
}

/// Processor time of this process, and of children that are waited for.
#[allow(unsafe_code)]
fn cpu() -> Duration {
    let time = |of: libc::time_t, micros: libc::suseconds_t| {
        Duration::from_micros(of.unsigned_abs() * 1_000_000 + micros.unsigned_abs())
    };
    [libc::RUSAGE_SELF, libc::RUSAGE_CHILDREN]
        .into_iter()
        .map(|who| {
            // SAFETY: it is all numbers, and filled by the call.
            let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
            // SAFETY: `usage` outlives the call.
            assert_eq!(unsafe { libc::getrusage(who, &raw mut usage) }, 0);
            let (user, system) = (usage.ru_utime, usage.ru_stime);
            time(user.tv_sec, user.tv_usec) + time(system.tv_sec, system.tv_usec)
        })
        .sum()
}
