//! The look that all figures share: colours, shapes, dashes and sizes.
//!
//! Colours are those of Okabe and Ito, which stay apart for every common kind of colour blindness. No meaning hangs on
//! colour alone: each series has a shape too, and truth and reading differ by filled or open, solid or dashed.

use plotters::style::RGBColor;

pub(crate) type Color = RGBColor;

pub(crate) const INK: Color = RGBColor(0x1a, 0x1a, 0x1a);
pub(crate) const SOFT_INK: Color = RGBColor(0x55, 0x55, 0x55);
pub(crate) const GREY: Color = RGBColor(0x8c, 0x8c, 0x8c);
pub(crate) const GRID: Color = RGBColor(0xe4, 0xe4, 0xe4);
pub(crate) const PAPER: Color = RGBColor(0xff, 0xff, 0xff);

pub(crate) const BLUE: Color = RGBColor(0x00, 0x72, 0xb2);
pub(crate) const VERMILLION: Color = RGBColor(0xd5, 0x5e, 0x00);
pub(crate) const GREEN: Color = RGBColor(0x00, 0x9e, 0x73);
pub(crate) const PURPLE: Color = RGBColor(0xcc, 0x79, 0xa7);
pub(crate) const ORANGE: Color = RGBColor(0xe6, 0x9f, 0x00);
pub(crate) const SKY: Color = RGBColor(0x56, 0xb4, 0xe9);

/// Tiles keep their colours on paper of any colour, and so have inks of their own: a page that follows its reader's light or
/// dark exchanges those above by their value.
pub(crate) const TILE_DARK_INK: Color = RGBColor(0x1b, 0x1b, 0x1b);
pub(crate) const TILE_LIGHT_INK: Color = RGBColor(0xfe, 0xfe, 0xfe);
pub(crate) const TILE_OVER: Color = RGBColor(0xd4, 0x5e, 0x00);
pub(crate) const TILE_UNDER: Color = RGBColor(0x00, 0x72, 0xb1);

/// Everything is drawn in tenths of a pixel, because plotters rounds to whole units.
pub(crate) const UNITS: i32 = 10;

/// Sizes in pixels of the nominal picture; a figure is 800 wide unless it needs more.
pub(crate) const WIDTH: i32 = 800;
pub(crate) const MARGIN: i32 = 16;
pub(crate) const TITLE: f64 = 19.0;
pub(crate) const BODY: f64 = 14.0;
pub(crate) const SMALL: f64 = 12.5;
pub(crate) const TICK: f64 = 13.5;

/// A line's pattern, in pixels of dash and gap; `None` is solid.
pub(crate) type Dash = Option<(i32, i32)>;

pub(crate) const SOLID: Dash = None;
pub(crate) const DASHED: Dash = Some((7, 4));
pub(crate) const DOTTED: Dash = Some((2, 3));
pub(crate) const LONG: Dash = Some((14, 5));

/// A line's look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Stroke {
    pub(crate) color: Color,
    /// Tenths of a pixel.
    pub(crate) width: u32,
    pub(crate) dash: Dash,
}

/// A point's look.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Glyph {
    pub(crate) shape: Shape,
    pub(crate) filled: bool,
    pub(crate) color: Color,
}

/// Shapes that stay apart in print and in grey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    Circle,
    Square,
    Up,
    Diamond,
    Down,
    Cross,
    Star,
}

/// The guest's own counter, over time.
pub(crate) const TRUTH: Stroke = Stroke {
    color: BLUE,
    width: 20,
    dash: SOLID,
};
/// What the limiter believes, over time.
pub(crate) const READING: Stroke = Stroke {
    color: VERMILLION,
    width: 18,
    dash: DASHED,
};
/// What was asked for.
pub(crate) const QUOTA: Stroke = Stroke {
    color: INK,
    width: 12,
    dash: SOLID,
};

/// The colour and the shape of the `index`th series of a figure.
pub(crate) fn series(index: usize) -> (Color, Shape) {
    const COLORS: [Color; 6] = [BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY];
    const SHAPES: [Shape; 6] = [
        Shape::Circle,
        Shape::Square,
        Shape::Up,
        Shape::Diamond,
        Shape::Down,
        Shape::Cross,
    ];
    // Each further round pairs the colours with other shapes, so that 36 series stay apart.
    (COLORS[index % 6], SHAPES[(index + index / 6) % 6])
}

/// The settled truth of a series: filled, on a solid line.
pub(crate) fn truth(index: usize) -> (Stroke, Glyph) {
    let (color, shape) = series(index);
    (
        Stroke {
            color,
            width: 18,
            dash: SOLID,
        },
        Glyph {
            shape,
            filled: true,
            color,
        },
    )
}

/// The settled reading of a series: open, on a dashed line.
pub(crate) fn reading(index: usize) -> (Stroke, Glyph) {
    let (color, shape) = series(index);
    (
        Stroke {
            color,
            width: 13,
            dash: DASHED,
        },
        Glyph {
            shape,
            filled: false,
            color,
        },
    )
}

/// A reference line: something that was not measured here.
pub(crate) fn reference(color: Color, dash: Dash) -> Stroke {
    Stroke { color, width: 12, dash }
}

/// A published point.
pub(crate) const PUBLISHED: Glyph = Glyph {
    shape: Shape::Star,
    filled: true,
    color: INK,
};
