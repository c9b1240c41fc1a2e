//! Lines of a source, with the failing ones marked and carets below the places that are meant.
//!
//! ```text
//!   --> Dockerfile:7:13
//!     |
//!   6 |     FROM alpine
//!   7 | >>> COPY --from=bulid /a /b
//!     |                 ^^^^^ no stage has this name
//!   8 |     CMD ["/b"]
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use unicode_width::UnicodeWidthChar;
use wbuild_graph::{Label, SourceFile};

use super::style::{Paint, Style};
use super::text::{TAB, plain_line};

/// Columns shown of a very long line.
const MAX_COLUMNS: usize = 160;
/// Of a very long span the first and the last so many lines are shown.
const MAX_SPAN_LINES: usize = 12;

/// What is marked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// `>>>` before the lines.
    Lines,
    /// Carets below the text.
    Carets,
    /// Both.
    LinesAndCarets,
}

/// What to show of one source.
pub struct Excerpt<'a> {
    /// Colours or none.
    pub style: Style,
    /// Where the text is.
    pub source: &'a SourceFile,
    /// Places in this source; at least one.
    pub labels: Vec<&'a Label>,
    /// Lines shown before and after.
    pub context: usize,
    /// See [`Mark`].
    pub mark: Mark,
    /// Colour of what marks the primary places.
    pub paint: Paint,
}

/// A label in lines and columns.
struct Place<'a> {
    label: &'a Label,
    first: usize,
    last: usize,
    /// Bytes within the first line.
    from: usize,
    /// Bytes within the last line.
    to: usize,
}

impl Excerpt<'_> {
    /// Appends the excerpt.
    pub fn render(&self, out: &mut String) {
        let lines = Lines::of(self.source);
        let places: Vec<Place> = self.labels.iter().map(|label| lines.place(label)).collect();
        let Some(lead) = places.iter().find(|place| place.label.primary).or(places.first()) else {
            return;
        };
        let shown = self.shown_lines(&places, lines.count());
        let digits = shown.last().map_or(1, |last| last.to_string().len()).max(2);
        let bar = self.style.paint(Paint::Frame, "|");
        let gutter = " ".repeat(digits + 1);

        let name = plain_line(self.source.name.as_bytes());
        let column = match self.mark {
            Mark::Lines => String::new(),
            Mark::Carets | Mark::LinesAndCarets => {
                format!(":{}", self.source.position(lead.label.at.start).column)
            }
        };
        let arrow = self.style.paint(Paint::Frame, "-->");
        let _ = writeln!(out, "{}{arrow} {name}:{}{column}", " ".repeat(digits), lead.first);
        let _ = writeln!(out, "{gutter} {bar}");

        let mut before = None;
        for number in shown {
            if before.is_some_and(|before| before + 1 < number) {
                let _ = writeln!(out, "{gutter} {}", self.style.paint(Paint::Frame, "…"));
            }
            before = Some(number);
            self.line(&lines, number, &places, digits, out);
        }
    }

    /// Numbers of the lines to show, in order.
    fn shown_lines(&self, places: &[Place<'_>], count: usize) -> BTreeSet<usize> {
        let mut shown = BTreeSet::new();
        for place in places {
            let from = place.first.saturating_sub(self.context).max(1);
            let to = (place.last + self.context).min(count);
            if place.last - place.first > 2 * MAX_SPAN_LINES {
                shown.extend(from..place.first + MAX_SPAN_LINES);
                shown.extend(place.last + 1 - MAX_SPAN_LINES..=to);
            } else {
                shown.extend(from..=to);
            }
        }
        shown
    }

    fn line(
        &self,
        lines: &Lines<'_>,
        number: usize,
        places: &[Place<'_>],
        digits: usize,
        out: &mut String,
    ) {
        let bar = self.style.paint(Paint::Frame, "|");
        let here: Vec<&Place<'_>> = places
            .iter()
            .filter(|place| place.first == number && place.last == number && place.from < place.to)
            .filter(|_| self.mark != Mark::Lines)
            .collect();
        let raw = lines.get(number);
        let focus = here.iter().map(|place| place.from).min().unwrap_or(0);
        let view = View::of(raw, focus);

        let marked = self.mark != Mark::Carets
            && places
                .iter()
                .any(|place| place.label.primary && (place.first..=place.last).contains(&number));
        let prefix = match (self.mark, marked) {
            (Mark::Carets, _) => String::new(),
            (_, true) => format!("{} ", self.style.paint(self.paint, ">>>")),
            (_, false) => "    ".to_owned(),
        };
        let shown =
            self.style.paint(Paint::Frame, &format!("{number:>width$}", width = digits + 1));
        let text = format!("{shown} {bar} {prefix}{}", view.text);
        let _ = writeln!(out, "{}", text.trim_end());

        let indent = if self.mark == Mark::Carets { "" } else { "    " };
        let mut sorted = here;
        sorted.sort_by_key(|place| (place.from, place.to));
        for place in sorted {
            let from = view.column(place.from);
            let width = view.column(place.to).saturating_sub(from).max(1);
            let (caret, paint) =
                if place.label.primary { ("^", self.paint) } else { ("-", Paint::Frame) };
            let said = plain_line(place.label.text.as_bytes());
            let marks =
                self.style.paint(paint, format!("{} {said}", caret.repeat(width)).trim_end());
            let gap = " ".repeat(from);
            let _ = writeln!(out, "{} {bar} {indent}{gap}{marks}", " ".repeat(digits + 1));
        }
        // What is said of several lines stands below the last of them.
        for place in places {
            let said = plain_line(place.label.text.as_bytes());
            let caret_line =
                self.mark != Mark::Lines && place.first == place.last && place.from < place.to;
            if place.last == number && !caret_line && !said.is_empty() {
                let said = self.style.paint(Paint::Note, &said);
                let _ = writeln!(out, "{} {bar} {indent}{said}", " ".repeat(digits + 1));
            }
        }
    }
}

/// The lines of a source, found once.
struct Lines<'a> {
    text: &'a [u8],
    /// Where each line starts.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn of(source: &'a SourceFile) -> Self {
        let text = &source.text[..];
        let mut starts = vec![0];
        starts.extend(text.iter().enumerate().filter(|(_, b)| **b == b'\n').map(|(at, _)| at + 1));
        // A line feed at the end begins no line.
        if starts.len() > 1 && starts.last() == Some(&text.len()) {
            starts.pop();
        }
        Lines { text, starts }
    }

    fn count(&self) -> usize {
        self.starts.len()
    }

    /// A line (from 1) without its line ending.
    fn get(&self, number: usize) -> &'a [u8] {
        let Some(start) = number.checked_sub(1).and_then(|at| self.starts.get(at)) else {
            return &[];
        };
        let end = self.starts.get(number).map_or(self.text.len(), |next| *next);
        let line = &self.text[*start..end];
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        line.strip_suffix(b"\r").unwrap_or(line)
    }

    /// A span may reach beyond the text, if a plugin says so: it ends where the text does.
    fn place<'l>(&self, label: &'l Label) -> Place<'l> {
        let start = (label.at.start as usize).min(self.text.len());
        let mut end = (label.at.end as usize).clamp(start, self.text.len());
        // A line feed at the end of a span belongs to the line before.
        while end > start && matches!(self.text[end - 1], b'\n' | b'\r') {
            end -= 1;
        }
        let line_of = |at: usize| self.starts.partition_point(|begin| *begin <= at).max(1);
        let (first, last) = (line_of(start), line_of(end));
        let begin = |line: usize| self.starts[line - 1];
        Place { label, first, last, from: start - begin(first), to: end - begin(last) }
    }
}

