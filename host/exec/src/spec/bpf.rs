//! Compiles system call rules into the filter program the kernel runs (seccomp(2), "Filters";
//! classic BPF, linux/filter.h).
//!
//! Layout: the architecture selects a block; in a block, a balanced tree of `number >= k` tests over
//! ranges of calls that share a verdict ends in returns. So a call costs about eight comparisons,
//! and calls that are always allowed hit the kernel's own bitmap and run no program at all.
//!
//! Invariants: every path ends in a return (there are no backward jumps, as the kernel demands); a
//! call of an unknown architecture kills the process; a number that no rule names answers `EPERM`,
//! one of x86's x32 interface `ENOSYS`, as on a kernel without it.

use std::str::FromStr;

use super::seccomp::{Check, ENOSYS, EPERM, Rule, Verdict};

/// One instruction (`struct sock_filter`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when a test holds.
    pub jt: u8,
    /// Instructions to skip when it does not.
    pub jf: u8,
    /// Operand.
    pub k: u32,
}

const LD_ABS: u16 = 0x20;
const AND: u16 = 0x54;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGE: u16 = 0x35;
const RET: u16 = 0x06;

const RET_KILL_PROCESS: u32 = 0x8000_0000;
const RET_ERRNO: u32 = 0x0005_0000;
const RET_ALLOW: u32 = 0x7fff_0000;

/// Offsets in `struct seccomp_data`.
const DATA_NR: u32 = 0;
const DATA_ARCH: u32 = 4;
const DATA_ARGS: u32 = 16;

/// `__X32_SYSCALL_BIT`.
const X32: u32 = 0x4000_0000;

/// The kernel's limit (`BPF_MAXINSNS`).
const MAX_INSTRUCTIONS: usize = 4096;

/// A table of system call numbers: `AUDIT_ARCH_*`, and name to number.
struct Table {
    audit: u32,
    number: fn(&str) -> Option<u32>,
    x32: bool,
}

macro_rules! number {
    ($arch:ident) => {
        |name: &str| {
            let found = syscalls::$arch::Sysno::from_str(name).ok()?;
            u32::try_from(found.id()).ok()
        }
    };
}

const X86_64: Table = Table { audit: 0xc000_003e, number: number!(x86_64), x32: true };
const X86: Table = Table { audit: 0x4000_0003, number: number!(x86), x32: false };
const AARCH64: Table = Table { audit: 0xc000_00b7, number: number!(aarch64), x32: false };
const ARM: Table = Table { audit: 0x4000_0028, number: arm_number, x32: false };
const RISCV64: Table = Table { audit: 0xc000_00f3, number: number!(riscv64), x32: false };
const S390X: Table = Table { audit: 0x8000_0016, number: number!(s390x), x32: false };
const PPC64LE: Table = Table { audit: 0xc000_0015, number: number!(powerpc64), x32: false };

/// 32 bit ARM has calls of its own beside the table (`__ARM_NR_BASE`); every thread needs `set_tls`.
fn arm_number(name: &str) -> Option<u32> {
    match name {
        "breakpoint" => Some(0x000f_0001),
        "cacheflush" => Some(0x000f_0002),
        "set_tls" => Some(0x000f_0005),
        _ => number!(arm)(name),
    }
}

fn tables(architecture: &str) -> Option<&'static [Table]> {
    Some(match architecture {
        "amd64" => &[X86_64, X86],
        "386" => &[X86],
        "arm64" => &[AARCH64, ARM],
        "arm" => &[ARM],
        "riscv64" => &[RISCV64],
        "s390x" => &[S390X],
        "ppc64le" => &[PPC64LE],
        _ => return None,
    })
}

/// Compiles rules for a machine of `architecture` (`amd64`, `arm64`, ...). `None` where its numbers
/// are not known; the runtime then compiles the OCI section itself.
pub fn compile(rules: &[Rule], architecture: &str) -> Option<Vec<Instruction>> {
    let big_endian = architecture == "s390x";
    let mut program = vec![load(DATA_ARCH)];
    for table in tables(architecture)? {
        let block = block(rules, table, big_endian);
        program.push(Instruction { code: JEQ, jt: 1, jf: 0, k: table.audit });
        program.push(jump(block.len()));
        program.extend(block);
    }
    program.push(ret(RET_KILL_PROCESS));
    // Unreachable while the rules are the ones of this crate (about 300 instructions a table).
    (program.len() <= MAX_INSTRUCTIONS).then_some(program)
}

/// The program as bytes, as a runtime hands it to the kernel.
pub fn bytes(program: &[Instruction]) -> Vec<u8> {
    let mut out = Vec::with_capacity(program.len() * 8);
    for instruction in program {
        out.extend(instruction.code.to_ne_bytes());
        out.extend([instruction.jt, instruction.jf]);
        out.extend(instruction.k.to_ne_bytes());
    }
    out
}

fn load(offset: u32) -> Instruction {
    Instruction { code: LD_ABS, jt: 0, jf: 0, k: offset }
}

