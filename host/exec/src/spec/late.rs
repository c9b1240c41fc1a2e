//! What is added to a spec after a runner's plan has been accepted: things that are in no key and
//! that no plugin sees.

use oci_spec::runtime::{LinuxPersonalityBuilder, LinuxPersonalityDomain, Spec};
use wbuild_graph::{Failure, FailureKind};

/// Reads a spec that the host wrote itself.
///
/// # Errors
///
/// `Internal` if it is none.
pub fn from_json(text: &str) -> Result<Spec, Failure> {
    serde_json::from_str(text)
        .map_err(|error| Failure::internal("a spec of the host's is no spec").cause(&error))
}

/// Sets variables, in order, in place of what has their names.
///
/// # Errors
///
/// `Invalid` for a malformed name or a value with a NUL byte. The value is not shown: it may be a
/// secret.
pub fn add_env<'a>(
    spec: &mut Spec,
    variables: impl IntoIterator<Item = &'a (String, String)>,
) -> Result<(), Failure> {
    let Some(process) = spec.process_mut() else {
        return Err(Failure::internal("a spec without a process"));
    };
    let mut env = process.env().clone().unwrap_or_default();
    for (name, value) in variables {
        if name.is_empty() || name.contains(['=', '\0']) {
            return Err(Failure::invalid(format!("invalid environment variable name {name:?}")));
        }
        if value.contains('\0') {
            return Err(Failure::invalid(format!("the variable {name:?} has a NUL byte in it")));
        }
        let prefix = format!("{name}=");
        env.retain(|variable| !variable.starts_with(&prefix));
        env.push(format!("{prefix}{value}"));
    }
    process.set_env(Some(env));
    Ok(())
}

/// Sets the execution domain (personality(2)); `linux32` makes `uname -m` name a 32-bit machine.
///
/// # Errors
///
/// `Denied` for any other domain.
pub fn set_personality(spec: &mut Spec, domain: &str) -> Result<(), Failure> {
    if domain != "linux32" {
        let message = format!("the personality {domain:?} is not granted to runners");
        return Err(Failure::new(FailureKind::Denied, message));
    }
    let personality = LinuxPersonalityBuilder::default()
        .domain(LinuxPersonalityDomain::PerLinux32)
        .build()
        .map_err(|error| Failure::internal("cannot set a personality").cause(&error))?;
    let Some(linux) = spec.linux_mut() else {
        return Err(Failure::internal("a spec without a linux section"));
    };
    linux.set_personality(Some(personality));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{ExecSpec, base};

    #[test]
    fn variables_replace_and_follow() {
        let mut exec = ExecSpec::new(vec!["x".to_owned()]);
        exec.env = vec![("A".to_owned(), "1".to_owned()), ("B".to_owned(), "2".to_owned())];
        let mut spec = base(&exec).unwrap();
        let late = [("A".to_owned(), "3".to_owned()), ("C".to_owned(), "4".to_owned())];
        add_env(&mut spec, &late).unwrap();
        let env = spec.process().as_ref().unwrap().env().clone().unwrap();
        assert_eq!(env, ["B=2", "A=3", "C=4"]);
        let secret = [("S".to_owned(), "hush\0".to_owned())];
        let failure = add_env(&mut spec, &secret).unwrap_err().to_string();
        assert!(!failure.contains("hush"), "{failure}");
    }

    #[test]
    fn only_linux32_is_granted() {
        let mut spec = base(&ExecSpec::new(vec!["x".to_owned()])).unwrap();
        set_personality(&mut spec, "linux32").unwrap();
        assert!(spec.linux().as_ref().unwrap().personality().is_some());
        assert!(set_personality(&mut spec, "linux").is_err());
    }
}
