//! What the runners of this repository have in common. Nothing here calls a host or knows its types:
//! each component has types of its own.

/// Why a platform does not run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was refused and why.
    pub message: String,
    /// What the user can do.
    pub help: String,
}

/// What people call a platform: `os/architecture[/variant]`.
pub fn platform_name(os: &str, architecture: &str, variant: Option<&str>) -> String {
    match variant {
        Some(variant) => format!("{os}/{architecture}/{variant}"),
        None => format!("{os}/{architecture}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(platform_name("linux", "arm", Some("v7")), "linux/arm/v7");
        assert_eq!(platform_name("linux", "amd64", None), "linux/amd64");
    }
}
