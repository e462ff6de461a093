//! Patterns agree with those of a well-kept library, where both have them.

use forebay::Pattern;
use globset::GlobBuilder;
use proptest::prelude::*;

/// Generates patterns of few letters, so that something fits.
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

#[test]
fn forty_cases_that_people_write() {
    let cases = [
        // Exactly.
        ("train.loss", "train.loss", true),
        ("train.loss", "train.losses", false),
        ("train.loss", "Train.loss", false),
        ("train.loss", "trainXloss", false),
        ("", "", true),
        ("", "a", false),
        // A star crosses dots, and stands for nothing too.
        ("*", "", true),
        ("*", "a.b.c", true),
        ("training.*", "training.started", true),
        ("training.*", "training.epoch.completed", true),
        ("training.*", "training.", true),
        ("training.*", "training", false),
        ("training.*", "pretraining.started", false),
        ("*.error", "plugin.error", true),
        ("*.error", "a.b.error", true),
        ("*.error", ".error", true),
        ("*.error", "error", false),
        ("*.error", "plugin.errors", false),
        ("model.checkpoint_*", "model.checkpoint_saved", true),
        ("model.checkpoint_*", "model.checkpoint", false),
        ("*loss*", "train.loss.mean", true),
        ("a*b*c", "a-b-b-c", true),
        ("a*b*c", "a-c-b", false),
        ("**", "a.b", true),
        // One character, dots included, of any length in bytes.
        ("layer.?", "layer.7", true),
        ("layer.?", "layer.17", false),
        ("layer.?", "layer.", false),
        ("layer.?", "layer.\u{1f984}", true),
        ("?.?", "a.b", true),
        // Classes.
        ("gpu[0-3].load", "gpu2.load", true),
        ("gpu[0-3].load", "gpu4.load", false),
        ("gpu[!0-3].load", "gpu4.load", true),
        ("[*]", "*", true),
        ("[*]", "a", false),
        ("[]a]", "]", true),
        // One of several.
        ("model.{saved,loaded}", "model.loaded", true),
        ("model.{saved,loaded}", "model.removed", false),
        ("{train,val}.*", "val.loss", true),
        ("{a,b{c,d}}x", "bdx", true),
        ("a{,b}", "a", true),
    ];
    assert_eq!(cases.len(), 40);
    for (pattern, name, expected) in cases {
        assert_eq!(Pattern::new(pattern).unwrap().matches(name), expected, "{pattern:?} {name:?}");
    }
}
