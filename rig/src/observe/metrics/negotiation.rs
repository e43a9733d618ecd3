//! Which of the two formats a client asks for.

/// A text format of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exposition {
    /// Prometheus' own, 0.0.4: what those get that don't say, or that want neither.
    Prometheus,
    /// `OpenMetrics` 1.0.
    OpenMetrics,
}

impl Exposition {
    /// What its `Content-Type` is.
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What an `Accept` header asks for: the format with the higher quality, as RFC 9110 has it.
    pub(super) fn accepted(accept: &str) -> Self {
        let quality = |kind: &str, subtype: &str| {
            let mut best: Option<(usize, f32)> = None;
            for range in accept.split(',') {
                let mut parts = range.split(';').map(str::trim);
                let (found_kind, found_subtype) = parts.next().unwrap_or_default().split_once('/').unwrap_or_default();
                // The more precise range counts, whatever the others say.
                let precision = if found_kind.eq_ignore_ascii_case(kind) && found_subtype.eq_ignore_ascii_case(subtype)
                {
                    3
                } else if found_kind.eq_ignore_ascii_case(kind) && found_subtype == "*" {
                    2
                } else if found_kind == "*" && found_subtype == "*" {
                    1
                } else {
                    continue;
                };
                let q = parts.find_map(|parameter| parameter.strip_prefix("q="));
                let q = q.map_or(Some(1.0), |q| q.trim().parse().ok()).unwrap_or(0.0_f32);
                match best {
                    Some((known, _)) if known > precision => {}
                    Some((known, quality)) if known == precision => best = Some((known, quality.max(q))),
                    _ => best = Some((precision, q)),
                }
            }
            best.map_or(0.0, |(_, quality)| quality)
        };
        if quality("application", "openmetrics-text") > quality("text", "plain") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        Exposition::{OpenMetrics, Prometheus},
        *,
    };

    #[test]
    fn a_client_gets_what_it_prefers() {
        for (accept, expected) in [
            ("", Prometheus),
            ("*/*", Prometheus),
            ("text/plain;version=0.0.4", Prometheus),
            ("application/openmetrics-text; version=1.0.0", OpenMetrics),
            ("Application/OpenMetrics-Text", OpenMetrics),
            ("text/html, application/json", Prometheus),
            // Prometheus 2.42, then 2.x with protobuf, then 3.x.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,\
                 text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                OpenMetrics,
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited,\
                 text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
                Prometheus,
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2",
                OpenMetrics,
            ),
            ("application/openmetrics-text;q=0.2, text/plain;q=0.9", Prometheus),
            ("application/*;q=0.9, text/*;q=0.2", OpenMetrics),
            ("application/openmetrics-text;q=0, */*", Prometheus),
            ("application/openmetrics-text;q=often, text/plain", Prometheus),
        ] {
            assert_eq!(Exposition::accepted(accept), expected, "{accept}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_answered(accept in ".{0,80}") {
            Exposition::accepted(&accept);
        }
    }
}
