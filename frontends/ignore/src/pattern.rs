//! One pattern of a list: reading it, and comparing it with paths.
//!
//! A pattern becomes a row of steps. A path is compared by following all the steps that may come
//! next at once, character by character, so that the work is at most steps times characters,
//! whatever the pattern.

use crate::error::PatternError;
use crate::glob;
use crate::text::{Class, character};

type Result<T, E = PatternError> = std::result::Result<T, E>;

/// A compiled pattern.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Pattern {
    /// Text that the path begins with.
    head: Box<[u8]>,
    /// What comes after it. Empty for a pattern without wildcards.
    steps: Box<[Step]>,
    /// Text that the path ends with, and how many steps come before it.
    tail: Box<[u8]>,
    core: usize,
    /// Behind the head are any directories and something without slashes.
    last_name_decides: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    Char(u32),
    /// Any character but `/`.
    Any,
    Class(Class),
    /// Any number of characters but `/`.
    Star,
    /// Any number of whole names with the slashes after them, none included. What takes them is the
    /// next step.
    Dirs,
    /// Inside [`Step::Dirs`]: only a slash leads out.
    InDirs,
    /// Any number of any characters.
    Rest,
}

impl Step {
    fn takes_slashes(&self) -> bool {
        let slash = u32::from(b'/');
        match self {
            Step::Char(value) => *value == slash,
            Step::Class(class) => class.holds(slash),
            Step::Any | Step::Star => false,
            Step::Dirs | Step::InDirs | Step::Rest => true,
        }
    }
}

/// Room for comparing, to be used again.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    now: Places,
    next: Places,
}

/// A set of places between steps, a bit each. Few patterns need more than one word.
#[derive(Debug, Default)]
struct Places {
    first: u64,
    more: Vec<u64>,
}

impl Places {
    /// Makes it empty, for places up to `last`.
    fn reset(&mut self, last: usize) {
        self.first = 0;
        self.more.clear();
        self.more.resize(last / 64, 0);
    }

    fn word(&mut self, place: usize) -> &mut u64 {
        if place < 64 { &mut self.first } else { &mut self.more[place / 64 - 1] }
    }

    fn has(&mut self, place: usize) -> bool {
        *self.word(place) >> (place % 64) & 1 == 1
    }

    /// Whether it was not there yet.
    fn add(&mut self, place: usize) -> bool {
        let new = !self.has(place);
        *self.word(place) |= 1 << (place % 64);
        new
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        let words = std::iter::once(self.first).chain(self.more.iter().copied());
        words.enumerate().flat_map(|(at, mut word)| {
            std::iter::from_fn(move || {
                let bit = (word != 0).then(|| word.trailing_zeros() as usize)?;
                word &= word - 1;
                Some(at * 64 + bit)
            })
        })
    }

    /// Adds a place, and those behind steps that may take nothing.
    fn enter(&mut self, steps: &[Step], mut place: usize) {
        while self.add(place) {
            match steps.get(place) {
                Some(Step::Star | Step::Rest) => place += 1,
                Some(Step::Dirs) => {
                    self.add(place + 1);
                    place += 2;
                }
                _ => return,
            }
        }
    }
}

impl Pattern {
    /// Reads a pattern that is cleaned and has no `!`.
    ///
    /// # Errors
    /// It is malformed.
    pub fn new(pattern: &[u8]) -> Result<Pattern> {
        // The rules of what is well formed are those of single patterns.
        glob::Pattern::new(pattern)?;
        // `**x` with nothing but text after it is a plain suffix, unlike `**/x`.
        let suffix = pattern.strip_prefix(b"**").filter(|rest| {
            !rest.starts_with(b"/")
                && !rest.iter().any(|byte| matches!(byte, b'*' | b'?' | b'[' | b']' | b'\\'))
        });
        if let Some(text) = suffix {
            let mut items = vec![Item::Step(Step::Rest)];
            items.extend(text.iter().map(|byte| Item::Byte(*byte)));
            return Ok(Pattern::of(&items));
        }
        let mut items: Vec<Item> = Vec::new();
        let mut at = 0;
        while at < pattern.len() {
            let rest = &pattern[at..];
            let (len, item) = match rest[0] {
                b'*' => match rest.strip_prefix(b"**") {
                    // `**` takes the slash behind it along.
                    Some(after) => {
                        let len = 2 + usize::from(after.starts_with(b"/"));
                        let last = len == rest.len();
                        (len, Item::Step(if last { Step::Rest } else { Step::Dirs }))
                    }
                    None => (1, Item::Step(Step::Star)),
                },
                b'?' => (1, Item::Step(Step::Any)),
                b'[' => {
                    let fail = |reason| PatternError::new(pattern, reason);
                    let (len, class) = Class::read(rest).map_err(fail)?;
                    if class.has_reversed_range() {
                        return Err(fail("a range in a character class ends before it begins"));
                    }
                    (len, Item::Step(Step::Class(class)))
                }
                b'\\' => (2, Item::Byte(rest[1])),
                byte => (1, Item::Byte(byte)),
            };
            items.push(item);
            at += len;
        }
        Ok(Pattern::of(&items))
    }

    /// A pattern that matches this text only.
    pub fn literal(text: &[u8]) -> Pattern {
        Pattern {
            head: text.into(),
            steps: Box::default(),
            tail: Box::default(),
            core: 0,
            last_name_decides: false,
        }
    }

