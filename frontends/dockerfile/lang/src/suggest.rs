//! Finding what a misspelt word was meant to be.

/// The candidate that `word` is most likely a misspelling of, compared without regard to case.
/// `None` if nothing is close, or if the word is one of the candidates.
pub fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest(word, &mut candidates.into_iter())
}

/// Once for all kinds of lists: there are many.
fn nearest<'a>(word: &str, candidates: &mut dyn Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    // Comparing two long texts costs the product of their lengths, and nobody mistypes these.
    if word.is_empty() || word.len() > 128 {
        return None;
    }
    let length = word.chars().count();
    let most = match length {
        0..=3 => 1,
        4..=5 => 2,
        _ => 3,
    };
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates.filter(|candidate| candidate.len() <= 128) {
        // As many characters must be put in or left out at least.
        if candidate.chars().count().abs_diff(length) > most {
            continue;
        }
        let distance = distance(&word, &candidate.to_lowercase());
        if distance == 0 {
            return None;
        }
        // Half the word must be left as it was, or short words would match anything.
        if distance <= most
            && distance * 2 <= length
            && best.is_none_or(|(least, _)| distance < least)
        {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// A help text that asks whether the closest candidate was meant.
pub fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    closest(word, candidates).map(|candidate| format!("did you mean `{candidate}`?"))
}

/// Insertions, deletions, substitutions and swaps of neighbours that turn one into the other.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().collect();
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let substitute = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = substitute.min(above[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_near_words_only() {
        let words = ["FROM", "RUN", "COPY", "ENTRYPOINT", "ENV"];
        assert_eq!(closest("FORM", words), Some("FROM"));
        assert_eq!(closest("cpoy", words), Some("COPY"));
        assert_eq!(closest("ENTRYPIONT", words), Some("ENTRYPOINT"));
        assert_eq!(closest("RUNN", words), Some("RUN"));
        assert_eq!(closest("run", words), None);
        assert_eq!(closest("SHELL", words), None);
        assert_eq!(closest("", words), None);
        assert_eq!(closest("x", words), None);
    }
}
