//! What a frontend has yielded so far: images, files, effects, and a failure that waits for the end.
//!
//! What is refused is refused here, whoever the host is. Images of one name are one image, for a platform each. What was published is noted, so that the
//! end of the build does not write it again.

use std::collections::BTreeMap;

use wbuild_graph::op::IMAGE_CONFIG_BYTES;
use wbuild_graph::{Definition, Edge, Failure, FailureKind, Op, Platform, decode};

use crate::event::ImageReport;
use crate::extension::{FilesResult, ImageResult};

/// The most images, file results and effects, of each kind, of one build.
const RESULTS: usize = 1000;
/// The most that must succeed besides.
const REQUIRED: usize = 10_000;

/// See the module.
#[derive(Debug, Default)]
pub struct Yielded {
    images: Vec<ImageResult>,
    files: Vec<FilesResult>,
    /// What must succeed besides.
    required: Vec<Edge>,
    effects: Vec<Edge>,
    /// What the build fails with in the end.
    fails: Option<Edge>,
    /// How many effects have run.
    run: usize,
    /// Names of images and of files that are published.
    published: Vec<String>,
    /// What was said of published images.
    reports: Vec<ImageReport>,
}

/// One image, for one platform or several.
#[derive(Clone, Debug)]
pub struct Image {
    /// Empty for the image of the build.
    pub name: String,
    /// One for each platform, in the order they were yielded.
    pub parts: Vec<ImageResult>,
}

impl Image {
    /// Whether this is the image that names of the client's are for.
    pub fn is_main(&self) -> bool {
        self.name.is_empty()
    }

    /// As messages call it.
    pub fn shown(&self) -> String {
        match self.name.as_str() {
            "" => "the image".to_owned(),
            name => format!("the image {name:?}"),
        }
    }

    /// Keys and values of some attributes, each pair once, in the order that they were given in.
    pub fn attrs(&self, keys: &[&str]) -> Vec<(&str, &str)> {
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for (key, value) in self.parts.iter().flat_map(|part| &part.attrs.0) {
            let pair = (key.as_str(), value.as_str());
            if keys.contains(&pair.0) && !pairs.contains(&pair) {
                pairs.push(pair);
            }
        }
        pairs
    }
}

/// Some of what was yielded, to be written together.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The build's own first.
    pub images: Vec<Image>,
    /// In the order they were yielded.
    pub files: Vec<FilesResult>,
}

impl Batch {
    fn of(images: Vec<&ImageResult>, files: Vec<FilesResult>) -> Batch {
        let mut all: Vec<Image> = Vec::new();
        for part in images {
            match all.iter_mut().find(|known| known.name == part.name) {
                Some(known) => known.parts.push(part.clone()),
                None => all.push(Image { name: part.name.clone(), parts: vec![part.clone()] }),
            }
        }
        all.sort_by_key(|image| !image.is_main());
        Batch { images: all, files }
    }

    /// The image of the build.
    pub fn main(&self) -> Option<&Image> {
        self.images.iter().find(|image| image.is_main())
    }

    /// What has to be solved to write it.
    pub fn roots(&self) -> Vec<Edge> {
        let parts = self.images.iter().flat_map(|image| &image.parts);
        parts
            .filter_map(|part| part.root)
            .chain(self.files.iter().map(|files| files.root))
            .collect()
    }
}

fn check_number(yielded: usize, most: usize) -> Result<(), Failure> {
    if yielded >= most {
        let message = format!("the frontend yielded more than {most} results of one kind");
        return Err(Failure::new(FailureKind::Limit, message));
    }
    Ok(())
}

/// What is no object of a sensible size is refused where the frontend yields it; the rest is checked
/// when the host's part is added.
pub fn check_config(config: &str) -> Result<(), Failure> {
    if config.len() as u64 > IMAGE_CONFIG_BYTES {
        return Err(Failure::new(FailureKind::Limit, "the image config is too large"));
    }
    // Keys only: the values of thousands of history entries need not become objects here.
    match serde_json::from_str::<BTreeMap<String, serde::de::IgnoredAny>>(config) {
        Ok(_) => Ok(()),
        Err(error) => Err(Failure::invalid("the image config is no JSON object").cause(&error)),
    }
}

