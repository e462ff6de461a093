//! `Columns`: the records of a file, column by column, as libraries for tables have them in memory.

use std::collections::HashMap;
use std::iter::Peekable;
use std::path::PathBuf;
use std::time::Instant;

use forebay::{Event, Record, Value};
use forebay_history::{EventQuery, HistoryError, JsonLinesHistory};
use forebay_sync::clock::deadline_in;
use forebay_sync::sync::Mutex;
use pyo3::exceptions::{PyOSError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::PyByteArray;

use crate::collector::PyRecord;
use crate::watch::{SIGNALS, interruptible};

/// Columns of records, in the layout of Arrow and the byte order of the machine. None of them has an object of Python for a record.
#[derive(Default)]
struct Columns {
    rows: usize,
    /// All names, each once.
    names: Vec<String>,
    /// Places in `names`, 32 bits each.
    codes: Vec<u8>,
    /// Steps, 64 bits each; 0 where there is none.
    steps: Vec<u8>,
    /// Bit for each row that has a step, from the lowest on.
    step_bits: Vec<u8>,
    /// Nanoseconds since 1970, 64 bits each.
    times: Vec<u8>,
    /// Numbers, 64 bits each; NaN where there is none.
    values: Vec<u8>,
    /// Where each text begins in `text`, and where the last one ends; 64 bits each.
    offsets: Vec<u8>,
    text: Vec<u8>,
    /// Bit for each row that has a text, from the lowest on.
    text_bits: Vec<u8>,
}

/// Columns as Python gets them: the names, the number of rows, and the buffers in the order of the fields above.
type Buffers<'py> = (Vec<String>, usize, Vec<Bound<'py, PyByteArray>>);

impl Columns {
    /// Appends a row. `codes` are the places of all names so far.
    fn push(&mut self, record: &Record, codes: &mut HashMap<String, u32>) {
        let code = match codes.get(record.name()) {
            Some(code) => *code,
            None => {
                let code = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
                self.names.push(record.name().to_owned());
                codes.insert(record.name().to_owned(), code);
                code
            }
        };
        let step = record.signed_step();
        let number = number_of(record.value());
        self.codes.extend(code.to_ne_bytes());
        self.steps.extend(step.unwrap_or(0).to_ne_bytes());
        push_bit(&mut self.step_bits, self.rows, step.is_some());
        self.times.extend((record.unix_nanos().min(i64::MAX as u64) as i64).to_ne_bytes());
        self.values.extend(number.unwrap_or(f64::NAN).to_ne_bytes());
        let has_text = match record.value() {
            Value::Empty => false,
            Value::Text(text) => {
                self.text.extend(text.as_bytes());
                true
            }
            other => number.is_none() && serde_json::to_writer(&mut self.text, other).is_ok(),
        };
        push_bit(&mut self.text_bits, self.rows, has_text);
        self.offsets.extend((self.text.len() as i64).to_ne_bytes());
        self.rows += 1;
    }

