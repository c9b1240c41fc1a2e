//! What URLs stand for, for frontends that ask.

use wbuild_api::extension::{SourceInfo, SourceRequest};
use wbuild_graph::{Attrs, Failure, decode};

use crate::job::Job;
use crate::vcs;

impl Job {
    /// What a URL stands for now, without its files.
    pub(crate) async fn resolve_source(
        &self,
        request: &SourceRequest,
    ) -> Result<SourceInfo, Failure> {
        let SourceRequest { kind, url, reference, attrs: asked } = request;
        let repositories = &self.worker().repositories;
        let mut attrs = Attrs::default();
        let pin = match kind.as_str() {
            "git" if decode::flag(asked, "facts")? => {
                let rest = asked.0.iter().filter(|(key, _)| key != "facts").cloned().collect();
                let found = repositories.facts_of(url, reference, &Attrs(rest)).await?;
                attrs = vcs::of_remote(&found);
                found.commit.to_string()
            }
            "git" => {
                let (commit, tag) = repositories.resolve(url, reference, asked).await?;
                attrs.0.extend(tag.map(|tag| ("tag".to_owned(), tag.to_string())));
                commit.to_string()
            }
            "http" if !reference.is_empty() => {
                let message = format!("a file behind a URL has no reference, as {reference:?} is");
                return Err(Failure::invalid(message));
            }
            "http" => {
                let (digest, modified) = self.worker().downloads.resolve(url, asked).await?;
                let modified = modified.map(|modified| modified.to_string());
                attrs.0.extend(modified.map(|modified| ("last-modified".to_owned(), modified)));
                digest.to_string()
            }
            other => {
                return Err(Failure::unsupported(format!(
                    "no source of kind {other:?} is resolved"
                ))
                .hint("expected one of: git, http"));
            }
        };
        self.planning().pin_source(request, &pin);
        Ok(SourceInfo { pin, attrs })
    }
}
