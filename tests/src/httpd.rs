//! A web server on a loopback port: busybox's.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::skip;

/// A running server. Ended when dropped.
pub struct Httpd {
    process: Child,
    port: u16,
}

impl Httpd {
    /// Starts one that offers the files of `folder`.
    pub fn start(folder: &Path) -> Result<Httpd> {
        let busybox = skip::need_program("busybox")?;
        // Another process may take the port between the look and the start: then try another.
        let mut last = None;
        for _ in 0..5 {
            let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
            let process = Command::new(&busybox)
                .args(["httpd", "-f", "-p", &format!("127.0.0.1:{port}"), "-h"])
                .arg(folder)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .context("cannot start busybox httpd")?;
            let mut server = Httpd { process, port };
            match server.wait_until_it_listens() {
                Ok(()) => return Ok(server),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("it was tried"))
    }

    fn wait_until_it_listens(&mut self) -> Result<()> {
        let deadline = Instant::now() + Duration::from_secs(30);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            ensure!(self.process.try_wait()?.is_none(), "busybox httpd ended");
            ensure!(Instant::now() < deadline, "busybox httpd does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        ensure!(self.process.try_wait()?.is_none(), "busybox httpd ended");
        Ok(())
    }

    /// The URL of a file.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }
}

impl Drop for Httpd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