    /// Copies the columns into objects of Python, one by one: none is in memory twice but the one that is copied.
    fn into_python(self, py: Python<'_>) -> PyResult<Buffers<'_>> {
        let Self { rows, names, codes, steps, step_bits, times, values, offsets, text, text_bits } = self;
        let mut buffers = Vec::new();
        for column in [codes, steps, step_bits, times, values, offsets, text, text_bits] {
            buffers.push(PyByteArray::new_with(py, column.len(), |bytes| {
                bytes.copy_from_slice(&column);
                Ok(())
            })?);
        }
        Ok((names, rows, buffers))
    }
}

/// Returns the number that a value is; a truth value is 0 or 1.
fn number_of(value: &Value) -> Option<f64> {
    match value {
        Value::Bool(truth) => Some(f64::from(u8::from(*truth))),
        other => other.as_f64(),
    }
}

/// Sets the bit of a row. The rows before it have theirs.
fn push_bit(bits: &mut Vec<u8>, row: usize, bit: bool) {
    if row.is_multiple_of(8) {
        bits.push(0);
    }
    if let Some(last) = bits.last_mut() {
        *last |= u8::from(bit) << (row % 8);
    }
}

/// Records of a file, as they are read. Ends with an error.
type Found = Box<dyn Iterator<Item = Result<Record, HistoryError>> + Send>;

fn refused(error: HistoryError) -> PyErr {
    PyOSError::new_err(error.to_string())
}

/// Opens a file of JSON Lines.
fn open(path: PathBuf) -> PyResult<Found> {
    let records = JsonLinesHistory::open(path).and_then(|history| history.records()).map_err(refused)?;
    Ok(Box::new(records))
}

/// Returns the query for records whose names a pattern stands for; for all without one.
fn named(pattern: Option<&str>) -> EventQuery {
    pattern.map_or_else(EventQuery::new, |pattern| EventQuery::new().name(pattern))
}

/// Calls `each` with the records of a file of JSON Lines whose names a pattern stands for.
fn for_each(path: PathBuf, pattern: Option<String>, mut each: impl FnMut(Record)) -> PyResult<()> {
    let query = named(pattern.as_deref());
    for record in open(path)? {
        let record = record.map_err(refused)?;
        if query.matches(&record) {
            each(record);
        }
    }
    Ok(())
}

/// Returns the records of a file of JSON Lines, column by column: see `forebay._reading`.
#[pyfunction]
#[pyo3(signature = (path, pattern = None))]
pub(crate) fn read_columns(py: Python<'_>, path: PathBuf, pattern: Option<String>) -> PyResult<Buffers<'_>> {
    let columns = interruptible(py, move || {
        let (mut columns, mut codes) = (Columns::default(), HashMap::new());
        columns.offsets.extend(0_i64.to_ne_bytes());
        for_each(path, pattern, |record| columns.push(&record, &mut codes))?;
        PyResult::Ok(columns)
    })??;
    columns.into_python(py)
}

/// Returns the steps and the numbers of a name, NaN included.
#[pyfunction]
#[pyo3(signature = (path, pattern, name))]
#[allow(clippy::type_complexity, reason = "two columns")]
pub(crate) fn read_scalars(
    py: Python<'_>,
    path: PathBuf,
    pattern: Option<String>,
    name: String,
) -> PyResult<(Vec<Option<i64>>, Vec<f64>)> {
    interruptible(py, move || {
        let (mut steps, mut values) = (Vec::new(), Vec::new());
        for_each(path, pattern, |record| {
            if record.name() == name
                && let Some(number) = number_of(record.value())
            {
                steps.push(record.signed_step());
                values.push(number);
            }
        })?;
        Ok((steps, values))
    })?
}

/// Returns the number of records of a file of JSON Lines.
#[pyfunction]
#[pyo3(signature = (path, pattern = None))]
pub(crate) fn count_records(py: Python<'_>, path: PathBuf, pattern: Option<String>) -> PyResult<usize> {
    interruptible(py, move || {
        let mut count = 0;
        for_each(path, pattern, |_| count += 1)?;
        Ok(count)
    })?
}

/// Reader of the records of a file of JSON Lines, piece by piece.
#[pyclass(frozen, module = "forebay._forebay")]
pub(crate) struct RecordReader {
    records: Mutex<Peekable<Found>>,
    query: EventQuery,
}

/// The most records of a piece, and about the most bytes: one that is larger ends it.
const PIECE_RECORDS: usize = 256;
const PIECE_BYTES: usize = 1 << 20;

#[pymethods]
impl RecordReader {
    /// Opens a file, for the records whose names a pattern stands for.
    #[new]
    #[pyo3(signature = (path, pattern = None))]
    fn new(py: Python<'_>, path: PathBuf, pattern: Option<String>) -> PyResult<Self> {
        let query = named(pattern.as_deref());
        let records = interruptible(py, move || open(path))??;
        Ok(Self { records: Mutex::new(records.peekable()), query })
    }

    /// Returns the next records; none at the end. It is a piece of them, because to get the GIL again may take longer than to read one.
    ///
    /// Raises what the handler of a signal raises, and has lost no record then: the next piece goes on.
    fn piece(&self, py: Python<'_>) -> PyResult<Vec<PyRecord>> {
        loop {
            let (piece, is_over) = py.detach(|| self.read())?;
            if is_over || !piece.is_empty() {
                return Ok(piece);
            }
            // What is looked for may be rare, and the file large.
            py.check_signals()?;
        }
    }
}

impl RecordReader {
    /// Reads a piece, for as long as nobody looks for signals. Returns whether it is at the end of the file.
    fn read(&self) -> PyResult<(Vec<PyRecord>, bool)> {
        let Ok(mut records) = self.records.enter() else {
            return Err(PyRuntimeError::new_err(
                "the records must be read in the process that began to read them",
            ));
        };
        let (mut piece, mut bytes, until) = (Vec::new(), 0, deadline_in(SIGNALS));
        while piece.len() < PIECE_RECORDS
            && bytes < PIECE_BYTES
            && until.is_none_or(|until| Instant::now() < until)
        {
            // What was read before an error comes before the error.
            let Some(record) = records.next_if(|record| record.is_ok() || piece.is_empty()) else {
                return Ok((piece, true));
            };
            let record = record.map_err(refused)?;
            if self.query.matches(&record) {
                bytes = bytes.saturating_add(record.size_hint());
                piece.push(PyRecord { record });
            }
        }
        Ok((piece, false))
    }
}
