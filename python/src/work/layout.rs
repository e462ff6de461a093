//! Charts of TensorBoard's tab of custom scalars.

use forebay::Record;
use tfevents::{Category, Chart, ChartContent, LAYOUT, Margin, Summary};

/// Category: its title, and its charts.
pub(crate) type CategoryRow = (String, Vec<ChartRow>);

/// Chart: its title, whether it shows a value between two others, and its tags.
pub(crate) type ChartRow = (String, bool, Vec<String>);

/// Gives a record the charts.
pub(crate) fn encode(record: &mut Record, categories: &[CategoryRow]) {
    // Borrowed from the inside out: tags, curves, charts, categories.
    let tags: Vec<Vec<Vec<&str>>> = categories
        .iter()
        .map(|(_, charts)| {
            charts.iter().map(|(_, _, tags)| tags.iter().map(String::as_str).collect()).collect()
        })
        .collect();
    let margins: Vec<Vec<[Margin<'_>; 1]>> = tags
        .iter()
        .map(|charts| {
            charts
                .iter()
                .map(|tags| match tags[..] {
                    [value, lower, upper] => [Margin { value, lower, upper }],
                    _ => [Margin::default()],
                })
                .collect()
        })
        .collect();
    let charts: Vec<Vec<Chart<'_>>> = categories
        .iter()
        .enumerate()
        .map(|(category, (_, charts))| {
            let content = |place: usize, is_margin| match is_margin {
                true => ChartContent::Margin(&margins[category][place]),
                false => ChartContent::Multiline(&tags[category][place]),
            };
            let charts = charts.iter().enumerate();
            charts
                .map(|(place, (title, is_margin, _))| Chart { title, content: content(place, *is_margin) })
                .collect()
        })
        .collect();
    let shown = categories.iter().zip(&charts);
    let shown: Vec<Category<'_>> =
        shown.map(|((title, _), charts)| Category { title, charts, is_closed: false }).collect();
    super::encode(record, LAYOUT, Summary::Layout(&shown));
}
