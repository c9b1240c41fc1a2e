//! Looking at components, and compiling them, in children that run nothing of them.

use std::io::{Seek as _, Write as _};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use wbuild_graph::{Failure, FailureKind};
use wbuild_plugin::limits::size;
use wbuild_plugin::{Border, Compile, bounds};

use super::process::{Process, Program};
use super::session::frame;
use crate::child::{COMPILE, READ};
use crate::protocol::{Done, FromChild};
use crate::wire;

/// Time on the wall, in processor times: a busy machine gives less than is wanted.
const BUSY: u32 = 4;
/// Largest code that is taken.
const CODE_BYTES: usize = 512 << 20;

/// Most bytes that what is read of a component may take.
const BORDER_BYTES: usize = 16 << 20;

/// Compiles each component in a child of its own, and looks at it in one.
#[derive(Debug)]
pub(super) struct Compilers(pub(super) Arc<Program>);

#[async_trait]
impl Compile for Compilers {
    async fn compile(&self, name: &str, component: Arc<[u8]>) -> Result<Vec<u8>, Failure> {
        let work = Work { mode: COMPILE, what: "compile", most: CODE_BYTES };
        match self.work(&work, name, component).await? {
            Done::Code(code) => Ok(code),
            _ => Err(work.odd(name, "its process answered another question".to_owned())),
        }
    }

    async fn read(&self, name: &str, component: Arc<[u8]>) -> Result<Border, Failure> {
        let work = Work { mode: READ, what: "look at", most: BORDER_BYTES };
        match self.work(&work, name, component).await? {
            Done::Border(border) => Ok(border),
            _ => Err(work.odd(name, "its process answered another question".to_owned())),
        }
    }
}

/// What a child does with a component.
struct Work {
    mode: &'static str,
    /// In words, behind "cannot".
    what: &'static str,
    /// Most bytes of its answer.
    most: usize,
}

impl Work {
    fn odd(&self, name: &str, why: String) -> Failure {
        let message = format!("cannot {} {name}", self.what);
        let mut failure = Failure::new(FailureKind::Denied, message);
        failure.causes.push(why);
        failure.attr("plugin", name)
    }
}

impl Compilers {
    async fn work(&self, work: &Work, name: &str, component: Arc<[u8]>) -> Result<Done, Failure> {
        let cannot = |error: std::io::Error| {
            Failure::internal(format!("cannot {} {name}", work.what)).cause(&error)
        };
        let mib = u32::try_from(component.len() >> 20).unwrap_or(u32::MAX);
        let time = self.0.compile_time.saturating_mul(mib.saturating_add(1));
        let given = super::read_only(|file| {
            file.write_all(&component)?;
            file.rewind()
        });
        let (process, socket) = Process::start(&self.0, work.mode, given.map_err(cannot)?).await?;
        let mut socket = UnixStream::from_std(socket).map_err(cannot)?;
        let slow = || {
            let (kib, seconds) = (size(component.len()), time.as_secs());
            let message = match work.mode {
                COMPILE => format!("compiling {name} took more than {seconds} s"),
                _ => format!("looking at {name} took more than {seconds} s"),
            };
            let failure = Failure::new(FailureKind::Limit, message).attr("plugin", name);
            match work.mode {
                COMPILE => failure.hint(format!(
                    "components of {kib} compile in a fraction of that; it may be made to keep \
                     the compiler busy"
                )),
                _ => failure.hint("it may be made to keep whoever looks at it busy"),
            }
        };
        let conversation = async {
            let asked = wire::encode(&(name, time.as_secs()));
            if socket.write_all(&asked).await.is_err() {
                return Ok(None);
            }
            frame(&mut socket, work.most).await
        };
        let said = match tokio::time::timeout(time * BUSY, conversation).await {
            Ok(said) => said,
            Err(_) => return Err(slow()),
        };
        let odd = |why: String| work.odd(name, why);
        let Some(body) = said.map_err(|malformed| odd(malformed.to_string()))? else {
            use std::os::unix::process::ExitStatusExt as _;
            return Err(match process.ended().await {
                Some(status) if status.signal() == Some(libc::SIGXCPU) => slow(),
                Some(status) => odd(format!("its process ended early ({status})")),
                None => odd("its process closed its connection".to_owned()),
            });
        };
        match wire::decode_claimed(&body, work.most).map_err(|why| odd(why.to_string()))? {
            FromChild::Done(Ok(done)) => Ok(done),
            FromChild::Done(Err(failure)) => Err(bounds::failure(failure)),
            FromChild::Call(_) => Err(odd("its process said something else".to_owned())),
        }
    }
}
