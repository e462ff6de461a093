//! The extension module of the Python package `forebay`: `forebay._forebay`.
//!
//! Here is what has to be fast, or has to happen on the worker. The rest of the package is Python, in `python/forebay`.
//!
//! The worker never attaches to the interpreter: what it works on is a copy, in Rust. So a loop that holds the GIL cannot delay it, and
//! it cannot delay the end of the interpreter. Whatever may wait is called detached.

// In the order in which data flows; imports go the other way.

// How it comes from Python.
mod convert;

// What is collected.
mod names;
mod point;

// What collects it.
mod writer;

use pyo3::prelude::*;

/// What `forebay` is built on; import `forebay`.
#[pymodule]
mod _forebay {
    use super::*;

    #[pymodule_export]
    use super::writer::Writer;

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("__version__", env!("CARGO_PKG_VERSION"))
    }
}
