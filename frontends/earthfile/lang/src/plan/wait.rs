//! `WAIT`: what its commands leave behind is left before the commands after it go on.
//!
//! That is possible only for targets that a chain of BUILD leads to. Targets may be planned before it
//! is known whether anybody needs them ([`Session::begin_ahead`]); such a one stops at the end of its
//! WAIT until somebody does.

use std::rc::Rc;

use wbuild_dockerfile::{Failure, Output};

use super::outputs::Collected;
use super::state::{Key, State};
use super::{File, Session, Slot};
use crate::ast::Statement;

/// How somebody needs a target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    /// It was begun ahead; perhaps nobody ever does.
    #[default]
    Perhaps,
    /// What it saves for other targets.
    Inside,
    /// Also what it leaves behind.
    Outside,
}

impl<'h> Session<'h> {
    /// Whether what a target takes files from leaves behind what it saves, as if it were built: so it
    /// was before version 0.6.
    pub(super) fn keeps_all(&self, key: &Key) -> bool {
        let files = self.files.borrow();
        files.get(&key.place).is_some_and(|file| !file.has("referenced-save-only"))
    }

    /// How a target needs another one that it takes files from. Another repository leaves nothing
    /// behind unless BUILD says so.
    pub(super) fn taken(&self, key: &Key, from: &Key) -> Need {
        match self.keeps_all(from) && key.place.repository == from.place.repository {
            true => Need::Outside,
            false => Need::Inside,
        }
    }

    /// Notes that a target needs another one, and how: at most as much as it is needed itself.
    pub(super) fn note_need(&self, key: &Key, from: &Key, how: Need) {
        let mut slots = self.slots.borrow_mut();
        let Some(slot) = slots.get_mut(from) else { return };
        slot.needs.push((key.clone(), how));
        let mut open = vec![(key.clone(), how.min(slot.need))];
        while let Some((key, how)) = open.pop() {
            let Some(slot) = slots.get_mut(&key).filter(|slot| slot.need < how) else { continue };
            slot.need = how;
            open.extend(slot.needs.iter().map(|(key, most)| (key.clone(), how.min(*most))));
            slot.wake();
        }
    }

    pub(super) async fn wait(
        self: &Rc<Self>,
        key: &Key,
        file: &Rc<File>,
        state: &mut State,
        body: &[Statement],
    ) -> Result<(), Failure> {
        let from = state.left.len();
        self.begin_all_ahead(key, file, body);
        self.commands(key, file, state, body).await?;
        let mut all = Collected::default();
        all.roots.extend(state.root);
        self.collect_left(key, &state.left[from..], &mut all);
        let mut roots: Vec<Output> = all.roots.clone();
        roots.dedup();
        self.schedule.solved(roots).await?;
        let need = |slot: &Slot| Some(slot.need).filter(|need| *need != Need::Perhaps);
        if self.slot(key, need).await == Need::Outside {
            self.publish(key, &all).await?;
            state.left.truncate(from);
        }
        Ok(())
    }

    /// Leaves behind what was collected, now.
    async fn publish(self: &Rc<Self>, key: &Key, all: &Collected) -> Result<(), Failure> {
        let mut names = self.yield_images(&all.images, &[])?;
        let files = format!("WAIT {} of {}", self.published.borrow().len(), key.shown());
        if self.yield_files(&files, &all.locals)? {
            names.push(files);
        }
        self.yield_effects(&all.effects)?;
        // One that somebody else builds, too, is not to be left behind again.
        let others = all.keys.iter().filter(|other| *other != key).cloned();
        self.published.borrow_mut().extend(others);
        if names.is_empty() && (all.effects.is_empty() || !self.pushes) {
            return Ok(());
        }
        self.schedule.publish(names).await
    }
}
