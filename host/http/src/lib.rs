//! HTTP as wbuild speaks it: whom to trust, what may be reached, how often to try again.
//!
//! For whoever fetches something: registries (`wbuild-oci`), downloads (the engine's HTTP source), and
//! git, which connects through a [`Gate`].
//! A [`Clients`] sends one request and follows no redirect; who sends it decides where an answer may
//! lead, with [`same_origin`] and [`Reach::check`].
//!
//! - Roots are those of the operating system (`SSL_CERT_FILE` and `SSL_CERT_DIR` override them).
//! - Nothing of the environment's proxy variables is used unless it is handed in, and this machine is
//!   never asked through a proxy.
//! - With [`Reach::Public`] addresses are checked when they are connected to, after names were looked
//!   up, so a name that leads to an inner address does not get there.
//! - Messages hold no query, fragment or user of a URL: they may be secret.

mod client;
mod download;
mod error;
mod gate;
mod proxy;
mod reach;
mod tls;
mod upload;

pub use client::{
    Clients, Options, Retries, body, is_temporary, retry_after, same_origin, show_url,
    transport_error,
};
pub use download::{Download, Downloaded, Sink, Validators, download};
pub use error::{Error, ErrorKind, Result};
pub use gate::{Gate, GateLimits};
pub use proxy::Proxies;
pub use reach::{Lookup, Reach, is_inner, is_loopback};
pub use tls::{Identity, Trust};
pub use upload::{FileBody, Moving};
