//! The solver: decides what to run, in what order and what not at all.
//!
//! It knows ops, keys and results; no containers, no image formats, no Wasm, no files, no clock. All
//! it needs from outside comes through [`Worker`], [`Spawn`] and [`Observer`].
//!
//! # How a vertex is solved
//!
//! Every vertex digest has one shared cell, whoever asks for it and however often:
//!
//! 1. its *definition key* = H(op, definition keys of the inputs, pin). A source that cannot be
//!    pinned (a local directory) contributes the content that the op reads of it.
//! 2. look-up by definition key: a hit needs none of the inputs;
//! 3. on a miss the inputs are solved, in parallel, and give the *result key* = H(op, for each input
//!    its result id, or the content digest of exactly what the op reads of it). A stage that ran
//!    again but made the same files ends the miss here;
//! 4. on a second miss the op runs, and its result is saved under both keys. Another vertex that comes
//!    to the same result key meanwhile (two names of one image, two stages that made the same files)
//!    waits for it and takes its result.
//!
//! So there are at most two look-ups a vertex, as long as nothing is gone. A vertex marked *ignore-cache* is not looked up, and
//! the definition keys of what depends on it are not trusted either, since its result may differ
//! from the one stored; result keys are.
//!
//! # Invariants
//!
//! - Equal vertices run once, also when several callers ask at the same time; so do those that are
//!   found to be equal when their inputs are known.
//! - A vertex nobody waits for any more is given up; one that somebody waits for never is.
//! - What the target does not reach is not touched.
//! - No future is nested deeper than a constant: each cell runs as a task of its own, so a chain of
//!   10^5 vertices neither overflows the stack when polled nor when dropped.
//! - A result that was found and turns out to be gone is forgotten and its vertex made anew, once,
//!   without another look-up, however many notice.
//! - What started ends: [`VertexEvent::Started`] is followed by one of the other events before the
//!   vertex starts again.

mod cell;
mod keys;
mod solve;

pub use cell::{Abort, Spawn};
pub use keys::{KeyInfo, Pin, ResultInput};
pub use solve::{FoundBy, GONE_INPUT, Miss, Observer, SolveVertex, Solver, VertexEvent, Worker};
