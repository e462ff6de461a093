//! `Value`: what a record carries, a number or something larger behind one pointer.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::time::Duration;

use super::spares::Spares;
use super::{Encoded, Image, Name};
use crate::sync::Arc;

/// Value of a record or of one of its fields. It has 16 bytes; numbers and booleans cost no allocation.
///
/// Lists and fields may be nested [`MAX_DEPTH`](Self::MAX_DEPTH) levels deep. A deeper level is cut off where the
/// value is put together: [`TooDeep`](Self::TooDeep) takes its place, and `collect` rejects the record as
/// [`Oversize`](crate::Outcome::Oversize). No value is deep enough to exhaust a stack when it is written, compared or
/// dropped.
///
/// # Examples
///
/// ```
/// use forebay::Value;
///
/// assert_eq!(Value::from(0.5).as_f64(), Some(0.5));
/// assert_eq!(Value::from(3).as_i64(), Some(3));
/// assert_eq!(Value::from("text").as_str(), Some("text"));
/// assert_eq!(Value::from(true).as_str(), None);
/// assert_eq!(size_of::<Value>(), 16);
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum Value {
    /// No value: the record says only that something happened.
    #[default]
    Empty,
    /// A floating-point number. NaN and infinities are values like others.
    Scalar(f64),
    /// A whole number.
    Integer(i64),
    /// Yes or no.
    Bool(bool),
    /// Text.
    Text(Text),
    /// A distribution.
    Histogram(Box<Histogram>),
    /// A picture.
    Image(Box<Image>),
    /// A message of TensorBoard, encoded already.
    Encoded(Box<Encoded>),
    /// Several values in order.
    List(Box<List>),
    /// Named values.
    Fields(Fields),
    /// Marker of lists or fields that were nested deeper than [`MAX_DEPTH`](Value::MAX_DEPTH). It cannot be
    /// serialised.
    TooDeep,
}

impl Value {
    /// The most levels of lists and fields that a value may have: 100. A number has none, a list of numbers has one.
    /// Fields whose first name begins with `$` count as two, because JSON writes them with one more level.
    pub const MAX_DEPTH: usize = 100;

    /// Returns the number, if the value is a scalar or an integer.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Value::Scalar(value) => Some(*value),
            Value::Integer(value) => Some(*value as f64),
            _ => None,
        }
    }

    /// Returns the integer, if the value is one.
    pub fn as_i64(&self) -> Option<i64> {
        match self {
            Value::Integer(value) => Some(*value),
            _ => None,
        }
    }

    /// Returns the boolean, if the value is one.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// Returns the text, if the value is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Returns the fields, if the value has any.
    pub fn as_fields(&self) -> Option<&Fields> {
        match self {
            Value::Fields(fields) => Some(fields),
            _ => None,
        }
    }

    /// Returns the number of levels of lists and fields in it. It is more than [`MAX_DEPTH`](Self::MAX_DEPTH) where a
    /// level was cut off.
    #[inline]
    pub fn depth(&self) -> usize {
        usize::from(self.levels())
    }

    #[inline]
    fn levels(&self) -> u8 {
        match self {
            Value::List(list) => list.depth,
            Value::Fields(fields) => fields.levels(),
            Value::TooDeep => TOO_DEEP,
            _ => 0,
        }
    }

    /// Returns the value, or [`TooDeep`](Self::TooDeep) where it does not fit beneath that many levels.
    fn beneath(self, levels: u8) -> Self {
        if self.levels() > MAX_LEVELS - levels { Value::TooDeep } else { self }
    }

    /// Returns about how many bytes it owns on the heap.
    // Asked in `collect`: a number costs a look at its kind, and nothing is given the address of the value itself.
    #[inline]
    pub(crate) fn heap_size(&self) -> usize {
        match self {
            Value::Empty | Value::Scalar(_) | Value::Integer(_) | Value::Bool(_) => 0,
            Value::Text(text) => text.heap_size(),
            Value::Histogram(h) => size_of::<Histogram>() + 8 * (h.edges.len() + h.counts.len()),
            Value::Image(image) => size_of::<Image>() + image.bytes.len(),
            Value::Encoded(encoded) => size_of::<Encoded>() + encoded.bytes().len(),
            Value::List(list) => list.heap_size(),
            Value::Fields(fields) => fields.heap_size(),
            // Only an event that owns something is asked whether it is too deep.
            Value::TooDeep => 1,
        }
    }
}

