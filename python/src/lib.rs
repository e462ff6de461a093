//! The extension module of the Python package `forebay`: `forebay._forebay`.
//!
//! Here is what has to be fast, or has to happen on the worker. The rest of the package is Python, in `python/forebay`.
//!
//! The worker never attaches to the interpreter: what it works on is a copy, in Rust. So a loop that holds the GIL cannot delay it, and
//! it cannot delay the end of the interpreter. Whatever may wait is called detached.

// In the order in which data flows; imports go the other way.

// How it comes from Python, and how Python learns of a long wait.
mod array;
mod convert;
mod watch;

// What is collected, and what the worker makes of it.
mod names;
mod point;
mod work;

mod value;

// What collects it.
mod collector;
mod run;
mod said;
mod writer;

// What is read back.
mod columns;

// What calls handlers.
mod bus;

use pyo3::buffer::PyBuffer;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use array::{Array, check_memory};
use work::pixels::{Frames, Grid, Pixels};

/// What `forebay` is built on; import `forebay`.
///
/// Every class is frozen, and locks what it changes: it needs no GIL.
#[pymodule(gil_used = false)]
mod _forebay {
    use super::*;

    #[pymodule_export]
    use super::collector::{PyCollector, PyRecord, PySubscription};
    #[pymodule_export]
    use super::columns::{RecordReader, count_records, read_columns, read_scalars};
    #[pymodule_export]
    use super::run::{LastRun, RunGuard, check_settings, environment_rank, run_folder, runs_of};
    #[pymodule_export]
    use super::value::{PyHistogram, PyImage, check_fields};
    #[pymodule_export]
    use super::watch::Work;
    #[pymodule_export]
    use super::writer::Writer;

    /// Returns the edges of the default bins of a histogram.
    #[pyfunction]
    fn default_edges() -> Vec<f64> {
        work::histogram::default_bins().edges().to_vec()
    }

    /// Returns the pixels of an image in the layout of its letters, row by row, and its height, width and channels.
    #[pyfunction]
    #[pyo3(signature = (data, code, shape, letters))]
    fn pixels_of<'py>(
        py: Python<'py>,
        data: PyBuffer<u8>,
        code: &str,
        shape: Vec<usize>,
        letters: &str,
    ) -> PyResult<(Bound<'py, PyBytes>, usize, usize, usize)> {
        let array = Array::copy(py, &data, code)?;
        let grid = Grid::new(&shape, letters, 8, false);
        // The levels, and the pixels.
        check_memory(array.len().saturating_add(grid.bytes()), "an image")?;
        let pixels = py.detach(|| Pixels::of(&array, &grid));
        Ok((convert::bytes(py, &pixels.bytes)?, pixels.height, pixels.width, pixels.channels))
    }

    /// Returns the frames of a video, one after the other, and their number, height, width and channels.
    #[pyfunction]
    #[pyo3(signature = (data, code, shape))]
    fn frames_of<'py>(
        py: Python<'py>,
        data: PyBuffer<u8>,
        code: &str,
        shape: [usize; 5],
    ) -> PyResult<(Bound<'py, PyBytes>, [usize; 4])> {
        let array = Array::copy(py, &data, code)?;
        let frames = Frames::new(shape);
        // The levels, and the frames.
        check_memory(array.len().saturating_add(frames.bytes()), "a video")?;
        let (frame, times) = py.detach(|| Pixels::frames(&array, &frames));
        Ok((convert::bytes(py, &frame.bytes)?, [times, frame.height, frame.width, frame.channels]))
    }

    /// Returns a PNG file of images, tiled into a square with so many in a row.
    #[pyfunction]
    #[pyo3(signature = (data, code, shape, columns))]
    fn sprite_of<'py>(
        py: Python<'py>,
        data: PyBuffer<u8>,
        code: &str,
        shape: Vec<usize>,
        columns: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let array = Array::copy(py, &data, code)?;
        let grid = Grid::new(&shape, "NCHW", columns, true);
        // The levels, and the pixels; these as a square, and its file twice.
        let bytes = array.len().saturating_add(grid.bytes());
        check_memory(bytes.saturating_add(grid.squared_bytes().saturating_mul(3)), "a sprite")?;
        let file = py.detach(|| Pixels::of(&array, &grid).squared().png());
        convert::bytes(py, &file.map_err(PyValueError::new_err)?)
    }

    #[pymodule_export]
    use super::bus::{BusCall, BusCalls, BusCore, BusEmission, BusWatcher, matches};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
