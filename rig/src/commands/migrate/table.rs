//! Migrations as a table.

use comfy_table::{Table, presets};

use crate::recording::migrations::MigrationRow;

/// What to look at first.
pub(super) fn of(rows: &[MigrationRow]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header([
        "strategy",
        "kept",
        "total s",
        "expected",
        "promised",
        "blackout ms",
        "QEMU says",
        "promised",
        "stall ms",
        "passes",
        "sent MiB",
        "guest MiB/s",
    ]);
    let number = |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |value| format!("{value:.digits$}"));
    for row in rows {
        table.add_row([
            row.strategy.clone(),
            if row.kept {
                "yes".to_owned()
            } else {
                format!("no: {}", row.why)
            },
            number(Some(row.total_s), 2),
            number(row.expected_total_s, 2),
            number(Some(row.promised_total_s), 2),
            number(row.blackout_ms, 1),
            number(row.qemu_downtime_ms, 0),
            number(Some(row.promised_blackout_ms), 0),
            number(row.longest_stall_ms, 1),
            row.passes.to_string(),
            number(Some(row.sent_mib), 0),
            number(row.limited_mib_s.or(row.logged_mib_s), 1),
        ]);
    }
    table
}
