//! Values, from Python's to ours and back.

use forebay::event::List;
use forebay::{Fields, Histogram, Name, Record, Value};
use forebay_sync::sync::Arc;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBool, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};

use crate::array::{Array, check_memory};
use crate::convert;
use crate::point::Point;
use crate::work::pixels::{Grid, Pixels};

/// Most parts of a value: itself, and what is in its lists and dictionaries.
const MAX_PARTS: usize = 1 << 20;

/// Most bins of a histogram.
const MAX_BINS: usize = 65_536;

/// More than an event owns beside the data of its value.
pub(crate) const SPACE: usize = 4096;

/// Number of bins of an array that is logged without a word about them.
const BINS: usize = 64;

/// Picture to log: ``run.log({"sample": Image(pixels)})``.
///
/// The pixels are copied when it is made, and encoded on the worker.
///
/// Args:
///     pixels: Integers of 8 bits from 0 to 255, or numbers of another type from 0 to 1; what is beyond is clipped.
///     dataformats: The meaning of the dimensions, such as ``"CHW"``, ``"HWC"``, ``"HW"``; ``"NCHW"`` for several images, which are tiled.
///         One channel is gray, two are gray and opacity, three red, green and blue, four these and opacity.
///
/// Raises:
///     AssertionError: ``dataformats`` does not fit the shape.
///     MemoryError: There is no memory for the pixels.
///     TypeError: ``pixels`` are no tensor and no array.
///     ValueError: No image has this shape.
#[pyclass(frozen, module = "forebay", name = "Image")]
pub(crate) struct PyImage(Arc<forebay::Image>);

#[pymethods]
impl PyImage {
    #[new]
    #[pyo3(signature = (pixels, dataformats = "CHW"))]
    fn new(pixels: &Bound<'_, PyAny>, dataformats: &str) -> PyResult<Self> {
        let py = pixels.py();
        let (array, shape) = raw(pixels, "pixels", false)?;
        static CHECK: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let sizes = PyTuple::new(py, &shape)?;
        CHECK.import(py, "forebay._arrays", "check_dataformats")?.call1((sizes, dataformats))?;
        let letters = dataformats.to_uppercase();
        let grid = Grid::new(&shape, &letters, 8, false);
        // The levels, and the pixels.
        let bytes = array.len().saturating_add(grid.bytes());
        check_memory(bytes.saturating_add(grid.color_bytes()), "an image")?;
        let pixels = py.detach(|| Pixels::of(&array, &grid).in_color());
        let side = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let (width, height) = (side(pixels.width), side(pixels.height));
        let image = match pixels.channels {
            4 => forebay::Image::rgba(width, height, pixels.bytes),
            _ => forebay::Image::rgb(width, height, pixels.bytes),
        };
        image.map(|image| Self(Arc::new(image))).map_err(|error| PyValueError::new_err(error.to_string()))
    }

    fn __repr__(&self) -> String {
        format!("<Image of {} x {} pixels>", self.0.width, self.0.height)
    }
}

/// Distribution of values to log: ``run.log({"weights": Histogram(weights, bins=30)})``.
///
/// The values are copied when it is made, and counted on the worker.
///
/// Args:
///     values: A tensor or an array of any shape, or numbers in a list or another iterable, also as tensors of one element. Values that
///         are not finite are counted beside the bins.
///     bins: The number of bins, which have the same width.
///
/// Raises:
///     MemoryError: There is no memory for the copy.
///     TypeError: ``values``, or those in a list, are something else.
///     ValueError: ``bins`` is 0, or more than 65,536; lists in a list have different lengths; or an iterable without a length, such as a
///         generator, has more than 1,048,576 numbers.
#[pyclass(frozen, module = "forebay", name = "Histogram")]
pub(crate) struct PyHistogram(Arc<Values>);

/// Copy of values that are to be binned.
pub(crate) struct Values {
    array: Array,
    bins: usize,
}

