//! Answers that may be much more than what was asked: configs of images, listings, what other
//! frontends yield, and failures in the words of others.
//!
//! Invariants, for the bindings of each WIT version and for a process that runs a guest for this one:
//!
//! - The answer of one call is no larger than what may still be held for the guest, nor than what one
//!   call may have. What is larger ends the guest, with a message that names the limit.
//! - Questions that are many are asked in groups, each after what the one before it answered was
//!   counted: so there is never more at once than a group's answers above that.

use std::future::Future;

use wbuild_api::extension::{
    Entry, FilesResult, ImageInfo, ImageRequest, ImageResult, InspectCap, NestedBuild, NestedCap,
    NestedResult, Outcome, ReadDir, SourceInfo, SourceRequest,
};
use wbuild_graph::{Attrs, Diagnostic, Edge, Failure, Label, Platform};

use crate::limits::{LIST_ITEMS, LimitReached, Meter, pairs_size, platform_size, texts_size};

/// Images and sources that are resolved beside each other; more wait.
const RESOLVED: usize = 64;
/// Outputs that are evaluated beside each other; more wait.
const EVALUATED: usize = 1000;
/// Frontends that are called beside each other; more wait.
const CALLED: usize = 16;

/// One answer for each question.
type Answers<T> = Vec<Result<T, Failure>>;

/// Asks in groups of `group`, until the answers have more bytes than one call may have.
async fn grouped<Q, T, F: Future<Output = Answers<T>>>(
    questions: Vec<Q>,
    group: usize,
    meter: &Meter,
    ask: impl Fn(Vec<Q>) -> F,
    size: impl Fn(&T) -> usize,
) -> Result<Answers<T>, LimitReached> {
    meter.batch(questions.len())?;
    let mut answers = Vec::with_capacity(questions.len());
    let mut bytes = 0usize;
    let mut questions = questions.into_iter().peekable();
    while questions.peek().is_some() {
        for answer in ask(questions.by_ref().take(group).collect()).await {
            bytes = bytes.saturating_add(match &answer {
                Ok(answer) => size(answer),
                Err(failure) => failure_size(failure),
            });
            meter.answers(bytes)?;
            answers.push(answer);
        }
    }
    Ok(answers)
}

/// `inspect.resolve-images`.
///
/// # Errors
///
/// The limit that the questions or the answers go over.
pub async fn resolve_images(
    inspect: &dyn InspectCap,
    requests: Vec<ImageRequest>,
    meter: &Meter,
) -> Result<Answers<ImageInfo>, LimitReached> {
    let size = |info: &ImageInfo| {
        size_of::<ImageInfo>()
            + texts_size([&info.reference, &info.config])
            + platform_size(&info.platform)
            + pairs_size(&info.attrs.0)
    };
    grouped(requests, RESOLVED, meter, |some| inspect.resolve_images(some), size).await
}

/// `inspect.resolve-sources`.
///
/// # Errors
///
/// As of [`resolve_images`].
pub async fn resolve_sources(
    inspect: &dyn InspectCap,
    requests: Vec<SourceRequest>,
    meter: &Meter,
) -> Result<Answers<SourceInfo>, LimitReached> {
    let size = |info: &SourceInfo| texts_size([&info.pin]) + pairs_size(&info.attrs.0);
    grouped(requests, RESOLVED, meter, |some| inspect.resolve_sources(some), size).await
}

/// `inspect.evaluate`.
///
/// # Errors
///
/// As of [`resolve_images`].
pub async fn evaluate(
    inspect: &dyn InspectCap,
    at: Vec<Edge>,
    meter: &Meter,
) -> Result<Answers<()>, LimitReached> {
    grouped(at, EVALUATED, meter, |some| inspect.evaluate(some), |()| 0).await
}

/// `inspect.read-dir`.
///
/// # Errors
///
/// As of [`resolve_images`].
pub async fn read_dir(
    inspect: &dyn InspectCap,
    at: Edge,
    mut query: ReadDir,
    meter: &Meter,
) -> Result<Result<Vec<Entry>, Failure>, LimitReached> {
    query.limit = query.limit.min(LIST_ITEMS);
    let entries = inspect.read_dir(at, query).await;
    let size = |entry: &Entry| {
        size_of::<Entry>()
            + entry.path.len()
            + entry.link.as_ref().map_or(0, String::len)
            + pairs_size(&entry.attrs.0)
    };
    meter.answers(entries.as_ref().map_or(0, |entries| entries.iter().map(size).sum()))?;
    Ok(entries)
}

/// `nested.build`.
///
/// # Errors
///
/// As of [`resolve_images`].
pub async fn nested(
    nested: &dyn NestedCap,
    requests: Vec<NestedBuild>,
    meter: &Meter,
) -> Result<Answers<NestedResult>, LimitReached> {
    grouped(requests, CALLED, meter, |some| nested.build(some), nested_size).await
}

