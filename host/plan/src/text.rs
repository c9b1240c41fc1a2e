//! Plans for people: the graph as `wbuild_graph::dump` writes it, then what comes out.

use std::fmt::Write as _;

use wbuild_graph::dump::dump_some;
use wbuild_graph::{Definition, SourceMap, Span};

use crate::{Output, Place, Plan};

/// The nodes of the plan, which was made of this graph, and the results.
pub fn render(plan: &Plan, definition: &Definition, sources: &SourceMap) -> String {
    let place = |span: Span| match Place::of(span, sources) {
        Some(place) => place.to_string(),
        None => format!("{}:{}-{}", span.source, span.start, span.end),
    };
    let mut out = dump_some(definition, &|id| plan.has(id), &place);
    out.push('\n');
    results(&mut out, plan);
    if !plan.pins.is_empty() {
        out.push('\n');
    }
    for pin in &plan.pins {
        let parts = [&pin.kind, &pin.name, &pin.reference, &pin.platform];
        let parts = parts.iter().filter(|part| !part.is_empty()).map(|part| part.as_str());
        let _ = writeln!(out, "pin {} {}", parts.collect::<Vec<_>>().join(" "), pin.pin);
    }
    let frontend = &plan.frontend;
    let _ = writeln!(out, "\nfrontend {} {} of {}", frontend.name, frontend.digest, frontend.wit);
    out
}

fn results(out: &mut String, plan: &Plan) {
    let results = &plan.results;
    let name = |name: &str| if name.is_empty() { String::new() } else { format!(" {name}") };
    let attrs = |out: &mut String, attrs: &[String]| {
        attrs.iter().for_each(|attr| {
            let _ = writeln!(out, "  {attr}");
        });
    };
    for image in &results.images {
        let root = image.root.map_or("empty".to_owned(), edge);
        let _ = writeln!(out, "image{} {} {root}", name(&image.name), image.platform);
        attrs(out, &image.attrs);
        let config = serde_json::to_string_pretty(&image.config).unwrap_or_default();
        config.lines().for_each(|line| {
            let _ = writeln!(out, "  {line}");
        });
    }
    for files in &results.files {
        let platform = name(&files.platform);
        let root = edge(files.root);
        let _ = writeln!(out, "files{}{platform} {root} {:?}", name(&files.name), files.path);
        attrs(out, &files.attrs);
    }
    let lists = [("required", &results.required), ("effect", &results.effects)];
    for (kind, outputs) in lists {
        outputs.iter().for_each(|output| {
            let _ = writeln!(out, "{kind} {}", edge(*output));
        });
    }
    if let Some(fails) = results.fails {
        let _ = writeln!(out, "failure of {}", edge(fails));
    }
    results.published.iter().for_each(|name| {
        let _ = writeln!(out, "published {name:?}");
    });
}

fn edge(output: Output) -> String {
    match output.output {
        0 => format!("#{}", output.node),
        index => format!("#{}.{index}", output.node),
    }
}
