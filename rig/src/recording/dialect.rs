//! What spreadsheets make of a CSV file when they save it.

use std::borrow::Cow;

use csv::StringRecord;

/// How a file separates its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// By commas, as we write it.
    Comma,
    /// By semicolons, as spreadsheets do where the comma is the decimal sign; numbers may have either sign.
    Semicolon,
    /// By tabs, with either decimal sign.
    Tab,
}

impl Dialect {
    /// That of a file that begins with a header. Names of columns contain none of the separators.
    pub(super) fn of(text: &[u8]) -> Self {
        let header = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
        if header.contains(&b',') {
            Self::Comma
        } else if header.contains(&b';') {
            Self::Semicolon
        } else if header.contains(&b'\t') {
            Self::Tab
        } else {
            Self::Comma
        }
    }

    pub(super) fn delimiter(self) -> u8 {
        match self {
            Self::Comma => b',',
            Self::Semicolon => b';',
            Self::Tab => b'\t',
        }
    }

    /// The row with decimal points. Where commas separate values, one within a number might as well separate thousands:
    /// it stays, and the number can't be read.
    pub(super) fn plain(self, row: &StringRecord) -> Cow<'_, StringRecord> {
        if self == Self::Comma || !row.iter().any(has_decimal_comma) {
            return Cow::Borrowed(row);
        }
        let values = row.iter().map(|value| {
            if has_decimal_comma(value) {
                Cow::Owned(value.replace(',', "."))
            } else {
                Cow::Borrowed(value)
            }
        });
        let mut plain = StringRecord::new();
        values.for_each(|value| plain.push_field(&value));
        plain.set_position(row.position().cloned());
        Cow::Owned(plain)
    }
}

/// `-12,5` and `1,23E+10`, but not `1.234,5` or words.
fn has_decimal_comma(value: &str) -> bool {
    let Some((whole, rest)) = value.split_once(',') else {
        return false;
    };
    let (fraction, exponent) = rest.split_once(['e', 'E']).unwrap_or((rest, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole.strip_prefix('-').unwrap_or(whole))
        && digits(fraction)
        && digits(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))
}

/// Without the byte-order mark that some programs put before UTF-8.
pub(super) fn without_mark(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}

/// The encoding of text that is not UTF-8, where its mark says so.
pub(super) fn foreign_encoding(text: &[u8]) -> Option<&'static str> {
    match text {
        [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => Some("UTF-16"),
        _ => None,
    }
}
