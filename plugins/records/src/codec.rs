//! Numbers, texts and lists as bytes.
//!
//! ```text
//! number   = unsigned LEB128 of at most 64 bits, in its shortest form
//! text     = length number, UTF-8 bytes
//! list     = length number, items
//! option   = 0 | 1, item
//! attrs    = list of (text, text)
//! ```
//!
//! There is one way to write a value, so equal values have equal bytes, and what does not follow this
//! to the last byte is not read at all.

/// Writes values behind each other.
#[derive(Default)]
pub struct Writer(pub Vec<u8>);

impl Writer {
    /// Bytes as they are: of a length that the reader knows.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// A number.
    pub fn number(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// A text.
    pub fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.bytes(text.as_bytes());
    }

    /// A list.
    pub fn list<T>(
        &mut self,
        items: impl ExactSizeIterator<Item = T>,
        mut item: impl FnMut(&mut Self, T),
    ) {
        self.number(items.len() as u64);
        for each in items {
            item(self, each);
        }
    }

    /// A value that may be missing.
    pub fn option<T>(&mut self, value: Option<T>, item: impl FnOnce(&mut Self, T)) {
        self.0.push(u8::from(value.is_some()));
        if let Some(value) = value {
            item(self, value);
        }
    }

    /// Attributes.
    pub fn attrs(&mut self, attrs: &[(String, String)]) {
        self.list(attrs.iter(), |out, (key, value)| {
            out.text(key);
            out.text(value);
        });
    }
}

/// Reads what a [`Writer`] has written; `None` for everything else.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    /// Whether everything was read.
    pub fn end(&self) -> bool {
        self.0.is_empty()
    }

    /// So many bytes.
    pub fn bytes(&mut self, length: usize) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    /// As many bytes as fit.
    pub fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.bytes(N)?.try_into().ok()
    }

    /// A number.
    pub fn number(&mut self) -> Option<u64> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return None;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                // The shortest form only: equal values have equal bytes.
                return (byte != 0 || shift == 0).then_some(value);
            }
        }
        None
    }

    /// A text.
    pub fn text(&mut self) -> Option<String> {
        let length = usize::try_from(self.number()?).ok()?;
        Some(std::str::from_utf8(self.bytes(length)?).ok()?.to_owned())
    }

    /// A list.
    pub fn list<T>(&mut self, item: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        self.bounded(u64::MAX, item)
    }

    /// A list of at most so many items.
    pub fn bounded<T>(
        &mut self,
        most: u64,
        mut item: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let length = self.number().filter(|length| *length <= most)?;
        // No capacity in advance: the length is only a claim. Every item takes a byte at least.
        let mut items = Vec::new();
        for _ in 0..length {
            items.push(item(self)?);
        }
        Some(items)
    }

    /// A value that may be missing.
    pub fn option<T>(&mut self, item: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        match self.array()? {
            [0] => Some(None),
            [1] => item(self).map(Some),
            _ => None,
        }
    }

    /// Attributes.
    pub fn attrs(&mut self) -> Option<Vec<(String, String)>> {
        self.list(|from| Some((from.text()?, from.text()?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_long_forms_and_what_is_not_there() {
        let number = |bytes: &[u8]| Reader(bytes).number();
        assert_eq!(number(b"\x00"), Some(0));
        assert_eq!(number(b"\xac\x02"), Some(300));
        assert_eq!(number(&[&[0xff; 9][..], b"\x01"].concat()), Some(u64::MAX));
        assert_eq!(number(b"\x80\x00"), None, "zero in two bytes");
        assert_eq!(number(&[&[0xff; 9][..], b"\x02"].concat()), None, "more than 64 bits");
        assert_eq!(number(b"\x80"), None, "it ends");
        let a_lot = [&[0xff; 8][..], b"\x7f"].concat();
        assert_eq!(Reader(&a_lot).text(), None, "a length that is not there");
        assert_eq!(Reader(&a_lot).list(|from| from.number()), None);
        assert_eq!(Reader(b"\x02\x01\x01").bounded(1, |from| from.number()), None);
        assert_eq!(Reader(b"\x02").option(|from| from.number()), None);
        assert_eq!(Reader(b"\x01\xff").text(), None, "no UTF-8");
    }
}
