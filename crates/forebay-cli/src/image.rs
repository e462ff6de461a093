//! A chart as an image: SVG, and PNG for what shows no SVG.
//!
//! One function draws both, onto a canvas. PNG is drawn here, since a machine that trains often has no fonts: a drawer of SVG would find
//! none, and leave out all letters. Those of DejaVu Sans are built in, for Latin, Greek and Cyrillic; any other letter is a box.

use std::fmt::Write as _;

use ttf_parser::{Face, GlyphId, OutlineBuilder};
use zeno::{Cap, Command, Fill, Join, Mask, Stroke, Style, Transform, Vector};

use crate::chart::{self, Axes, Curve, Frame};
use crate::out::{harmless, number};

/// A part of DejaVu Sans 2.37: assets/DejaVuSans-README says which. Its licence is assets/DejaVuSans-LICENSE.
const FONT: &[u8] = include_bytes!("../assets/DejaVuSans.ttf");

/// Pixels of PNG for each unit of an image: sharp on the screens of today.
const SCALE: f64 = 2.0;

/// Letters of a text that are measured and drawn: more than an image has room for.
const MAX_LETTERS: usize = 1_000;

/// Within so much of its first point, a part of a curve is a dot; and the length of the line that is drawn for it. The drawer leaves out what is
/// shorter than 0.01, and places of a few hundred have a precision of 0.0001.
const DOT: f64 = 0.05;
const DOT_LENGTH: f64 = 0.1;

const WIDTH: f64 = 800.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 780.0;
const TOP: f64 = 36.0;
const BOTTOM: f64 = 350.0;

/// Place in an image, from its left and its top.
type Place = (f64, f64);

/// Where a text is, seen from its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Anchor {
    Begin,
    Middle,
    End,
}

/// Colour of what is no curve.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ink {
    Text,
    Faint,
}

/// What a chart is drawn on.
trait Canvas {
    fn text(&mut self, at: Place, size: f64, anchor: Anchor, ink: Ink, text: &str);
    /// Draws a line of the grid.
    fn grid(&mut self, from: Place, to: Place);
    /// Draws a curve, which may have gaps between its parts. A part that is one point is a dot.
    fn curve(&mut self, colour: u32, parts: &[Vec<Place>]);
    /// Draws the mark of a curve beside its name.
    fn mark(&mut self, corner: Place, colour: u32);
}

