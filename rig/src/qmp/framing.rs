//! Cuts what comes from a socket into JSON values, however it was cut into reads, in bounded memory.
//!
//! A value may span lines, and a line may hold several. What can't become a value is reported once and skipped up to the end
//! of its line, so that the next line is understood again.

/// Bytes of one request: several hundred times the longest that makes sense.
pub(super) const LONGEST_REQUEST: usize = 1 << 20;
/// Arrays and objects inside each other, less than the JSON parser itself takes.
const DEEPEST: usize = 100;

/// What was cut off.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// Bytes whose brackets match: a JSON value, or a line that is none.
    Value(Vec<u8>),
    /// Bytes that can't become a value; they are dropped.
    Bad(FrameError),
}

/// Why bytes can't become a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum FrameError {
    #[error("invalid JSON: `{}` closes what it did not open", char::from(*found))]
    Unmatched { found: u8 },
    #[error("invalid JSON: a string has no end on its line (a line end in a string is written \\n)")]
    OpenString,
    #[error("the message is longer than {longest} bytes and was dropped up to the end of its line")]
    TooLong { longest: usize },
    #[error("the message nests deeper than {DEEPEST} levels and was dropped up to the end of its line")]
    TooDeep,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before a value.
    Between,
    /// In an object or array, outside any string.
    Nested,
    /// In a string of one.
    String,
    /// After a backslash in a string.
    Escape,
    /// In a line that starts with neither.
    Loose,
    /// In a line whose error was reported.
    Skipping,
}

/// The bytes of one connection.
#[derive(Debug)]
pub(super) struct Framer {
    state: State,
    longest: usize,
    value: Vec<u8>,
    /// The brackets that will close what is open.
    closing: Vec<u8>,
}

impl Framer {
    /// For requests.
    pub(super) fn new() -> Self {
        Self::up_to(LONGEST_REQUEST)
    }

    /// For values of `longest` bytes at most.
    pub(super) fn up_to(longest: usize) -> Self {
        Self {
            state: State::Between,
            longest,
            value: Vec::new(),
            closing: Vec::new(),
        }
    }

    /// Takes in `bytes` and returns what they complete.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Vec<Frame> {
        bytes.iter().filter_map(|&byte| self.take(byte)).collect()
    }

    fn take(&mut self, byte: u8) -> Option<Frame> {
        match self.state {
            State::Between if byte.is_ascii_whitespace() => return None,
            State::Skipping => {
                if byte == b'\n' {
                    self.state = State::Between;
                }
                return None;
            }
            State::Loose if byte == b'\n' => return Some(self.complete()),
            _ => {}
        }
        if self.value.len() == self.longest {
            let longest = self.longest;
            return Some(self.give_up(FrameError::TooLong { longest }, byte));
        }
        self.value.push(byte);
        match (self.state, byte) {
            (State::Between | State::Nested, b'{') => self.open(b'}'),
            (State::Between | State::Nested, b'[') => self.open(b']'),
            (State::Between, _) => self.go(State::Loose),
            (State::Nested, b'"') | (State::Escape, _) => self.go(State::String),
            (State::Nested, b'}' | b']') => self.close(byte),
            (State::String, b'"') => self.go(State::Nested),
            (State::String, b'\\') => self.go(State::Escape),
            (State::String, b'\n') => Some(self.give_up(FrameError::OpenString, byte)),
            (State::Nested | State::String | State::Loose | State::Skipping, _) => None,
        }
    }

    fn go(&mut self, state: State) -> Option<Frame> {
        self.state = state;
        None
    }

    fn open(&mut self, closing: u8) -> Option<Frame> {
        if self.closing.len() == DEEPEST {
            return Some(self.give_up(FrameError::TooDeep, closing));
        }
        self.closing.push(closing);
        self.go(State::Nested)
    }

    fn close(&mut self, found: u8) -> Option<Frame> {
        if self.closing.pop() != Some(found) {
            return Some(self.give_up(FrameError::Unmatched { found }, found));
        }
        self.closing.is_empty().then(|| self.complete())
    }

    fn complete(&mut self) -> Frame {
        self.state = State::Between;
        Frame::Value(std::mem::take(&mut self.value))
    }

    /// Drops what there is and, unless `byte` ends it, the rest of the line.
    fn give_up(&mut self, error: FrameError, byte: u8) -> Frame {
        self.value = Vec::new();
        self.closing.clear();
        self.state = if byte == b'\n' { State::Between } else { State::Skipping };
        Frame::Bad(error)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn frames(text: &[u8]) -> Vec<Frame> {
        Framer::new().push(text)
    }

    fn value(text: &str) -> Frame {
        Frame::Value(text.as_bytes().to_vec())
    }

    #[test]
    fn several_on_a_line_and_one_over_several_lines() {
        assert_eq!(
            frames(b" {\"a\": 1}{\"b\":\n[\"}\\\"{\"]}\r\n[] 5\n"),
            [
                value("{\"a\": 1}"),
                value("{\"b\":\n[\"}\\\"{\"]}"),
                value("[]"),
                value("5")
            ]
        );
        assert_eq!(frames(b"{\"a\": 1"), [], "not complete yet");
    }

    #[test]
    fn after_an_error_the_next_line_is_understood() {
        for (text, error) in [
            (&b"{\"a\": 1]} {}\n{}"[..], FrameError::Unmatched { found: b']' }),
            (b"{\"a\n{}", FrameError::OpenString),
            (&[&b"[".repeat(DEEPEST + 1)[..], b"\n{}"].concat(), FrameError::TooDeep),
            (
                &[b"{\"", &b"a".repeat(LONGEST_REQUEST)[..], b"\"}\n{}"].concat(),
                FrameError::TooLong {
                    longest: LONGEST_REQUEST,
                },
            ),
        ] {
            assert_eq!(frames(text), [Frame::Bad(error), value("{}")]);
        }
    }

    #[test]
    fn a_line_without_end_takes_bounded_memory() {
        let mut framer = Framer::new();
        let mut errors = 0;
        for _ in 0..64 {
            errors += framer.push(&vec![b'x'; 1 << 16]).len();
        }
        assert_eq!(errors, 1);
        assert!(framer.value.capacity() <= 2 * LONGEST_REQUEST);
    }

    proptest! {
        #[test]
        fn how_it_is_cut_into_reads_does_not_matter(bytes in "([{}\\[\\]\"\\\\ a\n]){0,60}", cut in 0..60_usize) {
            let bytes = bytes.as_bytes();
            let cut = cut.min(bytes.len());
            let mut framer = Framer::new();
            let mut cut_frames = framer.push(&bytes[..cut]);
            cut_frames.extend(framer.push(&bytes[cut..]));
            prop_assert_eq!(cut_frames, frames(bytes));
        }

        #[test]
        fn any_valid_object_comes_out_whole(text in "[^\u{0}-\u{1f}]{0,40}") {
            let request = serde_json::json!({ "execute": text, "arguments": { "a": [text, {}] } }).to_string();
            prop_assert_eq!(frames(request.as_bytes()), [value(&request)]);
        }
    }
}
