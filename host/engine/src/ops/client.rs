//! Processes of the client's own, outside of any container: `security` "client". Never looked up, never
//! saved; what they leave behind is in the client's directory, and is read by sources that come after.

use std::sync::Arc;
use std::time::Duration;

use wbuild_api::session::{ClientProcess, ClientSpec};
use wbuild_exec::output;
use wbuild_graph::Failure;
use wbuild_graph::op::{Access, ExecOp, MountKind};
use wbuild_solver::SolveVertex;

use crate::blocking;
use crate::ops::exec::{drain, ended, secret_value};
use crate::solved::{Output, Solved, Tree};
use crate::worker::BuildWorker;

/// How long output is waited for that may come from what the process has left behind.
const LATE: Duration = Duration::from_secs(1);

/// Ends the process when dropped.
struct Ends(Arc<dyn ClientProcess>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.kill();
    }
}

/// Runs the process of `exec`.
pub(crate) async fn run(
    worker: &BuildWorker,
    vertex: &SolveVertex,
    exec: &ExecOp,
    inputs: &[Output],
) -> Result<Arc<Solved>, Failure> {
    let mut outputs = Vec::new();
    for mount in &exec.mounts {
        // Not mounted: what comes after it goes on with what came before it.
        if let MountKind::Bind { source, access: Access::Rw, .. } = &mount.kind {
            outputs.push(match source {
                None => Output::Tree(Tree::new(Vec::new())),
                Some(source) => inputs.get(*source as usize).cloned().ok_or_else(|| {
                    Failure::internal("a mount refers to an input that is not there")
                })?,
            });
        }
    }
    let _slot = worker.exec_slots.acquire().await.expect("the semaphore is never closed");
    let mut env: Vec<_> = exec.env.iter().chain(&exec.volatile_env).cloned().collect();
    for secret in &exec.secret_env {
        if let Some(value) = secret_value(worker, &secret.id, secret.required).await? {
            let value = String::from_utf8(value).map_err(|_| {
                let message = format!("the secret {:?} is no text", secret.id);
                Failure::invalid(message).hint("it cannot be a variable")
            })?;
            env.push((secret.name.clone(), value));
        }
    }
    let (stdout, stdout_reader) = output::pipe()?;
    let (stderr, stderr_reader) = output::pipe()?;
    let cwd = exec.cwd.trim_start_matches('/').to_owned();
    let spec = ClientSpec { args: exec.args.clone(), env, cwd, stdout, stderr };
    let session = Arc::clone(&worker.session);
    let process = Ends(blocking(move || session.spawn(spec)).await?);
    let limit = exec.capture.unwrap_or(0) as usize;
    // On a thread that the build waits for, also when this is dropped.
    let waits = Arc::clone(&process.0);
    let wait = blocking(move || waits.wait());
    let drains = async {
        tokio::join!(
            drain(worker, vertex, stdout_reader, 1, limit),
            drain(worker, vertex, stderr_reader, 2, limit),
        )
    };
    tokio::pin!(wait, drains);
    let (code, kept) = tokio::select! {
        code = &mut wait => (code?, tokio::time::timeout(LATE, drains).await.ok()),
        kept = &mut drains => (wait.await?, Some(kept)),
    };
    if kept.is_none() && exec.capture.is_some() {
        let message = "the process has left something behind that keeps its output open";
        return Err(Failure::invalid(message).hint("what goes on behind it should print to a file"));
    }
    let (stdout, stderr) = kept.unwrap_or_default();
    Ok(Solved::new(outputs, ended(exec, code, stdout, stderr)?))
}
