//! Display names of nodes, taken apart. Frontends name the steps of a definition
//! `[STAGE POSITION/COUNT] TEXT`; what compares runs or plans goes by these parts, since position and
//! count change wherever a line is added.

/// A display name, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameParts<'a> {
    /// Stage, with the platform where there are several; may be empty.
    pub stage: &'a str,
    /// Position in the stage, from 1; 0 if the name has none.
    pub position: u32,
    /// The rest of the name.
    pub text: &'a str,
}

impl<'a> NameParts<'a> {
    /// Takes a display name apart: `[linux/arm64 build 2/5] RUN make` is stage `linux/arm64 build`,
    /// position 2, text `RUN make`.
    pub fn of(name: &'a str) -> NameParts<'a> {
        let parts = || {
            let (head, text) = name.strip_prefix('[')?.split_once("] ")?;
            let (stage, position) = head.rsplit_once(' ').unwrap_or(("", head));
            let position = position.split_once('/')?.0.parse().ok()?;
            Some(NameParts { stage, position, text })
        };
        parts().unwrap_or(NameParts { stage: "", position: 0, text: name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        for (name, stage, position, text) in [
            ("[build 2/5] RUN make", "build", 2, "RUN make"),
            ("[linux/arm64 build 2/5] RUN a] b", "linux/arm64 build", 2, "RUN a] b"),
            ("[1/2] FROM base", "", 1, "FROM base"),
            ("FROM alpine", "", 0, "FROM alpine"),
            ("[auth] x", "", 0, "[auth] x"),
        ] {
            assert_eq!(NameParts::of(name), NameParts { stage, position, text }, "{name}");
        }
    }
}
