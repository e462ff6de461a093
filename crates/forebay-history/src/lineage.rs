//! Run and generation of a record: its place among the begins of runs decides them.

use forebay::{Event, Record, Value, event::catalog::training};

/// Section of a history, from one begin of a run until the next.
#[derive(Debug, Clone, PartialEq)]
struct Section {
    run_id: String,
    generation: u64,
    /// The moment of its begin, in nanoseconds since 1970.
    unix_nanos: u64,
    /// First step from which on a later generation has taken the place of this one.
    superseded_from: Option<u64>,
}

/// Sections of a history, as far as it was seen.
#[derive(Debug, Default)]
pub(crate) struct Lineage {
    sections: Vec<Section>,
    /// First superseded step, as in a section, for the records before the first begin: those of a run whose begin is
    /// not there any more.
    leading_superseded_from: Option<u64>,
}

/// Conditions on the run and the generation of records. All must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Wanted {
    pub(crate) run_id: Option<String>,
    pub(crate) generation: Option<u64>,
    /// True if of each step the last generation is asked for.
    pub(crate) is_current: bool,
}

impl Wanted {
    /// Returns whether there is no condition.
    pub(crate) fn is_everything(&self) -> bool {
        *self == Self::default()
    }
}

impl Lineage {
    /// Sees the next record, and says how many sections have begun by then.
    pub(crate) fn see(&mut self, record: &Record) -> usize {
        if Event::name(record) == training::Started::NAME {
            let run_id = text_of(record, "run_id").to_owned();
            if let Some(step) = number_of(record, "first_step") {
                let earlier = self.sections.iter_mut().filter(|section| section.run_id == run_id);
                let mut earlier: Vec<_> = earlier.map(|section| &mut section.superseded_from).collect();
                if earlier.is_empty() {
                    earlier.push(&mut self.leading_superseded_from);
                }
                for superseded_from in earlier {
                    *superseded_from = Some(superseded_from.map_or(step, |before| before.min(step)));
                }
            }
            let (generation, unix_nanos) = (generation_of(record), record.unix_nanos());
            self.sections.push(Section { run_id, generation, unix_nanos, superseded_from: None });
        }
        self.sections.len()
    }

    /// Says how many of the sections, which are all known by now, have begun by a record, where so many had begun before it. `None` for the
    /// begin of one that is not known: it came since. The first ones may not be there any more.
    pub(crate) fn begun_by(&self, record: &Record, before: usize) -> Option<usize> {
        if Event::name(record) != training::Started::NAME {
            return Some(before);
        }
        let (run_id, generation) = (text_of(record, "run_id"), generation_of(record));
        let is_it = |section: &Section| {
            section.unix_nanos == record.unix_nanos()
                && section.generation == generation
                && section.run_id == run_id
        };
        self.sections.get(before..)?.iter().position(is_it).map(|place| before + place + 1)
    }

    /// Returns whether a record of that step is asked for. It came when so many sections had begun.
    pub(crate) fn has(&self, wanted: &Wanted, begun: usize, step: Option<u64>) -> bool {
        let section = begun.checked_sub(1).and_then(|last| self.sections.get(last));
        let superseded_from = section.map_or(self.leading_superseded_from, |section| section.superseded_from);
        let is_superseded = step.zip(superseded_from).is_some_and(|(step, from)| step >= from);
        let is_of =
            |what: fn(&Section, &Wanted) -> bool| section.is_some_and(|section| what(section, wanted));
        (wanted.run_id.is_none() || is_of(|section, wanted| wanted.run_id.as_ref() == Some(&section.run_id)))
            && (wanted.generation.is_none()
                || is_of(|section, wanted| wanted.generation == Some(section.generation)))
            && !(wanted.is_current && is_superseded)
    }
}

/// Returns the generation that a begin tells of.
pub(crate) fn generation_of(begin: &Record) -> u64 {
    number_of(begin, "generation").unwrap_or(1)
}

fn text_of<'a>(begin: &'a Record, name: &str) -> &'a str {
    begin.value().as_fields().and_then(|fields| fields.get(name)).and_then(Value::as_str).unwrap_or_default()
}

fn number_of(begin: &Record, name: &str) -> Option<u64> {
    let number = begin.value().as_fields().and_then(|fields| fields.get(name)).and_then(Value::as_i64);
    number.and_then(|number| u64::try_from(number).ok())
}
