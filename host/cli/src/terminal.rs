//! Writing to the user: a standard output that may be closed, text made safe for a terminal, and
//! the state of the terminal's cursor.

use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::exit::Fault;

pub use wbuild::render::text::{TAB, plain, plain_line, truncate, width};

/// Whether the live display has hidden the cursor. One terminal, one flag: the panic hook and the
/// second Ctrl-C must be able to undo it from anywhere.
static CURSOR_HIDDEN: AtomicBool = AtomicBool::new(false);

/// Escape sequence that hides the cursor. Notes that it is hidden.
pub fn hide_cursor() -> &'static [u8] {
    CURSOR_HIDDEN.store(true, Ordering::Relaxed);
    b"\x1b[?25l"
}

/// Escape sequence that shows the cursor again, or nothing if it is not hidden.
pub fn show_cursor() -> &'static [u8] {
    if CURSOR_HIDDEN.swap(false, Ordering::Relaxed) { b"\x1b[?25h" } else { b"" }
}

/// Shows the cursor again on the way out, whatever thread draws.
pub fn restore() {
    let sequence = show_cursor();
    if !sequence.is_empty() {
        let _ = io::stderr().write_all(sequence);
    }
}

/// Writes data to standard output. A reader that has gone away is no error: it has seen what it
/// wanted to see.
pub fn print(data: &[u8]) -> Result<(), Fault> {
    let mut out = io::stdout().lock();
    match out.write_all(data).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Fault::input("cannot write to standard output").cause(&error))
        }
        _ => Ok(()),
    }
}

/// Writes text for people to standard error. Nothing is left to be done if that fails.
pub fn eprint(text: &str) {
    let mut err = io::stderr().lock();
    let _ = err.write_all(text.as_bytes()).and_then(|()| err.flush());
}

/// Columns and rows of the terminal behind standard error.
pub fn window() -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(io::stderr()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0)
        .then_some((usize::from(size.ws_col), usize::from(size.ws_row)))
}

/// A line of standard input, which a terminal does not show.
///
/// # Errors
///
/// There is none, or it cannot be read.
pub fn read_hidden() -> std::io::Result<String> {
    use std::io::BufRead as _;

    use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
    let stdin = std::io::stdin().lock();
    let shown = tcgetattr(&stdin).ok();
    if let Some(mut hidden) = shown.clone() {
        hidden.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Flush, &hidden)?;
    }
    let mut stdin = stdin;
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    if let Some(shown) = shown {
        tcsetattr(&stdin, OptionalActions::Flush, &shown)?;
    }
    match read? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line.trim_end_matches(['\r', '\n']).to_owned()),
    }
}
