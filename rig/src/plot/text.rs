//! The bundled font: registered for layout, named in the SVG, and measured.

use std::sync::Once;

use plotters::style::{FontDesc, FontFamily, FontStyle, TextStyle, register_font, text_anchor::Pos};

use super::style::{Color, UNITS};

pub(crate) const REGULAR: &[u8] = include_bytes!("../../assets/fonts/Arimo-Regular.ttf");
pub(crate) const BOLD: &[u8] = include_bytes!("../../assets/fonts/Arimo-Bold.ttf");

/// What the SVG asks for: the bundled font, then those with the same widths, then whatever there is.
pub(crate) const FAMILY: &str = "Arimo, Liberation Sans, Arial, Helvetica, sans-serif";

/// plotters writes a font's size into SVG divided by this.
const PLOTTERS_SVG_SIZE: f64 = 1.24;

/// Ascent and descent of Arimo in em, to which plotters scales when it measures, as if that were the size.
const ARIMO_HEIGHT: f64 = (1854.0 + 434.0) / 2048.0;

/// Which weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Weight {
    Regular,
    Bold,
}

/// A style for words `px` pixels high.
pub(crate) fn style(px: f64, weight: Weight, color: Color) -> TextStyle<'static> {
    font(px, weight).color(&color)
}

/// As `style`, with the point of the words that is put at a place.
pub(crate) fn style_at(px: f64, weight: Weight, color: Color, anchor: Pos) -> TextStyle<'static> {
    style(px, weight, color).pos(anchor)
}

/// The width of `text` in pixels.
pub(crate) fn width(text: &str, px: f64, weight: Weight) -> f64 {
    let (units, _) = font(px, weight)
        .box_size(text)
        .expect("the bundled font is registered and measures any text");
    f64::from(units) * ARIMO_HEIGHT / PLOTTERS_SVG_SIZE / f64::from(UNITS)
}

/// Breaks `text` at blanks into lines at most `room` pixels wide; a word wider than that keeps a line of its own.
pub(crate) fn wrap(text: &str, px: f64, room: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if width(&format!("{line} {word}"), px, Weight::Regular) <= room => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// `text`, cut to at most `room` pixels and ended by an ellipsis where it had to be.
pub(crate) fn fit(text: &str, px: f64, weight: Weight, room: f64) -> String {
    if width(text, px, weight) <= room {
        return text.to_owned();
    }
    let mut kept: Vec<char> = text.chars().collect();
    while kept.pop().is_some() {
        let short: String = kept.iter().collect::<String>().trim_end().to_owned() + "…";
        if width(&short, px, weight) <= room {
            return short;
        }
    }
    String::new()
}

fn font(px: f64, weight: Weight) -> FontDesc<'static> {
    static REGISTERED: Once = Once::new();
    REGISTERED.call_once(|| {
        for (style, bytes) in [(FontStyle::Normal, REGULAR), (FontStyle::Bold, BOLD)] {
            assert!(
                register_font(FAMILY, style, bytes).is_ok(),
                "the bundled font is a TrueType font"
            );
        }
    });
    let style = match weight {
        Weight::Regular => FontStyle::Normal,
        Weight::Bold => FontStyle::Bold,
    };
    FontDesc::new(
        FontFamily::Name(FAMILY),
        px * f64::from(UNITS) * PLOTTERS_SVG_SIZE,
        style,
    )
}