impl Values {
    /// Returns how many bytes it occupies. What the worker makes of it may be larger: an edge and a count for each bin.
    fn bytes(&self) -> usize {
        self.array.byte_len().max(16 * self.bins)
    }

    fn binned(&self) -> Histogram {
        Histogram::from_numbers(self.array.numbers(), self.bins)
    }
}

#[pymethods]
impl PyHistogram {
    #[new]
    #[pyo3(signature = (values, bins = 64))]
    fn new(values: &Bound<'_, PyAny>, bins: i64) -> PyResult<Self> {
        let wrong = || PyValueError::new_err(format!("bins must be 1..={MAX_BINS}, got {bins}"));
        let bins =
            usize::try_from(bins).ok().filter(|bins| (1..=MAX_BINS).contains(bins)).ok_or_else(wrong)?;
        let (array, _) = raw(values, "values", true)?;
        Ok(Self(Arc::new(Values { array, bins })))
    }

    fn __repr__(&self) -> String {
        format!("<Histogram of {} values in {} bins>", self.0.array.len(), self.0.bins)
    }
}

/// Returns a copy of an array, and its shape. Where `lists` are taken, numbers in a list or another iterable are an array as well.
fn raw(array: &Bound<'_, PyAny>, what: &str, lists: bool) -> PyResult<(Array, Vec<usize>)> {
    static NATIVE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let py = array.py();
    let found = NATIVE.import(py, "forebay._arrays", "native")?.call1((array, what, lists))?;
    let (data, code, shape): (PyBuffer<u8>, String, Vec<usize>) = found.extract()?;
    Ok((Array::copy(py, &data, &code)?, shape))
}

/// Value as Python gives it: ready, or left for the worker to count or to copy.
pub(crate) enum Given {
    Value(Value),
    Values(Arc<Values>),
    Image(Arc<forebay::Image>),
}

impl Given {
    /// Counts values here for which the queue never has room, and leaves all else as it is.
    pub(crate) fn fitting(self, py: Python<'_>, max_bytes: impl FnOnce() -> usize) -> Self {
        match self {
            // The work for the worker owns a few bytes more.
            Self::Values(values) if values.bytes().saturating_add(SPACE) > max_bytes() => {
                Self::Value(py.detach(|| values.binned()).into())
            }
            fits => fits,
        }
    }

    /// Returns an event of this value.
    #[inline]
    pub(crate) fn point(self, name: Name) -> Point {
        match self {
            Self::Value(value) => Point::new(Record::with_value(name, value)),
            Self::Values(values) => {
                let bytes = values.bytes();
                // These, and both as text; and copies of that until it is on the disk.
                let makes = 250 * values.bins;
                let binned = move |record: &mut Record| record.set_value(values.binned());
                Point::with_work(Record::new(name), bytes, makes, binned)
            }
            Self::Image(image) => {
                let bytes = image.bytes.len();
                // The copy; a file of it twice, or lines of JSON; and copies of that until it is on the disk.
                let makes = bytes.saturating_mul(9);
                let copy = move |record: &mut Record| record.set_value(forebay::Image::clone(&image));
                Point::with_work(Record::new(name), bytes, makes, copy)
            }
        }
    }

    /// Returns the value, and counts or copies it here where it is left.
    fn value(self, py: Python<'_>) -> PyResult<Value> {
        Ok(match self {
            Self::Value(value) => value,
            Self::Values(values) => py.detach(|| values.binned()).into(),
            Self::Image(image) => {
                check_memory(image.bytes.len(), "a copy of an image")?;
                py.detach(|| forebay::Image::clone(&image)).into()
            }
        })
    }
}

