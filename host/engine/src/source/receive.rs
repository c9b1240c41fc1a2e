//! Blobs on their way into the store: a thread hashes and writes what has come while more is coming.

use std::io;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use wbuild_graph::{BlobDigest, Digest, Failure};
use wbuild_oci::registry::BlobSink;
use wbuild_store::{Ingest, Store};

use crate::blocking;

/// Pieces that wait to be written, of at most some hundred KiB each.
const AHEAD: usize = 16;

enum Order {
    Write(Bytes),
    Restart,
    Digest(oneshot::Sender<Option<Digest>>),
}

/// What a download writes to. Dropped when nothing more comes.
pub(crate) struct Receiver<'a> {
    orders: mpsc::Sender<Order>,
    size: u64,
    report: &'a (dyn Fn(u64) + Send + Sync),
}

/// The other end of a [`Receiver`].
pub(crate) struct Writing {
    digest: BlobDigest,
    size: u64,
    ingest: Ingest,
    orders: mpsc::Receiver<Order>,
}

/// Begins to take the blob `digest` of at most `size` bytes into the store, behind what a build that
/// was cut off has left of it. `report` is told how much there is.
pub(crate) async fn receive<'a>(
    store: &Store,
    digest: Digest,
    size: u64,
    report: &'a (dyn Fn(u64) + Send + Sync),
) -> Result<(Receiver<'a>, Writing), Failure> {
    let (digest, store) = (BlobDigest(digest), store.clone());
    let ingest = blocking(move || store.resume(&digest, size)).await?;
    Ok(into(ingest, digest, size, report))
}

/// [`receive`] for what has to come whole, whatever of it is here.
pub(crate) async fn receive_whole<'a>(
    store: &Store,
    digest: Digest,
    size: u64,
    report: &'a (dyn Fn(u64) + Send + Sync),
) -> Result<(Receiver<'a>, Writing), Failure> {
    let store = store.clone();
    let ingest = blocking(move || store.ingest(size)).await?;
    Ok(into(ingest, BlobDigest(digest), size, report))
}

fn into(
    ingest: Ingest,
    digest: BlobDigest,
    size: u64,
    report: &(dyn Fn(u64) + Send + Sync),
) -> (Receiver<'_>, Writing) {
    let (sender, orders) = mpsc::channel(AHEAD);
    let receiver = Receiver { orders: sender, size: ingest.size(), report };
    (receiver, Writing { digest, size, ingest, orders })
}

impl Writing {
    /// Writes while `fetching` runs, which owns the receiver. What comes is kept for the next build if
    /// it is not all.
    pub(crate) async fn beside<E: Into<Failure>>(
        self,
        fetching: impl Future<Output = Result<(), E>>,
    ) -> Result<(), Failure> {
        let Writing { digest, size, ingest, orders } = self;
        let writing = blocking(move || write(ingest, orders));
        let (fetched, written) = futures_util::future::join(fetching, writing).await;
        // A download that could not be written fails too, and says less.
        let ingest = written?;
        fetched.map_err(Into::into)?;
        ingest.commit(Some(&digest), Some(size))?;
        Ok(())
    }
}

fn write(
    mut ingest: Ingest,
    mut orders: mpsc::Receiver<Order>,
) -> Result<Ingest, wbuild_store::Error> {
    while let Some(order) = orders.blocking_recv() {
        match order {
            Order::Write(data) => ingest.append(&data)?,
            Order::Restart => ingest.restart()?,
            Order::Digest(answer) => {
                // Who has gone meanwhile does not need it.
                let _ = answer.send(ingest.digest().map(|digest| digest.0));
            }
        }
    }
    Ok(ingest)
}

impl Receiver<'_> {
    async fn order(&self, order: Order) -> io::Result<()> {
        self.orders.send(order).await.map_err(|_| stopped())
    }
}

/// The writer has met an error, which it returns itself.
fn stopped() -> io::Error {
    io::Error::other("writing has ended")
}

#[async_trait]
impl BlobSink for Receiver<'_> {
    fn size(&self) -> u64 {
        self.size
    }

    async fn write(&mut self, data: Bytes) -> io::Result<()> {
        self.size += data.len() as u64;
        self.order(Order::Write(data)).await?;
        (self.report)(self.size);
        Ok(())
    }

    async fn restart(&mut self) -> io::Result<()> {
        self.size = 0;
        self.order(Order::Restart).await
    }

    async fn digest(&mut self) -> io::Result<Digest> {
        let (answer, answered) = oneshot::channel();
        self.order(Order::Digest(answer)).await?;
        answered.await.ok().flatten().ok_or_else(stopped)
    }
}
