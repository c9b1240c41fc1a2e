//! Tests of the whole crate over real connections on this machine.

mod downloads;
mod t_ssrf;
mod uploads;