/// Returns the value that an object of Python is.
///
/// Numbers, texts, truth values, lists and dictionaries are themselves. A tensor of one element is a number, a larger one a histogram.
/// Anything else is its `str`, also a time or a complex number of NumPy, which have a shape. A histogram is left for the worker, but for those
/// inside of lists and dictionaries.
#[inline]
pub(crate) fn given(object: &Bound<'_, PyAny>) -> PyResult<Given> {
    match object.cast::<PyFloat>() {
        Ok(number) => Ok(Given::Value(number.value().into())),
        Err(_) => given_at(object, 0, &mut { MAX_PARTS }),
    }
}

fn value_at(object: &Bound<'_, PyAny>, depth: usize, left: &mut usize) -> PyResult<Value> {
    given_at(object, depth, left)?.value(object.py())
}

/// Returns the value of an object that lies so deep in another one, which may have so many parts more: a list that has itself in it twice
/// would have parts without end.
fn given_at(object: &Bound<'_, PyAny>, depth: usize, left: &mut usize) -> PyResult<Given> {
    *left = left.checked_sub(1).ok_or_else(|| {
        PyValueError::new_err(format!(
            "a value must have at most {MAX_PARTS} parts, those of its lists and dictionaries included"
        ))
    })?;
    if let Ok(histogram) = object.cast::<PyHistogram>() {
        return Ok(Given::Values(Arc::clone(&histogram.get().0)));
    }
    if let Ok(image) = object.cast::<PyImage>() {
        return Ok(Given::Image(Arc::clone(&image.get().0)));
    }
    plain_at(object, depth, left).and_then(|value| match value {
        Some(value) => Ok(Given::Value(value)),
        None => match raw(object, "a value", false) {
            Ok((array, _)) => Ok(Given::Values(Arc::new(Values { array, bins: BINS }))),
            // It has a shape, and is no tensor all the same: a space of Gymnasium is its text.
            Err(error) if error.is_instance_of::<PyTypeError>(object.py()) && !is_array(object)? => {
                Ok(Given::Value(convert::text(&object.str()?)?.into()))
            }
            Err(error) => Err(error),
        },
    })
}

/// Returns the value that an object is which is neither a histogram nor an image, or `None` for a tensor of several elements.
fn plain_at(object: &Bound<'_, PyAny>, depth: usize, left: &mut usize) -> PyResult<Option<Value>> {
    let some = |value: Value| Ok(Some(value));
    if let Ok(number) = object.cast::<PyFloat>() {
        return some(number.value().into());
    }
    if let Ok(truth) = object.cast::<PyBool>() {
        return some(truth.is_true().into());
    }
    if let Ok(number) = object.cast::<PyInt>() {
        return match number.extract::<i64>() {
            Ok(number) => some(number.into()),
            Err(_) => some(number.extract::<f64>()?.into()),
        };
    }
    if let Ok(text) = object.cast::<PyString>() {
        return some(convert::text(text)?.into());
    }
    if object.is_none() {
        return some(Value::Empty);
    }
    // A list may have itself in it.
    let is_deep = depth > Value::MAX_DEPTH;
    if let Ok(dict) = object.cast::<PyDict>() {
        return some(if is_deep { Value::TooDeep } else { fields_at(dict, depth, left)?.into() });
    }
    if object.is_instance_of::<PyList>() || object.is_instance_of::<PyTuple>() {
        if is_deep {
            return some(Value::TooDeep);
        }
        let values = object.try_iter()?.map(|each| value_at(&each?, depth + 1, left));
        return some(values.collect::<PyResult<List>>()?.into());
    }
    if let Some(shape) = object.getattr_opt("shape")?
        && let Ok(shape) = shape.extract::<Vec<usize>>()
    {
        if shape.iter().product::<usize>() != 1 {
            return Ok(None);
        }
        static NUMBER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
        let number = NUMBER.import(object.py(), "forebay._arrays", "number")?.call1((object,))?;
        if let Some(number) = number.extract::<Option<f64>>()? {
            return some(number.into());
        }
    }
    some(convert::text(&object.str()?)?.into())
}

