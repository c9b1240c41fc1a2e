//! Characters and character classes, as both kinds of pattern have them.

/// Value and width of the character at the start of a text that is not empty. A byte that is not
/// UTF-8 is a character of its own.
pub(crate) fn character(text: &[u8]) -> (u32, usize) {
    let width = match text[0] {
        byte @ 0..=0x7f => return (byte.into(), 1),
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => return (0xfffd, 1),
    };
    text.get(..width)
        .and_then(|bytes| std::str::from_utf8(bytes).ok())
        .and_then(|text| text.chars().next())
        .map_or((0xfffd, 1), |c| (c.into(), width))
}

/// `[a-z]` or `[^a-z]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Class {
    negated: bool,
    ranges: Vec<(u32, u32)>,
}

impl Class {
    /// The class at the start of `text`, which is `[`, and its length.
    pub fn read(text: &[u8]) -> Result<(usize, Class), &'static str> {
        const UNCLOSED: &str = "a character class is not closed";
        let mut at = 1;
        let negated = text.get(at) == Some(&b'^');
        at += usize::from(negated);
        let mut ranges = Vec::new();
        let bound = |at: &mut usize| -> Result<u32, &'static str> {
            match text.get(*at) {
                None => return Err(UNCLOSED),
                Some(b'-' | b']') => {
                    return Err("a character class has an empty range; escape - and ]");
                }
                Some(b'\\') => *at += 1,
                Some(_) => {}
            }
            let rest = text.get(*at..).filter(|rest| !rest.is_empty()).ok_or(UNCLOSED)?;
            let (value, width) = character(rest);
            if value == 0xfffd && width == 1 {
                return Err("a character class is not UTF-8");
            }
            *at += width;
            if *at >= text.len() { Err(UNCLOSED) } else { Ok(value) }
        };
        loop {
            if text.get(at) == Some(&b']') && !ranges.is_empty() {
                return Ok((at + 1, Class { negated, ranges }));
            }
            let low = bound(&mut at)?;
            let mut high = low;
            if text[at] == b'-' {
                at += 1;
                high = bound(&mut at)?;
            }
            ranges.push((low, high));
        }
    }

    /// Whether the character is of this class.
    pub fn holds(&self, character: u32) -> bool {
        let inside = self.ranges.iter().any(|(low, high)| (*low..=*high).contains(&character));
        inside != self.negated
    }

    /// Whether one of the ranges ends before it begins, and so holds nothing.
    pub fn has_reversed_range(&self) -> bool {
        self.ranges.iter().any(|(low, high)| low > high)
    }
}
