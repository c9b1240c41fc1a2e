//! Cuts the output of a step into lines.

/// A line longer than this is passed on in pieces, so that memory stays bounded.
pub const MAX_LINE: usize = 64 << 10;

/// Bytes of one stream that wait for their line feed.
#[derive(Debug, Default)]
pub struct Splitter {
    partial: Vec<u8>,
}

impl Splitter {
    /// Takes bytes in and hands out the lines that are complete, without their line feeds.
    pub fn push(&mut self, mut data: &[u8], mut line: impl FnMut(Vec<u8>)) {
        while let Some(at) = data.iter().position(|byte| *byte == b'\n') {
            let (head, tail) = data.split_at(at);
            self.extend(head, &mut line);
            line(std::mem::take(&mut self.partial));
            data = &tail[1..];
        }
        self.extend(data, &mut line);
    }

    /// What is left without a line feed.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        (!self.partial.is_empty()).then(|| std::mem::take(&mut self.partial))
    }

    fn extend(&mut self, mut data: &[u8], line: &mut impl FnMut(Vec<u8>)) {
        // `>`: a line of exactly the limit is one piece.
        while self.partial.len() + data.len() > MAX_LINE {
            let (head, tail) = data.split_at(MAX_LINE - self.partial.len());
            self.partial.extend_from_slice(head);
            line(std::mem::take(&mut self.partial));
            data = tail;
        }
        self.partial.extend_from_slice(data);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(chunks: &[&[u8]]) -> Vec<Vec<u8>> {
        let mut splitter = Splitter::default();
        let mut lines = Vec::new();
        for chunk in chunks {
            splitter.push(chunk, |line| lines.push(line));
        }
        lines.extend(splitter.finish());
        lines
    }

    #[test]
    fn lines_do_not_depend_on_chunks() {
        let text = b"one\n\ntwo\r\nthree";
        let want = vec![&b"one"[..], b"", b"two\r", b"three"];
        assert_eq!(split(&[text]), want);
        for at in 0..text.len() {
            let (head, tail) = text.split_at(at);
            assert_eq!(split(&[head, tail]), want, "cut at {at}");
        }
        assert_eq!(split(&[b"x\n"]), vec![b"x"]);
        assert!(split(&[b""]).is_empty());
    }

    #[test]
    fn long_lines_come_in_pieces_and_whole() {
        let long = vec![b'x'; 3 * MAX_LINE];
        let mut text = long.clone();
        text.push(b'\n');
        let lines = split(&[&text]);
        assert!(lines.iter().all(|line| line.len() <= MAX_LINE));
        assert_eq!(lines.concat(), long);
        assert_eq!(lines.len(), 3);
    }
}