const MAX_LEVELS: u8 = Value::MAX_DEPTH as u8;
const TOO_DEEP: u8 = MAX_LEVELS + 1;

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Empty => f.write_str("-"),
            Value::Scalar(value) => value.fmt(f),
            Value::Integer(value) => value.fmt(f),
            Value::Bool(value) => value.fmt(f),
            Value::Text(text) => f.write_str(text),
            Value::Histogram(h) => write!(f, "histogram of {} in {}..{}", h.count(), h.min(), h.max()),
            Value::Image(image) => write!(f, "image {} x {}", image.width, image.height),
            Value::Encoded(encoded) => encoded.fmt(f),
            Value::List(list) => {
                f.write_str("[")?;
                for (i, value) in list.iter().enumerate() {
                    write!(f, "{}{value}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("]")
            }
            Value::Fields(fields) => {
                f.write_str("{")?;
                for (i, (name, value)) in fields.iter().enumerate() {
                    write!(f, "{}{name}: {value}", if i == 0 { "" } else { ", " })?;
                }
                f.write_str("}")
            }
            Value::TooDeep => f.write_str("(nested too deep)"),
        }
    }
}

macro_rules! value_from {
    ($($type:ty => |$value:ident| $make:expr;)*) => {$(
        impl From<$type> for Value {
            fn from($value: $type) -> Self {
                $make
            }
        }
    )*};
}

value_from! {
    () => |_nothing| Value::Empty;
    f64 => |value| Value::Scalar(value);
    f32 => |value| Value::Scalar(value.into());
    i64 => |value| Value::Integer(value);
    i32 => |value| Value::Integer(value.into());
    i16 => |value| Value::Integer(value.into());
    i8 => |value| Value::Integer(value.into());
    u32 => |value| Value::Integer(value.into());
    u16 => |value| Value::Integer(value.into());
    u8 => |value| Value::Integer(value.into());
    bool => |value| Value::Bool(value);
    &str => |value| Value::Text(value.into());
    String => |value| Value::Text(value.into());
    Text => |value| Value::Text(value);
    Histogram => |value| Value::Histogram(Box::new(value));
    Image => |value| Value::Image(Box::new(value));
    Encoded => |value| Value::Encoded(Box::new(value));
    List => |value| Value::List(Box::new(value));
    Fields => |value| Value::Fields(value);
    Duration => |value| Value::Scalar(value.as_secs_f64());
}

impl From<u64> for Value {
    /// Makes an integer up to `i64::MAX`, and the nearest scalar above that.
    fn from(value: u64) -> Self {
        i64::try_from(value).map_or(Value::Scalar(value as f64), Value::Integer)
    }
}

impl From<usize> for Value {
    /// Converts like `u64`.
    fn from(value: usize) -> Self {
        (value as u64).into()
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(values: Vec<T>) -> Self {
        values.into_iter().collect::<List>().into()
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    /// Makes [`Value::Empty`] of `None`.
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Empty, Into::into)
    }
}

/// Text behind one thin pointer, so that a [`Value`] stays small. It is its own, or shared, or a literal.
///
/// # Examples
///
/// ```
/// use forebay::Value;
/// use forebay::event::Text;
///
/// let text = Text::from("loss is NaN");
/// assert!(text.starts_with("loss"));
/// assert_eq!(text, Text::from_static(&"loss is NaN")); // allocates nothing
/// assert_eq!(size_of::<Value>(), 16);
/// ```
#[derive(Clone)]
pub struct Text(Repr);

#[derive(Clone)]
enum Repr {
    Own(Box<Box<str>>),
    Static(&'static &'static str),
    Shared(Arc<Box<str>>),
}

impl Text {
    /// Makes a text of a literal, without an allocation: `Text::from_static(&"INFO")`.
    pub const fn from_static(text: &'static &'static str) -> Self {
        Self(Repr::Static(text))
    }

    /// Returns the text so that its clones share it: for a text that goes into many records.
    ///
    /// ```
    /// use forebay::event::Text;
    ///
    /// let user = Text::from("ada").into_shared();
    /// let clone = user.clone(); // allocates nothing
    /// assert_eq!((&*clone, user.as_ptr()), ("ada", clone.as_ptr()));
    /// ```
    pub fn into_shared(self) -> Self {
        match self.0 {
            Repr::Own(text) => Self(Repr::Shared(Arc::new(*text))),
            repr => Self(repr),
        }
    }

