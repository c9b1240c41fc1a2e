//! What is emulated, and how. Pure: no host function is called.

use wbuild_runner::{Error, FailureKind, Platform, Result};

/// The facts that decide about one platform.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Architectures that run without help.
    pub native: Vec<String>,
    /// The kernel has a handler for the platform that works in any root.
    pub kernel_handler: bool,
    /// The host can register handlers for a step alone.
    pub own_handlers: bool,
    /// The emulator for the platform, if it is installed and granted.
    pub emulator: Option<Emulator>,
}

/// What is known of an emulator.
#[derive(Clone, Copy, Debug)]
pub struct Emulator {
    /// Runs in any root.
    pub is_static: bool,
    /// Major and minor, if known.
    pub version: Option<(u32, u32)>,
}

/// How a process is launched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The kernel has what it takes.
    Kernel,
    /// With a handler of the step's own.
    Handler(Rule),
}

impl Way {
    /// Below native (0) and personality (1).
    pub fn rank(&self) -> u32 {
        100
    }

    /// For people.
    pub fn how(&self) -> &'static str {
        "emulated"
    }
}

/// How binfmt_misc recognises programs (the kernel's admin-guide/binfmt-misc).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// How their files begin.
    pub magic: Vec<u8>,
    /// The bits of it that count.
    pub mask: Vec<u8>,
    /// See [`flags`].
    pub flags: String,
}

/// An architecture's programs (gABI, "ELF Header"; processor supplements for the numbers).
struct Machine {
    /// As in platforms.
    architecture: &'static str,
    /// As QEMU names it.
    qemu: &'static str,
    /// EI_CLASS: 32 or 64 bits.
    bits: u8,
    big_endian: bool,
    /// e_machine.
    elf: u16,
}

const fn machine(
    architecture: &'static str,
    qemu: &'static str,
    bits: u8,
    big_endian: bool,
    elf: u16,
) -> Machine {
    Machine { architecture, qemu, bits, big_endian, elf }
}

const MACHINES: [Machine; 13] = [
    machine("386", "i386", 32, false, 3),
    machine("amd64", "x86_64", 64, false, 62),
    machine("arm", "arm", 32, false, 40),
    machine("arm64", "aarch64", 64, false, 183),
    machine("loong64", "loongarch64", 64, false, 258),
    machine("mips", "mips", 32, true, 8),
    machine("mipsle", "mipsel", 32, false, 8),
    machine("mips64", "mips64", 64, true, 8),
    machine("mips64le", "mips64el", 64, false, 8),
    machine("ppc64", "ppc64", 64, true, 21),
    machine("ppc64le", "ppc64le", 64, false, 21),
    machine("riscv64", "riscv64", 64, false, 243),
    machine("s390x", "s390x", 64, true, 22),
];

fn known(architecture: &str) -> Option<&'static Machine> {
    MACHINES.iter().find(|machine| machine.architecture == architecture)
}

/// QEMU's name of an architecture.
pub fn machine_of(architecture: &str) -> Option<&'static str> {
    Some(known(architecture)?.qemu)
}

/// How a platform's programs run here.
pub fn way(platform: &Platform, facts: &Facts) -> Result<Way> {
    let refuse =
        |why: String, help: String| Err(Error::new(FailureKind::Unsupported, why).help(help));
    let machine = known(&platform.architecture).filter(|_| platform.os == "linux");
    let Some(machine) = machine else {
        return refuse(
            format!("QEMU does not emulate {platform} for single programs"),
            "build it on a machine of that kind".to_owned(),
        );
    };
    if facts.native.contains(&platform.architecture) {
        // A handler for these programs would catch the emulator, too.
        return refuse(
            format!("programs for {platform} need a newer processor, which is not emulated"),
            format!(
                "build for linux/{}, or on a machine with such a processor",
                platform.architecture
            ),
        );
    }
    if facts.kernel_handler {
        return Ok(Way::Kernel);
    }
    let Some(emulator) = facts.emulator else {
        return refuse(
            format!("there is no emulator qemu-{}", machine.qemu),
            "install it, e.g.: apt-get install qemu-user-static".to_owned(),
        );
    };
    if !emulator.is_static {
        return refuse(
            format!("the emulator qemu-{} needs libraries, which steps do not have", machine.qemu),
            "install one without, e.g.: apt-get install qemu-user-static".to_owned(),
        );
    }
    if !facts.own_handlers {
        return refuse(
            format!(
                "this kernel has no handler for programs of {platform}, and none can be added for a step alone"
            ),
            format!(
                "use Linux 6.7 or later with binfmt_misc and user namespaces, or register qemu-{} with the flag F, \
                 e.g.: apt-get install binfmt-support qemu-user-static",
                machine.qemu
            ),
        );
    }
    Ok(Way::Handler(machine.rule(emulator)))
}

