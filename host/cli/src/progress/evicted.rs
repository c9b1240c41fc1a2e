//! What is said when results had to go.

use wbuild_api::event::Event;
use wbuild_graph::Severity;

use crate::units::size;

/// The messages for an [`Event::Evicted`]; none for others.
pub fn evicted(event: &Event) -> Vec<(Severity, String)> {
    let Event::Evicted { freed_bytes, recent_bytes, used_bytes, max_bytes, min_free_bytes } = event
    else {
        return Vec::new();
    };
    let mut limits: Vec<String> = Vec::new();
    limits.extend(max_bytes.map(|most| format!("at most {} are kept", size(most))));
    if *min_free_bytes > 0 {
        limits.push(format!("{} are left free if possible", size(*min_free_bytes)));
    }
    if limits.is_empty() {
        limits.push("as the policies of config.toml say".to_owned());
    }
    let mut out = Vec::new();
    if *freed_bytes > 0 {
        let text = format!(
            "removed {} of what was unused the longest ({}); {} remain",
            size(*freed_bytes),
            limits.join(", "),
            size(*used_bytes)
        );
        out.push((Severity::Note, text));
    }
    // What a policy does not want is no lack of room.
    if *recent_bytes > 0 && (max_bytes.is_some() || *min_free_bytes > 0) {
        let text = format!(
            "of what this build made or used, {} did not fit and had to go again; \
             raise --cache-max, or free space on the disk",
            size(*recent_bytes)
        );
        out.push((Severity::Warning, text));
    }
    if let Some(most) = max_bytes.filter(|most| used_bytes > most) {
        let text = format!(
            "{} are in use, more than the limit of {} (--cache-max)",
            size(*used_bytes),
            size(most)
        );
        out.push((Severity::Warning, text));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_and_what_did_not_fit() {
        let event = |recent_bytes, used_bytes| Event::Evicted {
            freed_bytes: 5_000_000,
            recent_bytes,
            used_bytes,
            max_bytes: Some(10_000_000),
            min_free_bytes: 2_000_000,
        };
        let said = |event: &Event| -> Vec<_> {
            evicted(event)
                .into_iter()
                .map(|(severity, text)| format!("{severity:?} {text}"))
                .collect()
        };
        assert_eq!(
            said(&event(0, 9_000_000)),
            [
                "Note removed 5.0 MB of what was unused the longest (at most 10.0 MB are kept, 2.0 MB \
              are left free if possible); 9.0 MB remain"
            ]
        );
        let much = said(&event(1_000_000, 11_000_000));
        assert!(much[1].starts_with("Warning of what this build made or used, 1.0 MB"), "{much:?}");
        assert!(much[2].contains("11.0 MB are in use, more than the limit of 10.0 MB"), "{much:?}");
        assert!(said(&Event::Waiting { holder: String::new() }).is_empty());
    }
}
