//! Sub-runs: folders below that of the run, with few descriptors and a bounded memory, whatever names come.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support;
use crate::tensorboard::{files, read, scalars};
use forebay::sink::{BackwardStep, Sink, Tags, TensorBoardSink};
use forebay::{Batch, Collector, Record};
use proptest::prelude::*;

fn scalar(sub_run: &str, tag: &str, step: u64, value: f64) -> Record {
    Record::scalar(tag.to_owned(), value).with_step(step).with_sub_run(sub_run.to_owned())
}

/// Returns how many descriptors of this process lead into a folder.
#[cfg(target_os = "linux")]
fn descriptors(folder: &Path) -> usize {
    let folder = folder.canonicalize().unwrap();
    let all = std::fs::read_dir("/proc/self/fd").unwrap();
    // Other tests close theirs meanwhile.
    all.flatten()
        .filter(|entry| std::fs::read_link(entry.path()).is_ok_and(|file| file.starts_with(&folder)))
        .count()
}

#[test]
fn sub_runs_are_runs_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let sink = TensorBoardSink::create(folder.path()).unwrap();
    let collector = Collector::builder().sink(sink).start().unwrap();
    // Neither steps nor kinds of a tag meet those that it has elsewhere.
    for step in [5, 6] {
        collector.collect(Record::scalar("loss", 1.0).with_step(step));
        collector.collect(scalar("fold_1", "loss", step - 4, 2.0));
        collector.collect(scalar("eval/test", "loss", step - 5, 3.0));
    }
    collector.collect(Record::text("other", "x").with_step(0));
    collector.collect(scalar("fold_1", "other", 0, 4.0));
    collector.collect(Record::scalar("other", 5.0).with_sub_run("eval"));
    assert_eq!(collector.stop().unwrap().failed(), 0);
    support::law(&collector, 9);
    let of = |name: &str| scalars(&folder.path().join(name));
    let expected = |points: &[(&str, &[(i64, f32)])]| -> BTreeMap<String, Vec<(i64, f32)>> {
        points.iter().map(|(tag, points)| ((*tag).to_owned(), points.to_vec())).collect()
    };
    assert_eq!(of(""), expected(&[("loss", &[(5, 1.0), (6, 1.0)])]));
    assert_eq!(of("fold_1"), expected(&[("loss", &[(1, 2.0), (2, 2.0)]), ("other", &[(0, 4.0)])]));
    assert_eq!(of("eval/test"), expected(&[("loss", &[(0, 3.0), (1, 3.0)])]));
    assert_eq!(of("eval"), expected(&[("other", &[(0, 5.0)])]));
}

#[test]
#[cfg(target_os = "linux")]
fn many_sub_runs_hold_few_descriptors_and_have_one_file_each() {
    const RUNS: u64 = 200;
    for max_open in [None, Some(0), Some(3)] {
        let folder = tempfile::tempdir().unwrap();
        // The mapping of tags runs while a batch is written, and looks then.
        let (most, path) = (Arc::new(AtomicUsize::new(0)), folder.path().to_owned());
        let seen = Arc::clone(&most);
        let tags = Tags::mapped(move |name| {
            seen.fetch_max(descriptors(&path), Ordering::Relaxed);
            name.to_owned()
        });
        let mut sink = TensorBoardSink::create(folder.path()).unwrap().tags(tags);
        sink = max_open.into_iter().fold(sink, TensorBoardSink::max_open_runs);
        let collector = Collector::builder().sink(sink).start().unwrap();
        for step in 0..3 {
            for run in 0..RUNS {
                collector.collect(scalar(&format!("run_{run}"), "loss", step, run as f64));
            }
            // The last of them are open still, and are used again first.
            let last = RUNS - 1 - step;
            collector.collect(scalar(&format!("run_{last}"), "more", step, 0.5));
            assert!(collector.flush().unwrap().is_clean());
        }
        assert_eq!(collector.stop().unwrap().failed(), 0);
        support::law(&collector, 3 * RUNS + 3);
        // That of the run itself is one more.
        assert_eq!(most.load(Ordering::Relaxed), max_open.unwrap_or(32).max(1) + 1);
        for run in 0..RUNS {
            let folder = folder.path().join(format!("run_{run}"));
            assert_eq!(files(&folder).len(), 1, "run {run}");
            let value = run as f32;
            assert_eq!(scalars(&folder)["loss"], [(0, value), (1, value), (2, value)]);
        }
    }
}

