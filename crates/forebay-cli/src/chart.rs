//! Curves as charts in cells of a terminal, by the dots of Braille.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthChar;

use crate::out::{harmless, number, width};

/// Curve of one run.
#[derive(Debug, Clone)]
pub(crate) struct Curve {
    pub(crate) name: String,
    /// Its place among the colours.
    pub(crate) colour: usize,
    /// From left to right. A value that is not finite is a gap.
    pub(crate) points: Vec<(f64, f64)>,
}

/// Colours of curves, of the 256 of a terminal and for images: those of the report, in its order.
const COLOURS: [(u8, u32); 10] = [
    (33, 0x1f77b4),
    (208, 0xff7f0e),
    (34, 0x2ca02c),
    (160, 0xd62728),
    (134, 0x9467bd),
    (44, 0x17becf),
    (176, 0xe377c2),
    (178, 0xbcbd22),
    (137, 0x8c564b),
    (245, 0x7f7f7f),
];

/// Returns the colour of a curve in a terminal.
pub(crate) fn colour(place: usize) -> u8 {
    COLOURS[place % COLOURS.len()].0
}

/// Returns the colour of a curve in an image.
pub(crate) fn colour_of_image(place: usize) -> u32 {
    COLOURS[place % COLOURS.len()].1
}

/// Cell of a screen. The second half of a wide letter is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cell {
    pub(crate) letter: Option<char>,
    pub(crate) style: Style,
}

/// How a cell looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Style {
    /// One of the 256 of a terminal, or its own.
    pub(crate) colour: Option<u8>,
    pub(crate) is_bold: bool,
    pub(crate) is_inverse: bool,
}

impl Style {
    pub(crate) fn of(colour: u8) -> Self {
        Self { colour: Some(colour), ..Self::default() }
    }
}

const BLANK: Cell =
    Cell { letter: Some(' '), style: Style { colour: None, is_bold: false, is_inverse: false } };

/// Cells, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Grid {
    pub(crate) width: usize,
    pub(crate) height: usize,
    cells: Vec<Cell>,
}

/// Part of a grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Area {
    pub(crate) left: usize,
    pub(crate) top: usize,
    pub(crate) width: usize,
    pub(crate) height: usize,
}

impl Grid {
    pub(crate) fn new(width: usize, height: usize) -> Self {
        Self { width, height, cells: vec![BLANK; width * height] }
    }

    pub(crate) fn row(&self, row: usize) -> &[Cell] {
        &self.cells[row * self.width..(row + 1) * self.width]
    }

    fn set(&mut self, column: usize, row: usize, letter: Option<char>, style: Style) {
        if column < self.width && row < self.height {
            self.cells[row * self.width + column] = Cell { letter, style };
        }
    }

    /// Writes a text into at most so many columns, and returns how many it took. One that is longer ends with `…`.
    pub(crate) fn text(&mut self, column: usize, row: usize, max: usize, text: &str, style: Style) -> usize {
        let text = harmless(text);
        let max = max.min(self.width.saturating_sub(column));
        let is_cut = width(&text) > max;
        let mut at = 0;
        for letter in text.chars() {
            let size = letter.width().unwrap_or(0);
            if size == 0 {
                // It would belong to the letter before, which a cell has no room for.
                continue;
            }
            if at + size + usize::from(is_cut) > max {
                break;
            }
            self.set(column + at, row, Some(letter), style);
            if size == 2 {
                self.set(column + at + 1, row, None, style);
            }
            at += size;
        }
        if is_cut && at < max {
            self.set(column + at, row, Some('…'), style);
            at += 1;
        }
        at
    }

    /// Returns the lines as text, without what is blank at their ends. With colours, if a terminal shows them.
    pub(crate) fn lines(&self, has_colours: bool) -> impl Iterator<Item = String> + '_ {
        (0..self.height).map(move |row| {
            let (mut line, mut last) = (String::new(), Style::default());
            let cells = self.row(row);
            let end = cells.iter().rposition(|cell| *cell != BLANK).map_or(0, |last| last + 1);
            for cell in &cells[..end] {
                if has_colours && cell.style != last {
                    line.push_str(&escape(cell.style));
                    last = cell.style;
                }
                line.extend(cell.letter);
            }
            if last != Style::default() {
                line.push_str("\x1b[0m");
            }
            line
        })
    }
}

