//! Whatever is given for a value of the command line, of a script or of a file of settings: a value or an error that says
//! something, never a panic. What is a value says of itself what is read back as the same.

use std::{fmt, str::FromStr};

use dirtyrig_guests::Program;
use dirtyrig_limiter::{law::LimiterKind, units::Quota};
use dirtyrig_rig::{
    model::Shard,
    scenario::{
        per_vcpu::MaybeQuota,
        probe_mode::ProbeMode,
        script::Event,
        values::{Period, Ring, Span},
        vmm::Vmm,
    },
};
use proptest::prelude::*;

fn parsed<T>(text: &str)
where
    T: FromStr + fmt::Debug,
    T::Err: fmt::Display,
{
    if let Err(error) = text.parse::<T>() {
        assert!(
            !error.to_string().trim().is_empty(),
            "{text:?} is refused without a word"
        );
    }
}

fn said_again<T>(text: &str)
where
    T: FromStr + fmt::Display + fmt::Debug + PartialEq,
    T::Err: fmt::Display + fmt::Debug,
{
    parsed::<T>(text);
    if let Ok(value) = text.parse::<T>() {
        let again = value.to_string();
        assert_eq!(again.parse::<T>().expect(&again), value, "{text:?} as {again:?}");
    }
}

fn all(text: &str) {
    said_again::<Ring>(text);
    said_again::<Period>(text);
    said_again::<Span>(text);
    said_again::<Event>(text);
    said_again::<MaybeQuota>(text);
    said_again::<Program>(text);
    said_again::<LimiterKind>(text);
    said_again::<Shard>(text);
    parsed::<Quota>(text);
    parsed::<ProbeMode>(text);
    parsed::<Vmm>(text);
}

proptest! {
    #[test]
    fn any_text(text in ".{0,40}") {
        all(&text);
    }

    #[test]
    fn any_words_of_ours(words in prop::collection::vec(prop::sample::select(vec![
        "10s", "0s", "1h", "99999999999999999999y", "-", "set", "set-vm", "cancel", "cancel-vm", "plug", "unplug", "all", "0", "1",
        "18446744073709551616", "1e308", "-1", "nan", "inf", "none", " ", "  ", "/", "+", ":", ",", "hot-cold:", "burst:", "mix:", "paced:",
        "sequential", "random", "reader", "4096", "qemu", "attach:", "qemu-7.2", "budget", "\u{e9}", "µs", "ms", ".5",
    ]), 0..8)) {
        all(&words.concat());
        all(&words.join(" "));
    }
}
