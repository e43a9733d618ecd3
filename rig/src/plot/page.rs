//! What a figure shows, before it is drawn: pages of panels of marks, in the data's own units.
//!
//! Figures are functions from a recording to pages, so that what they say can be tested without looking at a picture.

use super::{
    axis::Axis,
    style::{Color, Glyph, Stroke},
};

/// One file: a title, what it is about, a legend above the data, and panels in a grid.
#[derive(Clone, Debug)]
pub(crate) struct Page {
    /// Put behind the figure's name in the file's: empty, or `-2`.
    pub(crate) suffix: String,
    pub(crate) title: String,
    /// What is shown, on which machine, and what the bars mean; wrapped to the width.
    pub(crate) subtitle: Vec<String>,
    pub(crate) legend: Vec<Key>,
    /// Panels in reading order.
    pub(crate) panels: Vec<Panel>,
    pub(crate) columns: usize,
    /// Size of one panel with its axes, in pixels.
    pub(crate) panel_size: (i32, i32),
    /// Small print under the panels.
    pub(crate) notes: Vec<String>,
}

/// One pair of axes and what is drawn on it.
#[derive(Clone, Debug)]
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    /// Drawn in this order, later ones on top.
    pub(crate) marks: Vec<Mark>,
}

/// Something drawn on a panel, at the data's coordinates.
#[derive(Clone, Debug)]
pub(crate) enum Mark {
    Line {
        points: Vec<(f64, f64)>,
        stroke: Stroke,
    },
    /// A point that is off the axis is drawn as a caret at its edge.
    Points {
        points: Vec<(f64, f64)>,
        glyph: Glyph,
    },
    /// A vertical bar with ends.
    Spread {
        x: f64,
        low: f64,
        high: f64,
        color: Color,
    },
    /// A vertical line over the whole panel with words above it, left out where they would cover another's.
    Moment {
        x: f64,
        text: String,
    },
    /// Words beside a point, put where they cover no other point or word.
    Label {
        at: (f64, f64),
        text: String,
        color: Color,
    },
    /// A filled cell of a table with lines of words in it.
    Tile {
        x: (f64, f64),
        y: (f64, f64),
        fill: Color,
        ink: Color,
        lines: Vec<String>,
    },
}

/// An entry of the legend.
#[derive(Clone, Debug)]
pub(crate) struct Key {
    pub(crate) stroke: Option<Stroke>,
    pub(crate) glyph: Option<Glyph>,
    pub(crate) text: String,
}

impl Key {
    pub(crate) fn line(stroke: Stroke, text: impl Into<String>) -> Self {
        Self {
            stroke: Some(stroke),
            glyph: None,
            text: text.into(),
        }
    }

    pub(crate) fn glyph(glyph: Glyph, text: impl Into<String>) -> Self {
        Self {
            stroke: None,
            glyph: Some(glyph),
            text: text.into(),
        }
    }

    pub(crate) fn both(stroke: Stroke, glyph: Glyph, text: impl Into<String>) -> Self {
        Self {
            stroke: Some(stroke),
            glyph: Some(glyph),
            text: text.into(),
        }
    }
}
