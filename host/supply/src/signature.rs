//! Detached signatures in the format of minisign: who vouches for a component.
//!
//! What is signed are the bytes of the component, so one signature serves a file, a URL and an artifact
//! of a registry. It says that the owner of the key made this component, not under which name it may be
//! offered: a policy says for which names which keys count.

use std::collections::BTreeMap;
use std::io::Cursor;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wbuild_graph::{Failure, FailureKind};

use crate::document::denied;

/// Largest signature that is read, in bytes. One takes some 300.
pub const MAX_SIGNATURE: u64 = 8 << 10;
/// What a signature's file is called: behind the component's own name.
pub const SUFFIX: &str = ".minisig";

/// Keys that a policy trusts, by their names there.
#[derive(Clone, Debug, Default)]
pub struct PublicKeys(BTreeMap<String, minisign::PublicKey>);

impl PublicKeys {
    /// Adds a key, as `minisign -G` prints it.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn add(&mut self, name: &str, text: &str) -> Result<(), String> {
        let key = minisign::PublicKey::from_base64(text.trim())
            .map_err(|_| "this is no public key of minisign".to_owned())?;
        self.0.insert(name.to_owned(), key);
        Ok(())
    }

    /// Whether there is a key of this name.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The name of the key, of those that may, that one of the signatures was made with.
    ///
    /// # Errors
    ///
    /// There is none; says which signatures there are.
    pub fn verify(
        &self,
        wanted: &[String],
        signatures: &[Signature],
        bytes: &[u8],
        what: &str,
    ) -> Result<&str, Failure> {
        let mut wrong = 0;
        for name in wanted {
            let Some((name, key)) = self.0.get_key_value(name) else { continue };
            for signature in signatures.iter().filter(|one| one.0.keynum() == key.keynum()) {
                match minisign::verify(key, &signature.0, Cursor::new(bytes), true, false, true) {
                    Ok(()) => return Ok(name),
                    Err(_) => wrong += 1,
                }
            }
        }
        let keys = wanted.join(" or ");
        let mut failure = denied(format!("{what} needs a signature of {keys}, and has none"));
        failure.causes.push(match (signatures.len(), wrong) {
            (0, _) => "there is no signature with it".to_owned(),
            (_, 0) => "it is signed with other keys".to_owned(),
            _ => "the signature of that key is not of this component: one of them was changed"
                .to_owned(),
        });
        Err(failure
            .hint("whoever has the key signs it: wbuild plugin publish --sign KEY, or minisign -S -m FILE")
            .hint("what is not to be signed needs an entry of its own in the policy, before this one"))
    }
}

/// A signature as it was read; what it is worth, [`PublicKeys::verify`] says.
#[derive(Clone)]
pub struct Signature(minisign::SignatureBox);

impl std::fmt::Debug for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signature({})", self.key_id())
    }
}

impl Signature {
    /// Reads a signature.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn read(bytes: &[u8], what: &str) -> Result<Signature, Failure> {
        let wrong = || Failure::invalid(format!("the signature of {what} is none of minisign"));
        if bytes.len() as u64 > MAX_SIGNATURE {
            return Err(Failure::new(
                FailureKind::Limit,
                format!("the signature of {what} is too large"),
            ));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| wrong())?;
        minisign::SignatureBox::from_string(text).map(Signature).map_err(|_| wrong())
    }

    /// The id of the key that it claims to be of, as minisign prints it.
    pub fn key_id(&self) -> String {
        let mut id: Vec<u8> = self.0.keynum().to_vec();
        id.reverse();
        id.iter().map(|byte| format!("{byte:02X}")).collect()
    }
}

