//! What an instance of a backend has opened, and what it may do with it.

use std::cell::RefCell;
use std::thread::LocalKey;

/// What `backend.open` made.
pub trait Opened: Sized + 'static {
    /// What calls fail with.
    type Failure;

    /// Whether it was opened for writing.
    fn is_writable(&self) -> bool;

    /// A failure of a kind, with a message.
    fn failure(kind: &str, message: String) -> Self::Failure;
}

/// What a call does to the cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// It looks.
    Read,
    /// It changes something.
    Write,
}

/// Reads the mode that `backend.open` is given. Answers whether it is that of a writer.
///
/// # Errors
///
/// What is wrong with it.
pub fn writes(mode: &str) -> Result<bool, String> {
    match mode {
        "read" => Ok(false),
        "write" => Ok(true),
        other => Err(format!("backend.open: mode {other:?} is neither read nor write")),
    }
}

/// Runs `action` for `backend.<call>` on what was opened, if anything was and its mode allows it.
///
/// # Errors
///
/// "invalid" before anything was opened, "denied" for a change where it was opened for reading; what
/// `action` fails with.
pub fn with<S: Opened, T>(
    opened: &'static LocalKey<RefCell<Option<S>>>,
    need: Need,
    call: &str,
    action: impl FnOnce(&mut S) -> Result<T, S::Failure>,
) -> Result<T, S::Failure> {
    opened.with_borrow_mut(|opened| match opened {
        None => {
            Err(S::failure("invalid", format!("backend.{call} was called before backend.open")))
        }
        Some(session) if need == Need::Write && !session.is_writable() => {
            let message = format!("backend.{call} on a backend that was opened for reading");
            Err(S::failure("denied", message))
        }
        Some(session) => action(session),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Session(bool);

    impl Opened for Session {
        type Failure = String;

        fn is_writable(&self) -> bool {
            self.0
        }

        fn failure(kind: &str, _: String) -> String {
            kind.to_owned()
        }
    }

    thread_local! {
        static SESSION: RefCell<Option<Session>> = const { RefCell::new(None) };
    }

    #[test]
    fn what_a_call_may_do() {
        let call = |need| with(&SESSION, need, "call", |_| Ok(()));
        for (mode, read, write) in [
            (None, Err("invalid"), Err("invalid")),
            (Some("read"), Ok(()), Err("denied")),
            (Some("write"), Ok(()), Ok(())),
        ] {
            SESSION.set(mode.map(|mode| Session(writes(mode).expect("a mode"))));
            assert_eq!(call(Need::Read), read.map_err(str::to_owned), "{mode:?}");
            assert_eq!(call(Need::Write), write.map_err(str::to_owned), "{mode:?}");
        }
        for bad in ["", "Read", "append"] {
            assert!(writes(bad).expect_err(bad).contains(&format!("{bad:?}")));
        }
    }
}
