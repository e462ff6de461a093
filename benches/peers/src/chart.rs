//! The table as bars, on a logarithmic scale: who is ten times slower is a decade away.

use std::error::Error;

use plotters::prelude::*;

use crate::Row;

const BURST: RGBColor = RGBColor(0x9a, 0xb8, 0xd8);
const STEPS: RGBColor = RGBColor(0x1f, 0x4e, 0x79);

pub(crate) fn draw(rows: &[Row], path: &str) -> Result<(), Box<dyn Error>> {
    let height = 60 + 34 * rows.len() as u32;
    let area = SVGBackend::new(path, (860, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let longest = rows.iter().map(|row| row.burst.max(row.steps)).fold(10.0, f64::max);
    let (left, width) = (210.0, 560.0);
    let x = |nanos: f64| (left + width * nanos.max(1.0).log10() / (1.1 * longest).log10()) as i32;
    let text = |size: i32| ("sans-serif", size).into_font().color(&BLACK);
    area.draw_text("nanoseconds a call, median, logarithmic", &text(15), (left as i32, 12))?;
    for (color, label, at) in [(STEPS, "10 events a step", 560), (BURST, "8,000 in a row", 700)] {
        area.draw(&Rectangle::new([(at, 12), (at + 12, 24)], color.filled()))?;
        area.draw_text(label, &text(14), (at + 18, 11))?;
    }
    let mut decade = 1.0;
    while decade <= longest {
        area.draw(&PathElement::new([(x(decade), 36), (x(decade), height as i32 - 12)], BLACK.mix(0.15)))?;
        decade *= 10.0;
    }
    for (row, y) in rows.iter().zip((44..).step_by(34)) {
        area.draw_text(row.name, &text(15), (8, y + 6))?;
        for (nanos, color, top) in [(row.steps, STEPS, y), (row.burst, BURST, y + 13)] {
            area.draw(&Rectangle::new([(x(1.0), top), (x(nanos), top + 11)], color.filled()))?;
            area.draw_text(&format!("{nanos:.0}"), &text(12), (x(nanos) + 5, top - 1))?;
        }
    }
    area.present()?;
    Ok(())
}