/// Returns what makes a terminal write in a style: <https://www.xfree86.org/current/ctlseqs.html>, SGR.
pub(crate) fn escape(style: Style) -> String {
    let mut escape = "\x1b[0".to_owned();
    if style.is_bold {
        escape.push_str(";1");
    }
    if style.is_inverse {
        escape.push_str(";7");
    }
    if let Some(colour) = style.colour {
        _ = write!(escape, ";38;5;{colour}");
    }
    escape.push('m');
    escape
}

/// What the axes show.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Axes {
    pub(crate) is_log: bool,
    /// The part that is looked at; all of it without one.
    pub(crate) across: Option<(f64, f64)>,
}

/// The part of the plane that a chart shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Frame {
    pub(crate) left: f64,
    pub(crate) right: f64,
    /// Of the logarithm, on such an axis.
    pub(crate) low: f64,
    pub(crate) high: f64,
    pub(crate) is_log: bool,
}

impl Frame {
    /// Returns the frame of curves. `None` where there is nothing to show.
    pub(crate) fn of(curves: &[Curve], axes: Axes) -> Option<Self> {
        let is_shown = |across: f64| axes.across.is_none_or(|(left, right)| (left..=right).contains(&across));
        let scale = |value: f64| if axes.is_log { value.log10() } else { value };
        let (mut left, mut right) = (f64::INFINITY, f64::NEG_INFINITY);
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for (across, value) in curves.iter().flat_map(|curve| &curve.points) {
            let value = scale(*value);
            if across.is_finite() && value.is_finite() && is_shown(*across) {
                (left, right) = (left.min(*across), right.max(*across));
                (low, high) = (low.min(value), high.max(value));
            }
        }
        if left > right {
            return None;
        }
        (left, right) = axes.across.unwrap_or((left, right));
        // A line has the middle.
        if left == right {
            (left, right) = (left - 0.5, right + 0.5);
        }
        if low == high {
            let room = if low == 0.0 { 1.0 } else { low.abs() / 10.0 };
            (low, high) = (low - room, high + room);
        }
        Some(Self { left, right, low, high, is_log: axes.is_log })
    }

    /// Returns where a point is, from 0 to 1 from left to right and from top to bottom. `None` for a gap.
    pub(crate) fn place(&self, (across, value): (f64, f64)) -> Option<(f64, f64)> {
        let value = if self.is_log { value.log10() } else { value };
        // Halves: the difference of two large numbers may have none.
        let part = |value: f64, from: f64, to: f64| (value / 2.0 - from / 2.0) / (to / 2.0 - from / 2.0);
        let place = (part(across, self.left, self.right), 1.0 - part(value, self.low, self.high));
        (place.0.is_finite() && place.1.is_finite()).then_some(place)
    }

    fn value(&self, part_from_top: f64) -> f64 {
        let value = self.high * (1.0 - part_from_top) + self.low * part_from_top;
        if self.is_log { 10_f64.powf(value) } else { value }
    }
}

