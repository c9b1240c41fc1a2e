//! The child's end of the socket.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::protocol::{Call, FromChild};
use crate::wire::{self, HEAD};

/// Exit code of a child whose parent has gone or does not understand it: nobody looks at it.
const FORSAKEN: i32 = 3;

/// The socket, of which there is one, at the place of standard input. By plain reads and writes:
/// neither the child nor its parent passes descriptors.
pub(super) struct Link(Mutex<File>);

impl Link {
    /// To be made when stray descriptors are closed: it is one of its own.
    pub(super) fn inherited() -> Link {
        match std::io::stdin().as_fd().try_clone_to_owned() {
            Ok(socket) => Link(Mutex::new(File::from(socket))),
            Err(_) => std::process::exit(FORSAKEN),
        }
    }

    /// Asks the parent and waits for the answer. There is nobody else to run meanwhile: the guest
    /// waits for it.
    pub(super) fn ask<T: DeserializeOwned>(&self, call: Call) -> T {
        self.say(&FromChild::Call(call));
        self.hear().unwrap_or_else(|| std::process::exit(FORSAKEN))
    }

    /// Says something that has no answer.
    pub(super) fn say<T: Serialize>(&self, message: &T) {
        let mut socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if socket.write_all(&wire::encode(message)).is_err() {
            std::process::exit(FORSAKEN);
        }
    }

    /// What the parent says next; none = it has closed.
    pub(super) fn hear<T: DeserializeOwned>(&self) -> Option<T> {
        let mut socket = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut head = [0; HEAD];
        socket.read_exact(&mut head).ok()?;
        let mut body = vec![0; usize::try_from(u32::from_le_bytes(head)).ok()?];
        socket.read_exact(&mut body).ok()?;
        wire::decode(&body).ok()
    }
}