fn jump(skip: usize) -> Instruction {
    let k = u32::try_from(skip).expect("a program has a few hundred instructions");
    Instruction { code: JA, jt: 0, jf: 0, k }
}

fn ret(value: u32) -> Instruction {
    Instruction { code: RET, jt: 0, jf: 0, k: value }
}

fn verdict(verdict: Verdict) -> Instruction {
    ret(match verdict {
        Verdict::Allow => RET_ALLOW,
        Verdict::Errno(errno) => RET_ERRNO | errno,
    })
}

/// Code for one architecture's calls.
fn block(rules: &[Rule], table: &Table, big_endian: bool) -> Vec<Instruction> {
    // Number to code, for the calls that rules name.
    let mut calls: Vec<(u32, Vec<Instruction>)> = Vec::new();
    for group in rules.chunk_by(|a, b| a.name == b.name) {
        if let Some(number) = (table.number)(group[0].name) {
            calls.push((number, call(group, big_endian)));
        }
    }
    calls.sort_by_key(|(number, _)| *number);
    // Ranges that share their code: (first number, code); everything in between is refused.
    let refused = vec![ret(RET_ERRNO | EPERM)];
    let mut ranges: Vec<(u32, Vec<Instruction>)> = vec![(0, refused.clone())];
    let mut add = |first: u32, code: Vec<Instruction>| {
        let last = ranges.last_mut().expect("there is a first range");
        if last.0 == first {
            last.1 = code;
        } else if last.1 != code {
            ranges.push((first, code));
        }
    };
    for (number, code) in calls {
        add(number, code);
        add(number + 1, refused.clone());
    }
    // Overwriting a range can leave equal neighbours behind.
    ranges.dedup_by(|next, previous| next.1 == previous.1);
    if table.x32 {
        ranges.push((X32, vec![ret(RET_ERRNO | ENOSYS)]));
    }
    let mut code = vec![load(DATA_NR)];
    code.extend(tree(&ranges));
    code
}

/// A balanced tree of comparisons over sorted ranges.
fn tree(ranges: &[(u32, Vec<Instruction>)]) -> Vec<Instruction> {
    let [(_, only)] = ranges else {
        let (low, high) = ranges.split_at(ranges.len() / 2);
        let (first, low, high) = (high[0].0, tree(low), tree(high));
        let mut code = Vec::with_capacity(low.len() + high.len() + 2);
        // A conditional jump reaches 255 instructions, an unconditional one everything.
        match u8::try_from(low.len()) {
            Ok(skip) => code.push(Instruction { code: JGE, jt: skip, jf: 0, k: first }),
            Err(_) => {
                code.push(Instruction { code: JGE, jt: 0, jf: 1, k: first });
                code.push(jump(low.len()));
            }
        }
        code.extend(low);
        code.extend(high);
        return code;
    };
    only.clone()
}

/// Code for one call; `rules` are the ones of its name.
fn call(rules: &[Rule], big_endian: bool) -> Vec<Instruction> {
    let mut code = Vec::new();
    for rule in rules {
        let Some(check) = rule.check else {
            code.push(verdict(rule.verdict));
            return code;
        };
        code.extend(test(check, big_endian));
        code.push(verdict(rule.verdict));
    }
    code.push(ret(RET_ERRNO | EPERM));
    code
}

