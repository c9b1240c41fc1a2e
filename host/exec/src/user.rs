//! Who a process runs as: `USER` strings resolved against the root's own `/etc/passwd` and
//! `/etc/group`.
//!
//! Invariants:
//!
//! - A string that was not written as root never becomes uid 0: numbers are plain decimal digits
//!   within `0..=2147483647` (the range Docker takes), everything else is a name that must be found.
//! - The files are untrusted: regular files only, at most 10 MiB, opened inside the root; entries
//!   that do not parse or are out of range are as if they were not there.

use std::os::fd::BorrowedFd;

use wbuild_graph::{Failure, FailureKind};

use crate::inroot;

/// Largest `/etc/passwd` or `/etc/group` that is read.
pub const FILE_LIMIT: usize = 10 << 20;

/// Largest user or group number. The kernel's own limit is higher, but numbers above this one have
/// wrapped around to root in other tools (CVE-2024-40635).
pub const MAX_ID: u32 = i32::MAX as u32;

/// A resolved user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Primary group.
    pub gid: u32,
    /// Supplementary groups, sorted, each once.
    pub additional_gids: Vec<u32>,
    /// Login name, where the user has an entry in `/etc/passwd`.
    pub name: Option<String>,
    /// Home directory of that entry; `/` without one.
    pub home: String,
}

/// A user or a group as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// Decimal digits, in range.
    Id(u32),
    /// Anything else; to be looked up.
    Text(String),
}

/// `user[:group]` as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserSpec {
    /// Before the colon.
    pub user: Name,
    /// After it.
    pub group: Option<Name>,
}

impl Name {
    fn parse(text: &str, what: &str, whole: &str) -> Result<Name, Failure> {
        let invalid = |why: &str| {
            Err(Failure::invalid(format!("invalid user {whole:?}: the {what} {why}"))
                .hint("write USER name, USER uid, USER uid:gid or USER name:group"))
        };
        if text.is_empty() {
            return invalid("is empty");
        }
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return invalid("contains white space or control characters");
        }
        if text.bytes().all(|b| b.is_ascii_digit()) {
            return match text.parse::<u32>() {
                Ok(id) if id <= MAX_ID => Ok(Name::Id(id)),
                _ => invalid(&format!("is not within 0 to {MAX_ID}")),
            };
        }
        Ok(Name::Text(text.to_owned()))
    }

    /// Whether an entry with this name and number is meant.
    fn is(&self, name: &str, id: u32) -> bool {
        match self {
            Name::Id(wanted) => *wanted == id,
            Name::Text(wanted) => wanted == name,
        }
    }
}

impl UserSpec {
    /// Reads `user[:group]`. An empty string is invalid: that no user was given is the caller's to
    /// know.
    pub fn parse(text: &str) -> Result<UserSpec, Failure> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        if group.is_some_and(|group| group.contains(':')) {
            return Err(Failure::invalid(format!("invalid user {text:?}: more than one colon")));
        }
        Ok(UserSpec {
            user: Name::parse(user, "user", text)?,
            group: group.map(|group| Name::parse(group, "group", text)).transpose()?,
        })
    }

    /// Looks the names up. `passwd` and `group` are the files' contents (passwd(5), group(5)).
    ///
    /// A number without an entry is taken as it is, with group 0; a name without one is a
    /// `NotFound`. Supplementary groups count only where no group was written, as in Docker.
    pub fn resolve(&self, passwd: &[u8], group: &[u8]) -> Result<Identity, Failure> {
        let entry = entries(passwd)
            .filter_map(|fields| {
                let name = fields.first().copied()?;
                let (uid, gid) = (id(fields.get(2)?)?, id(fields.get(3)?)?);
                let home = fields.get(5).copied().unwrap_or("");
                self.user.is(name, uid).then(|| Identity {
                    uid,
                    gid,
                    additional_gids: Vec::new(),
                    name: Some(name.to_owned()),
                    home: if home.starts_with('/') { home.to_owned() } else { "/".to_owned() },
                })
            })
            .next();
        let mut identity = match (entry, &self.user) {
            (Some(entry), _) => entry,
            (None, Name::Id(uid)) => {
                Identity { uid: *uid, home: "/".to_owned(), ..Identity::default() }
            }
            (None, Name::Text(name)) => {
                return Err(Failure::new(
                    FailureKind::NotFound,
                    format!("user {name:?} is not in the image's /etc/passwd"),
                )
                .hint("add the user in an earlier step, or give its number"));
            }
        };
        match &self.group {
            Some(wanted) => {
                identity.gid = self.lookup_group(wanted, group)?;
            }
            None => {
                if let Some(name) = &identity.name {
                    identity.additional_gids = entries(group)
                        .filter(|fields| {
                            fields
                                .get(3)
                                .is_some_and(|members| members.split(',').any(|m| m == name))
                        })
                        .filter_map(|fields| id(fields.get(2)?))
                        .collect();
                    identity.additional_gids.sort_unstable();
                    identity.additional_gids.dedup();
                }
            }
        }
        Ok(identity)
    }

    fn lookup_group(&self, wanted: &Name, group: &[u8]) -> Result<u32, Failure> {
        lookup_group(wanted, group)
    }
}