/// Draws curves into a part of a grid, with values at the left and the ends of the other axis below. Where there is room for neither, the
/// curves alone. Curves have letters at their ends, if colours alone must not distinguish them. Returns where the curves are.
pub(crate) fn draw(grid: &mut Grid, area: Area, curves: &[Curve], axes: Axes, has_letters: bool) -> Area {
    let faint = Style::of(245);
    let Some(frame) = Frame::of(curves, axes) else {
        grid.text(area.left, area.top + area.height / 2, area.width, "no values", faint);
        return area;
    };
    let has_axes = area.width >= 24 && area.height >= 4;
    let mut inner = area;
    if has_axes {
        inner.height -= 1;
        let rows = [0, (inner.height - 1) / 2, inner.height - 1];
        let part = |row: usize| row as f64 / (inner.height - 1).max(1) as f64;
        let labels = rows.map(|row| number(frame.value(part(row))));
        let size = labels.iter().map(|label| width(label)).max().unwrap_or(0).min(area.width / 3);
        for (row, label) in rows.into_iter().zip(&labels) {
            let at = area.left + size.saturating_sub(width(label));
            grid.text(at, area.top + row, size, label, faint);
        }
        inner.left += size + 1;
        inner.width -= size + 1;
        let (left, right) = (number(frame.left), number(frame.right));
        let below = area.top + inner.height;
        let taken = grid.text(inner.left, below, inner.width, &left, faint);
        let right_size = width(&right);
        if taken + 1 + right_size <= inner.width {
            grid.text(inner.left + inner.width - right_size, below, right_size, &right, faint);
        }
    }
    if inner.width == 0 || inner.height == 0 {
        return inner;
    }
    for (number, curve) in curves.iter().enumerate() {
        let dots = dots(&frame, curve, inner.width, inner.height);
        let style = Style::of(colour(curve.colour));
        for row in 0..inner.height {
            for column in 0..inner.width {
                let bits = dots.bits[row * inner.width + column];
                if bits != 0 {
                    let (column, row) = (inner.left + column, inner.top + row);
                    let before = grid.row(row)[column].letter.map_or(0, |letter| letter as u32);
                    // Dots of several curves stand together, in the colour of the last one.
                    let bits =
                        u32::from(bits) | before.checked_sub(BRAILLE).filter(|bits| *bits < 256).unwrap_or(0);
                    grid.set(column, row, char::from_u32(BRAILLE + bits), style);
                }
            }
        }
        if let (true, Some((column, row))) = (has_letters, dots.last) {
            grid.set(inner.left + column, inner.top + row, letter(number), style);
        }
    }
    inner
}

/// Returns the letter by which a curve is known without colours.
pub(crate) fn letter(number: usize) -> Option<char> {
    char::from_digit(10 + (number % 26) as u32, 36).map(|letter| letter.to_ascii_uppercase())
}

/// The first of the 256 letters of two by four dots.
const BRAILLE: u32 = 0x2800;

/// The bits of the dots of a letter, by column and row: <https://www.unicode.org/charts/PDF/U2800.pdf>.
const BITS: [[u8; 4]; 2] = [[0x01, 0x02, 0x04, 0x40], [0x08, 0x10, 0x20, 0x80]];

struct Dots {
    bits: Vec<u8>,
    /// The cell of the last point.
    last: Option<(usize, usize)>,
}

fn dots(frame: &Frame, curve: &Curve, width: usize, height: usize) -> Dots {
    let mut dots = Dots { bits: vec![0; width * height], last: None };
    let (columns, rows) = ((2 * width) as f64 - 1.0, (4 * height) as f64 - 1.0);
    let mut set = |column: i64, row: i64| {
        if let (Ok(column), Ok(row)) = (usize::try_from(column), usize::try_from(row))
            && column < 2 * width
            && row < 4 * height
        {
            dots.bits[row / 4 * width + column / 2] |= BITS[column % 2][row % 4];
            dots.last = Some((column / 2, row / 4));
        }
    };
    let mut before: Option<(f64, f64)> = None;
    for point in &curve.points {
        let place = frame.place(*point).map(|(across, down)| (across * columns, down * rows));
        match (before, place) {
            (Some(from), Some(to)) => line(from, to, (columns, rows), &mut set),
            (None, Some((column, row))) => set(column.round() as i64, row.round() as i64),
            _ => {}
        }
        before = place;
    }
    dots
}

/// Sets the dots of a line, as far as they are inside.
fn line(from: (f64, f64), to: (f64, f64), (columns, rows): (f64, f64), set: &mut impl FnMut(i64, i64)) {
    // The part of the line between two columns, so that a point far away costs no more than one that is near.
    let Some((from, to)) = clip(from, to, columns) else { return };
    let Some(((y0, x0), (y1, x1))) = clip((from.1, from.0), (to.1, to.0), rows) else { return };
    let steps = (x1 - x0).abs().max((y1 - y0).abs()).ceil().max(1.0);
    for step in 0..=steps as u64 {
        let part = step as f64 / steps;
        set((x0 + (x1 - x0) * part).round() as i64, (y0 + (y1 - y0) * part).round() as i64);
    }
}

type Pair = (f64, f64);

/// Cuts a line to what is between 0 and `end` by its first coordinate.
fn clip(from: Pair, to: Pair, end: f64) -> Option<(Pair, Pair)> {
    let (mut one, mut other, mut is_turned) = (from, to, false);
    if one.0 > other.0 {
        (one, other, is_turned) = (to, from, true);
    }
    if other.0 < 0.0 || one.0 > end {
        return None;
    }
    let at = |bound: f64| (bound, one.1 + (other.1 - one.1) * (bound - one.0) / (other.0 - one.0));
    let (low, high) = (if one.0 < 0.0 { at(0.0) } else { one }, if other.0 > end { at(end) } else { other });
    Some(if is_turned { (high, low) } else { (low, high) })
}