    fn of(items: &[Item]) -> Pattern {
        let bytes =
            |items: &[Item]| -> Vec<u8> { items.iter().map_while(|item| item.byte()).collect() };
        let head = bytes(items);
        let items = &items[head.len()..];
        let Some(last) = items.iter().rposition(|item| item.byte().is_none()) else {
            return Pattern::literal(&head);
        };
        let tail = bytes(&items[last + 1..]);
        let mut steps = Vec::with_capacity(items.len());
        let mut core = 0;
        let mut at = 0;
        while at < items.len() {
            if let Item::Step(step) = &items[at] {
                steps.push(step.clone());
                if let Step::Dirs = step {
                    steps.push(Step::InDirs);
                }
                at += 1;
                core = steps.len();
                continue;
            }
            let text = bytes(&items[at..]);
            at += text.len();
            let mut rest = &text[..];
            while !rest.is_empty() {
                let (value, width) = character(rest);
                steps.push(Step::Char(value));
                rest = &rest[width..];
            }
        }
        let last_name_decides = matches!(&steps[..], [Step::Dirs, _, rest @ ..]
            if !rest.iter().any(Step::takes_slashes));
        Pattern {
            head: head.into(),
            steps: steps.into(),
            tail: tail.into(),
            core,
            last_name_decides,
        }
    }

    /// The path, if there are no wildcards.
    pub fn as_literal(&self) -> Option<&[u8]> {
        self.steps.is_empty().then_some(&*self.head)
    }

    /// The name, if the pattern is `**/` and one name without wildcards.
    pub fn as_name(&self) -> Option<&[u8]> {
        let simple = self.head.is_empty() && self.core == 2 && matches!(self.steps[0], Step::Dirs);
        (simple && !self.tail.contains(&b'/')).then_some(&*self.tail)
    }

    /// Text that every path begins with which it matches.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// Whether behind the head any text may begin, if the head is one of whole names.
    pub fn is_open(&self) -> bool {
        matches!(self.steps.first(), Some(Step::Dirs | Step::Rest))
    }

    /// Pieces of text each of which is in every path that it matches.
    pub fn texts(&self) -> Vec<Vec<u8>> {
        let mut texts = vec![self.head.to_vec()];
        let mut open = false;
        for step in &self.steps {
            let Step::Char(value) = step else {
                open = false;
                continue;
            };
            if !std::mem::replace(&mut open, true) {
                texts.push(Vec::new());
            }
            // Patterns are text, so that each of their characters is one.
            let c = char::from_u32(*value).unwrap_or(char::REPLACEMENT_CHARACTER);
            let text = texts.last_mut().expect("pushed before");
            text.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        texts
    }

    /// Whether it matches the path itself.
    pub fn matches(&self, path: &[u8], scratch: &mut Scratch) -> bool {
        let Some(rest) = path.strip_prefix(&*self.head) else { return false };
        if self.steps.is_empty() {
            return rest.is_empty();
        }
        // Most patterns differ at the end already.
        let Some(middle) = rest.strip_suffix(&*self.tail) else { return false };
        let mut steps = &self.steps[..self.core];
        let mut text = middle;
        if self.last_name_decides {
            steps = &steps[2..];
            text = middle.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        }
        follow(steps, text, scratch);
        scratch.now.has(steps.len())
    }

    /// Whether it may match something below the directory.
    pub fn may_match_below(&self, dir: &[u8], scratch: &mut Scratch) -> bool {
        let dir: &[u8] = &[dir, b"/"].concat();
        let shared = dir.len().min(self.head.len());
        if dir[..shared] != self.head[..shared] {
            return false;
        }
        if dir.len() < self.head.len() {
            return true;
        }
        follow(&self.steps, &dir[shared..], scratch);
        scratch.now.iter().any(|place| place < self.steps.len())
    }
}

/// The places between steps that `text` may lead to.
fn follow(steps: &[Step], text: &[u8], scratch: &mut Scratch) {
    let Scratch { now, next } = scratch;
    now.reset(steps.len());
    next.reset(steps.len());
    now.enter(steps, 0);
    let mut rest = text;
    while !rest.is_empty() && now.iter().next().is_some() {
        let (value, width) = character(rest);
        rest = &rest[width..];
        let slash = value == u32::from(b'/');
        for place in now.iter() {
            match steps.get(place) {
                Some(Step::Char(wanted)) if *wanted == value => next.enter(steps, place + 1),
                Some(Step::Any) if !slash => next.enter(steps, place + 1),
                Some(Step::Class(class)) if class.holds(value) => next.enter(steps, place + 1),
                Some(Step::Star) if !slash => next.enter(steps, place),
                Some(Step::Rest) => next.enter(steps, place),
                Some(Step::InDirs) => {
                    next.add(place);
                    if slash {
                        next.enter(steps, place + 1);
                    }
                }
                _ => {}
            }
        }
        std::mem::swap(now, next);
        next.reset(steps.len());
    }
}

/// A pattern being read.
enum Item {
    Byte(u8),
    Step(Step),
}

impl Item {
    fn byte(&self) -> Option<u8> {
        match self {
            Item::Byte(byte) => Some(*byte),
            Item::Step(_) => None,
        }
    }
}
