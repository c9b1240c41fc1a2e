//! What was found out, for those who keep it elsewhere. Nothing runs here.

use std::collections::HashSet;

use wbuild_graph::{CacheKey, Failure, VertexDigest};

use super::{Solver, Worker};
use crate::keys::KeyInfo;

impl<W: Worker> Solver<W> {
    /// A loaded vertex and all it is built on, inputs first.
    pub fn below(&self, vertex: VertexDigest) -> Vec<VertexDigest> {
        let mut order = Vec::new();
        let mut seen = HashSet::from([vertex]);
        let mut stack = vec![(self.cell(vertex), 0)];
        while let Some((cell, next)) = stack.last_mut() {
            match cell.vertex.inputs.get(*next) {
                Some((input, _)) => {
                    *next += 1;
                    if seen.insert(*input) {
                        let input = self.cell(*input);
                        stack.push((input, 0));
                    }
                }
                None => {
                    order.push(cell.vertex.digest);
                    stack.pop();
                }
            }
        }
        order
    }

    /// The definition key and the result of a loaded vertex if it was solved, or else is stored.
    ///
    /// # Errors
    ///
    /// What looking it up failed with.
    pub async fn known(
        &self,
        vertex: VertexDigest,
    ) -> Result<Option<(CacheKey, W::Outputs)>, Failure> {
        let cell = self.cell(vertex);
        let Some(Ok(KeyInfo { key: Some(key), stable })) = cell.key.peek() else {
            return Ok(None);
        };
        if let Some(Ok(solved)) = cell.result.peek() {
            return Ok(Some((key, solved.outputs)));
        }
        // One that ignores the cache has not run if it is not solved.
        if !stable {
            return Ok(None);
        }
        let found = self.shared.worker.lookup(&cell.vertex, key).await?;
        Ok(found.map(|outputs| (key, outputs)))
    }

    /// Forgets the result of a loaded vertex, whose data turned out to be gone; the next solve makes
    /// it anew, however often that happens: it is for the caller to end.
    ///
    /// # Errors
    ///
    /// What dropping the stored result failed with.
    pub async fn forget(&self, vertex: VertexDigest, outputs: &W::Outputs) -> Result<(), Failure> {
        self.cell(vertex).loss.reset();
        self.lose(vertex, outputs).await.map_err(|failure| Failure::clone(&failure))
    }
}