    /// Returns about how many bytes it owns on the heap. What is shared counts for each of its clones.
    #[inline]
    fn heap_size(&self) -> usize {
        match &self.0 {
            Repr::Own(text) => text.len() + size_of::<Box<str>>(),
            Repr::Shared(text) => text.len() + size_of::<Box<str>>(),
            Repr::Static(_) => 0,
        }
    }
}

impl Deref for Text {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        match &self.0 {
            Repr::Own(text) => text,
            Repr::Static(text) => text,
            Repr::Shared(text) => text,
        }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text {}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(Repr::Own(Box::new(text.into())))
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(Repr::Own(Box::new(text.into_boxed_str())))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self)
    }
}

/// List of values in order: a slice that can grow.
///
/// # Examples
///
/// ```
/// use forebay::event::List;
/// use forebay::{Record, Value};
///
/// let mut shape = List::from(vec![64, 28]);
/// shape.push(28);
/// assert_eq!(shape[2], Value::Integer(28));
/// assert_eq!(Record::with_value("batch.shape", vec![64, 28, 28]).value(), &Value::from(shape.to_vec()));
/// ```
#[derive(Clone, PartialEq)]
pub struct List {
    values: Vec<Value>,
    /// The number of levels, from 1; `TOO_DEEP` where one was cut off.
    depth: u8,
}

impl Default for List {
    fn default() -> Self {
        Self { values: Vec::new(), depth: 1 }
    }
}

impl List {
    /// Makes an empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of levels, at least 1. It is more than [`Value::MAX_DEPTH`] where one was cut off.
    pub(super) fn depth(&self) -> usize {
        usize::from(self.depth)
    }

    /// Appends a value. One that would be nested too deep becomes [`Value::TooDeep`].
    pub fn push(&mut self, value: impl Into<Value>) {
        let value = value.into().beneath(1);
        self.depth = self.depth.max(value.levels().saturating_add(1)).min(TOO_DEEP);
        self.values.push(value);
    }

    /// Returns about how many bytes they occupy.
    fn heap_size(&self) -> usize {
        let size: usize = self.iter().map(|value| size_of::<Value>() + value.heap_size()).sum();
        size_of::<Self>() + size
    }
}

impl Deref for List {
    type Target = [Value];

    fn deref(&self) -> &[Value] {
        &self.values
    }
}

impl<V: Into<Value>> FromIterator<V> for List {
    fn from_iter<I: IntoIterator<Item = V>>(values: I) -> Self {
        let mut list = Self::new();
        list.extend(values);
        list
    }
}

impl<V: Into<Value>> Extend<V> for List {
    fn extend<I: IntoIterator<Item = V>>(&mut self, values: I) {
        let values = values.into_iter();
        self.values.reserve(values.size_hint().0);
        values.for_each(|value| self.push(value));
    }
}

impl<V: Into<Value>> From<Vec<V>> for List {
    fn from(values: Vec<V>) -> Self {
        values.into_iter().collect()
    }
}

impl IntoIterator for List {
    type Item = Value;
    type IntoIter = std::vec::IntoIter<Value>;

    fn into_iter(self) -> Self::IntoIter {
        self.values.into_iter()
    }
}

impl<'a> IntoIterator for &'a List {
    type Item = &'a Value;
    type IntoIter = std::slice::Iter<'a, Value>;

    fn into_iter(self) -> Self::IntoIter {
        self.values.iter()
    }
}

impl fmt::Debug for List {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.values, f)
    }
}

/// Collection of named values in the order in which they were added. Made for few; many are found by an index.
///
/// # Examples
///
/// ```
/// use forebay::{Fields, Record};
///
/// let fields = Fields::new().with("epoch", 3).with("loss", 0.12);
/// assert_eq!(fields.get("loss").and_then(|loss| loss.as_f64()), Some(0.12));
/// let names: Vec<&str> = fields.iter().map(|(name, _)| &**name).collect();
/// assert_eq!(names, ["epoch", "loss"]);
/// let record = Record::fields("epoch.completed", fields);
/// assert_eq!(record.value().as_fields().map(|fields| fields.len()), Some(2));
/// ```
#[derive(Default)]
pub struct Fields {
    /// `None` as long as there is no field.
    list: Option<Box<FieldList>>,
}

