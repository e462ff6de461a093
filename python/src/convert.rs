//! Arguments, from Python's values to ours.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use forebay::Record;
use pyo3::exceptions::{PyUnicodeEncodeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::array::{check_memory, copied};

/// Returns the number that a scalar argument is: a number, or a tensor of one element, of any library.
///
/// # Errors
///
/// As PyTorch's writer raises: see `forebay._arrays.scalar`.
#[inline]
pub(crate) fn scalar(value: &Bound<'_, PyAny>) -> PyResult<f64> {
    if let Ok(number) = value.cast::<PyFloat>() {
        return Ok(number.value());
    }
    if let Ok(number) = value.cast::<PyInt>() {
        return number.extract();
    }
    static SCALAR: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    SCALAR.import(value.py(), "forebay._arrays", "scalar")?.call1((value,))?.extract()
}

/// Returns the step that an argument is: `None`, or what `int` makes of it.
#[inline]
pub(crate) fn step(value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<i64>> {
    let Some(value) = value else { return Ok(None) };
    let fitting = |number: &Bound<'_, PyInt>| {
        number.extract::<i64>().map(Some).map_err(|_| {
            PyValueError::new_err(format!("global_step must be in -2**63..=2**63-1, got {number}"))
        })
    };
    match value.cast::<PyInt>() {
        Ok(number) => fitting(number),
        Err(_) => {
            let number = value.py().get_type::<PyInt>().call1((value,))?;
            fitting(number.cast::<PyInt>()?)
        }
    }
}

/// Returns a copy of a text. Surrogates without a partner, which are no characters, become U+FFFD.
///
/// # Errors
///
/// `MemoryError` where there is no memory for it.
pub(crate) fn text(text: &Bound<'_, PyString>) -> PyResult<String> {
    match text.to_str() {
        Ok(text) => copied_text(text),
        Err(error) if error.is_instance_of::<PyUnicodeEncodeError>(text.py()) => {
            let bytes = text.call_method1("encode", ("utf-8", "surrogatepass"))?.cast_into::<PyBytes>()?;
            let bytes = bytes.as_bytes();
            // Three bytes become as many, in a text that grows by doubling.
            check_memory(bytes.len().saturating_mul(3), "a copy of a text")?;
            Ok(String::from_utf8_lossy(bytes).into_owned())
        }
        Err(error) => Err(error),
    }
}

/// Returns a copy of a text that has no surrogates.
///
/// # Errors
///
/// `MemoryError` where there is no memory for it.
pub(crate) fn copied_text(text: &str) -> PyResult<String> {
    Ok(String::from_utf8(copied(text.as_bytes())?)?)
}

/// Returns about how many bytes a copy of lists and tuples takes that are nested so many `levels` deep, with their texts and numbers. What
/// lies deeper, in a list that has itself in it, cannot be copied.
pub(crate) fn copied_bytes(object: &Bound<'_, PyAny>, levels: usize) -> PyResult<usize> {
    let mut bytes = size_of::<String>();
    if let Ok(text) = object.cast::<PyString>() {
        bytes += text.to_str()?.len();
    } else if let Some(levels) = levels.checked_sub(1)
        && (object.is_instance_of::<PyList>() || object.is_instance_of::<PyTuple>())
    {
        for each in object.try_iter()? {
            bytes = bytes.saturating_add(copied_bytes(&each?, levels)?);
        }
    }
    Ok(bytes)
}

/// Returns bytes as an object of Python.
///
/// # Errors
///
/// `MemoryError` where there is no memory for it.
pub(crate) fn bytes<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    PyBytes::new_with(py, bytes.len(), |space| {
        space.copy_from_slice(bytes);
        Ok(())
    })
}

/// Adds the step and the moment to a record.
#[inline]
pub(crate) fn placed(record: Record, step: Option<i64>, walltime: Option<f64>) -> Record {
    let record = match step {
        Some(step) => record.with_signed_step(step),
        None => record,
    };
    match walltime {
        Some(seconds) => record.with_unix_nanos(nanos(seconds)),
        None => record,
    }
}

/// Returns the moment of an argument in seconds since 1970, in nanoseconds. Moments before 1970 and NaN become 1970.
#[inline]
pub(crate) fn nanos(seconds: f64) -> u64 {
    let seconds = seconds.max(0.0);
    // By whole seconds first: an `f64` of nanoseconds since 1970 is 256 of them coarse.
    let whole = seconds.floor();
    (whole as u64).saturating_mul(1_000_000_000).saturating_add(((seconds - whole) * 1e9).round() as u64)
}

/// Returns the present moment, in nanoseconds since 1970.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Returns the pairs of a mapping, of a copy: what is called for a value may change the mapping, and another thread may.
pub(crate) fn items<'py>(mapping: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    match mapping.cast::<PyDict>() {
        Ok(dict) => dict.copy(),
        Err(_) => Ok(mapping.py().get_type::<PyDict>().call1((mapping,))?.cast_into()?),
    }
}

/// Returns a time in seconds; what is negative or NaN becomes none, and what is too long becomes a year.
pub(crate) fn duration(seconds: f64) -> Duration {
    const YEAR: f64 = 365.0 * 86_400.0;
    Duration::from_secs_f64(seconds.clamp(0.0, YEAR).max(0.0))
}