impl Machine {
    /// What all executables of the architecture have in common: the identification but for the ABI's
    /// name, the type (an executable at a fixed place or at any), the machine.
    fn rule(&self, emulator: Emulator) -> Rule {
        let half = |value: u16| match self.big_endian {
            true => value.to_be_bytes(),
            false => value.to_le_bytes(),
        };
        let mut magic = b"\x7fELF".to_vec();
        magic.extend([if self.bits == 64 { 2 } else { 1 }, if self.big_endian { 2 } else { 1 }, 1]);
        let mut mask = vec![0xff; magic.len()];
        // EI_OSABI: GNU or none. The rest of the identification is zero.
        magic.extend([0; 9]);
        mask.push(0);
        mask.extend([0xff; 8]);
        // ET_EXEC is 2, ET_DYN 3.
        magic.extend(half(2));
        mask.extend(half(0xfffe));
        magic.extend(half(self.elf));
        mask.extend([0xff; 2]);
        Rule { magic, mask, flags: flags(emulator) }
    }
}

/// `C`: setuid programs get their owner's rights, as natively. `P`: a program sees the name it was
/// called by, which QEMU understands since 6.0. (`F` is what the host does anyway.)
fn flags(emulator: Emulator) -> String {
    let keeps_name = emulator.version.is_some_and(|version| version >= (6, 0));
    format!("OC{}F", if keeps_name { "P" } else { "" })
}

/// Major and minor of what `qemu-… --version` says, or of a plain number.
pub fn version(text: &str) -> Option<(u32, u32)> {
    let number =
        text.split_whitespace().find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let mut parts = number.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next().and_then(|p| p.parse().ok()).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        Platform {
            os: parts.next().expect("os"),
            architecture: parts.next().expect("architecture"),
            variant: parts.next(),
            os_version: None,
            os_features: Vec::new(),
        }
    }

    fn pc() -> Facts {
        Facts {
            native: vec!["amd64".to_owned(), "386".to_owned()],
            kernel_handler: false,
            own_handlers: true,
            emulator: Some(Emulator { is_static: true, version: Some((7, 2)) }),
        }
    }

    #[test]
    fn ways() {
        let dynamic = Emulator { is_static: false, version: None };
        for (facts, wanted, want) in [
            (pc(), "linux/arm64", "handler"),
            (pc(), "linux/arm/v7", "handler"),
            (pc(), "linux/riscv64", "handler"),
            (Facts { kernel_handler: true, ..pc() }, "linux/arm64", "kernel"),
            (Facts { kernel_handler: true, emulator: None, ..pc() }, "linux/arm64", "kernel"),
            (Facts { emulator: None, ..pc() }, "linux/arm64", "no emulator qemu-aarch64"),
            (Facts { emulator: Some(dynamic), ..pc() }, "linux/s390x", "needs libraries"),
            (Facts { own_handlers: false, ..pc() }, "linux/arm64", "no handler"),
            (pc(), "linux/amd64/v4", "newer processor"),
            (pc(), "windows/arm64", "does not emulate windows/arm64"),
            (pc(), "linux/sparc", "does not emulate linux/sparc"),
        ] {
            let got = match way(&platform(wanted), &facts) {
                Ok(Way::Kernel) => "kernel".to_owned(),
                Ok(Way::Handler(_)) => "handler".to_owned(),
                Err(refusal) => {
                    let refusal = refusal.into_failure();
                    assert_eq!(refusal.hints.len(), 1, "{refusal}");
                    refusal.message
                }
            };
            assert!(got.contains(want), "{wanted}: {got}");
        }
    }

    /// The start of an ELF file as `file(1)` knows it, and whether a rule is for it.
    #[test]
    fn rules_are_for_the_programs_of_their_machine_only() {
        let header = |machine: &Machine, osabi: u8, kind: u16| {
            let half = |value: u16| match machine.big_endian {
                true => value.to_be_bytes(),
                false => value.to_le_bytes(),
            };
            let mut head = b"\x7fELF".to_vec();
            head.extend([machine.bits / 32, 1 + u8::from(machine.big_endian), 1, osabi]);
            head.extend([0; 8]);
            head.extend(half(kind));
            head.extend(half(machine.elf));
            head
        };
        let emulator = Emulator { is_static: true, version: None };
        for machine in &MACHINES {
            let Rule { magic, mask, flags } = machine.rule(emulator);
            assert_eq!((magic.len(), mask.len(), flags.as_str()), (20, 20, "OCF"));
            let fits = |head: &[u8]| {
                head.iter().zip(&magic).zip(&mask).all(|((h, magic), mask)| (h ^ magic) & mask == 0)
            };
            for (osabi, kind, want) in
                [(0, 2, true), (0, 3, true), (3, 3, true), (0, 1, false), (0, 4, false)]
            {
                assert_eq!(fits(&header(machine, osabi, kind)), want, "{}", machine.qemu);
            }
            let others = MACHINES.iter().filter(|other| other.qemu != machine.qemu);
            assert!(
                others.into_iter().all(|other| !fits(&header(other, 0, 2))),
                "{}",
                machine.qemu
            );
        }
    }

    #[test]
    fn versions() {
        for (text, want) in [
            ("qemu-aarch64 version 7.2.22 (Debian 1:7.2+dfsg-7)", Some((7, 2))),
            ("8", Some((8, 0))),
            ("10.1.0-rc1", Some((10, 1))),
            ("unknown", None),
            ("", None),
        ] {
            assert_eq!(version(text), want, "{text}");
        }
        let old = Emulator { is_static: true, version: Some((5, 2)) };
        assert_eq!(
            (flags(old), flags(Emulator { version: Some((7, 2)), ..old })),
            ("OCF".into(), "OCPF".into())
        );
    }
}
