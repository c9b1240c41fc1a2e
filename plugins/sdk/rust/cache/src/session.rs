//! What was opened, and what a call may do with it.

use std::cell::RefCell;

use cache_records::{Attrs, Hash, Layer, PruneOptions, Record};

use crate::{Blob, Cache, Config, Error, FailureKind, Result};

/// An instance before and after `open`.
pub struct Slot<C>(RefCell<Option<Session<C>>>);

struct Session<C> {
    cache: C,
    writable: bool,
}

impl<C> Default for Slot<C> {
    fn default() -> Self {
        Slot(RefCell::new(None))
    }
}

/// What a call does to the cache.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Need {
    Read,
    Write,
}

impl<C: Cache> Slot<C> {
    /// Runs `action` for `backend.<call>`, if the backend was opened for it.
    fn with<T>(
        &self,
        need: Need,
        call: &str,
        action: impl FnOnce(&mut C) -> Result<T>,
    ) -> Result<T> {
        match &mut *self.0.borrow_mut() {
            None => Err(Error::invalid(format!("backend.{call} was called before backend.open"))),
            Some(session) if need == Need::Write && !session.writable => {
                let message = format!("backend.{call} on a backend that was opened for reading");
                Err(Error::new(FailureKind::Denied, message))
            }
            Some(session) => action(&mut session.cache),
        }
    }

    /// `with` for calls that answer for each of `count` layers.
    fn each<T>(
        &self,
        need: Need,
        call: &str,
        count: usize,
        action: impl FnOnce(&mut C) -> Vec<Result<T>>,
    ) -> Vec<Result<T>> {
        self.with(need, call, |cache| Ok(action(cache))).unwrap_or_else(|error| {
            let failure = error.into_failure();
            (0..count).map(|_| Err(failure.clone().into())).collect()
        })
    }

    /// `backend.open`
    ///
    /// # Errors
    ///
    /// `Invalid` for another mode; those of the backend.
    pub fn open(&self, mode: &str, options: Attrs) -> Result<()> {
        let writable = match mode {
            "read" => false,
            "write" => true,
            other => {
                let message = format!("backend.open: mode {other:?} is neither read nor write");
                return Err(Error::invalid(message));
            }
        };
        let cache = C::open(Config::new(writable, options))?;
        *self.0.borrow_mut() = Some(Session { cache, writable });
        Ok(())
    }

    /// `backend.find`
    ///
    /// # Errors
    ///
    /// Those of the backend.
    pub fn find(&self, keys: &[Hash]) -> Result<Vec<Vec<Record>>> {
        self.with(Need::Read, "find", |cache| cache.find(keys))
    }

    /// `backend.fetch`
    pub fn fetch(&self, layers: &[Layer]) -> Vec<Result<Blob>> {
        self.each(Need::Read, "fetch", layers.len(), |cache| cache.fetch(layers))
    }

    /// `backend.save`
    ///
    /// # Errors
    ///
    /// `Denied` to one for reading; those of the backend.
    pub fn save(&self, records: Vec<Record>) -> Result<()> {
        self.with(Need::Write, "save", |cache| cache.save(records))
    }

    /// `backend.push`
    pub fn push(&self, layers: &[Layer]) -> Vec<Result<()>> {
        self.each(Need::Write, "push", layers.len(), |cache| cache.push(layers))
    }

    /// `backend.commit`
    ///
    /// # Errors
    ///
    /// `Denied` to one for reading; those of the backend.
    pub fn commit(&self) -> Result<Attrs> {
        self.with(Need::Write, "commit", C::commit)
    }

    /// `backend.prune`
    ///
    /// # Errors
    ///
    /// `Denied` to one for reading; those of the backend.
    pub fn prune(&self, options: &[(String, String)]) -> Result<Attrs> {
        self.with(Need::Write, "prune", |cache| {
            let options = PruneOptions::parse(options).map_err(Error::invalid)?;
            let pruned = cache.prune(&options)?;
            Ok(vec![
                ("removed".to_owned(), pruned.removed.to_string()),
                ("kept".to_owned(), pruned.kept.to_string()),
            ])
        })
    }
}