#[test]
fn a_name_that_leads_elsewhere_is_refused_and_counted() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("runs/1");
    let collector = Collector::builder().sink(TensorBoardSink::create(&folder).unwrap()).start().unwrap();
    let outside = parent.path().join("outside").to_str().unwrap().to_owned();
    let bad = ["", "..", "../2", "a/../../2", "a//b", "./a", "a/", "a\0b", &outside, &"x".repeat(256)];
    for name in bad {
        collector.collect(scalar(name, "loss", 0, 1.0));
        collector.collect(scalar("good", "loss", 0, 1.0));
    }
    collector.stop().unwrap();
    let sink = &support::law(&collector, 20).sinks[0];
    assert_eq!((sink.delivered, sink.failed), (10, 10), "{sink:?}");
    assert!(sink.last_error.as_ref().unwrap().contains("a sub-run must be a relative path"), "{sink:?}");
    let names = |folder: &Path| {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.retain(|name| !name.to_str().unwrap().contains("tfevents"));
        names
    };
    assert_eq!(
        (names(parent.path()), names(&parent.path().join("runs"))),
        (vec!["runs".into()], vec!["1".into()])
    );
    assert_eq!(names(&folder), ["good"]);
}

#[test]
fn all_sub_runs_together_have_the_tags_of_one_run_and_the_least_used_are_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let sink = TensorBoardSink::create(folder.path()).unwrap().max_tags(4);
    let collector = Collector::builder().sink(sink).start().unwrap();
    // Five, of which the first is forgotten, and comes again behind its first points.
    for (name, step) in [("a", 0), ("b", 0), ("c", 0), ("d", 0), ("e", 0), ("a", 1), ("e", 1)] {
        collector.collect(scalar(name, "loss", step, 1.0));
    }
    // Alone, one may have all of them, and no more.
    for tag in ["1", "2", "3", "4", "5"] {
        collector.collect(scalar("f", tag, 7, 1.0));
    }
    collector.collect(scalar("a", "loss", 2, 1.0));
    // Those of the run itself are others.
    (0..4).for_each(|tag| _ = collector.collect(Record::scalar(format!("tag {tag}"), 1.0)));
    collector.stop().unwrap();
    let sink = &support::law(&collector, 17).sinks[0];
    assert_eq!((sink.delivered, sink.failed), (16, 1), "{sink:?}");
    let of = |name: &str| folder.path().join(name);
    assert_eq!(["a", "b", "c", "d", "e", "f"].map(|name| files(&of(name)).len()), [3, 1, 1, 1, 1, 1]);
    assert_eq!(scalars(&of("a"))["loss"], [(0, 1.0), (1, 1.0), (2, 1.0)]);
    let heads: Vec<i64> = files(&of("a")).iter().map(|path| read(path).0).collect();
    assert_eq!(heads, [0, 1, 2], "behind the points that they would delete");
    assert_eq!(scalars(&of("f")).keys().collect::<Vec<_>>(), ["1", "2", "3", "4"]);
    assert_eq!(scalars(folder.path()).len(), 4);
}

