//! What a commit says of itself.

/// Longest name, address or list of them that is told, in characters.
const LONGEST: usize = 1000;

/// Who made a commit, and when. Texts hold no control characters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommitFacts {
    /// The author's name.
    pub author_name: String,
    /// The author's address.
    pub author_email: String,
    /// When the author wrote it, in seconds since 1970; 0 if that is malformed, as git has it.
    pub authored: i64,
    /// When the commit was made.
    pub committed: i64,
    /// Addresses of `Co-authored-by`, each once, in order.
    pub co_authors: Vec<String>,
    /// Whether it has parents.
    pub has_parents: bool,
}

impl CommitFacts {
    /// Reads the object of a commit.
    pub(crate) fn parse(object: &[u8]) -> CommitFacts {
        let object = String::from_utf8_lossy(object);
        let (header, body) = object.split_once("\n\n").unwrap_or((&object, ""));
        let mut facts = CommitFacts::default();
        for line in header.lines() {
            if let Some(line) = line.strip_prefix("author ") {
                (facts.author_name, facts.author_email, facts.authored) = person(line);
            } else if let Some(line) = line.strip_prefix("committer ") {
                (_, _, facts.committed) = person(line);
            } else if line.starts_with("parent ") {
                facts.has_parents = true;
            }
        }
        for line in body.lines().map(str::trim) {
            let Some((key, value)) = line.split_once(':') else { continue };
            if !key.eq_ignore_ascii_case("co-authored-by") {
                continue;
            }
            let address = value.rsplit_once('<').and_then(|(_, rest)| rest.strip_suffix('>'));
            let address = plain(address.unwrap_or_default());
            if !address.is_empty() && !address.contains(' ') && !facts.co_authors.contains(&address)
            {
                facts.co_authors.push(address);
            }
            if facts.co_authors.len() >= LONGEST {
                break;
            }
        }
        facts
    }
}

/// `Name <address> seconds zone`.
fn person(line: &str) -> (String, String, i64) {
    let (before, after) = line.rsplit_once('>').unwrap_or((line, ""));
    let (name, address) = before.split_once('<').unwrap_or((before, ""));
    let seconds = after.split_ascii_whitespace().next().and_then(|seconds| seconds.parse().ok());
    (plain(name), plain(address), seconds.unwrap_or(0))
}

/// Text that anybody may see.
pub(crate) fn plain(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_say_who_made_them() {
        let object = "tree 1\nparent 2\nauthor A \x1b[1mB <a@b> 12 +0100\ncommitter C <c> 34 +0000\n\
            gpgsig x\n author no <no> 1\n\nauthor not <n> 5\n\nCo-authored-by: D <d@e>\n\
            co-authored-by: E <e@f>\nCo-authored-by: D <d@e>\nCo-authored-by: nobody\n";
        let want = CommitFacts {
            author_name: "A [1mB".to_owned(),
            author_email: "a@b".to_owned(),
            authored: 12,
            committed: 34,
            co_authors: vec!["d@e".to_owned(), "e@f".to_owned()],
            has_parents: true,
        };
        assert_eq!(CommitFacts::parse(object.as_bytes()), want);
        for odd in ["", "author", "author \ncommitter <> x\n\n", "author a > b < c\n"] {
            let facts = CommitFacts::parse(odd.as_bytes());
            assert_eq!((facts.authored, facts.committed), (0, 0), "{odd}");
        }
    }
}
