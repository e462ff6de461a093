//! Files changed at random: a few of those that `examples/fuzz_decoder.rs` goes through for minutes.

use crate::fuzz::Corpus;
use crate::torch::files;

#[test]
fn changed_files_are_read_without_a_panic_and_without_a_wrong_record() {
    let corpus = Corpus::new(files().into_iter().map(|file| file.bytes).collect());
    let events: u64 = (0..1_000).map(|seed| corpus.run(seed)).sum();
    // Half of the bounds allow no event, and much of what is changed leaves none.
    assert!(events > 500, "{events}");
}
