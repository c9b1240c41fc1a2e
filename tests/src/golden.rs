//! Golden files: compared, or written with `WBUILD_BLESS=1`.

use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// Whether golden files are written instead of compared.
pub fn blessing() -> bool {
    std::env::var_os("WBUILD_BLESS").is_some_and(|value| value == "1")
}

/// Compares a text with a file.
pub fn check(path: &Path, actual: &str) -> Result<()> {
    let expected = match std::fs::read_to_string(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
    };
    if expected.as_deref() == Some(actual) {
        return Ok(());
    }
    if blessing() {
        return std::fs::write(path, actual)
            .with_context(|| format!("cannot write {}", path.display()));
    }
    match expected {
        Some(expected) => bail!(
            "not as in {} (- expected, + actual; WBUILD_BLESS=1 writes it):\n{}",
            path.display(),
            diff(&expected, actual)
        ),
        None => bail!("no {} (WBUILD_BLESS=1 writes it):\n{actual}", path.display()),
    }
}

/// The lines of two texts: common ones indented, others with `-` and `+`.
pub fn diff(before: &str, after: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    // Length of the longest common subsequence of a[i..] and b[j..].
    let mut common = vec![vec![0_u32; b.len() + 1]; a.len() + 1];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            common[i][j] = if a[i] == b[j] {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut out) = (0, 0, String::new());
    while i < a.len() || j < b.len() {
        let (mark, line);
        if i < a.len() && j < b.len() && a[i] == b[j] {
            (mark, line) = (' ', a[i]);
            i += 1;
            j += 1;
        } else if i < a.len() && (j == b.len() || common[i + 1][j] >= common[i][j + 1]) {
            (mark, line) = ('-', a[i]);
            i += 1;
        } else {
            (mark, line) = ('+', b[j]);
            j += 1;
        }
        out.push(mark);
        out.push_str(line);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    #[test]
    fn differences() {
        assert_eq!(super::diff("a\nb\nc\n", "a\nx\nc\nd\n"), " a\n-b\n+x\n c\n+d\n");
        assert_eq!(super::diff("", "a\n"), "+a\n");
    }
}