/// What interface `results` is told, over the graph that it is about.
impl Yielded {
    /// `results.image`; one without a platform is for `first`.
    pub fn image(
        &mut self,
        definition: &Definition,
        image: ImageResult,
        first: &Platform,
    ) -> Result<(), Failure> {
        if let Some(root) = image.root {
            definition.check_edge(root)?;
        }
        check_config(&image.config)?;
        self.add_image(image, first)
    }

    /// `results.files`
    pub fn files(&mut self, definition: &Definition, files: FilesResult) -> Result<(), Failure> {
        definition.check_edge(files.root)?;
        decode::only_known(&files.attrs, "results.files", &["dest"])?;
        self.add_files(files)
    }

    /// `results.require`
    pub fn require(&mut self, definition: &Definition, at: Edge) -> Result<(), Failure> {
        definition.check_edge(at)?;
        self.add_required(at)
    }

    /// `results.effect`
    pub fn effect(
        &mut self,
        definition: &mut Definition,
        name: &str,
        at: Edge,
    ) -> Result<(), Failure> {
        definition.check_edge(at)?;
        if !matches!(definition.vertex(at.node).op, Op::Exec(_)) {
            let message = format!("{name:?} has no effect: it is the output of no process");
            return Err(Failure::invalid(message));
        }
        definition.ignore_cache(at.node)?;
        self.add_effect(at)
    }

    /// `results.fail-after`: nothing counts that is yielded from now on.
    pub fn fail_after(&mut self, definition: &Definition, at: Edge) -> Result<(), Failure> {
        definition.check_edge(at)?;
        match &definition.vertex(at.node).op {
            Op::Exec(exec) if exec.capture.is_some() => self.fails.get_or_insert(at),
            _ => {
                let message = format!("node {} is no exec with capture", at.node.0);
                return Err(Failure::invalid(message));
            }
        };
        Ok(())
    }
}

/// `results.attest`, which no host can do yet.
pub fn attest(kind: &str) -> Result<(), Failure> {
    Err(Failure::unsupported(format!("this host cannot attach the attestation {kind:?}")))
}

impl Yielded {
    /// Takes an image; one without a platform is for `first`.
    pub fn add_image(&mut self, image: ImageResult, first: &Platform) -> Result<(), Failure> {
        self.check_open(&image.name)?;
        check_number(self.images.len(), RESULTS)?;
        let wanted = image.platform.clone().unwrap_or_else(|| first.clone());
        let same = |known: &&ImageResult| {
            known.name == image.name && known.platform.as_ref() == Some(&wanted)
        };
        if self.images.iter().any(|known| same(&known)) {
            let name = &image.name;
            let message = format!("the image {name:?} for {wanted} was yielded twice");
            return Err(Failure::invalid(message));
        }
        if self.fails.is_none() {
            self.images.push(ImageResult { platform: Some(wanted), ..image });
        }
        Ok(())
    }

    /// Takes files.
    pub fn add_files(&mut self, files: FilesResult) -> Result<(), Failure> {
        self.check_open(&files.name)?;
        check_number(self.files.len(), RESULTS)?;
        if self.fails.is_none() {
            self.files.push(files);
        }
        Ok(())
    }

    /// Takes what must succeed though nothing of it is yielded.
    fn add_required(&mut self, at: Edge) -> Result<(), Failure> {
        check_number(self.required.len(), REQUIRED)?;
        self.required.push(at);
        Ok(())
    }

    /// What must succeed besides.
    pub fn required(&self) -> &[Edge] {
        &self.required
    }