#[test]
fn a_file_that_is_removed_or_replaced_is_left_open_or_closed() {
    type Harm = fn(&Path);
    let remove: Harm = |file| std::fs::remove_file(file).unwrap();
    let replace: Harm = |file| {
        std::fs::rename(file, file.with_file_name("aside")).unwrap();
        std::fs::write(file, "mine").unwrap();
    };
    let append: Harm = |file| {
        use std::io::Write;
        std::fs::OpenOptions::new().append(true).open(file).unwrap().write_all(b"torn").unwrap();
    };
    let remove_folder: Harm = |file| std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
    for harm in [remove, replace, append, remove_folder] {
        for max_open in [1, 2] {
            let folder = tempfile::tempdir().unwrap();
            let mut sink = TensorBoardSink::create(folder.path()).unwrap().max_open_runs(max_open);
            let mut write = |name: &str, step| {
                sink.write_batch(&Batch::from_events(vec![scalar(name, "loss", step, 1.0)])).unwrap();
                Sink::<Record>::flush(&mut sink).unwrap();
            };
            write("a", 0);
            // With one at most, this closes the other.
            write("b", 0);
            let of_a = folder.path().join("a");
            let first = files(&of_a)[0].clone();
            harm(&first);
            let harmed = std::fs::read(&first).ok();
            write("a", 1);
            if let Some(harmed) = &harmed {
                assert_eq!(std::fs::read(&first).unwrap(), *harmed, "left as it is");
            }
            let last =
                files(&of_a).into_iter().rfind(|path| path.to_str().unwrap().contains("tfevents")).unwrap();
            assert!(harmed.is_none() || last != first, "{max_open}");
            let (head, events) = read(&last);
            assert_eq!((head, events.len(), events[0].step), (1, 1, 1), "{max_open}");
        }
    }
}

#[test]
fn a_folder_that_cannot_be_made_fails_its_records_alone() {
    let folder = tempfile::tempdir().unwrap();
    let collector =
        Collector::builder().sink(TensorBoardSink::create(folder.path()).unwrap()).start().unwrap();
    let in_the_way = folder.path().join("a");
    std::fs::write(&in_the_way, "").unwrap();
    for step in 0..3 {
        collector.collect(scalar("a", "loss", step, 1.0));
        collector.collect(scalar("a/b", "loss", step, 1.0));
        collector.collect(scalar("c", "loss", step, 1.0));
        collector.collect(Record::scalar("loss", 1.0).with_step(step));
    }
    assert!(!collector.flush().unwrap().is_clean());
    assert_eq!(collector.stats().sinks[0].failed, 6);
    std::fs::remove_file(&in_the_way).unwrap();
    collector.collect(scalar("a/b", "loss", 3, 1.0));
    collector.collect(scalar("a", "loss", 3, 1.0));
    collector.stop().unwrap();
    let sink = &support::law(&collector, 14).sinks[0];
    assert_eq!((sink.delivered, sink.failed), (8, 6), "{sink:?}");
    let steps = |name: &str| {
        scalars(&folder.path().join(name))["loss"].iter().map(|(step, _)| *step).collect::<Vec<_>>()
    };
    assert_eq!((steps("c"), steps("")), (vec![0, 1, 2], vec![0, 1, 2]));
    assert_eq!((steps("a"), steps("a/b")), (vec![3], vec![3]));
}

#[test]
fn settings_and_the_first_step_hold_for_sub_runs() {
    let folder = tempfile::tempdir().unwrap();
    let sink = TensorBoardSink::resume(folder.path(), 20).unwrap().filename_suffix(".mine").unwrap();
    let mut sink = sink.backward_steps(BackwardStep::NewFile);
    let counted = Record::scalar("counted", 1.0).with_sub_run("a");
    let records = vec![counted.clone(), counted, scalar("a", "loss", 30, 1.0), scalar("a", "loss", 25, 2.0)];
    sink.write_batch(&Batch::from_events(records)).unwrap();
    let files = files(&folder.path().join("a"));
    let heads: Vec<i64> = files.iter().map(|path| read(path).0).collect();
    assert_eq!(heads, [20, 25]);
    assert!(files.iter().all(|path| path.to_str().unwrap().ends_with(".mine")));
    assert_eq!(scalars(&folder.path().join("a"))["counted"], [(20, 1.0), (21, 1.0)]);
}

#[test]
#[cfg(unix)]
fn what_went_to_a_file_that_was_removed_is_written_again_and_nothing_else() {
    for max_open in [1, 2] {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = TensorBoardSink::create(folder.path()).unwrap().max_open_runs(max_open);
        let batch = |step| {
            let of = |name| scalar(name, "loss", step, 1.0);
            // The first is closed in the middle of the batch, where one is open at most.
            Batch::from_events(vec![
                of("a"),
                Record::scalar("loss", 1.0).with_step(step),
                of("b"),
                of("../bad"),
            ])
        };
        assert_eq!(sink.write_batch(&batch(0)).unwrap_err().failed_events(), Some(1));
        // Right before the next batch, which does not look: it did within the second.
        let names = ["a", "b"];
        names.iter().for_each(|name| std::fs::remove_file(&files(&folder.path().join(name))[0]).unwrap());
        assert_eq!(sink.write_batch(&batch(1)).unwrap_err().failed_events(), Some(1));
        for name in names {
            assert_eq!(scalars(&folder.path().join(name))["loss"], [(1, 1.0)], "{name}, {max_open}");
        }
        assert_eq!(scalars(folder.path())["loss"], [(0, 1.0), (1, 1.0)], "{max_open}");
    }
}

