//! Draws marks on a panel, in tenths of a pixel.

use plotters::{
    element::{Circle, PathElement, Polygon, Rectangle},
    style::{
        Color as _, ShapeStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::{
    axis::{Axis, End},
    canvas::{Canvas, Drawn},
    page::Mark,
    style::{Color, PAPER, SMALL, SOFT_INK, TILE_DARK_INK, TILE_LIGHT_INK, UNITS},
    text::{self, Weight},
};
use crate::plot::style::{Glyph, Shape, Stroke};

/// Half the size of a point.
const RADIUS: f64 = 4.5 * UNITS as f64;
const CAP: i32 = 4 * UNITS;
const LABEL: f64 = 12.0;

/// A panel's axes and where its data goes on the canvas.
pub(crate) struct Frame {
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) left: i32,
    pub(crate) right: i32,
    pub(crate) top: i32,
    pub(crate) bottom: i32,
}

impl Frame {
    /// Where a value stands; one off an axis stands at its end.
    pub(crate) fn at(&self, x: f64, y: f64) -> (i32, i32) {
        let along = |from: i32, to: i32, share: f64| from + (f64::from(to - from) * share).round() as i32;
        (
            along(self.left, self.right, self.x.share(x)),
            along(self.bottom, self.top, self.y.share(y)),
        )
    }
}

/// An area that is taken: left, top, right, bottom.
#[derive(Clone, Copy)]
struct Taken(i32, i32, i32, i32);

impl Taken {
    fn meets(self, other: Self) -> bool {
        self.0 < other.2 && other.0 < self.2 && self.1 < other.3 && other.1 < self.3
    }
}

pub(crate) fn is_moment(mark: &Mark) -> bool {
    matches!(mark, Mark::Moment { .. })
}

/// Draws all marks: shapes in their order, then the labels where the shapes leave room.
pub(crate) fn draw(canvas: &Canvas<'_>, frame: &Frame, all: &[Mark]) -> Drawn {
    let mut taken = Vec::new();
    let mut crossed = Vec::new();
    let mut words_above = Vec::new();
    for mark in all {
        match mark {
            Mark::Line { points, stroke } => {
                let path: Vec<_> = points.iter().map(|(x, y)| frame.at(*x, *y)).collect();
                crossed.extend(along(&path));
                polyline(canvas, &thinned(&path), *stroke)?;
            }
            Mark::Points { points, glyph: look } => {
                for (x, y) in points {
                    let place = frame.at(*x, *y);
                    glyph(canvas, place, edged(*look, frame.y.beyond(*y)))?;
                    let reach = RADIUS as i32 + 10;
                    taken.push(Taken(
                        place.0 - reach,
                        place.1 - reach,
                        place.0 + reach,
                        place.1 + reach,
                    ));
                }
            }
            Mark::Spread { x, low, high, color } => spread(canvas, frame.at(*x, *low), frame.at(*x, *high), *color)?,
            Mark::Moment { x, text } => moment(canvas, frame, *x, text, &mut words_above)?,
            Mark::Tile { x, y, fill, ink, lines } => {
                tile(canvas, frame.at(x.0, y.1), frame.at(x.1, y.0), (*fill, *ink), lines)?;
            }
            Mark::Label { .. } => {}
        }
    }
    for mark in all {
        if let Mark::Label { at, text, color } = mark {
            label(canvas, frame, frame.at(at.0, at.1), text, *color, &mut taken, &crossed)?;
        }
    }
    Ok(())
}

/// A caret in place of a point that is beyond the axis.
fn edged(glyph: Glyph, end: Option<End>) -> Glyph {
    let shape = match end {
        None => return glyph,
        Some(End::High) => Shape::Up,
        Some(End::Low) => Shape::Down,
    };
    Glyph {
        shape,
        filled: false,
        ..glyph
    }
}

/// Small areas all along a path.
fn along(path: &[(i32, i32)]) -> Vec<Taken> {
    const STEP: i32 = 8 * UNITS;
    let area = |(x, y): (i32, i32)| Taken(x - 2 * UNITS, y - 2 * UNITS, x + 2 * UNITS, y + 2 * UNITS);
    path.windows(2)
        .flat_map(|pair| {
            let ((x0, y0), (x1, y1)) = (pair[0], pair[1]);
            let steps = ((x1 - x0).abs().max((y1 - y0).abs()) / STEP).max(1);
            (0..=steps).map(move |i| area((x0 + (x1 - x0) * i / steps, y0 + (y1 - y0) * i / steps)))
        })
        .collect()
}

/// Leaves of every column one pixel wide the first, lowest, highest and last point: all that can be seen of it.
fn thinned(path: &[(i32, i32)]) -> Vec<(i32, i32)> {
    path.chunk_by(|a, b| a.0 / UNITS == b.0 / UNITS)
        .flat_map(|column| {
            let extreme = |best: fn(&(usize, &(i32, i32))) -> i32| {
                column.iter().enumerate().max_by_key(best).map_or(0, |(i, _)| i)
            };
            let mut kept = vec![0, extreme(|(_, p)| p.1), extreme(|(_, p)| -p.1), column.len() - 1];
            kept.sort_unstable();
            kept.dedup();
            kept.into_iter().map(|i| column[i])
        })
        .collect()
}

/// Draws a line, in dashes where its stroke has them.
pub(crate) fn polyline(canvas: &Canvas<'_>, path: &[(i32, i32)], stroke: Stroke) -> Drawn {
    let style = stroke.color.stroke_width(stroke.width);
    let Some((dash, gap)) = stroke.dash else {
        return canvas.draw(&PathElement::new(path.to_vec(), style));
    };
    for piece in dashes(path, f64::from(dash * UNITS), f64::from(gap * UNITS)) {
        canvas.draw(&PathElement::new(piece, style))?;
    }
    Ok(())
}

/// Cuts a path into dashes measured along it, whatever the number of points in each.
fn dashes(path: &[(i32, i32)], dash: f64, gap: f64) -> Vec<Vec<(i32, i32)>> {
    let round = |x: f64, y: f64| (x.round() as i32, y.round() as i32);
    let mut pieces = Vec::new();
    let mut piece = path.first().map(|p| vec![*p]).unwrap_or_default();
    let (mut drawing, mut left) = (true, dash);
    for pair in path.windows(2) {
        let (mut x, mut y) = (f64::from(pair[0].0), f64::from(pair[0].1));
        let (end_x, end_y) = (f64::from(pair[1].0), f64::from(pair[1].1));
        loop {
            let rest = (end_x - x).hypot(end_y - y);
            if rest < left {
                left -= rest;
                if drawing {
                    piece.push(pair[1]);
                }
                break;
            }
            (x, y) = (x + (end_x - x) * left / rest, y + (end_y - y) * left / rest);
            if drawing {
                piece.push(round(x, y));
                pieces.push(std::mem::take(&mut piece));
            } else {
                piece = vec![round(x, y)];
            }
            drawing = !drawing;
            left = if drawing { dash } else { gap };
        }
    }
    if drawing && piece.len() > 1 {
        pieces.push(piece);
    }
    pieces
}

/// Draws a point. Open ones are filled with paper, so that lines don't run through them.
pub(crate) fn glyph(canvas: &Canvas<'_>, (x, y): (i32, i32), glyph: Glyph) -> Drawn {
    let Glyph { shape, filled, color } = glyph;
    let edge = color.stroke_width(16);
    // An open point is the larger one, so that it shows around a filled one at the same place.
    let radius = if filled { RADIUS } else { RADIUS * 1.4 };
    let inside: ShapeStyle = if filled { color.filled() } else { PAPER.filled() };
    let corner = |angle: f64, size: f64| {
        let (sin, cos) = angle.to_radians().sin_cos();
        (
            x + (radius * size * cos).round() as i32,
            y - (radius * size * sin).round() as i32,
        )
    };
    let outline: Vec<(i32, i32)> = match shape {
        Shape::Circle => {
            canvas.draw(&Circle::new((x, y), radius as i32, inside))?;
            return canvas.draw(&Circle::new((x, y), radius as i32, edge));
        }
        Shape::Cross => {
            for angle in [45.0, 135.0] {
                let ends = vec![corner(angle, 1.2), corner(angle + 180.0, 1.2)];
                canvas.draw(&PathElement::new(
                    ends,
                    color.stroke_width(if filled { 24 } else { 14 }),
                ))?;
            }
            return Ok(());
        }
        Shape::Square => [45.0, 135.0, 225.0, 315.0].map(|a| corner(a, 1.25)).to_vec(),
        Shape::Diamond => [0.0, 90.0, 180.0, 270.0].map(|a| corner(a, 1.25)).to_vec(),
        Shape::Up => [90.0, 210.0, 330.0].map(|a| corner(a, 1.3)).to_vec(),
        Shape::Down => [270.0, 30.0, 150.0].map(|a| corner(a, 1.3)).to_vec(),
        Shape::Star => (0..10)
            .map(|i| corner(90.0 + 36.0 * f64::from(i), if i % 2 == 0 { 2.2 } else { 0.9 }))
            .collect(),
    };
    canvas.draw(&Polygon::new(outline.clone(), inside))?;
    let closed: Vec<_> = outline
        .iter()
        .chain(outline.first())
        .chain(outline.get(1))
        .copied()
        .collect();
    canvas.draw(&PathElement::new(closed, edge))
}

fn spread(canvas: &Canvas<'_>, low: (i32, i32), high: (i32, i32), color: Color) -> Drawn {
    let style = color.stroke_width(12);
    canvas.draw(&PathElement::new(vec![low, high], style))?;
    for (x, y) in [low, high] {
        canvas.draw(&PathElement::new(vec![(x - CAP, y), (x + CAP, y)], style))?;
    }
    Ok(())
}

fn moment(canvas: &Canvas<'_>, frame: &Frame, x: f64, words: &str, above: &mut Vec<(i32, i32)>) -> Drawn {
    let place = frame.at(x, 0.0).0;
    let line = Stroke {
        color: SOFT_INK,
        width: 8,
        dash: super::style::DOTTED,
    };
    polyline(canvas, &[(place, frame.top), (place, frame.bottom)], line)?;
    let width = (text::width(words, LABEL, Weight::Regular) * f64::from(UNITS)) as i32;
    let start = (place - width / 2).clamp(frame.left, (frame.right - width).max(frame.left));
    let end = start + width;
    if above
        .iter()
        .any(|(from, to)| start < to + 6 * UNITS && *from < end + 6 * UNITS)
    {
        return Ok(());
    }
    above.push((start, end));
    let style = text::style_at(LABEL, Weight::Regular, SOFT_INK, Pos::new(HPos::Left, VPos::Bottom));
    canvas.draw_text(words, &style, (start, frame.top - 2 * UNITS))
}

fn label(
    canvas: &Canvas<'_>,
    frame: &Frame,
    (x, y): (i32, i32),
    words: &str,
    color: Color,
    taken: &mut Vec<Taken>,
    crossed: &[Taken],
) -> Drawn {
    let half = (text::width(words, LABEL, Weight::Bold) * f64::from(UNITS) / 2.0) as i32 + UNITS;
    let rise = 7 * UNITS;
    let (near, far) = (14 * UNITS, 26 * UNITS);
    let beside = half + 10 * UNITS;
    let places = [
        (0, -near),
        (0, near),
        // Above, but to a side: near an edge of the panel.
        (-half, -near),
        (half, -near),
        (beside, 0),
        (-beside, 0),
        (beside, -near),
        (-beside, near),
        (0, -far),
        (0, far),
    ];
    let find = |avoided: &[Taken]| {
        places.into_iter().find_map(|(dx, dy)| {
            let (cx, cy) = (x + dx, y + dy);
            let area = Taken(cx - half, cy - rise, cx + half, cy + rise);
            let inside = area.0 >= frame.left && area.2 <= frame.right && area.1 >= frame.top && area.3 <= frame.bottom;
            let covers = taken.iter().chain(avoided).any(|other| area.meets(*other));
            (inside && !covers).then_some(((cx, cy), area))
        })
    };
    // Clear of the lines where possible; words over a line can still be read, over a point they can't.
    let free = find(crossed).or_else(|| find(&[]));
    // No room is better than words over data: the table of verdicts is in the recording.
    let Some((place, area)) = free else {
        return Ok(());
    };
    taken.push(area);
    let style = text::style_at(LABEL, Weight::Bold, color, Pos::new(HPos::Center, VPos::Center));
    canvas.draw_text(words, &style, place)
}

fn tile(
    canvas: &Canvas<'_>,
    (left, top): (i32, i32),
    (right, bottom): (i32, i32),
    (fill, ink): (Color, Color),
    lines: &[String],
) -> Drawn {
    let (left, top, right, bottom) = (left + UNITS, top + UNITS, right - UNITS, bottom - UNITS);
    canvas.draw(&Rectangle::new([(left, top), (right, bottom)], fill.filled()))?;
    let room = f64::from((right - left) / UNITS - 4);
    let row = 16 * UNITS;
    let fitting = ((bottom - top) / row).max(1) as usize;
    let shown = &lines[..lines.len().min(fitting)];
    let (x, middle) = (i32::midpoint(left, right), i32::midpoint(top, bottom));
    let first = middle - row * (shown.len() as i32 - 1) / 2;
    for (i, line) in shown.iter().enumerate() {
        let weight = if i == 0 { Weight::Bold } else { Weight::Regular };
        let words = text::fit(line, SMALL, weight, room);
        let style = text::style_at(SMALL, weight, ink, Pos::new(HPos::Center, VPos::Center));
        canvas.draw_text(&words, &style, (x, first + i as i32 * row))?;
    }
    Ok(())
}

/// The ink that can be read on `fill`.
pub(crate) fn ink_on(fill: Color) -> Color {
    let light = 0.299 * f64::from(fill.0) + 0.587 * f64::from(fill.1) + 0.114 * f64::from(fill.2);
    if light > 140.0 { TILE_DARK_INK } else { TILE_LIGHT_INK }
}
