//! `CACHE`: directories that outlive builds, and copies of them that become part of the image.

use std::rc::Rc;

use wbuild_dockerfile::{CacheDir, Diagnostic, ExecMount, Failure, Output, Span, Text, paths};

use super::run::{mode, sharing};
use super::state::{Key, State};
use super::{File, Session};
use crate::Code;
use crate::flags::Flags;

/// Where a cache is seen while its files are copied to where it was.
const BESIDE: &str = "/.wbuild-cache";

/// Copies the files of a cache to the directory that is its first argument.
const COPY: &str = "mkdir -p \"$1\" && cp -a /.wbuild-cache/. \"$1\"";

/// Whether files below one path may be below the other; a pattern may be any path.
fn overlap(path: &str, directory: &str) -> bool {
    let below = |a: &str, b: &str| {
        a.strip_prefix(b.trim_end_matches('/'))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let end =
        path.find(['*', '?', '[']).map_or(path.len(), |at| path[..at].rfind('/').unwrap_or(at));
    let path = &path[..end];
    below(path, directory) || below(directory, path)
}

impl<'h> Session<'h> {
    pub(super) async fn cache(
        self: &Rc<Self>,
        key: &Key,
        file: &File,
        state: &mut State,
        flags: &Flags,
        path: &Text,
    ) -> Result<(), Failure> {
        // Before there was a choice, they always were.
        let persists = match file.has("cache-persist-option") {
            true => self.switch(state, flags, "persist").await?,
            false => true,
        };
        let target = self.word(state, path).await?;
        let target = paths::join(state.image.working_dir(), &target);
        if target == "/" {
            let message = "a cache cannot take the place of the whole file system";
            let help = "give it a directory of its own";
            return Err(Diagnostic::error(Code::InvalidMount, path.span(), message)
                .help(help)
                .into());
        }
        let word: Option<(String, Span)> = match flags.value("sharing") {
            Some(value) => Some((self.word(state, value).await?, value.span())),
            None => None,
        };
        let sharing = sharing(word.as_ref().map(|(word, span)| (word.as_str(), *span)))?;
        let id = match flags.value("id") {
            Some(id) => self.word(state, id).await?,
            None => String::new(),
        };
        let id =
            if id.is_empty() || !state.shares_caches { Self::cache_id(key, &target) } else { id };
        let mut opts = Vec::new();
        if let Some(value) = flags.value("chmod") {
            let text = self.word(state, value).await?;
            opts.push(("mode".to_owned(), mode(&text, value.span())?));
        }
        state.caches.retain(|known| known.target != target);
        state.persisted.retain(|(known, _)| *known != target);
        if persists {
            state.persisted.push((target.clone(), path.span()));
        }
        state.caches.push(CacheDir { target, id, sharing, seed: None, opts });
        Ok(())
    }

    /// The files of a recipe with those of the caches that become part of it: of all, or of those that
    /// may have what a path names.
    pub(super) fn persisted(
        &self,
        state: &State,
        named: Option<&str>,
    ) -> Result<Option<Output>, Failure> {
        let mut root = state.root;
        for cache in &state.caches {
            let found = state.persisted.iter().find(|(target, _)| *target == cache.target);
            let Some((_, span)) = found else { continue };
            if named.is_some_and(|path| !overlap(path, &cache.target)) {
                continue;
            }
            // An image that is saved at the end of a target is the target.
            let copy = (root, format!("{} {} {}", cache.id, cache.target, state.platform));
            if let Some(known) = self.copied.borrow().get(&copy) {
                root = Some(*known);
                continue;
            }
            let args = ["/bin/sh", "-c", COPY, "sh", &cache.target].map(str::to_owned);
            let mut exec = self.exec(&State { root, ..state.clone() }, args.to_vec(), None);
            let beside = CacheDir { target: BESIDE.to_owned(), ..cache.clone() };
            exec.mounts = vec![ExecMount::Cache(beside)];
            exec.cwd = "/".to_owned();
            exec.user = "root".to_owned();
            let name = format!("CACHE {} (copied into the image)", cache.target);
            let at = self.add_exec(&exec, state, *span, &name, false)?;
            self.copied.borrow_mut().insert(copy, at);
            root = Some(at);
        }
        Ok(root)
    }
}

#[cfg(test)]
mod tests {
    use super::overlap;

    #[test]
    fn paths_that_may_be_of_a_cache() {
        for (path, directory, expect) in [
            ("/a/b", "/a", true),
            ("/a", "/a/b", true),
            ("/a", "/a", true),
            ("/ab", "/a", false),
            ("/", "/a", true),
            ("/*", "/a", true),
            ("/a*", "/ab", true),
            ("/b/*", "/a", false),
            ("/a/*/c", "/a/b", true),
        ] {
            assert_eq!(overlap(path, directory), expect, "{path} {directory}");
        }
    }
}
