//! Decisions that moby's own matcher made, as `moby/record.go` has recorded them.

use wbuild_ignore::Matcher;

#[test]
fn decides_as_moby_does() {
    let mut paths = Vec::new();
    let mut decided = 0;
    let mut failed = String::new();
    for line in include_str!("moby/decisions.txt").lines() {
        let (decisions, patterns) = match line.split_once('\t') {
            None | Some(("#", _)) => continue,
            Some(("paths", more)) => {
                paths.extend(more.split('\t'));
                continue;
            }
            Some((decisions, patterns)) => (decisions, patterns.split('\t').collect::<Vec<_>>()),
        };
        let got = match Matcher::new(&patterns) {
            Err(_) => "refused".to_owned(),
            Ok(matcher) => {
                let decide = |path: &&str| matcher.decide(path.as_bytes()).matched;
                paths.iter().map(|path| if decide(path) { 'x' } else { '.' }).collect()
            }
        };
        // A path is out if it is by either way of going through the list.
        let wanted = match decisions {
            "refused" => decisions.to_owned(),
            _ => decisions.replace(['w', 'p'], "x"),
        };
        decided += wanted.len();
        if got != wanted {
            failed += &format!("{patterns:?}\n   moby {wanted}\n   here {got}\n");
        }
    }
    assert!(decided > 10_000 && failed.is_empty(), "{failed}");
}
