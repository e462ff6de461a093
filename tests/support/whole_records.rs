//! Reads what a sink of JSON Lines has written. Apart from the other helpers, because it needs the feature `json-lines`.

/// Returns the whole lines of a file, which may end in the middle of a last one.
#[track_caller]
pub(crate) fn whole_records(path: &std::path::Path) -> Vec<forebay::Record> {
    let text = std::fs::read_to_string(path).unwrap();
    let whole = &text[..text.rfind('\n').map_or(0, |end| end + 1)];
    whole.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}
