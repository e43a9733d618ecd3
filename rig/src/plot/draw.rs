//! From a page to SVG: the header, the grid of panels, and the axes; marks are drawn by `marks`.

use plotters::{
    chart::{ChartBuilder, LabelAreaPosition},
    drawing::IntoDrawingArea,
    element::{PathElement, Rectangle},
    prelude::SVGBackend,
    style::{
        Color as _, TRANSPARENT,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::{
    canvas::{Canvas, Drawn},
    marks,
    page::{Key, Page, Panel},
    style::{BODY, GRID, INK, MARGIN, PAPER, SMALL, SOFT_INK, TICK, TITLE, UNITS},
    text::{self, Weight},
};

const TITLE_ROW: i32 = 27;
const TEXT_ROW: i32 = 18;
const LEGEND_ROW: i32 = 21;
/// Length of the piece of line in the legend.
const SWATCH: i32 = 30;
const BETWEEN_KEYS: i32 = 20;
/// Where none of the fonts with the widths of the bundled one is there, words take up to so much more room.
const OTHER_FONT: f64 = 1.15;
const PANEL_TITLE: i32 = 26;
/// Air below a panel, before the next one's title.
const BELOW_PANEL: i32 = 12;
/// Air between the labels of two ticks.
const BETWEEN_TICKS: f64 = 7.0;
const MOMENTS: i32 = 17;
const TICK_MARK: i32 = 4;

/// Draws `page` as an SVG document.
pub(crate) fn svg(page: &Page) -> Drawn<String> {
    let layout = Layout::of(page);
    let (width, height) = layout.size;
    let mut svg = String::new();
    {
        let canvas =
            SVGBackend::with_string(&mut svg, ((width * UNITS) as u32, (height * UNITS) as u32)).into_drawing_area();
        canvas.fill(&PAPER)?;
        header(&canvas, page, &layout)?;
        for (i, panel) in page.panels.iter().enumerate() {
            let (column, row) = ((i % page.columns) as i32, (i / page.columns) as i32);
            let (w, h) = page.panel_size;
            draw_panel(
                &canvas,
                panel,
                (MARGIN / 2 + column * w, layout.panels_top + row * h),
                (w, h),
            )?;
        }
        for (i, line) in layout.notes.iter().enumerate() {
            let y = layout.notes_top + i as i32 * TEXT_ROW;
            write(&canvas, line, (MARGIN, y), SMALL, Weight::Regular, SOFT_INK)?;
        }
        canvas.present()?;
    }
    Ok(finish(&svg, page, layout.size))
}

/// Gives the picture its nominal size, a name for those who hear it read, and joins that leave no spikes on noisy lines.
fn finish(svg: &str, page: &Page, (width, height): (i32, i32)) -> String {
    let (w, h) = (width * UNITS, height * UNITS);
    let title: String = page
        .title
        .chars()
        .map(|c| if matches!(c, '<' | '>' | '&') { ' ' } else { c })
        .collect();
    svg.replacen(
        &format!("<svg width=\"{w}\" height=\"{h}\" viewBox=\"0 0 {w} {h}\" xmlns=\"http://www.w3.org/2000/svg\">"),
        &format!(
            "<svg width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {w} {h}\" xmlns=\"http://www.w3.org/2000/svg\" \
             role=\"img\" stroke-linejoin=\"round\">\n<title>{title}</title>"
        ),
        1,
    )
}

/// The nominal width of a page in pixels.
pub(super) fn width(page: &Page) -> i32 {
    page.panel_size.0 * page.columns as i32 + MARGIN
}

/// Where the parts of a page go, in pixels.
struct Layout {
    size: (i32, i32),
    subtitle: Vec<String>,
    /// Each key with its left edge and row.
    legend: Vec<(i32, i32, Key)>,
    legend_top: i32,
    panels_top: i32,
    notes: Vec<String>,
    notes_top: i32,
}

impl Layout {
    fn of(page: &Page) -> Self {
        let (_, panel_height) = page.panel_size;
        let width = width(page);
        let room = width - 2 * MARGIN;
        let wrap = |lines: &[String], px| -> Vec<String> {
            lines
                .iter()
                .flat_map(|line| text::wrap(line, px, f64::from(room)))
                .collect()
        };
        let subtitle = wrap(&page.subtitle, SMALL);
        let notes = wrap(&page.notes, SMALL);

        let (mut x, mut row) = (MARGIN, 0);
        let mut legend = Vec::new();
        for key in &page.legend {
            let advance = swatch(key) + 6 + (text::width(&key.text, BODY, Weight::Regular) * OTHER_FONT).ceil() as i32;
            if x > MARGIN && x + advance > width - MARGIN {
                (x, row) = (MARGIN, row + 1);
            }
            legend.push((x, row, key.clone()));
            x += advance + BETWEEN_KEYS;
        }
        let legend_rows = legend.last().map_or(0, |(_, row, _)| row + 1);

        let legend_top = MARGIN + TITLE_ROW + subtitle.len() as i32 * TEXT_ROW + 6;
        let panels_top = legend_top + legend_rows * LEGEND_ROW + 8;
        let rows = page.panels.len().div_ceil(page.columns) as i32;
        let notes_top = panels_top + rows * panel_height + 2;
        let notes_height = notes.len() as i32 * TEXT_ROW;
        Self {
            size: (width, notes_top + notes_height + MARGIN / 2),
            subtitle,
            legend,
            legend_top,
            panels_top,
            notes,
            notes_top,
        }
    }
}

/// The width of what stands before a key's words.
fn swatch(key: &Key) -> i32 {
    if key.stroke.is_some() { SWATCH } else { SWATCH * 2 / 3 }
}

fn header(canvas: &Canvas<'_>, page: &Page, layout: &Layout) -> Drawn {
    let room = f64::from(layout.size.0 - 2 * MARGIN);
    let title = text::fit(&page.title, TITLE, Weight::Bold, room);
    write(canvas, &title, (MARGIN, MARGIN), TITLE, Weight::Bold, INK)?;
    for (i, line) in layout.subtitle.iter().enumerate() {
        let y = MARGIN + TITLE_ROW + i as i32 * TEXT_ROW;
        write(canvas, line, (MARGIN, y), SMALL, Weight::Regular, SOFT_INK)?;
    }
    for (x, row, key) in &layout.legend {
        let middle = layout.legend_top + row * LEGEND_ROW + LEGEND_ROW / 2;
        let swatch = swatch(key);
        if let Some(stroke) = key.stroke {
            let (from, to) = (x * UNITS, (x + swatch) * UNITS);
            marks::polyline(canvas, &[(from, middle * UNITS), (to, middle * UNITS)], stroke)?;
        }
        if let Some(glyph) = key.glyph {
            marks::glyph(canvas, ((x + swatch / 2) * UNITS, middle * UNITS), glyph)?;
        }
        let style = text::style_at(BODY, Weight::Regular, INK, Pos::new(HPos::Left, VPos::Center));
        canvas.draw_text(&key.text, &style, ((x + swatch + 6) * UNITS, middle * UNITS))?;
    }
    Ok(())
}

/// Writes one line with its top left corner at `at`, in pixels.
fn write(
    canvas: &Canvas<'_>,
    line: &str,
    (x, y): (i32, i32),
    px: f64,
    weight: Weight,
    color: super::style::Color,
) -> Drawn {
    let style = text::style_at(px, weight, color, Pos::new(HPos::Left, VPos::Top));
    canvas.draw_text(line, &style, (x * UNITS, y * UNITS))
}

fn draw_panel(canvas: &Canvas<'_>, panel: &Panel, (left, top): (i32, i32), (width, height): (i32, i32)) -> Drawn {
    let has_moments = panel.marks.iter().any(marks::is_moment);
    let above = if panel.title.is_empty() { 8 } else { PANEL_TITLE } + if has_moments { MOMENTS } else { 0 };
    if !panel.title.is_empty() {
        let room = f64::from(width - MARGIN);
        let wide = text::width(&panel.title, BODY, Weight::Bold) > room;
        let size = if wide { SMALL } else { BODY };
        let title = text::fit(&panel.title, size, Weight::Bold, room);
        write(canvas, &title, (left + MARGIN / 2, top), size, Weight::Bold, INK)?;
    }
    let widest = panel
        .y
        .labels()
        .map(|label| text::width(label, TICK, Weight::Regular))
        .fold(0.0, f64::max);
    let left_room = widest.ceil() as i32 + 2 * TICK_MARK + if panel.y.title.is_empty() { 4 } else { 26 };
    let bottom_room = 2 * TICK_MARK + 18 + if panel.x.title.is_empty() { 0 } else { 20 };

    let height = height - BELOW_PANEL;
    let mut x_axis = panel.x.clone();
    x_axis.thin(f64::from(width - left_room - MARGIN), |label| {
        text::width(label, TICK, Weight::Regular) + BETWEEN_TICKS
    });
    let mut y_axis = panel.y.clone();
    y_axis.thin(f64::from(height - above - bottom_room), |_| TICK + 1.0);
    // The label of a tick at the very end reaches half its width past the frame.
    let overhang = x_axis.labels().last().map_or(0, |label| {
        text::width(label, TICK, Weight::Regular) as i32 / 2 - MARGIN / 2 + 2
    });

    let area = canvas
        .clone()
        .shrink((left * UNITS, top * UNITS), (width * UNITS, height * UNITS));
    let mut chart = ChartBuilder::on(&area)
        .margin_top(above * UNITS)
        .margin_right(MARGIN.max(overhang) * UNITS)
        .set_label_area_size(LabelAreaPosition::Left, left_room * UNITS)
        .set_label_area_size(LabelAreaPosition::Bottom, bottom_room * UNITS)
        .build_cartesian_2d(x_axis.clone(), y_axis.clone())?;
    let labels = text::style(TICK, Weight::Regular, INK);
    let x_format = |value: &f64| x_axis.label(*value);
    let y_format = |value: &f64| y_axis.label(*value);
    let mut mesh = chart.configure_mesh();
    if !panel.x.grid {
        mesh.disable_x_mesh();
    }
    if !panel.y.grid {
        mesh.disable_y_mesh();
    }
    mesh.x_desc(panel.x.title.as_str())
        .y_desc(panel.y.title.as_str())
        .x_label_formatter(&x_format)
        .y_label_formatter(&y_format)
        .axis_desc_style(text::style(BODY, Weight::Regular, INK))
        .label_style(labels)
        .axis_style(INK.stroke_width(10))
        .bold_line_style(GRID.stroke_width(8))
        .light_line_style(TRANSPARENT)
        .set_all_tick_mark_size(TICK_MARK * UNITS)
        .draw()?;

    let (x_range, y_range) = chart.plotting_area().get_pixel_range();
    let frame = marks::Frame {
        x: panel.x.clone(),
        y: panel.y.clone(),
        left: x_range.start,
        right: x_range.end,
        top: y_range.start.min(y_range.end),
        bottom: y_range.start.max(y_range.end),
    };
    if panel.y.keeps_zero() {
        axis_break(canvas, &frame)?;
    }
    marks::draw(canvas, &frame, &panel.marks)
}

/// Two strokes across the axis between zero and the lowest value of a logarithmic axis.
fn axis_break(canvas: &Canvas<'_>, frame: &marks::Frame) -> Drawn {
    let low = frame.at(0.0, frame.y.low()).1;
    let middle = i32::midpoint(frame.bottom, low);
    let (x, reach, gap) = (frame.left, 5 * UNITS, 2 * UNITS);
    let blank = Rectangle::new([(x - UNITS, middle - gap), (x + UNITS, middle + gap)], PAPER.filled());
    canvas.draw(&blank)?;
    for y in [middle - gap, middle + gap] {
        let stroke = PathElement::new(vec![(x - reach, y + gap), (x + reach, y - gap)], INK.stroke_width(10));
        canvas.draw(&stroke)?;
    }
    Ok(())
}
