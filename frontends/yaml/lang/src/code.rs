//! What can be wrong with a document.

use wbuild_dockerfile::Coded;

/// Names a mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// It is no YAML, or uses what is not taken.
    InvalidYaml,
    /// It comes to too much.
    TooLarge,
    /// A key that nobody knows.
    UnknownKey,
    /// A key that must be there is not.
    MissingKey,
    /// Keys that exclude each other.
    KeyConflict,
    /// A value of another type.
    WrongType,
    /// A value that cannot be.
    InvalidValue,
    /// A name that leads to nothing.
    UnknownName,
}

impl Coded for Code {
    fn name(&self) -> &'static str {
        match self {
            Code::InvalidYaml => "invalid-yaml",
            Code::TooLarge => "too-large",
            Code::UnknownKey => "unknown-key",
            Code::MissingKey => "missing-key",
            Code::KeyConflict => "key-conflict",
            Code::WrongType => "wrong-type",
            Code::InvalidValue => "invalid-value",
            Code::UnknownName => "unknown-name",
        }
    }
}
