//! Colours. What is said is the same without them.

/// Roles of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paint {
    /// `error` and what marks the place of it.
    Error,
    /// `warning`.
    Warning,
    /// `note`, `cause`.
    Note,
    /// `hint`, `help`.
    Hint,
    /// What went well.
    Good,
    /// The message itself.
    Strong,
    /// Line numbers and bars.
    Frame,
    /// What matters less.
    Dim,
}

/// Colours or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    colour: bool,
}

impl Style {
    /// With colours if `colour`.
    pub fn new(colour: bool) -> Self {
        Style { colour }
    }

    /// Text in its role's colour (SGR, ECMA-48 8.3.117).
    pub fn paint(self, role: Paint, text: &str) -> String {
        if !self.colour || text.is_empty() {
            return text.to_owned();
        }
        let code = match role {
            Paint::Error => "1;31",
            Paint::Warning => "1;33",
            Paint::Note => "1;36",
            Paint::Hint => "1;32",
            Paint::Good => "32",
            Paint::Strong => "1",
            Paint::Frame => "34",
            Paint::Dim => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}
