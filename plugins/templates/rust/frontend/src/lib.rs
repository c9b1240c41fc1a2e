//! @NAME@: a frontend for wbuild.
//!
//! A definition names the image to begin with in its first line; every other line is a command. Lines
//! that begin with `#` are skipped.

use wbuild_frontend::{Build, Result, Wanted, sh};

wbuild_frontend::frontend!(build);

fn build(build: &Build) -> Result<()> {
    let source = build.definition("")?;
    let lines = source.lines();
    let mut lines = lines.iter().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let first = lines.next().ok_or_else(|| source.error(0..0, "the file names no image"))?;
    let commands: Vec<_> = lines.collect();
    for platform in build.platforms() {
        let wanted = Wanted::new(first.trim(), &platform).named(first.trim()).at(first.at);
        let mut base = build.bases(vec![wanted]).remove(0)?;
        for command in &commands {
            // The place is what the user sees if the command fails.
            base.state = base.state.run(sh(command.trim())).named(command.trim()).at(command.at).done()?;
            base.config = base.config.history(command.trim(), true);
        }
        build.image(&base.state, &base.config).done()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use wbuild_testkit::{Case, cases};

    use super::frontend;

    /// Everything in tests/cases; UPDATE=1 writes anew what is expected.
    #[test]
    fn cases() {
        cases::check("tests/cases", frontend());
    }

    #[test]
    fn a_file_must_name_an_image() {
        let failure = Case::new("# nothing\n").run(frontend()).expect_failure();
        assert!(failure.contains("names no image"), "{failure}");
    }
}
