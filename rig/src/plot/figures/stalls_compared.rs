//! The stalls of the same settings in several recordings, on one axis.

use std::collections::BTreeMap;

use super::{
    super::{Choice, Figure, RecordingView, Skip, page::Page},
    stalls::{CURVES, Curve, Of, curves, page},
};

pub(crate) const FIGURE: Figure = Figure {
    name: "stalls-compared",
    about: "length of stalls by percentile, the same settings in several recordings",
    pages,
};

fn pages(view: &RecordingView<'_>, choice: &Choice<'_>) -> Result<Vec<Page>, Skip> {
    if choice.others.is_empty() {
        return Err(Skip::because("it compares recordings: give two or more"));
    }
    let mut shared: BTreeMap<Of<'_>, Vec<Curve>> = BTreeMap::new();
    for recording in std::iter::once(view).chain(choice.others) {
        for (key, curve) in curves(recording, &[]) {
            let label = format!("{}: {}", recording.title, curve.label);
            shared.entry(key).or_default().push(Curve { label, ..curve });
        }
    }
    shared.retain(|_, curves| curves.len() > 1);
    if shared.is_empty() {
        return Err(Skip::because("the recordings have no settings with stalls in common"));
    }
    let settings = shared.len();
    let mut shown: Vec<Curve> = Vec::new();
    let mut kept = 0;
    for curves in shared.into_values() {
        // A group is shown as a whole: half a comparison is none.
        if kept > 0 && shown.len() + curves.len() > CURVES {
            break;
        }
        shown.extend(curves);
        kept += 1;
    }
    let note = (kept < settings).then(|| format!("Shows {kept} of {settings} settings that the recordings share."));
    let mut page = page(view, &shown, (0, 1), note);
    "Length of stalls by percentile, compared".clone_into(&mut page.title);
    let titles: Vec<&str> = std::iter::once(view)
        .chain(choice.others)
        .map(|view| view.title)
        .collect();
    page.subtitle[0] = format!("{} \u{b7} {}", titles.join(", "), view.machine);
    Ok(vec![page])
}