/// Returns curves as an SVG image, which follows the dark mode of who looks at it.
pub(crate) fn svg(title: &str, below: &str, curves: &[Curve], axes: Axes) -> String {
    let height = height_of(curves);
    let mut svg = Svg(format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" font-family="system-ui, sans-serif" font-size="12">
<title>{title}</title>
<style>.page{{fill:#fff}}.text{{fill:#1c2024}}.faint{{fill:#60656c}}.grid{{stroke:#d9dde2}}.curve{{fill:none;stroke-width:1.5;stroke-linejoin:round}}
@media(prefers-color-scheme:dark){{.page{{fill:#16181b}}.text{{fill:#e6e8eb}}.faint{{fill:#9ba1a8}}.grid{{stroke:#3a3f45}}}}</style>
<rect class="page" width="{WIDTH}" height="{height}"/>
"#,
        title = markup(title)
    ));
    draw(&mut svg, title, below, curves, axes);
    svg.0 + "</svg>\n"
}

/// Returns curves as a PNG image.
pub(crate) fn png(
    title: &str,
    below: &str,
    curves: &[Curve],
    axes: Axes,
) -> Result<Vec<u8>, ::png::EncodingError> {
    let mut pixels = Pixels::new(WIDTH, height_of(curves));
    draw(&mut pixels, title, below, curves, axes);
    pixels.encode()
}

fn height_of(curves: &[Curve]) -> f64 {
    400.0 + 18.0 * curves.len() as f64
}

fn draw(canvas: &mut dyn Canvas, title: &str, below: &str, curves: &[Curve], axes: Axes) {
    canvas.text((LEFT, 22.0), 15.0, Anchor::Begin, Ink::Text, title);
    let Some(frame) = Frame::of(curves, axes) else {
        return canvas.text((LEFT, 60.0), 12.0, Anchor::Begin, Ink::Faint, "no values");
    };
    let (across, down) = (RIGHT - LEFT, BOTTOM - TOP);
    for tick in ticks(frame.low, frame.high, 5) {
        let y = TOP + (frame.high - tick) / (frame.high - frame.low) * down;
        let label = number(if frame.is_log { 10_f64.powf(tick) } else { tick });
        canvas.grid((LEFT, y), (RIGHT, y));
        canvas.text((LEFT - 8.0, y + 4.0), 12.0, Anchor::End, Ink::Faint, &label);
    }
    for tick in ticks(frame.left, frame.right, 8) {
        let x = LEFT + (tick - frame.left) / (frame.right - frame.left) * across;
        canvas.grid((x, TOP), (x, BOTTOM));
        canvas.text((x, BOTTOM + 16.0), 12.0, Anchor::Middle, Ink::Faint, &number(tick));
    }
    canvas.text((RIGHT, BOTTOM + 34.0), 12.0, Anchor::End, Ink::Faint, below);
    for (place, curve) in curves.iter().enumerate() {
        let mut parts = vec![Vec::new()];
        for point in &curve.points {
            let place = frame.place(*point).filter(|(x, _)| (0.0..=1.0).contains(x));
            match (place, parts.last_mut()) {
                (Some((x, y)), Some(part)) => part.push((LEFT + x * across, TOP + y * down)),
                (None, Some(part)) if !part.is_empty() => parts.push(Vec::new()),
                _ => {}
            }
        }
        parts.retain(|part| !part.is_empty());
        let (colour, y) = (chart::colour_of_image(curve.colour), BOTTOM + 50.0 + 18.0 * place as f64);
        canvas.curve(colour, &parts);
        canvas.mark((LEFT, y - 10.0), colour);
        canvas.text((LEFT + 18.0, y), 12.0, Anchor::Begin, Ink::Text, &curve.name);
    }
}

/// Returns round numbers between two others, about so many.
fn ticks(from: f64, to: f64, count: usize) -> Vec<f64> {
    let raw = (to / count as f64) - (from / count as f64);
    let size = 10_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|step| step * size).into_iter().find(|step| *step >= raw);
    let Some(step) = step.filter(|step| step.is_normal()) else { return vec![from] };
    let first = (from / step).ceil();
    (0..=2 * count).map(|number| (first + number as f64) * step).take_while(|tick| *tick <= to).collect()
}

/// SVG, so far.
struct Svg(String);

impl Canvas for Svg {
    fn text(&mut self, (x, y): Place, size: f64, anchor: Anchor, ink: Ink, text: &str) {
        let class = if ink == Ink::Text { "text" } else { "faint" };
        let anchor = match anchor {
            Anchor::Begin => "",
            Anchor::Middle => r#" text-anchor="middle""#,
            Anchor::End => r#" text-anchor="end""#,
        };
        let size = if size == 12.0 { String::new() } else { format!(r#" font-size="{size}""#) };
        let text = markup(text);
        _ = writeln!(self.0, r#"<text class="{class}" x="{x:.1}" y="{y:.1}"{size}{anchor}>{text}</text>"#);
    }

    fn grid(&mut self, from: Place, to: Place) {
        let ((x, y), (to_x, to_y)) = (from, to);
        _ = writeln!(self.0, r#"<path class="grid" d="M{x:.1} {y:.1}L{to_x:.1} {to_y:.1}"/>"#);
    }

    fn curve(&mut self, colour: u32, parts: &[Vec<Place>]) {
        let mut path = String::new();
        for part in parts {
            for (place, (x, y)) in part.iter().enumerate() {
                // A point alone is a dot: a line of no length, with round ends.
                _ = if place > 0 { write!(path, "L{x:.1} {y:.1}") } else { write!(path, "M{x:.1} {y:.1}h0") };
            }
        }
        _ = writeln!(
            self.0,
            r##"<path class="curve" stroke="#{colour:06x}" stroke-linecap="round" d="{path}"/>"##
        );
    }

    fn mark(&mut self, (x, y): Place, colour: u32) {
        _ = writeln!(
            self.0,
            r##"<rect x="{x}" y="{y}" width="12" height="12" rx="2" fill="#{colour:06x}"/>"##
        );
    }
}

/// Returns a text as XML has it: <https://www.w3.org/TR/xml/#syntax>. What no XML can have is a sign.
fn markup(text: &str) -> String {
    let mut escaped = String::new();
    for letter in harmless(text).chars() {
        match letter {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '"' => escaped.push_str("&quot;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// Pixels of three bytes, row by row.
struct Pixels {
    width: u32,
    height: u32,
    bytes: Vec<u8>,
    font: Option<Face<'static>>,
}

impl Pixels {
    fn new(width: f64, height: f64) -> Self {
        let (width, height) = ((width * SCALE) as u32, (height * SCALE) as u32);
        let bytes = vec![0xff; width as usize * height as usize * 3];
        Self { width, height, bytes, font: Face::parse(FONT, 0).ok() }
    }

    /// Fills or strokes a path, whose places are those of the image.
    fn paint(&mut self, path: &[Command], style: impl Into<Style<'static>>, colour: u32) {
        // Of the size of the path: most are small.
        let scale = Transform::scale(SCALE as f32, SCALE as f32);
        let (mask, place) = Mask::new(path).style(style).transform(Some(scale)).render();
        let [_, colour @ ..] = colour.to_be_bytes();
        let rows = mask.chunks_exact((place.width as usize).max(1));
        for (row, covers) in (i64::from(place.top)..).zip(rows) {
            if !(0..i64::from(self.height)).contains(&row) {
                continue;
            }
            for (column, cover) in (i64::from(place.left)..).zip(covers).filter(|(_, cover)| **cover > 0) {
                if !(0..i64::from(self.width)).contains(&column) {
                    continue;
                }
                // Both are inside.
                let at = 3 * (row as usize * self.width as usize + column as usize);
                for (part, own) in self.bytes[at..at + 3].iter_mut().zip(colour) {
                    let (before, own, cover) = (u32::from(*part), u32::from(own), u32::from(*cover));
                    // Both are bytes, and so is their mean.
                    *part = ((before * (255 - cover) + own * cover + 127) / 255) as u8;
                }
            }
        }
    }

    fn encode(&self) -> Result<Vec<u8>, ::png::EncodingError> {
        let mut file = Vec::new();
        let mut encoder = ::png::Encoder::new(&mut file, self.width, self.height);
        encoder.set_color(::png::ColorType::Rgb);
        encoder.set_depth(::png::BitDepth::Eight);
        let mut writer = encoder.write_header()?;
        writer.write_image_data(&self.bytes)?;
        writer.finish()?;
        Ok(file)
    }
}

impl Canvas for Pixels {
    fn text(&mut self, (x, y): Place, size: f64, anchor: Anchor, ink: Ink, text: &str) {
        let Some(font) = &self.font else { return };
        let scale = size as f32 / f32::from(font.units_per_em());
        let letters = letters_of(font, text);
        let advance = |letter: &GlyphId| f32::from(font.glyph_hor_advance(*letter).unwrap_or(0)) * scale;
        let width: f32 = letters.iter().map(advance).sum();
        let mut at = match anchor {
            Anchor::Begin => x as f32,
            Anchor::Middle => x as f32 - width / 2.0,
            Anchor::End => x as f32 - width,
        };
        let mut outline = Outline { path: Vec::new(), at, below: y as f32, scale };
        for letter in letters {
            // What is beyond the end of the image is seen by nobody.
            if at > WIDTH as f32 {
                break;
            }
            outline.at = at;
            font.outline_glyph(letter, &mut outline);
            at += advance(&letter);
        }
        let colour = if ink == Ink::Text { 0x1c2024 } else { 0x60656c };
        let path = outline.path;
        self.paint(&path, Fill::NonZero, colour);
    }

    fn grid(&mut self, from: Place, to: Place) {
        self.paint(&[Command::MoveTo(point(from)), Command::LineTo(point(to))], Stroke::new(1.0), 0xd9dde2);
    }

    fn curve(&mut self, colour: u32, parts: &[Vec<Place>]) {
        let mut path = Vec::new();
        for part in parts {
            let [first @ (x, y), ..] = part[..] else { continue };
            if part.iter().all(|at| (at.0 - x).abs() <= DOT && (at.1 - y).abs() <= DOT) {
                path.push(Command::MoveTo(point((x - DOT_LENGTH / 2.0, y))));
                path.push(Command::LineTo(point((x + DOT_LENGTH / 2.0, y))));
                continue;
            }
            path.push(Command::MoveTo(point(first)));
            path.extend(part[1..].iter().map(|at| Command::LineTo(point(*at))));
        }
        let mut style = Stroke::new(1.5);
        style.cap(Cap::Round).join(Join::Round);
        self.paint(&path, style, colour);
    }

    fn mark(&mut self, (x, y): Place, colour: u32) {
        let corners = [(x, y), (x + 12.0, y), (x + 12.0, y + 12.0), (x, y + 12.0)].map(point);
        let [first, rest @ ..] = corners;
        let mut path = vec![Command::MoveTo(first)];
        path.extend(rest.map(Command::LineTo));
        path.push(Command::Close);
        self.paint(&path, Fill::NonZero, colour);
    }
}

/// Returns the letters of a text in a font. Its first one is what it shows for a letter that it has not.
fn letters_of(font: &Face<'_>, text: &str) -> Vec<GlyphId> {
    let text: String = text.chars().take(MAX_LETTERS).collect();
    harmless(&text).chars().map(|letter| font.glyph_index(letter).unwrap_or(GlyphId(0))).collect()
}

fn point((x, y): Place) -> Vector {
    Vector::new(x as f32, y as f32)
}

/// Outlines of letters, as one path.
struct Outline {
    path: Vec<Command>,
    /// Where the next letter begins, and the line that it stands on.
    at: f32,
    below: f32,
    scale: f32,
}

impl Outline {
    /// Returns a place of the image. In a font, the second number is from the line upward.
    fn place(&self, x: f32, y: f32) -> Vector {
        Vector::new(self.at + x * self.scale, self.below - y * self.scale)
    }
}

impl OutlineBuilder for Outline {
    fn move_to(&mut self, x: f32, y: f32) {
        self.path.push(Command::MoveTo(self.place(x, y)));
    }

    fn line_to(&mut self, x: f32, y: f32) {
        self.path.push(Command::LineTo(self.place(x, y)));
    }

    fn quad_to(&mut self, x1: f32, y1: f32, x: f32, y: f32) {
        self.path.push(Command::QuadTo(self.place(x1, y1), self.place(x, y)));
    }

    fn curve_to(&mut self, x1: f32, y1: f32, x2: f32, y2: f32, x: f32, y: f32) {
        self.path.push(Command::CurveTo(self.place(x1, y1), self.place(x2, y2), self.place(x, y)));
    }

    fn close(&mut self) {
        self.path.push(Command::Close);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chart::WITHOUT_ROOM;

    const ALL: Axes = Axes { is_log: false, across: None };

    fn curve(name: &str, points: &[(f64, f64)]) -> Curve {
        Curve { name: name.to_owned(), colour: 0, points: points.to_vec() }
    }

    /// Returns the pixels of curves, row by row.
    fn pixels_of(curves: &[Curve], axes: Axes) -> (usize, Vec<[u8; 3]>) {
        let mut pixels = Pixels::new(WIDTH, height_of(curves));
        draw(&mut pixels, "", "", curves, axes);
        let bytes = pixels.bytes.chunks_exact(3).map(|pixel| [pixel[0], pixel[1], pixel[2]]);
        (pixels.width as usize, bytes.collect())
    }

    #[test]
    fn a_file_of_png_has_the_pixels() {
        let curves = [curve("a", &[(0.0, 0.0), (1.0, 1.0)])];
        let file = png("", "", &curves, ALL).unwrap();
        let mut reader = ::png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut bytes).unwrap();
        assert_eq!((info.color_type, info.bit_depth), (::png::ColorType::Rgb, ::png::BitDepth::Eight));
        let (width, pixels) = pixels_of(&curves, ALL);
        assert_eq!((info.width as usize, bytes), (width, pixels.concat()));
    }

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(ticks(0.0, 1.0, 5), [0.0, 0.2, 0.4, 0.6000000000000001, 0.8, 1.0]);
        assert_eq!(ticks(-3.0, 97.0, 5), [0.0, 20.0, 40.0, 60.0, 80.0]);
        assert_eq!(ticks(1.0, 1.0, 5), [1.0]);
    }

    #[test]
    fn values_that_no_axis_has_room_for_break_no_image() {
        for points in WITHOUT_ROOM {
            for is_log in [false, true] {
                let (axes, curves) = (Axes { is_log, across: None }, [curve("a", points)]);
                assert!(svg("t", "step", &curves, axes).ends_with("</svg>\n"));
                assert_eq!(pixels_of(&curves, axes).0, 1_600);
            }
        }
    }

    #[test]
    fn names_are_only_names_in_an_image() {
        let hostile = curve("</text><script>alert(1)</script>&\0", &[(0.0, 1.0)]);
        let image = svg("<b>", "step", &[hostile], ALL);
        assert!(!image.contains("<script") && !image.contains("<b>") && !image.contains('\0'));
    }

    #[test]
    fn pixels_have_the_curve_where_it_is_with_its_gap_and_its_single_point() {
        // From the lower left to the upper right, then a gap, and a point alone in the middle of the right.
        let points = [(0.0, 0.0), (5.0, 1.0), (6.0, f64::NAN), (10.0, 0.5), (10.0, f64::NAN)];
        let (width, pixels) = pixels_of(&[curve("", &points)], ALL);
        let is_blue = |x: f64, y: f64| {
            let (x, y) = ((LEFT + (RIGHT - LEFT) * x) * SCALE, (TOP + (BOTTOM - TOP) * y) * SCALE);
            let [red, green, blue] = pixels[y as usize * width + x as usize];
            red < 0x60 && (0x50..0xa0).contains(&green) && blue > 0x90
        };
        assert!(is_blue(0.25, 0.5) && is_blue(0.1, 0.8) && is_blue(0.4, 0.2));
        assert!(!is_blue(0.25, 0.4) && !is_blue(0.75, 0.5));
        // A line over the gap would be there.
        assert!(!is_blue(0.75, 0.25) && !is_blue(0.6, 0.1));
        assert!(is_blue(1.0, 0.5));
    }

    #[test]
    fn points_that_stand_alone_are_dots_at_every_place() {
        // One at each step, and every third one twice, with gaps between them; and the corners of the image.
        let alone = (0..=100).flat_map(|step| {
            let (at, count) = ((f64::from(step), 0.5), if step % 3 == 0 { 2 } else { 1 });
            std::iter::repeat_n(at, count).chain([(f64::from(step), f64::NAN)])
        });
        let corners = [(0.0, 0.0), (0.0, f64::NAN), (100.0, 1.0)];
        let curves = [curve("", &alone.collect::<Vec<_>>()), curve("", &corners)];
        let (width, pixels) = pixels_of(&curves, ALL);
        for step in 0..=100 {
            let x = (LEFT + (RIGHT - LEFT) * f64::from(step) / 100.0) * SCALE;
            let [red, _, blue] = pixels[((TOP + BOTTOM) / 2.0 * SCALE) as usize * width + x as usize];
            assert!(red < 0x60 && blue > 0x90, "{step}");
        }
    }

    #[test]
    fn of_a_long_text_the_begin_alone_is_measured() {
        let font = Face::parse(FONT, 0).unwrap();
        assert_eq!(letters_of(&font, &"x".repeat(1_000_000)).len(), MAX_LETTERS);
        assert_eq!(letters_of(&font, "größer").len(), 6);
    }

    #[test]
    fn letters_are_drawn_and_one_that_the_font_lacks_is_a_box() {
        let ink = |name: &str| {
            let (width, pixels) = pixels_of(&[curve(name, &[(0.0, 1.0)])], ALL);
            // Beside the mark of the first curve.
            let rows = pixels.chunks_exact(width).skip(((BOTTOM + 36.0) * SCALE) as usize);
            let places = rows.enumerate().flat_map(|(row, pixels)| {
                let dark = move |(column, pixel): (usize, &[u8; 3])| {
                    (column > ((LEFT + 16.0) * SCALE) as usize && pixel[0] < 0x80).then_some((row, column))
                };
                pixels.iter().enumerate().filter_map(dark)
            });
            places.collect::<Vec<_>>()
        };
        assert!(ink("").is_empty());
        let different = ["train.loss", "train.lass", "Größe", "потеря", "βeta", "損失", "損"].map(ink);
        for (place, one) in different.iter().enumerate() {
            assert!(one.len() > 20, "{place}: {}", one.len());
            assert!(!different[..place].contains(one), "{place}");
        }
        // A name that is longer than the image is cut.
        assert!(ink(&"x".repeat(10_000)).iter().all(|(_, column)| *column < 1_600));
    }
}
