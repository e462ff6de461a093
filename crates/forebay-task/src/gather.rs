//! Gathering of results.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;

use crate::user_code::drop_quietly;

/// Gathers the results `R` of a task into one `O`. Defaults to [`count`](Gather::count), which keeps none of them.
///
/// One worker at a time calls its functions, so they need no lock. A panic of theirs is a failure of the item
/// ([`Failure::Gather`](crate::Failure::Gather)). All but [`count`](Gather::count), [`last`](Gather::last) and a
/// [`fold`](Gather::fold) that does not grow take memory with every result.
///
/// ```
/// use forebay_task::{self as task, Gather, Strategy};
///
/// # fn main() -> Result<(), forebay_task::TaskError> {
/// let words = || task::from_iter(["ring", "lane", "gate", "sink", "worker"]);
/// let by_length = words().map(|word| *word).gather(Gather::by_key(|word: &&str| word.len())).run()?.results;
/// assert_eq!(by_length[&4], ["ring", "lane", "gate", "sink"]);
/// let letters = words().map(|word| word.len()).gather(Gather::fold(0, |sum, length| *sum += length)).run()?;
/// assert_eq!(letters.results, 22);
/// # Ok(())
/// # }
/// ```
pub struct Gather<R, O> {
    steps: Box<dyn Gathering<R, O>>,
}

/// Way of gathering, behind [`Gather`].
pub(crate) trait Gathering<R, O>: Send {
    /// Takes the result of the item `number`, counted from 0 in the order of sending.
    fn add(&mut self, number: u64, result: R);

    fn finish(self: Box<Self>) -> O;
}

/// State, step and end of a gathering.
struct Steps<S, A, F> {
    so_far: S,
    add: A,
    finish: F,
}

impl<R, O, S, A, F> Gathering<R, O> for Steps<S, A, F>
where
    S: Send,
    A: FnMut(&mut S, u64, R) + Send,
    F: FnOnce(S) -> O + Send,
{
    fn add(&mut self, number: u64, result: R) {
        (self.add)(&mut self.so_far, number, result);
    }

    fn finish(self: Box<Self>) -> O {
        let Self { so_far, add, finish } = *self;
        // Its captures are user code: a panic of theirs must not lose what was gathered.
        drop_quietly(add);
        finish(so_far)
    }
}

impl<R: 'static, O: 'static> Gather<R, O> {
    fn new<S: Send + 'static>(
        so_far: S,
        add: impl FnMut(&mut S, u64, R) + Send + 'static,
        finish: impl FnOnce(S) -> O + Send + 'static,
    ) -> Self {
        Self::from_steps(Steps { so_far, add, finish })
    }

    pub(crate) fn from_steps(steps: impl Gathering<R, O> + 'static) -> Self {
        Self { steps: Box::new(steps) }
    }

    pub(crate) fn add(&mut self, number: u64, result: R) {
        self.steps.add(number, result);
    }

    pub(crate) fn finish(self) -> O {
        self.steps.finish()
    }
}

impl<R: Send + 'static> Gather<R, Vec<R>> {
    /// Gathers all results, in the order in which handlers ended.
    pub fn list() -> Self {
        Self::new(Vec::new(), |list, _, result| list.push(result), |list| list)
    }

    /// Gathers all results, in the order in which their items were sent. Items that failed leave no hole.
    pub fn ordered() -> Self {
        let by_number = |mut list: Vec<(u64, R)>| {
            list.sort_unstable_by_key(|(number, _)| *number);
            list.into_iter().map(|(_, result)| result).collect()
        };
        Self::new(Vec::new(), |list, number, result| list.push((number, result)), by_number)
    }

    /// Gathers the last `max` results, in the order in which handlers ended.
    pub fn last(max: usize) -> Self {
        let add = move |ring: &mut VecDeque<R>, _, result| {
            ring.push_back(result);
            if ring.len() > max {
                ring.pop_front();
            }
        };
        Self::new(VecDeque::new(), add, Vec::from)
    }
}

impl<R: 'static> Gather<R, u64> {
    /// Counts the results.
    pub fn count() -> Self {
        Self::new(
            0,
            |count, _, result| {
                drop(result);
                *count += 1;
            },
            |count| count,
        )
    }
}

impl<R: Send + 'static, K: Ord + Send + 'static> Gather<R, BTreeMap<K, Vec<R>>> {
    /// Gathers all results by a key. Results of one key come in the order in which handlers ended.
    pub fn by_key(mut key: impl FnMut(&R) -> K + Send + 'static) -> Self {
        let add = move |map: &mut BTreeMap<K, Vec<R>>, _, result| {
            map.entry(key(&result)).or_default().push(result);
        };
        Self::new(BTreeMap::new(), add, |map| map)
    }
}

impl<R: 'static, A: Send + 'static> Gather<R, A> {
    /// Folds the results into one value, in the order in which handlers ended. If `add` panics, the value stays as it left it.
    pub fn fold(initial: A, mut add: impl FnMut(&mut A, R) + Send + 'static) -> Self {
        Self::new(initial, move |so_far, _, result| add(so_far, result), |so_far| so_far)
    }
}

impl<R, O> fmt::Debug for Gather<R, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gather").finish_non_exhaustive()
    }
}
