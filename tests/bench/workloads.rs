//! Build contexts of the benchmarks: the same bytes each time, no network.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use wbuild_tests::run::Run;

use crate::earthfiles;

/// A workload: name and how its context is written.
pub type Workload = (&'static str, fn(&Path, f64) -> Result<()>);

/// All of them. The number is the scale: 1.0 is the size that figures are quoted for.
pub const ALL: [Workload; 16] = [
    ("tiny", tiny),
    ("noop", noop),
    ("run1", run1),
    ("run50", run50),
    ("context", context),
    ("parallel8", parallel8),
    ("export500", export500),
    ("copyfrom10k", copyfrom10k),
    ("parse2000", parse2000),
    ("graph500", graph500),
    ("caches", caches),
    ("emulated", emulated),
    ("compile", compile),
    ("everywhere", everywhere),
    ("targets100", earthfiles::targets100),
    ("conditions20", earthfiles::conditions20),
];

/// Two steps and one file.
fn tiny(to: &Path, _: f64) -> Result<()> {
    write(to, "file", b"content")?;
    definition(to, "FROM base\nCOPY file /file\nRUN echo done > /done\n")
}

/// 21 instructions, of which 8 RUN and 9 COPY; 5,000 files of 40 MB in all.
fn noop(to: &Path, scale: f64) -> Result<()> {
    let mut source = Source::new(11);
    source.tree(&to.join("src"), times(5_000, scale), times(40 << 20, scale))?;
    let mut text = String::from("FROM base\nWORKDIR /app\nENV A=1\n");
    for i in 0..8 {
        let _ = writeln!(text, "RUN echo step{i} > /step{i}");
    }
    for i in 0..8 {
        let _ = writeln!(text, "COPY src/d{i} /app/d{i}");
        // A scaled-down tree may not have all the folders.
        std::fs::create_dir_all(to.join(format!("src/d{i}")))?;
    }
    text.push_str("COPY . /all\nCMD [\"sh\"]\n");
    definition(to, &text)
}

/// One process that does nothing.
fn run1(to: &Path, _: f64) -> Result<()> {
    definition(to, "FROM base\nRUN true\n")
}

/// Fifty of them, one on top of the other.
fn run50(to: &Path, _: f64) -> Result<()> {
    let steps: String = (0..50).map(|i| format!("RUN true && : {i}\n")).collect();
    definition(to, &format!("FROM base\n{steps}"))
}

/// 20,000 files of 200 MB in all, copied whole.
fn context(to: &Path, scale: f64) -> Result<()> {
    let mut source = Source::new(12);
    source.tree(&to.join("src"), times(20_000, scale), times(200 << 20, scale))?;
    definition(to, "FROM scratch\nCOPY . /ctx/\n")
}

/// Eight stages that sleep for a second each.
fn parallel8(to: &Path, _: f64) -> Result<()> {
    let mut text = String::new();
    for i in 0..8 {
        let _ = writeln!(text, "FROM base AS s{i}\nRUN sleep 1 && echo {i} > /out{i}");
    }
    text.push_str("FROM scratch\n");
    for i in 0..8 {
        let _ = writeln!(text, "COPY --from=s{i} /out{i} /");
    }
    definition(to, &text)
}

/// One process of another processor that does nothing.
fn emulated(to: &Path, _: f64) -> Result<()> {
    definition(to, "FROM any\nARG NONCE\nRUN true\n")
}

/// What GNU's compiler needs besides itself.
const NEEDED: [&str; 7] =
    ["libc6", "libgmp10", "libisl23", "libmpc3", "libmpfr6", "libzstd1", "zlib1g"];

/// 100 functions for a compiler of this machine's, one of another's, and one from this to that.
fn compile(to: &Path, scale: f64) -> Result<()> {
    let mut text = String::new();
    for n in 0..times(100, scale) {
        let _ = writeln!(
            text,
            "int f{n}(int a, int b) {{ int s = {n}; for (int i = 0; i < b; i++) s += (a ^ i) * {n}; \
             return s > a ? s : b; }}"
        );
    }
    write(to, "big.c", text.as_bytes())?;
    let mut stages = String::new();
    for (name, platform, architecture, package, folder) in [
        ("native", "--platform=$BUILDPLATFORM ", "amd64", "cpp-12", "gcc/x86_64-linux-gnu"),
        ("emulated", "", "arm64", "cpp-12", "gcc/aarch64-linux-gnu"),
        (
            "cross",
            "--platform=$BUILDPLATFORM ",
            "amd64",
            "cpp-12-aarch64-linux-gnu",
            "gcc-cross/aarch64-linux-gnu",
        ),
    ] {
        let packages: Vec<&str> = [package].into_iter().chain(NEEDED).collect();
        let root = wbuild_tests::packages::unpacked(architecture, &packages)?;
        Run::of(Command::new("cp").arg("-a").arg(root).arg(to.join(name)))?.success()?;
        let _ = write!(
            stages,
            "FROM {platform}scratch AS {name}\n\
             COPY {name} big.c /\n\
             ARG NONCE\n\
             RUN [\"/usr/lib/{folder}/12/cc1\", \"-fpreprocessed\", \"-quiet\", \"-O2\", \"big.c\", \"-o\", \"big.s\"]\n"
        );
    }
    definition(to, &stages)
}

/// Some seconds of work on the build's own platform, whose result goes into every image.
fn everywhere(to: &Path, scale: f64) -> Result<()> {
    let rounds = times(3_000_000, scale);
    definition(
        to,
        &format!(
            "FROM --platform=$BUILDPLATFORM any AS make\n\
             ARG NONCE\n\
             RUN i=0; while [ $i -lt {rounds} ]; do i=$((i + 1)); done; echo $i > /made\n\
             FROM any\n\
             COPY --from=make /made /made\n"
        ),
    )
}

/// Five layers of 100 MB that shrink to less than a half.
fn export500(to: &Path, scale: f64) -> Result<()> {
    let mut source = Source::new(100);
    let mut text = String::from("FROM scratch\n");
    for layer in 0..5 {
        for file in 0..times(100, scale) {
            let bytes = source.bytes(1 << 20, 90);
            write(to, &format!("l{layer}/b{file}"), &bytes)?;
        }
        let _ = writeln!(text, "COPY l{layer} /l{layer}");
    }
    definition(to, &text)
}

/// A stage with 10,000 small files; the argument NONCE makes only the copy of them new.
fn copyfrom10k(to: &Path, scale: f64) -> Result<()> {
    let files = times(100, scale);
    definition(
        to,
        &format!(
            "FROM base AS src\n\
             RUN mkdir /data && cd /data && for d in $(seq 100); do mkdir $d; \\\n    \
             for f in $(seq {files}); do echo \"$d/$f some small content\" > $d/$f; done; done\n\
             FROM scratch\nARG NONCE=0\nCOPY --from=src /data /data-$NONCE\n"
        ),
    )
}

/// 2,000 instructions without any file: the frontend alone.
fn parse2000(to: &Path, _: f64) -> Result<()> {
    let mut text = String::from("FROM scratch\nARG V0=a\n");
    for i in 1..1_000 {
        // Chains of ten that refer to each other, so that values stay short.
        let before = match i {
            1 => "${V0:-x}".to_owned(),
            i if i % 10 == 0 => "z".to_owned(),
            i => format!("${{E{}:-x}}", i - 1),
        };
        let _ = writeln!(text, "ENV E{i}={before}{} P{i}=\"/opt/${{V0}}/{i}\"", i % 10);
        let _ = writeln!(text, "LABEL l{i}=\"value {i} $V0\" m{i}=x");
    }
    definition(to, &text)
}

/// A wide graph of 500 vertices: ten stages of 49 copies of small files each, and the copies that
/// bring the stages together.
fn graph500(to: &Path, _: f64) -> Result<()> {
    let mut text = String::new();
    for file in 0..49 {
        write(to, &format!("f{file}"), format!("file {file}\n").as_bytes())?;
    }
    for stage in 0..10 {
        let _ = writeln!(text, "FROM scratch AS s{stage}");
        for file in 0..49 {
            let _ = writeln!(text, "COPY f{file} /s{stage}/f{file}");
        }
    }
    text.push_str("FROM scratch\n");
    for stage in 0..10 {
        let _ = writeln!(text, "COPY --from=s{stage} / /");
    }
    definition(to, &text)
}

/// Two stages of twelve steps, most of which make 5 MB, for caches elsewhere.
fn caches(to: &Path, scale: f64) -> Result<()> {
    let mut source = Source::new(13);
    source.tree(&to.join("src"), times(500, scale), times(10 << 20, scale))?;
    let mut text = String::from("FROM base AS build\nCOPY seed0 seed1 seed2 seed3 /seed/\n");
    for seed in 0..4 {
        let size = usize::try_from(times(5 << 20, scale))?;
        write(to, &format!("seed{seed}"), &source.bytes(size, 60))?;
    }
    for step in 0..8 {
        let _ = writeln!(
            text,
            "RUN mkdir -p /o{step} && (echo {step}; cat /seed/seed{}) > /o{step}/data",
            step % 4
        );
    }
    text.push_str(
        "COPY src /src\nFROM base\nCOPY --from=build /o7 /o7\nCOPY --from=build /src /src\n\
         RUN ls -R /o7 /src > /ls\n",
    );
    definition(to, &text)
}

fn times(number: u64, scale: f64) -> u64 {
    let scaled = (number as f64 * scale) as u64;
    scaled.max(1)
}

fn definition(to: &Path, text: &str) -> Result<()> {
    write(to, "Dockerfile", text.as_bytes())
}

/// Writes a file of a context.
pub fn write(to: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = to.join(name);
    std::fs::create_dir_all(path.parent().expect("it lies in a folder"))?;
    std::fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

/// Bytes that look like source code and assets: words, which compress to about a third, and noise.
struct Source {
    state: u64,
    words: Vec<u8>,
    noise: Vec<u8>,
}

/// Length of the two pools, in bytes.
const POOL: usize = 4 << 20;
/// Pieces of one kind are at most this long.
const PIECE: usize = 64 << 10;

impl Source {
    fn new(seed: u64) -> Self {
        let mut source = Source { state: seed, words: Vec::new(), noise: Vec::new() };
        while source.noise.len() < POOL {
            let number = source.next();
            source.noise.extend_from_slice(&number.to_le_bytes());
        }
        let dictionary: Vec<Vec<u8>> = (0..2_000)
            .map(|_| {
                let length = 2 + source.below(8);
                (0..length).map(|_| b"etaoinshrdlucmfwypvbgk"[source.below(22)]).collect()
            })
            .collect();
        while source.words.len() < POOL {
            // The smaller of several picks: early words are frequent, as in any text.
            let pick = (0..3).map(|_| source.below(dictionary.len())).min().unwrap_or(0);
            source.words.extend_from_slice(&dictionary[pick]);
            source.words.push(b' ');
        }
        source
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("it is below a usize")
    }

    /// So many bytes, of which about so many percent are words.
    fn bytes(&mut self, size: usize, percent: usize) -> Vec<u8> {
        let mut out = Vec::with_capacity(size);
        while out.len() < size {
            let length = PIECE.min(size - out.len());
            let is_words = self.below(100) < percent;
            let from = self.below(POOL - length);
            let pool = if is_words { &self.words } else { &self.noise };
            out.extend_from_slice(&pool[from..from + length]);
        }
        out
    }

    /// `files` files of `total` bytes in all, of very different sizes, 100 to a folder.
    fn tree(&mut self, root: &Path, files: u64, total: u64) -> Result<()> {
        // Products of uniform numbers are distributed about as the sizes of real files are.
        let weights: Vec<u64> =
            (0..files).map(|_| (0..3).map(|_| 1 + self.next() % 40).product::<u64>()).collect();
        let sum: u64 = weights.iter().sum();
        for (number, weight) in weights.iter().enumerate() {
            let size = (u128::from(total) * u128::from(*weight) / u128::from(sum)).max(1);
            let bytes = self.bytes(usize::try_from(size)?, 75);
            let folder = number / 100;
            write(root, &format!("d{}/s{}/f{number}.txt", folder % 10, folder / 10), &bytes)?;
        }
        Ok(())
    }
}