/// A list that has ended. Its box is used again as well.
type Spare = Box<FieldList>;

/// Lists that have ended, for fields that begin.
static SPARES: Spares<Spare> = Spares::new();

thread_local! {
    /// Lists that have ended on this thread.
    static OWN_SPARES: RefCell<Vec<Spare>> = const { RefCell::new(Vec::new()) };
}

/// Space of a new list, so that it serves most fields.
const MIN_CAPACITY: usize = 8;

/// Most space of a list that is used again: 512 bytes.
const MAX_SPARE_CAPACITY: usize = 16;

/// What [`Fields`] have on the heap.
struct FieldList {
    entries: Vec<(Name, Value)>,
    /// Set once there are more than `MAX_UNINDEXED`. Otherwise, reading and changing many fields would take the
    /// square of their number.
    index: Option<Box<Index>>,
    /// What the entries occupy, with all that is below them. It saturates.
    bytes: usize,
    /// The number of levels, from 1; `TOO_DEEP` where one was cut off.
    depth: u8,
}

impl FieldList {
    /// Returns an empty list with space for that many fields.
    fn take(fields: usize) -> Box<Self> {
        let spare = OWN_SPARES.try_with(|own| SPARES.take(&mut *own.try_borrow_mut().ok()?));
        if let Ok(Some(mut list)) = spare {
            list.entries.reserve(fields);
            return list;
        }
        let entries = Vec::with_capacity(fields.max(MIN_CAPACITY));
        Box::new(Self { entries, index: None, bytes: 0, depth: 1 })
    }

    /// Empties a list and keeps it, unless it is large.
    fn keep(mut self: Box<Self>) {
        // Before the lists of this thread are borrowed: fields in these fields come here as well.
        self.entries.clear();
        (self.index, self.bytes, self.depth) = (None, 0, 1);
        if self.entries.capacity() <= MAX_SPARE_CAPACITY {
            // A thread that ends has none any more.
            _ = OWN_SPARES.try_with(|own| {
                if let Ok(mut own) = own.try_borrow_mut() {
                    SPARES.keep(&mut own, self);
                }
            });
        }
    }

    /// Returns how many levels these fields themselves take in JSON.
    fn own_levels(&self, first: &str) -> u8 {
        let first = self.entries.first().map_or(first, |(name, _)| name);
        1 + u8::from(first.starts_with('$'))
    }

    fn place(&self, name: &str) -> Option<usize> {
        match &self.index {
            Some(index) => index.places.get(name).copied(),
            None => self.entries.iter().position(|(other, _)| *other == name),
        }
    }

    #[inline]
    fn push(&mut self, name: Name, value: Value) {
        let bytes = size_of::<(Name, Value)>() + name.heap_size() + value.heap_size();
        self.bytes = self.bytes.saturating_add(bytes);
        self.entries.push((name, value));
    }

    #[inline]
    fn set(&mut self, name: Name, value: Value) {
        // Most fields: a plain value under a new name, among few.
        let is_plain = value.levels() == 0 && self.entries.len() < MAX_UNINDEXED && self.index.is_none();
        let new = name.as_str();
        if is_plain && !self.entries.iter().any(|(other, _)| other.as_str() == new) {
            // The first name has said how many levels these are.
            if self.entries.is_empty() {
                self.depth = self.own_levels(&name);
            }
            self.push(name, value);
        } else {
            self.set_any(name, value);
        }
    }

    /// Sets a field of any kind.
    fn set_any(&mut self, name: Name, value: Value) {
        let own = self.own_levels(&name);
        let value = value.beneath(own);
        let levels = value.levels();
        match self.place(&name) {
            Some(place) => {
                let bytes = value.heap_size();
                let before = std::mem::replace(&mut self.entries[place].1, value);
                self.bytes = self.bytes.saturating_sub(before.heap_size()).saturating_add(bytes);
                let deepest = match &mut self.index {
                    Some(index) => {
                        index.count_in(levels);
                        index.count_out(before.levels());
                        index.deepest()
                    }
                    None => self.entries.iter().map(|(_, value)| value.levels()).fold(0, u8::max),
                };
                self.depth = own.saturating_add(deepest).min(TOO_DEEP);
                return;
            }
            None => {
                if let Some(index) = &mut self.index {
                    index.places.insert(name.clone(), self.entries.len());
                    index.count_in(levels);
                }
                self.push(name, value);
                if self.entries.len() > MAX_UNINDEXED && self.index.is_none() {
                    self.index = Some(Box::new(Index::of(&self.entries)));
                }
            }
        }
        self.depth = self.depth.max(own.saturating_add(levels)).min(TOO_DEEP);
    }
}