/// A line as it is shown, and where its bytes went.
struct View {
    text: String,
    /// Column of each byte that begins a character, in order; the end of the line last.
    columns: BTreeMap<usize, usize>,
}

impl View {
    /// Shows a line; of a very long one the part around the byte `focus`.
    fn of(raw: &[u8], focus: usize) -> Self {
        let skip =
            if raw.len() > 2 * MAX_COLUMNS { focus.saturating_sub(MAX_COLUMNS / 4) } else { 0 };
        let mut text = String::new();
        let mut columns = BTreeMap::new();
        let mut column = 0;
        if skip > 0 {
            text.push('…');
            column = 1;
        }
        let mut at = 0;
        let put = |text: &mut String,
                   columns: &mut BTreeMap<usize, usize>,
                   column: &mut usize,
                   at: usize,
                   c: char| {
            columns.insert(at, *column);
            if at < skip || *column > MAX_COLUMNS {
                return;
            }
            if c == '\t' {
                let spaces = TAB - *column % TAB;
                text.extend(std::iter::repeat_n(' ', spaces));
                *column += spaces;
            } else {
                let shown = plain_line(c.encode_utf8(&mut [0; 4]).as_bytes());
                // What shows as nothing (a lone escape) must not shift the carets.
                let shown = if shown.is_empty() && c.is_control() { '\u{fffd}' } else { c };
                let shown = if shown.is_control() { '\u{fffd}' } else { shown };
                text.push(shown);
                *column += shown.width().unwrap_or(0);
            }
        };
        for chunk in raw.utf8_chunks() {
            for c in chunk.valid().chars() {
                put(&mut text, &mut columns, &mut column, at, c);
                at += c.len_utf8();
            }
            for _ in chunk.invalid() {
                put(&mut text, &mut columns, &mut column, at, '\u{fffd}');
                at += 1;
            }
        }
        if column > MAX_COLUMNS {
            text.push('…');
        }
        columns.insert(at, column);
        View { text, columns }
    }

    /// Column of a byte; within a character, that of its beginning.
    fn column(&self, byte: usize) -> usize {
        self.columns.range(..=byte).next_back().map_or(0, |(_, column)| *column)
    }
}
