//! The layout of an event's record, as its `format` file in tracefs gives it.

use std::collections::HashMap;

/// The fields of an event's record, and the names that its `print fmt` gives to numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Format {
    fields: HashMap<String, (u32, u32)>,
    print: String,
}

impl Format {
    pub(super) fn parse(text: &str) -> Self {
        let number = |part: &str, key: &str| part.trim().strip_prefix(key)?.parse().ok();
        let fields = text.lines().filter_map(|line| {
            let mut parts = line.trim().strip_prefix("field:")?.split(';');
            let name = parts.next()?.rsplit([' ', '*']).next()?.split('[').next()?;
            Some((
                name.to_owned(),
                (number(parts.next()?, "offset:")?, number(parts.next()?, "size:")?),
            ))
        });
        let print = text
            .lines()
            .find_map(|line| line.strip_prefix("print fmt:"))
            .unwrap_or_default();
        Self {
            fields: fields.collect(),
            print: print.to_owned(),
        }
    }

    /// The offset of a field of `size` bytes.
    pub(crate) fn offset(&self, name: &str, size: u32) -> Result<u32, String> {
        match self.fields.get(name) {
            Some(&(offset, found)) if found == size => Ok(offset),
            Some((_, found)) => Err(format!("its field {name} has {found} bytes, not {size}")),
            None => Err(format!("it has no field {name}")),
        }
    }

    /// What follows `print fmt:`.
    pub(crate) fn print(&self) -> &str {
        &self.print
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUSH: &str = "name: kvm_dirty_ring_push\nID: 1\nformat:\n\
        \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
        \tfield:int index;\toffset:8;\tsize:4;\tsigned:1;\n\
        \tfield:u64 offset;\toffset:24;\tsize:8;\tsigned:0;\n\
        \tfield:char * name;\toffset:32;\tsize:8;\tsigned:0;\n\
        \tfield:u8 bytes[16];\toffset:40;\tsize:16;\tsigned:0;\n\n\
        print fmt: \"ring %d\", REC->index\n";

    #[test]
    fn fields_are_found_by_name_and_size() {
        let format = Format::parse(PUSH);
        assert_eq!(format.offset("index", 4), Ok(8));
        assert_eq!(format.offset("offset", 8), Ok(24));
        assert_eq!(format.offset("name", 8), Ok(32));
        assert_eq!(format.offset("bytes", 16), Ok(40));
        assert_eq!(format.print(), " \"ring %d\", REC->index");
    }

    #[test]
    fn a_field_that_is_not_as_expected_is_named() {
        let format = Format::parse(PUSH);
        assert_eq!(format.offset("slot", 4), Err("it has no field slot".into()));
        assert_eq!(
            format.offset("offset", 4),
            Err("its field offset has 8 bytes, not 4".into())
        );
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_format(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400)) {
            let format = Format::parse(&String::from_utf8_lossy(&bytes));
            let _ = format.offset("x", 4);
            crate::exits::ExitNames::parse(format.print());
        }

        #[test]
        fn any_text_is_a_format(lines in proptest::collection::vec(proptest::sample::select(vec![
            "field:", "int x", ";", "\toffset:", "8", "-1", "4294967296", "size:", "[", "]", "*", "print fmt:", " ", "\n", "\u{e9}",
        ]), 0..60)) {
            let format = Format::parse(&lines.concat());
            let _ = format.offset("x", 4);
            crate::exits::ExitNames::parse(format.print());
        }
    }
}
