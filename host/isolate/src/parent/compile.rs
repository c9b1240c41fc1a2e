//! Compiling in a child that runs nothing of what it compiles.

use std::io::{Seek as _, Write as _};
use std::sync::Arc;

use async_trait::async_trait;
use tokio::io::AsyncWriteExt as _;
use tokio::net::UnixStream;
use wbuild_graph::{Failure, FailureKind};
use wbuild_plugin::limits::size;
use wbuild_plugin::{Compile, bounds};

use super::process::{Process, Program};
use super::session::frame;
use crate::child::COMPILE;
use crate::protocol::{Done, FromChild};
use crate::wire;

/// Time on the wall, in processor times: a busy machine gives less than is wanted.
const BUSY: u32 = 4;
/// Largest code that is taken.
const CODE_BYTES: usize = 512 << 20;

/// Compiles each component in a child of its own.
#[derive(Debug)]
pub(super) struct Compilers(pub(super) Arc<Program>);

#[async_trait]
impl Compile for Compilers {
    async fn compile(&self, name: &str, component: Arc<[u8]>) -> Result<Vec<u8>, Failure> {
        let cannot = |error: std::io::Error| {
            Failure::internal(format!("cannot have {name} compiled")).cause(&error)
        };
        let mib = u32::try_from(component.len() >> 20).unwrap_or(u32::MAX);
        let time = self.0.compile_time.saturating_mul(mib.saturating_add(1));
        let given = super::read_only(|file| {
            file.write_all(&component)?;
            file.rewind()
        });
        let (process, socket) = Process::start(&self.0, COMPILE, given.map_err(cannot)?).await?;
        let mut socket = UnixStream::from_std(socket).map_err(cannot)?;
        let slow = || {
            let (kib, seconds) = (size(component.len()), time.as_secs());
            let message = format!("compiling {name} took more than {seconds} s");
            Failure::new(FailureKind::Limit, message).attr("plugin", name).hint(format!(
                "components of {kib} compile in a fraction of that; it may be made \
                     to keep the compiler busy"
            ))
        };
        let conversation = async {
            let asked = wire::encode(&(name, time.as_secs()));
            if socket.write_all(&asked).await.is_err() {
                return Ok(None);
            }
            frame(&mut socket, CODE_BYTES).await
        };
        let said = match tokio::time::timeout(time * BUSY, conversation).await {
            Ok(said) => said,
            Err(_) => return Err(slow()),
        };
        let odd = |why: String| {
            let mut failure = Failure::new(FailureKind::Denied, format!("cannot compile {name}"));
            failure.causes.push(why);
            failure.attr("plugin", name)
        };
        let Some(body) = said.map_err(|malformed| odd(malformed.to_string()))? else {
            use std::os::unix::process::ExitStatusExt as _;
            return Err(match process.ended().await {
                Some(status) if status.signal() == Some(libc::SIGXCPU) => slow(),
                Some(status) => odd(format!("the compiler's process ended early ({status})")),
                None => odd("the compiler's process closed its connection".to_owned()),
            });
        };
        match wire::decode_claimed(&body, CODE_BYTES).map_err(|why| odd(why.to_string()))? {
            FromChild::Done(Ok(Done::Code(code))) => Ok(code),
            FromChild::Done(Err(failure)) => Err(bounds::failure(failure)),
            _ => Err(odd("the compiler's process said something else".to_owned())),
        }
    }
}
