//! A wire between client and server that can be made bad. The registry client's own tests use this
//! file, too.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// What happens to the answers on one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// They end after so many bytes.
    Cut(usize),
    /// The connection is reset after so many bytes.
    Reset(usize),
    /// Nothing more comes after so many bytes.
    Stall(usize),
    /// They come in pieces of so many bytes, with pauses.
    Slow(usize),
    /// One bit of this byte is another.
    Flip(usize),
}

/// See the module. Each connection has the next fault; when there is none left, none.
pub struct Wire {
    /// Where it begins.
    pub address: SocketAddr,
    carried: Arc<AtomicU64>,
}

impl Wire {
    /// A wire that leads to `to`.
    pub fn new(to: SocketAddr, faults: Vec<Fault>) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("bound");
        let carried = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&carried);
        let faults = Arc::new(Mutex::new(faults.into_iter()));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let fault = faults.lock().expect("no panic while held").next();
                let counter = Arc::clone(&counter);
                thread::spawn(move || {
                    if let Ok(server) = TcpStream::connect(to) {
                        carry(client, server, fault, &counter);
                    }
                });
            }
        });
        Wire { address, carried }
    }

    /// Bytes of answers that went over it.
    pub fn carried(&self) -> u64 {
        self.carried.load(Ordering::Relaxed)
    }
}

fn carry(mut client: TcpStream, mut server: TcpStream, fault: Option<Fault>, counter: &AtomicU64) {
    let (mut asking, mut asked) =
        (client.try_clone().expect("a socket"), server.try_clone().expect("a socket"));
    thread::spawn(move || std::io::copy(&mut asking, &mut asked));
    let mut at = 0;
    let mut buffer = vec![0; 16 << 10];
    loop {
        let most = match fault {
            Some(Fault::Slow(piece)) => piece,
            _ => buffer.len(),
        };
        let Ok(count @ 1..) = server.read(&mut buffer[..most]) else { break };
        let mut piece = &mut buffer[..count];
        match fault {
            Some(Fault::Cut(after) | Fault::Reset(after) | Fault::Stall(after)) => {
                let left = after.saturating_sub(at).min(piece.len());
                piece = &mut piece[..left];
            }
            Some(Fault::Flip(which)) if (at..at + piece.len()).contains(&which) => {
                piece[which - at] ^= 4;
            }
            Some(Fault::Slow(_)) => thread::sleep(Duration::from_micros(200)),
            _ => {}
        }
        at += piece.len();
        counter.fetch_add(piece.len() as u64, Ordering::Relaxed);
        if client.write_all(piece).is_err() {
            break;
        }
        match fault {
            Some(Fault::Cut(after)) if at >= after => break,
            Some(Fault::Reset(after)) if at >= after => {
                let at_once = Some(Duration::ZERO);
                rustix::net::sockopt::set_socket_linger(&client, at_once).expect("a socket");
                // It is reset when it is dropped, by the other direction too, which waits to read.
                let _ = client.shutdown(Shutdown::Read);
                let _ = server.shutdown(Shutdown::Both);
                return;
            }
            Some(Fault::Stall(after)) if at >= after => {
                thread::sleep(Duration::from_secs(5));
                break;
            }
            _ => {}
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
}