/// Index of many fields.
#[derive(Clone, Default)]
struct Index {
    /// The places of all names.
    places: HashMap<Name, usize>,
    /// Pairs of a number of levels and how many values have it, in order, for values that have levels. A replaced
    /// value may have been the deepest.
    by_levels: Vec<(u8, usize)>,
}

impl Index {
    fn of(entries: &[(Name, Value)]) -> Self {
        let mut index = Self::default();
        for (place, (name, value)) in entries.iter().enumerate() {
            index.places.insert(name.clone(), place);
            index.count_in(value.levels());
        }
        index
    }

    /// Adds a value of so many levels.
    fn count_in(&mut self, levels: u8) {
        match self.by_levels.binary_search_by_key(&levels, |(levels, _)| *levels) {
            _ if levels == 0 => {}
            Ok(place) => self.by_levels[place].1 += 1,
            Err(place) => self.by_levels.insert(place, (levels, 1)),
        }
    }

    /// Removes a value of so many levels.
    fn count_out(&mut self, levels: u8) {
        if let Ok(place) = self.by_levels.binary_search_by_key(&levels, |(levels, _)| *levels) {
            self.by_levels[place].1 -= 1;
            if self.by_levels[place].1 == 0 {
                self.by_levels.remove(place);
            }
        }
    }

    /// Returns the levels of the deepest value.
    fn deepest(&self) -> u8 {
        self.by_levels.last().map_or(0, |(levels, _)| *levels)
    }

    /// Returns about how many bytes it occupies.
    fn heap_size(&self) -> usize {
        let places = self.places.capacity() * size_of::<(Name, usize)>();
        size_of::<Self>() + places + self.by_levels.capacity() * size_of::<(u8, usize)>()
    }
}

/// The most fields that are searched one by one.
const MAX_UNINDEXED: usize = 32;

impl Fields {
    /// Creates empty fields.
    pub const fn new() -> Self {
        Self { list: None }
    }

    /// Creates empty fields with space for that many.
    ///
    /// Lists of up to 16 fields are used again, in whichever thread they end: a loop that collects fields allocates nothing for them
    /// once a few thousand have ended. For lists that are not in use, the process keeps 10 MiB at most, and 80 KiB for each thread.
    pub fn with_capacity(fields: usize) -> Self {
        Self { list: (fields > 0).then(|| FieldList::take(fields)) }
    }

    /// Returns the number of levels, at least 1. It is more than [`Value::MAX_DEPTH`] where one was cut off.
    #[inline]
    pub fn depth(&self) -> usize {
        usize::from(self.levels())
    }

    #[inline]
    fn levels(&self) -> u8 {
        self.list.as_ref().map_or(1, |list| list.depth)
    }

    fn entries(&self) -> &[(Name, Value)] {
        self.list.as_ref().map_or(&[], |list| &list.entries)
    }

    /// Returns about how many bytes they occupy.
    #[inline]
    pub(crate) fn heap_size(&self) -> usize {
        let Some(list) = &self.list else { return 0 };
        let index = list.index.as_ref().map_or(0, |index| index.heap_size());
        list.bytes.saturating_add(index)
    }

    /// Sets `name`, and replaces an earlier value of that name. A value that would be nested too deep becomes
    /// [`Value::TooDeep`].
    #[inline]
    pub fn set(&mut self, name: impl Into<Name>, value: impl Into<Value>) {
        let (name, value) = (name.into(), value.into());
        self.list.get_or_insert_with(|| FieldList::take(1)).set(name, value);
    }

    /// Sets `name` and returns the fields, for chains.
    pub fn with(mut self, name: impl Into<Name>, value: impl Into<Value>) -> Self {
        self.set(name, value);
        self
    }