/// Code that runs on into the next instruction if the check holds and skips it otherwise.
fn test(check: Check, big_endian: bool) -> Vec<Instruction> {
    let half = |index: u32, high: bool| {
        load(DATA_ARGS + 8 * index + if high != big_endian { 4 } else { 0 })
    };
    let split = |value: u64| ((value >> 32) as u32, (value & 0xffff_ffff) as u32);
    match check {
        Check::Is { index, value } => {
            let (high, low) = split(value);
            vec![
                half(index, true),
                Instruction { code: JEQ, jt: 0, jf: 3, k: high },
                half(index, false),
                Instruction { code: JEQ, jt: 0, jf: 1, k: low },
            ]
        }
        // The kernel looks at the low half alone; so must the filter, or setting a high bit would
        // get past it.
        Check::IsNot { index, value } => {
            vec![half(index, false), Instruction { code: JEQ, jt: 1, jf: 0, k: split(value).1 }]
        }
        Check::Without { index, bits } => {
            let (high, low) = split(bits);
            let mut code = Vec::new();
            if high != 0 {
                code.extend([
                    half(index, true),
                    Instruction { code: AND, jt: 0, jf: 0, k: high },
                    Instruction { code: JEQ, jt: 0, jf: 4, k: 0 },
                ]);
            }
            code.extend([
                half(index, false),
                Instruction { code: AND, jt: 0, jf: 0, k: low },
                Instruction { code: JEQ, jt: 0, jf: 1, k: 0 },
            ]);
            code
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{capabilities, seccomp};
    use super::*;

    /// What the kernel does with a program: an interpreter of the few operations used.
    fn run(program: &[Instruction], nr: u32, arch: u32, args: [u64; 6], big_endian: bool) -> u32 {
        let mut data = Vec::new();
        let word = |v: u32| if big_endian { v.to_be_bytes() } else { v.to_le_bytes() };
        data.extend(word(nr));
        data.extend(word(arch));
        data.extend([0; 8]);
        for arg in args {
            data.extend(if big_endian { arg.to_be_bytes() } else { arg.to_le_bytes() });
        }
        let (mut at, mut a) = (0usize, 0u32);
        loop {
            let i = program[at];
            at += 1;
            match i.code {
                LD_ABS => {
                    let bytes: [u8; 4] = data[i.k as usize..i.k as usize + 4].try_into().unwrap();
                    a = if big_endian {
                        u32::from_be_bytes(bytes)
                    } else {
                        u32::from_le_bytes(bytes)
                    };
                }
                AND => a &= i.k,
                JA => at += i.k as usize,
                JEQ => at += usize::from(if a == i.k { i.jt } else { i.jf }),
                JGE => at += usize::from(if a >= i.k { i.jt } else { i.jf }),
                RET => return i.k,
                other => panic!("unknown operation {other:#x}"),
            }
        }
    }

    /// The rules' meaning, stated without a tree.
    fn meaning(rules: &[Rule], name: Option<&str>, args: [u64; 6]) -> u32 {
        for rule in rules.iter().filter(|rule| Some(rule.name) == name) {
            let holds = match rule.check {
                None => true,
                Some(Check::Is { index, value }) => args[index as usize] == value,
                Some(Check::IsNot { index, value }) => args[index as usize] as u32 != value as u32,
                Some(Check::Without { index, bits }) => args[index as usize] & bits == 0,
            };
            if holds {
                return match rule.verdict {
                    Verdict::Allow => RET_ALLOW,
                    Verdict::Errno(errno) => RET_ERRNO | errno,
                };
            }
        }
        RET_ERRNO | EPERM
    }

    fn agree(architecture: &str, args: [u64; 6], caps: &[oci_spec::runtime::Capability]) {
        let rules = seccomp::rules(caps, architecture);
        let program = compile(&rules, architecture).unwrap();
        let big_endian = architecture == "s390x";
        for table in tables(architecture).unwrap() {
            let mut names = std::collections::BTreeMap::new();
            for rule in &rules {
                if let Some(number) = (table.number)(rule.name) {
                    names.insert(number, rule.name);
                }
            }
            for nr in (0..700).chain([1000, 0x000f_0005, X32 - 1, u32::MAX - X32]) {
                let want = meaning(&rules, names.get(&nr).copied(), args);
                let got = run(&program, nr, table.audit, args, big_endian);
                if !(table.x32 && nr >= X32) {
                    assert_eq!(got, want, "{architecture} {:#x} call {nr}", table.audit);
                }
            }
            if table.x32 {
                for nr in [X32, X32 | 1, X32 | 520, u32::MAX] {
                    assert_eq!(run(&program, nr, table.audit, args, false), RET_ERRNO | ENOSYS);
                }
            }
        }
        assert_eq!(run(&program, 0, 0x1234, args, big_endian), RET_KILL_PROCESS);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn the_program_means_what_the_rules_say(
            first in prop_oneof![
                Just(0u64), Just(8), Just(40), Just(0x20000), Just(0x20008), Just(0xffff_ffff),
                Just(0x1_0000_0028), Just(0x1000_0000), Just(0x7e02_0000), Just(0x11), any::<u64>(),
            ],
            rest: [u64; 5],
            architecture in prop_oneof![
                Just("amd64"), Just("386"), Just("arm64"), Just("arm"), Just("riscv64"), Just("s390x"), Just("ppc64le"),
            ],
            admin: bool,
        ) {
            let args = [first, rest[0], rest[1], rest[2], rest[3], rest[4]];
            let mut caps = capabilities::DEFAULT.to_vec();
            if admin {
                caps.push(oci_spec::runtime::Capability::SysAdmin);
            }
            agree(architecture, args, &caps);
        }
    }

    #[test]
    fn a_new_user_namespace_and_vsock_are_refused() {
        let rules = seccomp::rules(&capabilities::DEFAULT, "amd64");
        let program = compile(&rules, "amd64").unwrap();
        let call = |name: &str, first: u64| {
            let nr = (X86_64.number)(name).unwrap();
            run(&program, nr, X86_64.audit, [first, 0, 0, 0, 0, 0], false)
        };
        assert_eq!(call("clone", 0x11), RET_ALLOW);
        assert_eq!(call("clone", 0x1000_0011), RET_ERRNO | EPERM);
        assert_eq!(call("clone3", 0), RET_ERRNO | ENOSYS);
        assert_eq!(call("socket", 2), RET_ALLOW);
        assert_eq!(call("socket", 40), RET_ERRNO | EPERM);
        assert_eq!(call("socket", 0x1_0000_0028), RET_ERRNO | EPERM);
        assert_eq!(call("unshare", 0), RET_ERRNO | EPERM);
        assert!(program.len() < 1024, "{} instructions", program.len());
    }
}