/// Returns the mean of TensorBoard: exponential, and without the pull of the first value.
pub(crate) fn smooth(points: &mut [(f64, f64)], weight: f64) {
    let (mut last, mut count) = (0.0, 0);
    for (_, value) in points.iter_mut().filter(|(_, value)| weight > 0.0 && value.is_finite()) {
        last = last * weight + (1.0 - weight) * *value;
        count += 1;
        *value = last / (1.0 - weight.powi(count));
    }
}

/// Points that no axis has room for.
#[cfg(test)]
pub(crate) const WITHOUT_ROOM: [&[(f64, f64)]; 6] = [
    &[(0.0, f64::NAN)],
    &[(f64::INFINITY, 1.0)],
    &[(0.0, f64::MAX), (1.0, f64::MIN)],
    &[(i64::MIN as f64, 1.0), (i64::MAX as f64, 1e-300)],
    &[(0.0, 5e-324), (1e-320, 0.0)],
    &[],
];

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Axes = Axes { is_log: false, across: None };

    fn curve(points: &[(f64, f64)]) -> Curve {
        Curve { name: "a".to_owned(), colour: 0, points: points.to_vec() }
    }

    fn drawn(width: usize, height: usize, curves: &[Curve], axes: Axes) -> Vec<String> {
        let mut grid = Grid::new(width, height);
        draw(&mut grid, Area { left: 0, top: 0, width, height }, curves, axes, false);
        grid.lines(false).collect()
    }

    #[test]
    fn a_line_goes_from_corner_to_corner() {
        assert_eq!(drawn(4, 2, &[curve(&[(0.0, 0.0), (7.0, 7.0)])], ALL), ["  ⡠⠊", "⡠⠊"]);
        assert_eq!(drawn(4, 2, &[curve(&[(0.0, 7.0), (7.0, 0.0)])], ALL), ["⠑⢄", "  ⠑⢄"]);
    }

    #[test]
    fn a_spike_of_one_point_is_there_and_a_gap_is_a_gap() {
        let mut points: Vec<_> = (0..100_000).map(|x| (f64::from(x), 0.0)).collect();
        points[70_000].1 = 1.0;
        let lines = drawn(20, 3, &[curve(&points)], ALL);
        assert!(lines[0].trim().chars().count() == 1, "{lines:?}");
        let gap = [(0.0, 1.0), (1.0, 1.0), (2.0, f64::NAN), (3.0, 1.0), (4.0, 1.0)];
        let lines = drawn(20, 1, &[curve(&gap)], ALL);
        assert!(lines[0].contains("   "), "{lines:?}");
    }

    #[test]
    fn values_that_no_axis_has_room_for_draw_nothing_and_break_nothing() {
        for points in WITHOUT_ROOM {
            for is_log in [false, true] {
                let axes = Axes { is_log, across: None };
                for (width, height) in [(80, 20), (24, 4), (3, 2), (1, 1), (0, 0)] {
                    _ = drawn(width, height, &[curve(points)], axes);
                }
            }
        }
    }

    #[test]
    fn a_part_that_is_looked_at_has_the_line_that_comes_in_from_outside() {
        let axes = Axes { is_log: false, across: Some((4.0, 6.0)) };
        let lines = drawn(10, 1, &[curve(&[(0.0, 1.0), (5.0, 1.0), (1e18, 1.0)])], axes);
        assert_eq!(lines[0].trim().chars().count(), 10, "{lines:?}");
    }

    #[test]
    fn text_is_cut_to_its_room_and_wide_letters_have_two_cells() {
        let mut grid = Grid::new(6, 3);
        assert_eq!(grid.text(0, 0, 6, "long name", Style::default()), 6);
        assert_eq!(grid.text(0, 1, 6, "損失値", Style::default()), 6);
        assert_eq!(grid.text(0, 2, 4, "損失値", Style::default()), 3);
        assert_eq!(grid.lines(false).collect::<Vec<_>>(), ["long …", "損失値", "損…"]);
    }
}