/// Signs a component. `secret` is the text of a key file of minisign, `password` gives the password of
/// one that has one.
///
/// # Errors
///
/// It is no key, or its password is another.
pub fn sign(
    secret: &str,
    password: impl FnOnce() -> Result<String, Failure>,
    bytes: &[u8],
    comment: &str,
) -> Result<String, Failure> {
    let message = "cannot use the key to sign with";
    let failed = |error: minisign::PError| Failure::invalid(message).cause(&error);
    let none =
        || Failure::invalid(message).hint("expected the secret key file that minisign -G makes");
    let line = secret.lines().nth(1).ok_or_else(none)?;
    let raw = STANDARD.decode(line.trim()).map_err(|_| none())?;
    let read = minisign::SecretKey::from_bytes(&raw).map_err(|_| none())?;
    let key = match read.is_encrypted() {
        // Taken as it is: the tool writes no checksum into one without a password.
        false => read,
        true => minisign::SecretKeyBox::from_string(secret)
            .and_then(|sealed| {
                Ok((
                    sealed,
                    password().map_err(|failure| {
                        minisign::PError::new(minisign::ErrorKind::Io, failure.to_string())
                    })?,
                ))
            })
            .and_then(|(sealed, password)| sealed.into_secret_key(Some(password)))
            .map_err(failed)?,
    };
    let untrusted = Some("signature of a wbuild plugin");
    let signed = minisign::sign(None, &key, Cursor::new(bytes), Some(comment), untrusted);
    let signed = signed.map_err(failed)?;
    let public = minisign::PublicKey::from_secret_key(&key).map_err(failed)?;
    minisign::verify(&public, &signed, Cursor::new(bytes), true, false, false)
        .map_err(|_| Failure::invalid(message).hint("the key is damaged"))?;
    Ok(signed.into_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn who_has_signed() {
        let pair = minisign::KeyPair::generate_unencrypted_keypair().expect("a key");
        let other = minisign::KeyPair::generate_unencrypted_keypair().expect("a key");
        let secret = pair.sk.to_box(None).expect("text").into_string();
        let mut keys = PublicKeys::default();
        keys.add("team", &pair.pk.to_base64()).expect("a key");
        keys.add("other", &other.pk.to_base64()).expect("a key");
        assert!(keys.add("x", "RWx").is_err());
        let text =
            sign(&secret, || unreachable!("it has none"), b"component", "x").expect("signed");
        let signature = Signature::read(text.as_bytes(), "x").expect("read");
        let wanted = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let verify = |names: &[&str], signatures: &[Signature], bytes: &[u8]| {
            let found = keys.verify(&wanted(names), signatures, bytes, "x");
            found.map(str::to_owned).map_err(|failure| failure.to_string())
        };
        let one = std::slice::from_ref(&signature);
        assert_eq!(verify(&["other", "team"], one, b"component").as_deref(), Ok("team"));
        for (names, signatures, bytes, says) in [
            (&["team"][..], one, &b"changed"[..], "was changed"),
            (&["other"], one, b"component", "other keys"),
            (&["team"], &[], b"component", "no signature"),
            (&[], one, b"component", "other keys"),
        ] {
            let failure = verify(names, signatures, bytes).expect_err(says);
            assert!(failure.contains(says), "{failure}");
        }
        // A comment that was signed cannot be changed either.
        let changed = text.replace("trusted comment: x", "trusted comment: y");
        assert_ne!(changed, text);
        let changed = Signature::read(changed.as_bytes(), "x").expect("it can be read");
        assert!(verify(&["team"], &[changed], b"component").is_err());
        let empty = || Ok(String::new());
        assert!(sign("nonsense", empty, b"x", "x").is_err());
        let at = secret.find('\n').expect("two lines") + 110;
        let other = if secret.as_bytes()[at] == b'A' { "B" } else { "A" };
        let mut damaged = secret.clone();
        damaged.replace_range(at..=at, other);
        assert!(sign(&damaged, empty, b"x", "x").is_err());
        // As `minisign -G -W` writes them, without a checksum.
        let tools = "untrusted comment: minisign encrypted secret key\n\
            RWQAAEIyAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/tQMYCrMdsvr49OplTdR\
            /PvnlJfPzZDIdF6elNNtaQ9I5Y2jlsyJhZ+vLiH0qtWHdETysCjHfMD8qb2TkGDBwY81ptyI6s1sAAAAAAAAAAAAAAAA\
            AAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
        keys.add("tool", "RWT+1AxgKsx2y5+vLiH0qtWHdETysCjHfMD8qb2TkGDBwY81ptyI6s1s")
            .expect("a key");
        let text = sign(tools, empty, b"component", "x").expect("signed");
        let signature = Signature::read(text.as_bytes(), "x").expect("read");
        assert!(keys.verify(&wanted(&["tool"]), &[signature], b"component", "x").is_ok());
        // With a password.
        let sealed =
            minisign::KeyPair::generate_encrypted_keypair(Some("pass".into())).expect("a key");
        let sealed = sealed.sk.to_box(None).expect("text").into_string();
        assert!(sign(&sealed, || Ok("wrong".into()), b"x", "x").is_err());
        assert!(sign(&sealed, || Ok("pass".into()), b"x", "x").is_ok());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(
            lines in prop::collection::vec("(untrusted comment: |trusted comment: )?[A-Za-z0-9+/=]{0,120}", 0..6)
        ) {
            let _ = Signature::read(lines.join("\n").as_bytes(), "x");
        }
    }
}