    /// Returns the value of `name`.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let list = self.list.as_ref()?;
        list.place(name).map(|place| &list.entries[place].1)
    }

    /// Iterates over names and values.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&Name, &Value)> {
        self.entries().iter().map(|(name, value)| (name, value))
    }

    /// Returns the number of fields.
    pub fn len(&self) -> usize {
        self.entries().len()
    }

    /// Returns whether there are no fields.
    pub fn is_empty(&self) -> bool {
        self.entries().is_empty()
    }
}

impl Clone for Fields {
    fn clone(&self) -> Self {
        let Some(list) = &self.list else { return Self::new() };
        let mut copy = FieldList::take(list.entries.len());
        copy.entries.extend_from_slice(&list.entries);
        (copy.index, copy.bytes, copy.depth) = (list.index.clone(), list.bytes, list.depth);
        Self { list: Some(copy) }
    }
}

impl Drop for Fields {
    fn drop(&mut self) {
        if let Some(list) = self.list.take() {
            list.keep();
        }
    }
}

/// Makes [`Fields`] of names and values.
///
/// ```
/// use forebay::{fields, run::TrainingRun, Collector};
///
/// let config = fields! {
///     "lr": 0.1,
///     "layers": vec![64, 32],
///     "optimizer": fields! { "name": "adam", "betas": vec![0.9, 0.999] },
/// };
/// assert_eq!(config.get("lr").unwrap().as_f64(), Some(0.1));
/// let run = TrainingRun::builder().config(config);
/// ```
#[macro_export]
macro_rules! fields {
    ($($name:tt : $value:expr),* $(,)?) => {
        $crate::Fields::new()$(.with($name, $value))*
    };
}

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.entries() == other.entries()
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fields").field(&self.entries()).finish()
    }
}

impl<N: Into<Name>, V: Into<Value>> FromIterator<(N, V)> for Fields {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(fields: I) -> Self {
        let mut all = Self::new();
        all.extend(fields);
        all
    }
}

impl<N: Into<Name>, V: Into<Value>> Extend<(N, V)> for Fields {
    fn extend<I: IntoIterator<Item = (N, V)>>(&mut self, fields: I) {
        fields.into_iter().for_each(|(name, value)| self.set(name, value));
    }
}

impl<N: Into<Name>, V: Into<Value>, const COUNT: usize> From<[(N, V); COUNT]> for Fields {
    fn from(fields: [(N, V); COUNT]) -> Self {
        fields.into_iter().collect()
    }
}

/// Histogram: how many values lie between each two edges. Values that are not finite are counted separately.
///
/// # Examples
///
/// ```
/// use forebay::{Histogram, Record};
///
/// let weights = [0.0, 0.1, 0.2, 0.9, 1.0, f64::NAN];
/// let histogram = Histogram::from_values(&weights, 2);
/// assert_eq!((histogram.count(), histogram.non_finite()), (5, 1));
/// assert_eq!(histogram.counts(), [3, 2]);
/// assert_eq!((histogram.min(), histogram.max()), (0.0, 1.0));
/// let record = Record::histogram("layer.1.weights", histogram).with_step(7);
/// assert_eq!(record.step(), Some(7));
/// ```
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Histogram {
    pub(super) edges: Vec<f64>,
    pub(super) counts: Vec<u64>,
    pub(super) sum: f64,
    pub(super) sum_of_squares: f64,
    pub(super) non_finite: u64,
}

impl Histogram {
    /// Sorts `values` into `bins` equally wide bins between the smallest and the largest of them.
    ///
    /// Equal values make one bin of no width. No values, or no bins, make none. At most 65,536 bins are made.
    ///
    /// ```
    /// use forebay::Histogram;
    ///
    /// let weights = Histogram::from_values(&[0.0, 1.0, 2.0, 4.0, f64::NAN], 2);
    /// assert_eq!(weights.edges(), [0.0, 2.0, 4.0]);
    /// assert_eq!(weights.counts(), [2, 2]);
    /// assert_eq!(weights.non_finite(), 1);
    /// ```
    pub fn from_values<T: Into<f64> + Copy>(values: &[T], bins: usize) -> Self {
        Self::from_numbers(values.iter().map(|value| (*value).into()), bins)
    }

