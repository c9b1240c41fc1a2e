//! The recording host of the Dockerfile language's tests, for builds whose graph depends on what
//! commands say: their outcomes are facts of the request.

use wbuild_dockerfile::{
    Attrs, Diagnostic, Failure, Host, ImageRequest, LocalSource, Output, Platform, Span,
};
use wbuild_earthfile::{Code, DynamicHost, NestedBuild, NestedImage, Outcome, build};

use wbuild_ignore::glob::Pattern;

use super::common::recorder::Recorder;

/// Builds what a case asks for. Says whether that went well, and all that happened.
pub fn run(earthfile: Vec<u8>, request: &str) -> (bool, String) {
    let mut recorder = Recorder::new(earthfile, request);
    recorder.file_name = Some("Earthfile");
    let fine = recorder.attempt(|recorder| build(recorder));
    (fine, recorder.out)
}

fn numbers(at: &[Output]) -> String {
    at.iter().map(|output| format!(" #{}", output.node)).collect()
}

impl DynamicHost for Recorder {
    fn evaluate(&mut self, at: &[Output]) -> Vec<Result<(), Failure>> {
        self.say(format!("evaluate{}", numbers(at)));
        at.iter().map(|_| Ok(())).collect()
    }

    fn local_after(&mut self, name: &str, after: Option<Output>) -> Result<Output, Failure> {
        self.say(format!("after {}", numbers(after.as_slice())));
        let (name, include, exclude) = (name.to_owned(), Vec::new(), Vec::new());
        self.local(&LocalSource { name, include, exclude })
    }

    fn outcome(&mut self, at: Output) -> Result<Outcome, Failure> {
        self.say(format!("outcome{}", numbers(&[at])));
        let command = self.processes[&at.node].clone();
        match self.outcomes.get(&command) {
            Some((code, printed)) => Ok(Outcome {
                code: *code,
                stdout: printed.clone().into_bytes(),
                truncated: false,
                stderr: if *code == 0 { Vec::new() } else { b"it went wrong\n".to_vec() },
            }),
            None => Err(Failure::new("exec-failed", format!("no outcome of {command}"))),
        }
    }

    fn require(&mut self, at: Output) -> Result<(), Failure> {
        self.say(format!("require{}", numbers(&[at])));
        Ok(())
    }

    /// Each yields the image that the request names after its frontend, on its context; one whose
    /// definition begins with `# fails` fails in its first line.
    fn nested(&mut self, builds: &[NestedBuild]) -> Vec<Result<Vec<NestedImage>, Failure>> {
        self.say("nested");
        let mut answers = Vec::new();
        for build in builds {
            let (name, text) = &build.definition;
            self.say(format!(
                "  {} {name} of {} bytes on #{} and {:?} target {:?} for {} at {}..{} {:?}",
                build.frontend,
                text.len(),
                build.context.node,
                build.handed_on,
                build.target,
                build.platform,
                build.asked_at.start,
                build.asked_at.end,
                build.options
            ));
            if text.starts_with(b"# fails") {
                let source = match self.add_source(name, "dockerfile", text) {
                    Ok(source) => source,
                    Err(failure) => {
                        answers.push(Err(failure));
                        continue;
                    }
                };
                let at = Span { source, start: 0, end: 7 };
                answers.push(Err(Diagnostic::error(Code::Unsupported, at, "it fails").into()));
                continue;
            }
            let image = ImageRequest {
                reference: build.frontend.clone(),
                platform: build.platform.clone(),
                attrs: Vec::new(),
            };
            let config = self.resolve_images(std::slice::from_ref(&image)).remove(0);
            let root = self.image(&image).map(Some);
            let image = |root| config.map(|info| vec![NestedImage { root, config: info.config }]);
            answers.push(root.and_then(image));
        }
        answers
    }

    fn directories(
        &mut self,
        at: Output,
        path: &str,
        pattern: &str,
    ) -> Result<Vec<String>, Failure> {
        self.say(format!("directories{} {path} {pattern}", numbers(&[at])));
        let pattern = Pattern::new(pattern.as_bytes()).expect("a pattern");
        let below = format!("{}/", path.trim_end_matches('/'));
        let mut names: Vec<String> = self
            .paths(at)
            .filter_map(|path| path.strip_prefix(&below)?.split_once('/'))
            .map(|(name, _)| name.to_owned())
            .filter(|name| pattern.matches(name.as_bytes()))
            .collect();
        names.sort();
        names.dedup();
        Ok(names)
    }

    fn repository_facts(&mut self, url: &str, reference: &str) -> Result<Attrs, Failure> {
        self.say(format!("facts of {url} {reference:?}"));
        let facts = [
            ("source", url),
            ("revision", "0123456789012345678901234567890123456789"),
            ("short-revision", "01234567"),
            ("branch", "main"),
            ("author-email", "there@example.org"),
            ("commit-timestamp", "7"),
        ];
        Ok(facts.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec())
    }

    fn files(&mut self, name: &str, root: Output, directory: &str) -> Result<(), Failure> {
        let name = if name.is_empty() { String::new() } else { format!(" {name:?}") };
        let place = if directory.is_empty() { String::new() } else { format!(" in {directory}") };
        self.say(format!("files{}{name}{place}", numbers(&[root])));
        Ok(())
    }

    fn image_result(
        &mut self,
        name: &str,
        platform: &Platform,
        root: Option<Output>,
        config: &str,
        attrs: &[(String, String)],
    ) -> Result<(), Failure> {
        let attrs: String = attrs.iter().map(|(key, value)| format!(" {key}={value}")).collect();
        match (name, &*attrs) {
            ("", "") => self.say("names []"),
            _ => self.say(format!("image {name:?}{attrs}")),
        }
        self.result(platform, root, config)
    }

    fn effect(&mut self, name: &str, at: Output) -> Result<(), Failure> {
        self.say(format!("effect{} {name:?}", numbers(&[at])));
        Ok(())
    }

    fn fail_after(&mut self, at: Output) -> Result<(), Failure> {
        self.say(format!("fail-after{}", numbers(&[at])));
        Ok(())
    }

    fn publish(&mut self, names: &[String]) -> Result<(), Failure> {
        self.say(format!("publish {names:?}"));
        Ok(())
    }

    fn same_work(&mut self, at: Output, other: Output) -> Result<bool, Failure> {
        let as_which = |output: Output| *self.alike.get(&output.node).unwrap_or(&output.node);
        Ok(as_which(at) == as_which(other))
    }
}