/// Returns whether an object has data of an array, here or on a device.
fn is_array(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    static IS_ARRAY: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    IS_ARRAY.import(object.py(), "forebay._arrays", "is_array")?.call1((object,))?.extract()
}

/// Returns the fields that a dictionary is.
pub(crate) fn fields(dict: &Bound<'_, PyDict>) -> PyResult<Fields> {
    fields_at(dict, 0, &mut { MAX_PARTS })
}

fn fields_at(dict: &Bound<'_, PyDict>, depth: usize, left: &mut usize) -> PyResult<Fields> {
    let mut fields = Fields::new();
    // Of a copy: what is called for a value may change the dictionary, and another thread may.
    for (name, each) in dict.copy()? {
        let Ok(name) = name.cast::<PyString>() else {
            return Err(PyTypeError::new_err(format!("names must be str, got {}", name.repr()?)));
        };
        fields.set(convert::copied_text(name.to_str()?)?, value_at(&each, depth + 1, left)?);
    }
    Ok(fields)
}

/// Raises what a dictionary is wrong with as the fields of an event: ``TypeError`` or ``ValueError``.
#[pyfunction]
pub(crate) fn check_fields(values: &Bound<'_, PyDict>) -> PyResult<()> {
    fields(values).map(drop)
}

/// Returns the fields that a dictionary is, of a run that has ended: what is no name or value of ours is its text, because nobody is
/// left who could give another.
pub(crate) fn last_fields(dict: &Bound<'_, PyDict>) -> Fields {
    let words = |object: &Bound<'_, PyAny>| {
        object.str().and_then(|text| convert::text(&text)).unwrap_or_else(|_| "?".to_owned())
    };
    let mut fields = Fields::new();
    for (name, each) in dict.copy().into_iter().flatten() {
        let value = value_at(&each, 1, &mut { MAX_PARTS }).unwrap_or_else(|_| words(&each).into());
        fields.set(words(&name), value);
    }
    fields
}

/// Returns the object of Python that a value is: a histogram is a dictionary of its edges, counts and sums, and an image its bytes.
pub(crate) fn object<'py>(py: Python<'py>, value: &Value) -> PyResult<Bound<'py, PyAny>> {
    Ok(match value {
        Value::Scalar(number) => number.into_pyobject(py)?.into_any(),
        Value::Integer(number) => number.into_pyobject(py)?.into_any(),
        Value::Bool(truth) => truth.into_pyobject(py)?.to_owned().into_any(),
        Value::Text(text) => PyString::from_bytes(py, text.as_bytes())?.into_any(),
        Value::List(list) => {
            let objects = list.iter().map(|each| object(py, each)).collect::<PyResult<Vec<_>>>()?;
            PyList::new(py, objects)?.into_any()
        }
        Value::Fields(fields) => dict(py, fields)?.into_any(),
        Value::Histogram(histogram) => {
            let shown = PyDict::new(py);
            shown.set_item("edges", histogram.edges())?;
            shown.set_item("counts", histogram.counts())?;
            shown.set_item("min", histogram.min())?;
            shown.set_item("max", histogram.max())?;
            shown.set_item("sum", histogram.sum())?;
            shown.into_any()
        }
        Value::Image(image) => {
            let shown = PyDict::new(py);
            shown.set_item("width", image.width)?;
            shown.set_item("height", image.height)?;
            shown.set_item("format", image.format.to_string())?;
            shown.set_item("bytes", convert::bytes(py, &image.bytes)?)?;
            shown.into_any()
        }
        Value::Encoded(encoded) => convert::bytes(py, encoded.bytes())?.into_any(),
        _ => py.None().into_bound(py),
    })
}

/// Returns the dictionary that fields are.
pub(crate) fn dict<'py>(py: Python<'py>, fields: &Fields) -> PyResult<Bound<'py, PyDict>> {
    let dict = PyDict::new(py);
    for (name, value) in fields.iter() {
        dict.set_item(&**name, object(py, value)?)?;
    }
    Ok(dict)
}
