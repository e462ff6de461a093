//! The data of events, from Python's dicts to our fields. What an event cannot keep is refused, and the error names its place.

use forebay::event::List;
use forebay::{Fields, Value};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::convert;

/// Returns the fields that a dict of Python is; those of an object that `forebay._values.plain` knows, and none of `None`.
///
/// # Errors
///
/// `TypeError` for what is no dict, for a key that is no text, and for a value that cannot be kept; `ValueError` for a whole number that
/// does not fit in 64 bits, and for lists and dicts that are nested too deep. They name the key.
pub(super) fn fields(what: &str, values: Option<&Bound<'_, PyAny>>) -> PyResult<Fields> {
    let Some(values) = values.filter(|values| !values.is_none()) else { return Ok(Fields::new()) };
    if let Ok(values) = values.cast::<PyDict>() {
        return dict(&Place::Top(what), values, 1);
    }
    let plain = plain(values)?;
    match plain.cast::<PyDict>() {
        Ok(values) => dict(&Place::Top(what), values, 1),
        Err(_) => Err(PyTypeError::new_err(format!("{what} must be a dict, got {}", kind(values)))),
    }
}

/// Place of a value, for errors.
enum Place<'a> {
    Top(&'a str),
    Key(&'a Place<'a>, &'a str),
    Index(&'a Place<'a>, usize),
}

impl std::fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Top(what) => f.write_str(what),
            Self::Key(place, key) => write!(f, "{place}[{key:?}]"),
            Self::Index(place, index) => write!(f, "{place}[{index}]"),
        }
    }
}

fn dict(place: &Place<'_>, values: &Bound<'_, PyDict>, depth: usize) -> PyResult<Fields> {
    check_depth(place, depth)?;
    let mut fields = Fields::new();
    // Of a copy: what is called for a value may change the dictionary, and another thread may.
    for (key, it) in values.copy()? {
        let Ok(key) = key.cast::<PyString>() else {
            return Err(PyTypeError::new_err(format!(
                "the keys of {place} must be str, got {}",
                key.repr().map_or_else(|_| kind(&key), |key| key.to_string_lossy().into_owned())
            )));
        };
        let key = convert::text(key)?;
        let it = value(&Place::Key(place, &key), &it, depth)?;
        fields.set(key, it);
    }
    Ok(fields)
}

fn value(place: &Place<'_>, it: &Bound<'_, PyAny>, depth: usize) -> PyResult<Value> {
    match direct(place, it, depth) {
        Some(value) => value,
        None => direct(place, &plain(it)?, depth).unwrap_or_else(|| {
            Err(PyTypeError::new_err(format!(
                "{place} must be a number, a str, a bool, None, or a list or dict of these, got {}",
                kind(it)
            )))
        }),
    }
}

/// Returns the value of what Python itself has; `None` for anything else.
fn direct(place: &Place<'_>, it: &Bound<'_, PyAny>, depth: usize) -> Option<PyResult<Value>> {
    if it.is_none() {
        return Some(Ok(Value::Empty));
    }
    if let Ok(number) = it.cast::<PyFloat>() {
        return Some(Ok(Value::Scalar(number.value())));
    }
    if let Ok(yes) = it.cast::<PyBool>() {
        return Some(Ok(Value::Bool(yes.is_true())));
    }
    if let Ok(number) = it.cast::<PyInt>() {
        let unfitting =
            |_| PyValueError::new_err(format!("{place} must be in -2**63..=2**63-1, got {number}"));
        return Some(number.extract().map(Value::Integer).map_err(unfitting));
    }
    if let Ok(text) = it.cast::<PyString>() {
        return Some(convert::text(text).map(Value::from));
    }
    if let Ok(values) = it.cast::<PyDict>() {
        return Some(dict(place, values, depth + 1).map(Value::from));
    }
    if let Ok(values) = it.cast::<PyList>() {
        return Some(list(place, values.iter(), depth + 1));
    }
    if let Ok(values) = it.cast::<PyTuple>() {
        return Some(list(place, values.iter(), depth + 1));
    }
    None
}

fn list<'py>(
    place: &Place<'_>,
    values: impl Iterator<Item = Bound<'py, PyAny>>,
    depth: usize,
) -> PyResult<Value> {
    check_depth(place, depth)?;
    let mut list = List::new();
    for (index, it) in values.enumerate() {
        list.push(value(&Place::Index(place, index), &it, depth)?);
    }
    Ok(list.into())
}

fn check_depth(place: &Place<'_>, depth: usize) -> PyResult<()> {
    if depth <= Value::MAX_DEPTH {
        return Ok(());
    }
    // The place of something nested a hundred times says nothing, so that the message has only its beginning.
    let text: String = place.to_string().chars().take(60).collect();
    let max = Value::MAX_DEPTH;
    Err(PyValueError::new_err(format!(
        "lists and dicts must be nested at most {max} deep, got more in {text}"
    )))
}

/// Returns what stands for an object of a library: see `forebay._values.plain`.
fn plain<'py>(it: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    static PLAIN: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    PLAIN.import(it.py(), "forebay._values", "plain")?.call1((it,))
}

fn kind(it: &Bound<'_, PyAny>) -> String {
    it.get_type().fully_qualified_name().map_or_else(|_| "an object".to_owned(), |name| name.to_string())
}