/// Bytes the host spends on what another frontend has yielded.
pub fn nested_size(result: &NestedResult) -> usize {
    let images = result.images.iter().map(image_size);
    let files = result.files.iter().map(|files| size_of::<FilesResult>() + files_size(files));
    images.chain(files).sum()
}

fn image_size(image: &ImageResult) -> usize {
    let ImageResult { name, platform, root: _, config, attrs } = image;
    size_of::<ImageResult>()
        + texts_size([name, config])
        + of_platform(platform)
        + pairs_size(&attrs.0)
}

/// Bytes the host spends on the words of files that are yielded.
pub fn files_size(files: &FilesResult) -> usize {
    let FilesResult { name, platform, root: _, path, attrs } = files;
    texts_size([name, path]) + of_platform(platform) + pairs_size(&attrs.0)
}

fn of_platform(platform: &Option<Platform>) -> usize {
    platform.as_ref().map_or(0, platform_size)
}

/// Bytes the host spends on what a process has printed.
pub fn outcome_size(outcome: &Outcome) -> usize {
    size_of::<Outcome>() + outcome.stdout.len() + outcome.stderr.len()
}

/// Bytes the host spends on a diagnostic.
pub fn diagnostic_size(diagnostic: &Diagnostic) -> usize {
    let texts = [&diagnostic.code, &diagnostic.help, &diagnostic.url];
    let labels = diagnostic.labels.iter().map(|label| size_of::<Label>() + label.text.len());
    texts_size([&diagnostic.message])
        + texts_size(texts.into_iter().flatten())
        + labels.sum::<usize>()
        + pairs_size(&diagnostic.attrs.0)
}

/// Bytes the host spends on a failure.
pub fn failure_size(failure: &Failure) -> usize {
    let Failure { message, causes, hints, diagnostics, attrs: Attrs(attrs), .. } = failure;
    let diagnostics =
        diagnostics.iter().map(|diagnostic| size_of::<Diagnostic>() + diagnostic_size(diagnostic));
    size_of::<Failure>()
        + texts_size([message].into_iter().chain(causes).chain(hints))
        + diagnostics.sum::<usize>()
        + pairs_size(attrs)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::PluginKind;
    use crate::limits::Limits;

    const MIB: usize = 1 << 20;

    /// Frontends that yield an image of 1 MiB, or fail with as many words; counts the calls.
    #[derive(Default)]
    struct Callees(AtomicUsize);

    #[async_trait::async_trait]
    impl NestedCap for Callees {
        async fn build(&self, requests: Vec<NestedBuild>) -> Answers<NestedResult> {
            self.0.fetch_add(requests.len(), Ordering::Relaxed);
            let words = |besides: usize| "x".repeat(MIB - besides);
            let yielded = |request: NestedBuild| match &*request.frontend {
                "fails" => Err(Failure::invalid(words(size_of::<Failure>() + size_of::<String>()))),
                _ => {
                    let (name, root) = (String::new(), None);
                    let (platform, attrs) = (None, Attrs::default());
                    let besides = size_of::<ImageResult>() + 2 * size_of::<String>();
                    let config = words(besides);
                    let image = ImageResult { name, platform, root, config, attrs };
                    Ok(NestedResult { images: vec![image], files: Vec::new() })
                }
            };
            requests.into_iter().map(yielded).collect()
        }
    }

    async fn call(frontend: &str, count: usize, meter: &Meter) -> (usize, Result<usize, String>) {
        let one = NestedBuild { frontend: frontend.to_owned(), ..NestedBuild::default() };
        let callees = Callees::default();
        let answers = nested(&callees, vec![one; count], meter).await;
        let said = answers.map(|answers| answers.len()).map_err(|limit| limit.to_string());
        (callees.0.into_inner(), said)
    }

    #[tokio::test]
    async fn answers_are_counted_group_by_group() {
        let mut meter = Meter::new(Limits::of(PluginKind::Frontend));
        let more = |limit: &str| Err(limit.to_owned());
        for frontend in ["yields", "fails"] {
            assert_eq!(call(frontend, 24, &meter).await, (24, Ok(24)), "{frontend}");
            let one_call = more("asks for more than 24 MiB in one call");
            assert_eq!(call(frontend, 25, &meter).await, (25, one_call.clone()), "{frontend}");
            // The third group is not called any more.
            assert_eq!(call(frontend, 1000, &meter).await, (32, one_call), "{frontend}");
        }
        meter.charge(61 * MIB).expect("there is room for it");
        assert_eq!(call("yields", 3, &meter).await, (3, Ok(3)));
        let held = more("makes the host hold more than 64 MiB for it");
        assert_eq!(call("yields", 4, &meter).await, (4, held.clone()));
        assert_eq!(call("yields", 1000, &meter).await, (16, held));
    }
}
