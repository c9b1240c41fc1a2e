//! The display for programs: one JSON object a line on standard error.
//!
//! Every event of the engine is an object whose `event` names it (see `wbuild_api::event`), in the
//! order they came. `docs/events.md` describes them. The first object says which version of that it
//! is. Two things differ from the events' own serialisation: the output of a step
//! stands as `text`, or as `base64` where it is not UTF-8, in place of `data`; and a last object
//! tells how the build ended:
//!
//! ```text
//! {"event":"step-log","step":3,"stream":1,"text":"cc -c foo.c\n","at_ms":812}
//! {"event":"build-succeeded","images":[…],"stats":{…},"warnings":[…],"sources":[…]}
//! {"event":"build-failed","failure":{…},"step":3,"exit_code":1,"text":"error: …"}
//! ```
//!
//! `warnings` and `sources` are as of `--call check,format=json`: the events of the warnings point
//! into texts by bytes, these have lines. `text` of the last is what the other displays show.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Value, json};
use wbuild_api::event::{BuildReport, Event, StepId};
use wbuild_graph::Failure;

use super::model::{LogLine, Model};
use super::{Ending, Renderer};
use crate::answer::lint::Findings;
use crate::exit::Exit;

/// The version of the form. It grows when something is taken away or means something else; new
/// keys and events may come without.
pub const VERSION: u32 = 1;

/// See the module.
#[derive(Debug, Default)]
pub struct Json {
    begun: bool,
}

impl Renderer for Json {
    fn event(&mut self, event: &Event, _: &[LogLine], _: &Model, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.begun, true) {
            out.extend_from_slice(begin().as_bytes());
        }
        out.extend_from_slice(line(event).as_bytes());
    }
    fn tick(&mut self, _: &Model, _: &mut Vec<u8>) {}
    fn finish(&mut self, _: Ending, _: &[LogLine], _: &Model, _: &mut Vec<u8>) {}
}

/// A step's output, as above.
#[derive(Serialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
enum Output<'a> {
    StepLog {
        step: StepId,
        stream: u8,
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        base64: Option<String>,
        at_ms: u64,
    },
}

/// The first line.
pub fn begin() -> String {
    with_line_feed(serde_json::to_string(&json!({"event": "begin", "version": VERSION})))
}

/// An event as one line.
pub fn line(event: &Event) -> String {
    let text = match event {
        Event::StepLog { step, stream, data, at_ms } => {
            let text = std::str::from_utf8(data).ok();
            let base64 = text.is_none().then(|| STANDARD.encode(data));
            let (step, stream, at_ms) = (*step, *stream, *at_ms);
            serde_json::to_string(&Output::StepLog { step, stream, text, base64, at_ms })
        }
        other => serde_json::to_string(other),
    };
    with_line_feed(text)
}

/// The last line of a build that succeeded.
pub fn succeeded(report: &BuildReport, findings: &Findings<'_>) -> String {
    let value = json!({
        "event": "build-succeeded",
        "images": report.images,
        "stats": report.stats,
        "warnings": findings.warnings_json(),
        "sources": if findings.is_empty() { Vec::new() } else { findings.sources_json() },
    });
    with_line_feed(serde_json::to_string(&value))
}

/// The last line of a build that failed. `text` is the report for people.
pub fn failed(failure: &Failure, step: Option<StepId>, exit: Exit, text: &str) -> String {
    let value = json!({
        "event": "build-failed",
        "failure": failure,
        "step": step,
        "exit_code": exit.code(),
        "text": text,
    });
    with_line_feed(serde_json::to_string(&value))
}

fn with_line_feed(text: serde_json::Result<String>) -> String {
    let mut text = text.expect("events have only string keys, so they are JSON");
    text.push('\n');
    text
}

/// Reads a line that [`line`] wrote.
pub fn parse(line: &str) -> Result<Event, String> {
    let mut value: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let object = value.as_object_mut().ok_or("not an object")?;
    let text = object.remove("text").and_then(|text| text.as_str().map(|t| t.as_bytes().to_vec()));
    let data = match object.remove("base64") {
        Some(Value::String(code)) => {
            Some(STANDARD.decode(code).map_err(|error| error.to_string())?)
        }
        _ => text.clone(),
    };
    if object.get("event").and_then(Value::as_str) == Some("step-log") {
        object.insert("data".to_owned(), json!(data.unwrap_or_default()));
    } else if let Some(text) = text {
        object.insert("text".to_owned(), json!(String::from_utf8_lossy(&text)));
    }
    serde_json::from_value(value).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use wbuild_api::event::StepEnd;
    use wbuild_graph::Severity;

    #[test]
    fn lines_can_be_read_back() {
        let step = StepId(3);
        let log = |data: &[u8]| Event::StepLog { step, stream: 2, data: data.into(), at_ms: 7 };
        for event in [
            Event::StepDefined { step, name: "RUN \"x\"\n".into(), spans: Vec::new() },
            Event::StepStarted { step, at_ms: 1 },
            log(b"text\n"),
            log(b"\xff\xfe"),
            log(b""),
            Event::StepProgress { step, item: "sha256:1".into(), current: 1, total: Some(2) },
            Event::StepEnded { step, how: StepEnd::Cached, from: None, at_ms: 2 },
            Event::StepEnded { step, how: StepEnd::Cached, from: Some("r/x".into()), at_ms: 2 },
            Event::StepEnded {
                step,
                how: StepEnd::Failed(Failure::cancelled()),
                from: None,
                at_ms: 2,
            },
            Event::PluginLog { plugin: "p".into(), severity: Severity::Note, text: "t".into() },
            Event::Waiting { holder: "pid 1".into() },
            Event::Evicted {
                freed_bytes: 1,
                recent_bytes: 0,
                used_bytes: 2,
                max_bytes: Some(3),
                min_free_bytes: 4,
            },
        ] {
            let text = line(&event);
            assert_eq!(text.matches('\n').count(), 1, "one line: {text}");
            assert_eq!(parse(&text), Ok(event), "{text}");
        }
        assert!(line(&log(b"text\n")).contains("\"text\":\"text\\n\""));
    }

    #[test]
    fn endings() {
        let text = failed(&Failure::cancelled(), None, Exit::Interrupted, "error: x\n");
        let value: Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(value["exit_code"], 130);
        assert_eq!(value["failure"]["kind"], "cancelled");
        assert_eq!(value["text"], "error: x\n");
    }
}