    /// Sorts numbers into bins like [`from_values`](Self::from_values), where they are no slice. Goes through them three times.
    ///
    /// ```
    /// use forebay::Histogram;
    ///
    /// let lengths = ["a", "bb", "cccc"].iter().map(|word| word.len() as f64);
    /// assert_eq!(Histogram::from_numbers(lengths, 2).counts(), [2, 1]);
    /// ```
    pub fn from_numbers(numbers: impl Iterator<Item = f64> + Clone, bins: usize) -> Self {
        let finite = || numbers.clone().filter(|value| value.is_finite());
        let (min, max) = finite()
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), value| (min.min(value), max.max(value)));
        let mut histogram = Self { non_finite: numbers.clone().count() as u64, ..Self::default() };
        if min <= max && bins > 0 {
            let bins = if min < max { bins.min(Self::MAX_BINS) } else { 1 };
            // Weighted by both ends, because their difference may be more than an f64 can hold. Clamped, because
            // rounding may carry an edge past an end that is close.
            let edge = |bin: usize| {
                let share = bin as f64 / bins as f64;
                (min * (1.0 - share) + max * share).clamp(min, max)
            };
            histogram.edges = [min].into_iter().chain((1..bins).map(edge)).chain([max]).collect();
            // Rounding may also put neighbours in the wrong order.
            histogram.edges.sort_by(f64::total_cmp);
            histogram.counts = vec![0; bins];
        }
        for value in finite() {
            histogram.non_finite -= 1;
            histogram.sum += value;
            histogram.sum_of_squares += value * value;
            if let Some(last) = histogram.counts.len().checked_sub(1) {
                // The bin is the last whose lower edge is not above the value.
                let bin = histogram.edges.partition_point(|edge| *edge <= value).saturating_sub(1);
                histogram.counts[bin.min(last)] += 1;
            }
        }
        histogram
    }

    /// Makes a histogram that was counted elsewhere, such as on a GPU.
    ///
    /// # Errors
    ///
    /// The edges are not finite, not ascending, or not one more than the counts.
    pub fn from_counts(
        edges: Vec<f64>,
        counts: Vec<u64>,
        sum: f64,
        sum_of_squares: f64,
    ) -> Result<Self, HistogramError> {
        let is_empty = edges.is_empty() && counts.is_empty();
        let is_whole = edges.len() == counts.len() + 1 && !counts.is_empty();
        let is_ascending = edges.is_sorted() && edges.iter().all(|edge| edge.is_finite());
        if (is_empty || is_whole) && is_ascending {
            Ok(Self { edges, counts, sum, sum_of_squares, non_finite: 0 })
        } else {
            Err(HistogramError { edges: edges.len(), counts: counts.len() })
        }
    }

    /// Sets how many further values were NaN or infinite, for a histogram that was [counted elsewhere](Self::from_counts).
    pub fn with_non_finite(mut self, values: u64) -> Self {
        self.non_finite = values;
        self
    }

    const MAX_BINS: usize = 65_536;

    /// Returns the borders of the bins, ascending: one more than there are bins, or none.
    pub fn edges(&self) -> &[f64] {
        &self.edges
    }

    /// Returns how many values lie in each bin: from its lower edge up to, not including, its upper one. The last bin
    /// includes both.
    pub fn counts(&self) -> &[u64] {
        &self.counts
    }

    /// Returns how many values were sorted in.
    pub fn count(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Returns the smallest value; NaN without values.
    pub fn min(&self) -> f64 {
        self.edges.first().copied().unwrap_or(f64::NAN)
    }

    /// Returns the largest value; NaN without values.
    pub fn max(&self) -> f64 {
        self.edges.last().copied().unwrap_or(f64::NAN)
    }

    /// Returns the sum of the values.
    pub fn sum(&self) -> f64 {
        self.sum
    }

    /// Returns the sum of the squares of the values.
    pub fn sum_of_squares(&self) -> f64 {
        self.sum_of_squares
    }

    /// Returns how many values were NaN or infinite.
    pub fn non_finite(&self) -> u64 {
        self.non_finite
    }
}

/// Error of edges and counts that make no [`Histogram`].
///
/// # Examples
///
/// ```
/// use forebay::Histogram;
///
/// // Three edges have two counts between them.
/// assert!(Histogram::from_counts(vec![0.0, 1.0, 2.0], vec![1], 0.5, 0.25).is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "histogram edges must be finite, ascending and one more than the counts, or none, got {edges} edges and {counts} counts"
)]
#[non_exhaustive]
pub struct HistogramError {
    /// Number of edges.
    pub edges: usize,
    /// Number of counts.
    pub counts: usize,
}
