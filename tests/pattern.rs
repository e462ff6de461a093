//! Patterns agree with those of a well-kept library, where both have them.
#![allow(clippy::unwrap_used, reason = "tests")]

use forebay::Pattern;
use globset::GlobBuilder;
use proptest::prelude::*;

/// Few letters, so that something fits.
fn patterns() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        4 => "[ab.]{1,2}",
        3 => Just("*".to_owned()),
        2 => Just("?".to_owned()),
        1 => Just("[a-b]".to_owned()),
        1 => Just("[!a]".to_owned()),
        1 => Just("[.a]".to_owned()),
    ];
    let pieces = prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat());
    let branches = prop::collection::vec(pieces.clone(), 1..3);
    (pieces.clone(), proptest::option::of(branches), pieces).prop_map(|(before, branches, after)| {
        let branches = branches.map_or(String::new(), |branches| format!("{{{}}}", branches.join(",")));
        format!("{before}{branches}{after}")
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 5_000, ..Default::default() })]

    #[test]
    fn as_globset_says(pattern in patterns(), names in prop::collection::vec("[ab.]{0,7}", 8)) {
        let ours = Pattern::new(&*pattern).unwrap();
        // A name is not a path: `*` crosses everything, and `**` is two stars.
        let text = {
            let mut text = pattern.clone();
            while text.contains("**") {
                text = text.replace("**", "*");
            }
            text
        };
        let theirs = GlobBuilder::new(&text).literal_separator(false).empty_alternates(true).build().unwrap();
        let theirs = theirs.compile_matcher();
        for name in names {
            prop_assert_eq!(ours.matches(&name), theirs.is_match(&name), "{} {:?}", pattern, name);
        }
    }
}
