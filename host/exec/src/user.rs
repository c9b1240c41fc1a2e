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

    const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:App:/home/app:/bin/sh\n";
    const GROUP: &[u8] = b"root:x:0:\nstaff:x:50:app,other\n";

    /// What must become of a user: uid, gid and supplementary groups, or nothing.
    type Want<'w> = Option<(u32, u32, &'w [u32])>;

    const REFUSED: Want<'static> = None;

    /// Name of the case, the user, `/etc/passwd`, `/etc/group`, and what must become of it.
    type Case<'c> = (&'c str, &'c str, &'c str, &'c str, Want<'c>);

    /// Where a user becomes uid 0, the name of the case says so.
    #[rustfmt::skip]
    fn cases() -> Vec<Case<'static>> {
        let long: &'static str = Box::leak(format!("{}:x:0:0\napp:x:7:7:{}:/:/sh\n", "a".repeat(1 << 20), "g".repeat(3 << 20)).into_boxed_str());
        let members: &'static str = Box::leak(format!("g:x:5:{}app\n", "other,".repeat(100_000)).into_boxed_str());
        let app = "app:x:7:8::/:/sh\n";
        vec![
            // As a number.
            ("zero is root", "0", "", "", Some((0, 0, &[]))),
            ("zeros are root", "000", "", "", Some((0, 0, &[]))),
            ("a number with zeros in front", "007", "", "", Some((7, 0, &[]))),
            ("the highest number", "2147483647", "", "", Some((2147483647, 0, &[]))),
            ("2^31", "2147483648", "", "", REFUSED),
            ("2^32 - 1, which chown ignores", "4294967295", "", "", REFUSED),
            ("2^32, which wraps to root", "4294967296", "", "", REFUSED),
            ("2^64, which wraps to root", "18446744073709551616", "", "", REFUSED),
            ("a number without end", "00000000000000000000000000000000000000004294967296", "", "", REFUSED),
            ("negative", "-1", "", "", REFUSED),
            ("negative zero", "-0", "", "", REFUSED),
            ("zero with a sign", "+0", "", "", REFUSED),
            ("zero in hex", "0x0", "", "", REFUSED),
            ("zero in octal", "0o0", "", "", REFUSED),
            ("zero in binary", "0b0", "", "", REFUSED),
            ("zero with a fraction", "0.0", "", "", REFUSED),
            ("zero with an exponent", "0e1", "", "", REFUSED),
            ("zero with an underscore", "0_0", "", "", REFUSED),
            ("a blank before zero", " 0", "", "", REFUSED),
            ("a blank behind zero", "0 ", "", "", REFUSED),
            ("a line end behind zero", "0\n", "", "", REFUSED),
            ("NUL behind zero", "0\0", "", "", REFUSED),
            ("NUL in a name", "ro\0ot", "root:x:0:0\n", "", REFUSED),
            ("zero of another alphabet", "\u{660}", "", "", REFUSED),
            ("zero of full width", "\u{ff10}", "", "", REFUSED),
            ("an invisible character before zero", "\u{200b}0", "", "", REFUSED),
            ("nothing", "", "", "", REFUSED),
            ("a colon", ":", "", "", REFUSED),
            ("a group alone", ":0", "", "", REFUSED),
            ("no group behind the colon", "7:", "", "", REFUSED),
            ("three parts", "0:0:0", "", "", REFUSED),
            // As a name.
            ("a name that is root", "toor", "root:x:0:0\ntoor:x:0:0\n", "", Some((0, 0, &[]))),
            ("a name that is not there", "app", "root:x:0:0\n", "", REFUSED),
            ("no file", "app", "", "", REFUSED),
            ("a name like a hex zero", "0x0", "0x0:x:7:7\n", "", Some((7, 7, &[]))),
            ("a name like a negative number", "-1", "-1:x:0:0\n", "", REFUSED),
            ("a name like a number, of root", "1000", "1000:x:0:0\n", "", Some((1000, 0, &[]))),
            ("a name like zero, of another", "0", "0:x:7:7\n", "", Some((0, 0, &[]))),
            ("a name in other letters", "ROOT", "root:x:0:0\n", "", REFUSED),
            ("part of a name", "roo", "root:x:0:0\n", "", REFUSED),
            ("a name with a star", "r*", "root:x:0:0\n", "", REFUSED),
            // The file of users.
            ("duplicate name: the first counts", "app", "app:x:7:8\napp:x:0:0\n", "", Some((7, 8, &[]))),
            ("duplicate number: the first counts", "7", "app:x:7:8\nother:x:7:0\n", "", Some((7, 8, &[]))),
            ("duplicate, the first malformed", "app", "app:x:-1:0\napp:x:7:8\n", "", Some((7, 8, &[]))),
            ("number over 2^32", "app", "app:x:4294967296:7\n", "", REFUSED),
            ("number over 2^31", "app", "app:x:2147483648:7\n", "", REFUSED),
            ("number negative", "app", "app:x:-1:7\n", "", REFUSED),
            ("number in hex", "app", "app:x:0x0:7\n", "", REFUSED),
            ("number empty", "app", "app:x::7\n", "", REFUSED),
            ("number of letters", "app", "app:x:zero:7\n", "", REFUSED),
            ("number with a blank", "app", "app:x: 0:7\n", "", REFUSED),
            ("number with NUL", "app", "app:x:0\0:7\n", "", REFUSED),
            ("group empty", "app", "app:x:7:\n", "", REFUSED),
            ("group over 2^32", "app", "app:x:7:4294967296\n", "", REFUSED),
            ("too few fields", "app", "app:x:7\n", "", REFUSED),
            ("a name alone", "app", "app\n", "", REFUSED),
            ("all fields empty", "app", "::::::\n", "", REFUSED),
            ("a field more", "app", "app:x:7:8:g:/:/sh:0\n", "", Some((7, 8, &[]))),
            ("CRLF", "app", "root:x:0:0\r\napp:x:7:8\r\n", "", Some((7, 8, &[]))),
            ("CRLF behind the number", "app", "app:x:0\r\n", "", REFUSED),
            ("CR alone between lines", "app", "root:x:0:0::/:/sh\rapp:x:0:0\r", "", REFUSED),
            ("no line end", "app", "app:x:7:8", "", Some((7, 8, &[]))),
            ("NUL instead of a line end", "app", "root:x:0:0\0app:x:0:0\n", "", REFUSED),
            ("a byte order mark", "app", "\u{feff}app:x:0:0\n", "", REFUSED),
            ("a comment", "app", "#app:x:0:0\n", "", REFUSED),
            ("a line of NIS", "+app", "+app:x:0:0\n+:::\n", "", REFUSED),
            ("lines of megabytes", "app", long, "", Some((7, 7, &[]))),
            // Groups.
            ("group by number", "app:0", app, "", Some((7, 0, &[]))),
            ("group by name", "app:g", app, "g:x:5:\n", Some((7, 5, &[]))),
            ("group that is not there", "app:g", app, "", REFUSED),
            ("group over 2^32, asked for", "app:4294967296", app, "", REFUSED),
            ("group negative, asked for", "app:-1", app, "", REFUSED),
            ("group named like a number, of root", "app:50", app, "50:x:0:\n", Some((7, 50, &[]))),
            ("group over 2^32, in the file", "app:g", app, "g:x:4294967296:\n", REFUSED),
            ("group negative, in the file", "app:g", app, "g:x:-1:\n", REFUSED),
            ("group empty, in the file", "app:g", app, "g:x::\n", REFUSED),
            ("group twice: the first counts", "app:g", app, "g:x:5:\ng:x:0:\n", Some((7, 5, &[]))),
            ("member", "app", app, "g:x:5:app\nh:x:3:a,app,b\n", Some((7, 8, &[3, 5]))),
            ("member twice", "app", app, "g:x:5:app,app\nh:x:5:app\n", Some((7, 8, &[5]))),
            ("member with CRLF", "app", app, "g:x:5:app\r\n", Some((7, 8, &[5]))),
            ("member by number", "7", app, "g:x:5:app\n", Some((7, 8, &[5]))),
            ("member of another name", "app", app, "g:x:0:app2,ap, app,*,\n", Some((7, 8, &[]))),
            ("member of malformed groups", "app", app, "g:x:-1:app\nh:x:4294967296:app\ni:x::app\n", Some((7, 8, &[]))),
            ("member of a line of NIS", "app", app, "+g:x:0:app\n", Some((7, 8, &[]))),
            ("member, with a group asked for", "app:9", app, "g:x:0:app\n", Some((7, 9, &[]))),
            ("member, as an empty name", "5", app, "g:x:0:,\n", Some((5, 0, &[]))),
            ("member of a hundred thousand", "app", app, members, Some((7, 8, &[5]))),
        ]
    }

    #[test]
    fn t_uid_users_and_groups() {
        for (name, user, passwd, group, want) in cases() {
            let spec = UserSpec::parse(user);
            let got = spec.and_then(|spec| spec.resolve(passwd.as_bytes(), group.as_bytes()));
            match (want, got) {
                (None, Err(_)) => {}
                (Some(want), Ok(got)) => {
                    assert_eq!((got.uid, got.gid, &got.additional_gids[..]), want, "{name}");
                }
                (want, got) => panic!("{name}: {got:?} instead of {want:?}"),
            }
            let is_root = want.is_some_and(|(uid, ..)| uid == 0);
            let asked = user.bytes().all(|b| b == b'0') && !user.is_empty() || user == "toor";
            assert!(!is_root || asked, "{name}: nobody asked for root");
        }
    }

    #[test]
    fn homes_are_absolute() {
        for (user, passwd, home) in [
            ("app", "app:x:7:8::/home/app:/sh\n", "/home/app"),
            ("app", "app:x:7:8:::\n", "/"),
            ("app", "app:x:7:8\n", "/"),
            ("app", "app:x:7:8::relative:\n", "/"),
            ("app", "app:x:7:8::/home/app\r\n", "/home/app"),
            ("9", "app:x:7:8::/home/app:\n", "/"),
        ] {
            let identity = UserSpec::parse(user).unwrap().resolve(passwd.as_bytes(), b"").unwrap();
            assert_eq!(identity.home, home, "{passwd:?}");
        }
    }

    /// The files of a root that are no files, are elsewhere, or are too large.
    #[test]
    fn t_uid_files_of_the_root() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("outside"), "app:x:0:0\n").unwrap();
        let outside = dir.path().join("outside");
        let root = dir.path().join("root");
        let etc = root.join("etc");
        let found = |user: &str| {
            let root = std::fs::File::open(&root).unwrap();
            resolve(std::os::fd::AsFd::as_fd(&root), user)
        };
        let fresh = || {
            let _ = std::fs::remove_dir_all(&root);
            std::fs::create_dir_all(&etc).unwrap();
        };
        for file in ["passwd", "group"] {
            let at = etc.join(file);
            // Nothing of a file of 4 GiB is read, hole or not.
            fresh();
            std::fs::File::create(&at).unwrap().set_len(4 << 30).unwrap();
            assert_eq!(found("0").unwrap_err().kind, FailureKind::Limit, "{file} of 4 GiB");
            std::fs::File::create(&at).unwrap().set_len(FILE_LIMIT as u64).unwrap();
            assert_eq!(found("0").unwrap().uid, 0, "{file} at the limit");
            fresh();
            rustix::fs::mkfifoat(rustix::fs::CWD, &at, rustix::fs::Mode::RUSR).unwrap();
            assert_eq!(found("0").unwrap_err().kind, FailureKind::Invalid, "{file} as a pipe");
            fresh();
            std::fs::create_dir(&at).unwrap();
            assert!(found("0").is_err(), "{file} as a directory");
            fresh();
            symlink(file, &at).unwrap();
            assert!(found("0").is_err(), "{file} as a loop");
        }
        for target in [outside.to_str().unwrap(), "../../outside", "/proc/self/root/etc/passwd"] {
            fresh();
            symlink(target, etc.join("passwd")).unwrap();
            assert!(found("app").is_err(), "users from {target}");
            assert_eq!(found("7").unwrap().name, None, "users from {target}");
        }
        fresh();
        std::fs::write(etc.join("users"), "app:x:7:8\n").unwrap();
        symlink("/etc/users", etc.join("passwd")).unwrap();
        assert_eq!(found("app").unwrap().uid, 7, "a link within the root");
        fresh();
        std::fs::remove_dir(&etc).unwrap();
        symlink("..", &etc).unwrap();
        std::fs::write(dir.path().join("passwd"), "app:x:0:0\n").unwrap();
        assert!(found("app").is_err(), "/etc as a link upwards");
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
