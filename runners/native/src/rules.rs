//! What runs here without an emulator, and how. Pure: no host function is called.

use wbuild_runner::{Error, FailureKind, Offer, Platform, Result, offer};

/// The facts that decide.
#[derive(Clone, Debug)]
pub struct Machine {
    /// What the processor and kernel run without help.
    pub native: Vec<Platform>,
    /// The host can make `uname` say a 32 bit machine.
    pub personality: bool,
}

/// The program of a job is not made for this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignProgram {
    /// What is wrong.
    pub message: String,
    /// What the user can do.
    pub help: String,
}

/// Architectures whose programs expect `uname -m` to name a 32 bit machine.
const THIRTY_TWO_BIT: [&str; 6] = ["386", "arm", "mips", "mipsle", "ppc", "riscv32"];

/// The architecture a 64 bit processor runs beside its own, if the kernel lets it.
const RUNS_ALSO: [(&str, &str); 1] = [("amd64", "386")];

impl Machine {
    /// How well `platform` runs here: natively (rank 0), or as the 32 bit sibling of a native
    /// architecture (rank 1, needs the personality).
    pub fn offer(&self, platform: &Platform) -> Result<Offer> {
        if self.native.iter().any(|native| runs(native, platform)) {
            return Ok(offer(0, "native"));
        }
        let sibling = RUNS_ALSO.iter().any(|(wide, narrow)| {
            platform.architecture == *narrow
                && self
                    .native
                    .iter()
                    .any(|native| native.os == platform.os && native.architecture == *wide)
        });
        if sibling && self.personality {
            return Ok(offer(1, "personality"));
        }
        let native: Vec<String> = self.native.iter().map(ToString::to_string).collect();
        let native = native.join(", ");
        let message = format!("cannot run {platform} on this machine, which runs {native}");
        Err(Error::new(FailureKind::Unsupported, message).help(match sibling {
            true => {
                "the host does not offer `personality`, which 32 bit programs need; `wbuild doctor` \
                 says why"
                    .to_owned()
            }
            false => format!(
                "use a runner that emulates {}, or let the step run on the machine's own platform \
                 (FROM --platform=$BUILDPLATFORM)",
                platform.architecture
            ),
        }))
    }

    /// Whether the process must see a 32 bit machine.
    pub fn wants_linux32(&self, platform: &Platform) -> bool {
        self.personality
            && platform.os == "linux"
            && THIRTY_TWO_BIT.contains(&platform.architecture.as_str())
    }

    /// Finds a program in the interpreter chain that this machine cannot run (an image whose
    /// files are of another architecture than its config says). `has_handler`: the kernel has an
    /// emulator for it already. A warning and no refusal, since formats are guessed from headers.
    pub fn foreign_program(
        &self,
        entry_format: &[String],
        has_handler: impl Fn(&Platform) -> bool,
    ) -> Option<ForeignProgram> {
        entry_format.iter().filter_map(|format| format.strip_prefix("elf:")).find_map(|machine| {
            let platform = Platform {
                os: "linux".to_owned(),
                architecture: architecture_of_elf(machine)?.to_owned(),
                variant: None,
                os_version: None,
                os_features: Vec::new(),
            };
            // Variants are not in an ELF header: only the architecture can tell.
            let known = |native: &Platform| {
                native.architecture == platform.architecture
                    || RUNS_ALSO.contains(&(native.architecture.as_str(), platform.architecture.as_str()))
            };
            if self.native.iter().any(known) || has_handler(&platform) {
                return None;
            }
            Some(ForeignProgram {
                message: format!("the program of this step is made for {machine}, which this machine does not run"),
                help: "check that the base image is of the platform it claims to be".to_owned(),
            })
        })
    }
}

/// The name of an architecture as images spell it, from the name of an ELF machine.
fn architecture_of_elf(machine: &str) -> Option<&'static str> {
    Some(match machine {
        "x86_64" => "amd64",
        "i386" => "386",
        "aarch64" => "arm64",
        "arm" => "arm",
        "riscv64" => "riscv64",
        "ppc64le" => "ppc64le",
        "s390x" => "s390x",
        "loongarch64" => "loong64",
        _ => return None,
    })
}

/// Whether a machine of platform `native` runs programs for `wanted`: same architecture, and a
/// variant that is not above its own.
fn runs(native: &Platform, wanted: &Platform) -> bool {
    if native.os != wanted.os || native.architecture != wanted.architecture {
        return false;
    }
    match (level(native), level(wanted)) {
        _ if native.variant == wanted.variant => true,
        (Some(have), Some(want)) => want <= have,
        _ => false,
    }
}