fn lookup_group(wanted: &Name, group: &[u8]) -> Result<u32, Failure> {
    let found = entries(group).find_map(|fields| {
        let gid = id(fields.get(2)?)?;
        wanted.is(fields.first()?, gid).then_some(gid)
    });
    match (found, wanted) {
        (Some(gid), _) => Ok(gid),
        (None, Name::Id(gid)) => Ok(*gid),
        (None, Name::Text(name)) => Err(Failure::new(
            FailureKind::NotFound,
            format!("group {name:?} is not in the image's /etc/group"),
        )
        .hint("add the group in an earlier step, or give its number")),
    }
}

/// Lines of a colon-separated file, as fields; comments, NIS markers and lines that are not UTF-8
/// are left out.
fn entries(file: &[u8]) -> impl Iterator<Item = Vec<&str>> {
    file.split(|byte| *byte == b'\n').filter_map(|line| {
        let line = std::str::from_utf8(line).ok()?;
        let line = line.strip_suffix('\r').unwrap_or(line);
        let skipped = line.is_empty() || line.starts_with(['#', '+', '-', ':']);
        (!skipped).then(|| line.split(':').collect())
    })
}

/// A number of a passwd or group entry.
fn id(text: &str) -> Option<u32> {
    match Name::parse(text, "", "") {
        Ok(Name::Id(id)) => Some(id),
        _ => None,
    }
}

/// Resolves `user[:group]` in the root `root`.
pub fn resolve(root: BorrowedFd<'_>, text: &str) -> Result<Identity, Failure> {
    let spec = UserSpec::parse(text)?;
    let (passwd, group) = files(root)?;
    spec.resolve(&passwd, &group)
}

/// The identity of a process for which no `USER` is set: root, with root's home.
pub fn root(root: BorrowedFd<'_>) -> Result<Identity, Failure> {
    resolve(root, "0")
}

/// Resolves the owner of `--chown=user[:group]` in the root `root`: uid and gid. Without a group it
/// is a number's own number, and a name's own primary group (Dockerfile reference, `COPY --chown`).
pub fn resolve_owner(root: BorrowedFd<'_>, text: &str) -> Result<(u32, u32), Failure> {
    let spec = UserSpec::parse(text)?;
    if let (Name::Id(uid), group) = (&spec.user, &spec.group) {
        match group {
            None => return Ok((*uid, *uid)),
            Some(Name::Id(gid)) => return Ok((*uid, *gid)),
            Some(_) => {}
        }
    }
    let (passwd, group) = files(root)?;
    let identity = spec.resolve(&passwd, &group)?;
    let uid = if let Name::Id(uid) = spec.user { uid } else { identity.uid };
    Ok((uid, identity.gid))
}

