//! Mode changes as `--chmod` takes them: octal, or symbolic as in POSIX `chmod`.

use std::str::FromStr;

use crate::error::TreeError;

/// A change of permission bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModeChange {
    /// Replaces all twelve bits (`07777`).
    Octal(u32),
    /// Changes the bits that are there, clause by clause.
    Symbolic(Vec<Clause>),
}

/// One action of a symbolic mode, e.g. `go=rX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    /// The bits of the classes (`u`, `g`, `o`) it is about: `0700`, `0070`, `0007` together.
    who: u32,
    operator: Operator,
    /// The named permissions, repeated for all classes; and set-id and sticky bits.
    bits: u32,
    /// `X`: execute for directories and for what is executable by anybody.
    conditional_execute: bool,
    /// `u`, `g` or `o` on the right: take the permissions of that class.
    copy_from: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Add,
    Remove,
    Set,
}

impl ModeChange {
    /// The mode that results from `mode`, both within `07777`.
    pub fn apply(&self, mode: u32, is_dir: bool) -> u32 {
        match self {
            ModeChange::Octal(bits) => *bits,
            ModeChange::Symbolic(clauses) => {
                clauses.iter().fold(mode & 0o7777, |now, clause| clause.apply(now, mode, is_dir))
            }
        }
    }
}

impl Clause {
    fn apply(&self, now: u32, original: u32, is_dir: bool) -> u32 {
        let mut bits = self.bits;
        if self.conditional_execute && (is_dir || original & 0o111 != 0) {
            bits |= 0o111;
        }
        if let Some(shift) = self.copy_from {
            bits |= ((now >> shift) & 7) * 0o111;
        }
        // Permissions of the classes meant, and the set-id and sticky bits that belong to them.
        let mut mask = self.who;
        for (class, special) in [(0o700, 0o4000), (0o070, 0o2000), (0o007, 0o1000)] {
            if self.who & class != 0 {
                mask |= special;
            }
        }
        match self.operator {
            Operator::Add => now | (bits & mask),
            Operator::Remove => now & !(bits & mask),
            Operator::Set => (now & !mask) | (bits & mask),
        }
    }
}

impl FromStr for ModeChange {
    type Err = TreeError;

    /// Reads `755`, `0644`, `u=rwX,go=rX`, `a+x`, `+x`, `g-w+x`, `o=u`.
    fn from_str(text: &str) -> Result<Self, TreeError> {
        let fail = |reason| TreeError::Mode { mode: text.to_owned(), reason };
        if text.bytes().next().is_some_and(|byte| byte.is_ascii_digit()) {
            let digits = text.strip_prefix("0o").unwrap_or(text);
            return match u32::from_str_radix(digits, 8) {
                Ok(bits) if bits <= 0o7777 => Ok(ModeChange::Octal(bits)),
                _ => Err(fail("an octal mode has digits 0 to 7 and is at most 7777")),
            };
        }
        let mut clauses = Vec::new();
        for part in text.split(',') {
            let mut rest = part.as_bytes();
            let mut who = 0;
            while let [class @ (b'u' | b'g' | b'o' | b'a'), after @ ..] = rest {
                who |= match class {
                    b'u' => 0o700,
                    b'g' => 0o070,
                    b'o' => 0o007,
                    _ => 0o777,
                };
                rest = after;
            }
            if who == 0 {
                who = 0o777;
            }
            if rest.is_empty() {
                return Err(fail("an operator (+, - or =) is missing"));
            }
            while let [operator, after @ ..] = rest {
                let operator = match operator {
                    b'+' => Operator::Add,
                    b'-' => Operator::Remove,
                    b'=' => Operator::Set,
                    _ => return Err(fail("expected one of + - = and then letters of rwxXst")),
                };
                let mut clause =
                    Clause { who, operator, bits: 0, conditional_execute: false, copy_from: None };
                rest = after;
                while let [letter, after @ ..] = rest {
                    match letter {
                        b'r' => clause.bits |= 0o444,
                        b'w' => clause.bits |= 0o222,
                        b'x' => clause.bits |= 0o111,
                        b'X' => clause.conditional_execute = true,
                        b's' => clause.bits |= 0o6000,
                        b't' => clause.bits |= 0o1000,
                        b'u' => clause.copy_from = Some(6),
                        b'g' => clause.copy_from = Some(3),
                        b'o' => clause.copy_from = Some(0),
                        _ => break,
                    }
                    rest = after;
                }
                clauses.push(clause);
            }
        }
        Ok(ModeChange::Symbolic(clauses))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn applies_like_chmod() {
        for (change, mode, is_dir, wanted) in [
            ("755", 0o600, false, 0o755),
            ("0644", 0o777, true, 0o644),
            ("4755", 0o600, false, 0o4755),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("u=rwX,go=rX", 0o610, false, 0o755),
            ("+x", 0o644, false, 0o755),
            ("a+x", 0o644, false, 0o755),
            ("go-w", 0o666, false, 0o644),
            ("u+s", 0o755, false, 0o4755),
            ("g+s,o+t", 0o755, true, 0o3755),
            ("u=rw", 0o4755, false, 0o655),
            ("go=", 0o777, false, 0o700),
            ("o=u", 0o750, false, 0o757),
            ("g=o-w+x", 0o702, false, 0o712),
            ("u-x+s", 0o755, false, 0o4655),
            ("a=r,u+w", 0o777, false, 0o644),
        ] {
            let parsed: ModeChange = change.parse().unwrap();
            let got = parsed.apply(mode, is_dir);
            assert_eq!(got, wanted, "{change} on {mode:o}: {got:o}");
        }
    }

    #[test]
    fn refuses_what_is_no_mode() {
        for text in ["", "8", "77777", "u", "rwx", "u=q", "u+x,", "755x", "+x y", "-1"] {
            // "-1" begins like a removal and has no letter that is a permission.
            assert!(text.parse::<ModeChange>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_stays_in_range(text in "[ugoa+=,rwxXst0-9-]{0,10}", mode in 0_u32..0o10000) {
            if let Ok(change) = text.parse::<ModeChange>() {
                prop_assert!(change.apply(mode, false) <= 0o7777);
                prop_assert!(change.apply(mode, true) <= 0o7777);
            }
        }
    }
}