/// The rank of a variant among those of its architecture; without a variant, the one that is
/// meant then.
fn level(platform: &Platform) -> Option<u32> {
    match (platform.architecture.as_str(), platform.variant.as_deref()) {
        ("amd64", None) => Some(1),
        ("arm64", None) => Some(8),
        ("arm", None) => Some(7),
        (_, Some(variant)) => variant.strip_prefix('v').and_then(|level| level.parse().ok()),
        (_, None) => None,
    }
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

    fn machine(native: &[&str], personality: bool) -> Machine {
        Machine { native: native.iter().map(|text| platform(text)).collect(), personality }
    }

    #[test]
    fn offers() {
        let pc = ["linux/amd64"];
        for (native, personality, wanted, want) in [
            (&pc[..], true, "linux/amd64", Some((0, "native"))),
            (&pc[..], false, "linux/amd64", Some((0, "native"))),
            (&pc[..], true, "linux/386", Some((1, "personality"))),
            (&pc[..], false, "linux/386", None),
            (&["linux/amd64", "linux/386"], false, "linux/386", Some((0, "native"))),
            (&pc[..], true, "linux/amd64/v3", None),
            (&["linux/amd64/v3"], true, "linux/amd64/v2", Some((0, "native"))),
            (&["linux/amd64/v3"], true, "linux/amd64", Some((0, "native"))),
            (&["linux/amd64/v3"], true, "linux/amd64/v4", None),
            (&pc[..], true, "linux/arm64", None),
            (&pc[..], true, "windows/amd64", None),
            (&["linux/arm64", "linux/arm/v7"], true, "linux/arm/v6", Some((0, "native"))),
            (&["linux/arm64", "linux/arm/v7"], true, "linux/arm", Some((0, "native"))),
            (&["linux/arm64"], true, "linux/arm/v7", None),
            (&["linux/arm64"], true, "linux/386", None),
            (&[], true, "linux/amd64", None),
        ] {
            let offer = machine(native, personality).offer(&platform(wanted));
            let got = offer.as_ref().ok().map(|offer| (offer.rank, offer.how.as_str()));
            assert_eq!(got, want, "{wanted} on {native:?}");
        }
    }

    #[test]
    fn a_refusal_names_both_sides_and_a_remedy() {
        let refusal =
            machine(&["linux/amd64"], true).offer(&platform("linux/arm/v7")).expect_err("foreign");
        let refusal = refusal.into_failure();
        assert_eq!(
            refusal.message,
            "cannot run linux/arm/v7 on this machine, which runs linux/amd64"
        );
        assert!(refusal.hints[0].contains("emulates arm"), "{refusal}");
        let refusal = machine(&["linux/amd64"], false)
            .offer(&platform("linux/386"))
            .expect_err("no personality")
            .into_failure();
        assert!(refusal.hints[0].contains("personality"), "{refusal}");
    }

    #[test]
    fn thirty_two_bit_programs_see_a_thirty_two_bit_machine() {
        let pc = machine(&["linux/amd64"], true);
        for (wanted, want) in [
            ("linux/386", true),
            ("linux/arm/v7", true),
            ("linux/amd64", false),
            ("linux/arm64", false),
            ("freebsd/386", false),
        ] {
            assert_eq!(pc.wants_linux32(&platform(wanted)), want, "{wanted}");
        }
        assert!(!machine(&["linux/386"], false).wants_linux32(&platform("linux/386")));
    }

    #[test]
    fn warns_of_programs_that_cannot_run() {
        let pc = machine(&["linux/amd64"], true);
        let no_handler = |_: &Platform| false;
        for (formats, foreign) in [
            (&["elf:x86_64"][..], false),
            (&["elf:i386"], false),
            (&["elf:aarch64"], true),
            (&["script:/bin/sh", "elf:aarch64"], true),
            (&["script:/bin/sh", "elf:x86_64"], false),
            (&["missing"], false),
            (&["elf:unheard-of"], false),
            (&[], false),
        ] {
            let formats: Vec<String> = formats.iter().map(|format| (*format).to_owned()).collect();
            assert_eq!(pc.foreign_program(&formats, no_handler).is_some(), foreign, "{formats:?}");
        }
        let arm = ["elf:aarch64".to_owned()];
        assert_eq!(pc.foreign_program(&arm, |platform| platform.architecture == "arm64"), None);
    }
}