fn files(root: BorrowedFd<'_>) -> Result<(Vec<u8>, Vec<u8>), Failure> {
    let file = |path| Ok(inroot::read(root, path, FILE_LIMIT)?.unwrap_or_default());
    Ok((file("etc/passwd")?, file("etc/group")?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWD: &[u8] =
        b"root:x:0:0:root:/root:/bin/sh\n# comment\n\nbroken\nbig:x:4294967296:0::/big:\n\
        app:x:1000:1001:App:/home/app:/bin/sh\nnohome:x:7:8\nweird:x:9:9::relative:\n\
        0x0:x:77:77::/hex:\nminus:x:-1:-1::/m:\napp:x:5:5::/second:\n";
    const GROUP: &[u8] =
        b"root:x:0:\nstaff:x:50:app,other\naudio:x:29:app\naudio2:x:29:app\nempty:x:60:\n\
        bad:x:99999999999:app\nwheel:x:10:root,app2\n";

    fn id_of(text: &str) -> Result<(u32, u32, Vec<u32>, String), Failure> {
        let identity = UserSpec::parse(text)?.resolve(PASSWD, GROUP)?;
        Ok((identity.uid, identity.gid, identity.additional_gids, identity.home))
    }

    #[test]
    fn resolves_names_numbers_and_groups() {
        let cases: &[(&str, u32, u32, &[u32], &str)] = &[
            ("root", 0, 0, &[10], "/root"),
            ("0", 0, 0, &[10], "/root"),
            ("app", 1000, 1001, &[29, 50], "/home/app"),
            ("1000", 1000, 1001, &[29, 50], "/home/app"),
            ("app:staff", 1000, 50, &[], "/home/app"),
            ("app:0", 1000, 0, &[], "/home/app"),
            ("4242", 4242, 0, &[], "/"),
            ("4242:60", 4242, 60, &[], "/"),
            ("4242:empty", 4242, 60, &[], "/"),
            ("4242:4243", 4242, 4243, &[], "/"),
            ("nohome", 7, 8, &[], "/"),
            ("weird", 9, 9, &[], "/"),
            ("0x0", 77, 77, &[], "/hex"),
            ("2147483647", 2147483647, 0, &[], "/"),
            ("007", 7, 8, &[], "/"),
        ];
        for (text, uid, gid, groups, home) in cases {
            let want = (*uid, *gid, groups.to_vec(), (*home).to_owned());
            assert_eq!(id_of(text).unwrap(), want, "{text}");
        }
    }

    #[test]
    fn refuses_what_could_turn_into_root() {
        for text in [
            "",
            ":",
            ":0",
            "app:",
            "4294967296",
            "4294967295",
            "2147483648",
            "-1",
            "-0",
            "+0",
            "0x1",
            "99999999999999999999999",
            "0:-1",
            "0:4294967296",
            "0:0:0",
            "ro\0ot",
            "root\n",
            " 0",
            "0 ",
            "٠",
            "minus",
            "big",
            "0b0",
            "1e0",
            "nobody",
            "app:nogroup",
            "\u{200b}0x",
            "root:bad",
        ] {
            assert!(id_of(text).is_err(), "{text:?} was accepted: {:?}", id_of(text));
        }
    }

    #[test]
    fn owners_of_copies_default_to_their_own_number() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::fs::write(dir.path().join("etc/passwd"), PASSWD).unwrap();
        std::fs::write(dir.path().join("etc/group"), GROUP).unwrap();
        let root = std::fs::File::open(dir.path()).unwrap();
        let owner = |text| resolve_owner(std::os::fd::AsFd::as_fd(&root), text).unwrap();
        assert_eq!(owner("1000"), (1000, 1000));
        assert_eq!(owner("1000:7"), (1000, 7));
        assert_eq!(owner("app"), (1000, 1001));
        assert_eq!(owner("app:staff"), (1000, 50));
        assert_eq!(owner("4:staff"), (4, 50));
    }

    proptest! {
        #[test]
        fn only_decimal_zero_or_a_root_entry_is_root(
            text in "[-+0-9a-fx: ]{0,12}|\\PC{0,8}", passwd in "([a-z0-9x-]{0,4}:x?:[-+0-9x]{0,11}:[0-9]{0,3}:?:?/?\n){0,4}",
        ) {
            if let Ok(spec) = UserSpec::parse(&text)
                && let Ok(identity) = spec.resolve(passwd.as_bytes(), b"")
                && identity.uid == 0
            {
                let zero = matches!(spec.user, Name::Id(0));
                // The entry that was found says 0 in plain digits.
                let entry = passwd.lines().any(|line| {
                    let mut fields = line.split(':');
                    fields.next() == text.split(':').next()
                        && fields.nth(1).is_some_and(|uid| !uid.is_empty() && uid.bytes().all(|b| b == b'0'))
                });
                prop_assert!(zero || entry, "{text:?} became root");
            }
        }

        #[test]
        fn arbitrary_files_never_panic_and_ids_stay_in_range(passwd: Vec<u8>, group: Vec<u8>, uid in 0u32..=MAX_ID) {
            let spec = UserSpec::parse(&uid.to_string()).unwrap();
            let identity = spec.resolve(&passwd, &group).unwrap();
            prop_assert_eq!(identity.uid, uid);
            prop_assert!(identity.gid <= MAX_ID);
        }
    }
}