    /// Takes work for its effect.
    fn add_effect(&mut self, at: Edge) -> Result<(), Failure> {
        check_number(self.effects.len(), RESULTS)?;
        if self.fails.is_none() {
            self.effects.push(at);
        }
        Ok(())
    }

    /// What is published is complete.
    fn check_open(&self, name: &str) -> Result<(), Failure> {
        if !name.is_empty() && self.published.iter().any(|known| known == name) {
            let message =
                format!("the result {name:?} was published, and then another part of it yielded");
            return Err(Failure::invalid(message));
        }
        Ok(())
    }

    /// What the build fails with in the end.
    pub fn fails(&self) -> Option<Edge> {
        self.fails
    }

    /// Whether there is nothing at all.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty()
            && self.files.is_empty()
            && self.effects.is_empty()
            && self.required.is_empty()
            && self.fails.is_none()
    }

    /// Everything, also what is published.
    pub fn whole(&self) -> Batch {
        Batch::of(self.images.iter().collect(), self.files.clone())
    }

    /// What is not published.
    pub fn rest(&self) -> Batch {
        self.some(|name| !self.published.iter().any(|known| known == name))
    }

    /// What goes by these names and is not published.
    pub fn named(&self, names: &[String]) -> Result<Batch, Failure> {
        for name in names {
            let there = self.images.iter().any(|image| image.name == *name)
                || self.files.iter().any(|files| files.name == *name);
            // What fails has nothing of what came later.
            if !there && self.fails.is_none() {
                return Err(Failure::not_found(format!("there is no result {name:?} to publish")));
            }
        }
        let rest = |name: &str| !self.published.iter().any(|known| known == name);
        Ok(self.some(|name| rest(name) && names.iter().any(|wanted| wanted == name)))
    }

    fn some(&self, wanted: impl Fn(&str) -> bool) -> Batch {
        let images = self.images.iter().filter(|image| wanted(&image.name)).collect();
        let files = self.files.iter().filter(|files| wanted(&files.name)).cloned().collect();
        Batch::of(images, files)
    }

    /// Notes what was published, and what there is to say of it.
    pub fn publish(&mut self, names: &[String], reports: Vec<ImageReport>) {
        self.published.extend(names.iter().cloned());
        self.reports.extend(reports);
    }

    /// What was said of published images.
    pub fn reports(&self) -> Vec<ImageReport> {
        self.reports.clone()
    }

    /// All effects, in order.
    pub fn effects(&self) -> &[Edge] {
        &self.effects
    }

    /// The next effect that has not run, which counts as run from now on: what fails in part must
    /// not be done again.
    pub fn next_effect(&mut self) -> Option<Edge> {
        let next = self.effects.get(self.run).copied()?;
        self.run += 1;
        Some(next)
    }
}

#[cfg(test)]
mod tests {
    use wbuild_graph::{Attrs, NodeId};

    use super::*;

    fn image(name: &str, platform: &str, tags: &[&str]) -> ImageResult {
        let attrs = tags.iter().map(|tag| ("tag".to_owned(), (*tag).to_owned())).collect();
        ImageResult {
            name: name.to_owned(),
            platform: Some(platform.parse().expect("platform")),
            root: None,
            config: "{}".to_owned(),
            attrs: Attrs(attrs),
        }
    }

    fn files(name: &str, node: u32) -> FilesResult {
        FilesResult {
            name: name.to_owned(),
            platform: None,
            root: edge(node),
            path: "/".to_owned(),
            attrs: Attrs::default(),
        }
    }

    fn edge(node: u32) -> Edge {
        Edge { node: NodeId(node), index: 0 }
    }

    fn names(batch: &Batch) -> Vec<(&str, usize)> {
        batch.images.iter().map(|image| (&*image.name, image.parts.len())).collect()
    }