/// What happens to a sink, in an order that proptest makes up.
#[derive(Debug, Clone)]
enum Happening {
    /// Records of a batch: the folder and the tag of each.
    Batch(Vec<(usize, usize)>),
    Flush,
    /// The files of a folder are removed.
    Remove(usize),
    /// They are moved, and the sink is flushed.
    Move(usize),
}

/// The folders: that of the run, and those of sub-runs. The last name is refused.
const FOLDERS: [&str; 7] = ["", "a", "b", "a/c", "d", "e", "a/../f"];

fn happening() -> impl Strategy<Value = Happening> {
    let record = (0..FOLDERS.len(), 0..3_usize);
    prop_oneof![
        8 => prop::collection::vec(record, 0..12).prop_map(Happening::Batch),
        1 => Just(Happening::Flush),
        2 => (0..FOLDERS.len() - 1).prop_map(Happening::Remove),
        1 => (0..FOLDERS.len() - 1).prop_map(Happening::Move),
    ]
}

/// The points of a folder, by tag.
type Points = BTreeMap<String, Vec<(i64, f32)>>;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 60, ..Default::default() })]

    #[test]
    #[cfg(unix)]
    fn every_folder_has_its_points_in_order_whatever_happens(
        happenings in prop::collection::vec(happening(), 1..20),
        max_open in 1..4_usize,
        max_tags in 3..8_usize,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let sink = TensorBoardSink::create(folder.path()).unwrap();
        let mut sink = sink.max_open_runs(max_open).max_tags(max_tags);
        let mut expected = vec![Points::new(); FOLDERS.len() - 1];
        let mut step = 0;
        for happening in happenings {
            let of = |place: usize| folder.path().join(FOLDERS[place]);
            let own = |place: usize| if of(place).exists() { files(&of(place)) } else { Vec::new() };
            match happening {
                Happening::Batch(places) => {
                    let mut records = Vec::new();
                    let mut bad = 0;
                    for (place, tag) in places {
                        step += 1;
                        let tag = ["x", "y", "z"][tag];
                        let record = Record::scalar(tag, step as f64).with_step(step);
                        records.push(if place > 0 { record.with_sub_run(FOLDERS[place]) } else { record });
                        match expected.get_mut(place) {
                            Some(points) => {
                                points.entry(tag.to_owned()).or_default().push((step as i64, step as f32));
                            }
                            None => bad += 1,
                        }
                    }
                    let written = sink.write_batch(&Batch::from_events(records));
                    let failed = written.map_or_else(|error| error.failed_events().unwrap(), |()| 0);
                    prop_assert_eq!(failed, bad);
                }
                Happening::Flush => Sink::<Record>::flush(&mut sink).unwrap(),
                Happening::Remove(place) => {
                    own(place).iter().for_each(|file| std::fs::remove_file(file).unwrap());
                    expected[place].clear();
                }
                Happening::Move(place) => {
                    for file in own(place) {
                        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
                        let aside = folder.path().join("aside");
                        std::fs::create_dir_all(&aside).unwrap();
                        std::fs::rename(&file, aside.join(format!("{place} {name}"))).unwrap();
                    }
                    expected[place].clear();
                    Sink::<Record>::flush(&mut sink).unwrap();
                }
            }
        }
        for (place, expected) in expected.iter().enumerate() {
            let path = folder.path().join(FOLDERS[place]);
            let found = if path.exists() { scalars(&path) } else { Points::new() };
            prop_assert_eq!(&found, expected, "{}", FOLDERS[place]);
        }
        prop_assert!(!folder.path().join("f").exists());
    }
}