    #[test]
    fn images_of_a_name_are_one_and_the_builds_own_is_the_first() {
        let mut yielded = Yielded::default();
        let first: Platform = "linux/amd64".parse().expect("platform");
        for (name, platform) in
            [("a", "linux/amd64"), ("", "linux/amd64"), ("b", "linux/arm64"), ("a", "linux/arm64")]
        {
            yielded.add_image(image(name, platform, &["x", "y"]), &first).expect(name);
        }
        let whole = yielded.whole();
        assert_eq!(names(&whole), [("", 1), ("a", 2), ("b", 1)]);
        assert_eq!(whole.images[1].attrs(&["tag"]), [("tag", "x"), ("tag", "y")]);
        let none = ImageResult { platform: None, ..image("a", "linux/arm64", &[]) };
        assert!(yielded.add_image(none, &first).is_err(), "that platform is there");
    }

    #[test]
    fn what_is_published_is_not_in_the_rest_and_is_complete() {
        let mut yielded = Yielded::default();
        let first: Platform = "linux/amd64".parse().expect("platform");
        yielded.add_image(image("a", "linux/amd64", &[]), &first).expect("a");
        yielded.add_image(image("b", "linux/amd64", &[]), &first).expect("b");
        yielded.add_files(files("f", 1)).expect("f");
        yielded.add_files(files("", 2)).expect("other");
        let wanted = ["a".to_owned(), "f".to_owned()];
        let batch = yielded.named(&wanted).expect("there");
        assert_eq!((names(&batch), batch.roots()), (vec![("a", 1)], vec![edge(1)]));
        yielded.publish(&wanted, Vec::new());
        let rest = yielded.rest();
        assert_eq!((names(&rest), rest.roots()), (vec![("b", 1)], vec![edge(2)]));
        assert_eq!(yielded.named(&wanted).expect("there").roots(), []);
        assert_eq!(yielded.whole().images.len(), 2);
        assert!(yielded.add_image(image("a", "linux/arm64", &[]), &first).is_err());
        assert!(yielded.add_files(files("f", 3)).is_err());
        assert!(yielded.named(&["c".to_owned()]).is_err());
    }

    #[test]
    fn nothing_counts_after_a_failure() {
        let mut yielded = Yielded::default();
        let first: Platform = "linux/amd64".parse().expect("platform");
        yielded.add_files(files("", 1)).expect("files");
        yielded.fails = Some(edge(2));
        yielded.add_files(files("", 4)).expect("taken");
        yielded.add_image(image("", "linux/amd64", &[]), &first).expect("taken");
        yielded.add_effect(edge(5)).expect("taken");
        assert_eq!(yielded.fails(), Some(edge(2)));
        assert_eq!(yielded.whole().roots(), [edge(1)]);
        assert_eq!(yielded.next_effect(), None);
    }

    #[test]
    fn an_effect_is_run_once() {
        let mut yielded = Yielded::default();
        yielded.add_effect(edge(1)).expect("first");
        assert_eq!((yielded.next_effect(), yielded.next_effect()), (Some(edge(1)), None));
        yielded.add_effect(edge(2)).expect("second");
        assert_eq!((yielded.next_effect(), yielded.next_effect()), (Some(edge(2)), None));
        assert_eq!(yielded.effects(), [edge(1), edge(2)]);
    }

    #[test]
    fn a_config_is_an_object() {
        let good = ["{}", r#"{"config":{"Env":["A=b"]},"history":[{"created_by":"x"}]}"#];
        for config in good {
            assert_eq!(check_config(config), Ok(()), "{config}");
        }
        for config in ["", "[]", "null", "{", r#"{"a":}"#, "{} {}", r#"{"a":[1,]}"#] {
            let failure = check_config(config).expect_err(config);
            assert_eq!(failure.message, "the image config is no JSON object", "{config}");
            assert_eq!(failure.kind, FailureKind::Invalid, "{config}");
        }
        let large = format!("{{\"a\":{:?}}}", "x".repeat(IMAGE_CONFIG_BYTES as usize));
        assert_eq!(check_config(&large).expect_err("too large").kind, FailureKind::Limit);
    }
}
