//! `Array`: a copy of the numbers of an array or a tensor.

use std::hint::black_box;
use std::mem::MaybeUninit;
use std::ops::{Deref, DerefMut};

use forebay_sync::unix::advise_huge_pages;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyMemoryError, PyValueError};
use pyo3::prelude::*;

/// Copy of the numbers of an array, in order, as they lie in its memory.
pub(crate) struct Array {
    bytes: Bytes,
    kind: Kind,
    /// Whether the most significant byte of a number comes first.
    is_big_endian: bool,
}

/// Type of a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    I8,
    I16,
    I32,
    I64,
    U8,
    U16,
    U32,
    U64,
    F16,
    F32,
    F64,
}

impl Kind {
    fn size(self) -> usize {
        match self {
            Self::Bool | Self::I8 | Self::U8 => 1,
            Self::I16 | Self::U16 | Self::F16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }

    /// Returns the type that NumPy writes so, such as `f4`.
    fn of(code: &str) -> Option<Self> {
        Some(match code {
            "b1" => Self::Bool,
            "i1" => Self::I8,
            "i2" => Self::I16,
            "i4" => Self::I32,
            "i8" => Self::I64,
            "u1" => Self::U8,
            "u2" => Self::U16,
            "u4" => Self::U32,
            "u8" => Self::U64,
            "f2" => Self::F16,
            "f4" => Self::F32,
            "f8" => Self::F64,
            _ => return None,
        })
    }
}

impl Array {
    /// Copies the bytes of a buffer, detached. `code` is the type of the numbers as NumPy writes it, such as `<f4`.
    ///
    /// # Errors
    ///
    /// `ValueError` for a type that is none of numbers, and where the bytes are no whole numbers. `MemoryError` where there is no memory
    /// for the copy.
    pub(crate) fn copy(py: Python<'_>, data: &PyBuffer<u8>, code: &str) -> PyResult<Self> {
        let kind = code.get(1..).and_then(Kind::of);
        let Some(kind) = kind.filter(|kind| data.item_count().is_multiple_of(kind.size())) else {
            return Err(PyValueError::new_err(format!("data must be numbers, got the type {code:?}")));
        };
        Ok(Self { bytes: copy_bytes(py, data)?, kind, is_big_endian: code.starts_with('>') })
    }

    /// Returns the type of the numbers.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns how many numbers there are.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() / self.kind.size()
    }

    /// Returns how many bytes they occupy.
    pub(crate) fn byte_len(&self) -> usize {
        self.bytes.len()
    }

    /// Returns the bytes, the least significant of each number first.
    pub(crate) fn little_endian(&mut self) -> &[u8] {
        if std::mem::take(&mut self.is_big_endian) {
            self.bytes.chunks_exact_mut(self.kind.size()).for_each(<[u8]>::reverse);
        }
        &self.bytes
    }

    /// Calls `each` with every number, in order.
    pub(crate) fn for_each(&self, mut each: impl FnMut(f64)) {
        match self.kind {
            Kind::Bool => self.words(|[byte]| each(f64::from(u8::from(byte != 0)))),
            Kind::I8 => self.words(|bytes| each(i8::from_le_bytes(bytes).into())),
            Kind::I16 => self.words(|bytes| each(i16::from_le_bytes(bytes).into())),
            Kind::I32 => self.words(|bytes| each(i32::from_le_bytes(bytes).into())),
            Kind::I64 => self.words(|bytes| each(i64::from_le_bytes(bytes) as f64)),
            Kind::U8 => self.words(|bytes| each(u8::from_le_bytes(bytes).into())),
            Kind::U16 => self.words(|bytes| each(u16::from_le_bytes(bytes).into())),
            Kind::U32 => self.words(|bytes| each(u32::from_le_bytes(bytes).into())),
            Kind::U64 => self.words(|bytes| each(u64::from_le_bytes(bytes) as f64)),
            Kind::F16 => self.words(|bytes| each(half(u16::from_le_bytes(bytes)))),
            Kind::F32 => self.words(|bytes| each(f32::from_le_bytes(bytes).into())),
            Kind::F64 => self.words(|bytes| each(f64::from_le_bytes(bytes))),
        }
    }

    /// Returns all numbers, in order. None is in memory twice. A loop is faster by [`for_each`](Self::for_each).
    pub(crate) fn numbers(&self) -> impl Iterator<Item = f64> + Clone {
        self.bytes.chunks_exact(self.kind.size()).map(|word| self.number(word))
    }

    fn number(&self, word: &[u8]) -> f64 {
        let mut number = [0; 8];
        for (place, byte) in word.iter().enumerate() {
            number[if self.is_big_endian { word.len() - 1 - place } else { place }] = *byte;
        }
        let bits = u64::from_le_bytes(number);
        match self.kind {
            Kind::Bool => f64::from(u8::from(bits != 0)),
            Kind::I8 => f64::from(bits as i8),
            Kind::I16 => f64::from(bits as i16),
            Kind::I32 => f64::from(bits as i32),
            Kind::I64 => bits as i64 as f64,
            Kind::U8 | Kind::U16 | Kind::U32 | Kind::U64 => bits as f64,
            Kind::F16 => half(bits as u16),
            Kind::F32 => f64::from(f32::from_bits(bits as u32)),
            Kind::F64 => f64::from_bits(bits),
        }
    }

    /// Calls `each` with the bytes of every number, the least significant first.
    fn words<const N: usize>(&self, mut each: impl FnMut([u8; N])) {
        for &word in self.bytes.as_chunks::<N>().0 {
            let mut word = word;
            if self.is_big_endian {
                word.reverse();
            }
            each(word);
        }
    }
}

/// Bytes of a copy.
enum Bytes {
    Few(Vec<u8>),
    /// As many as the number says, from the begin of the first page on. The vector has space for them, and is empty.
    Many(Vec<HugePage>, usize),
}

/// Memory where a huge page of the system fits: of 2 MiB, as most processors have them.
#[repr(C, align(0x20_0000))]
struct HugePage {
    _bytes: [MaybeUninit<u8>; HUGE_PAGE],
}

const HUGE_PAGE: usize = 2 << 20;

/// The least copy for which huge pages are asked for, in bytes.
///
/// The first write to a page of memory that is new costs a fault, and 2,000 faults of small pages take longer than the copy of 10^6 numbers
/// of 64 bits: 9 ms in all on a virtual machine with 2 cores, and 1.7 ms with huge pages. Such memory is new in the first calls; then the
/// allocator of glibc uses it again, up to 32 MiB of it. Where memory is fragmented, the system may have to make room for a huge page,
/// while the loop waits. (One copy of 64 MiB in four took 120 ms there, when the host had to find the memory.)
///
/// Rejected: pages that begin where the allocator puts the copy. One in two of a few pages is then no whole one. A thread of ours that writes
/// to memory before anybody logs: 8 MB for every program. To count in the call, without a copy: 3 ms, and the next call has no memory either.
const MIN_IN_HUGE_PAGES: usize = 3 << 20;

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Few(bytes) => bytes,
            // SAFETY: `copy_bytes` has written so many bytes into the space of the vector, which nobody has changed since.
            #[allow(unsafe_code, reason = "a copy into huge pages")]
            Self::Many(pages, length) => unsafe {
                std::slice::from_raw_parts(pages.as_ptr().cast(), *length)
            },
        }
    }
}

impl DerefMut for Bytes {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Few(bytes) => bytes,
            // SAFETY: as above; the vector is borrowed for as long.
            #[allow(unsafe_code, reason = "a copy into huge pages")]
            Self::Many(pages, length) => unsafe {
                std::slice::from_raw_parts_mut(pages.as_mut_ptr().cast(), *length)
            },
        }
    }
}

/// Copies the bytes of a buffer, detached: that of a large array takes milliseconds, most of them for pages of memory that are new.
fn copy_bytes(py: Python<'_>, data: &PyBuffer<u8>) -> PyResult<Bytes> {
    let length = data.item_count();
    if !data.is_c_contiguous() {
        let mut bytes = space(length)?;
        bytes.resize(length, 0);
        data.copy_to_slice(py, &mut bytes)?;
        return Ok(Bytes::Few(bytes));
    }
    let mut bytes = if length >= MIN_IN_HUGE_PAGES {
        Bytes::Many(reserved(length.div_ceil(HUGE_PAGE)).ok_or_else(|| refused(length))?, length)
    } else {
        Bytes::Few(space(length)?)
    };
    let start = data.buf_ptr() as usize;
    py.detach(|| {
        let into = match &mut bytes {
            Bytes::Few(bytes) => bytes.as_mut_ptr(),
            Bytes::Many(pages, _) => {
                // The last one only where half of it is needed.
                let wanted = (length + HUGE_PAGE / 2) / HUGE_PAGE;
                advise_huge_pages(&mut pages.spare_capacity_mut()[..wanted]);
                pages.as_mut_ptr().cast()
            }
        };
        // SAFETY: The buffer is exported to us: its owner keeps its `length` bytes at `start` until `data` is released, which the caller
        // holds. They are copied as bytes, into space that is reserved for them and does not overlap. Another thread that writes to the
        // array meanwhile makes these numbers a mixture, as it would for NumPy.
        #[allow(unsafe_code, reason = "a copy without the GIL")]
        unsafe {
            std::ptr::copy_nonoverlapping(start as *const u8, into, length);
            if let Bytes::Few(bytes) = &mut bytes {
                bytes.set_len(length);
            }
        }
    });
    Ok(bytes)
}

/// The most bytes that are asked for without a look whether there is memory for them.
const MAX_UNASKED: usize = 1 << 20;

/// What must be left behind any larger allocation, in bytes. The small ones that follow do not ask, and there are some on every thread: the
/// stack of the thread that flushes, tables, buffers of files, messages. One that the system refuses ends the process.
const MIN_LEFT: usize = 8 << 20;

/// Returns whether there is memory for so many bytes, by asking for them and giving them back.
pub(crate) fn has_memory(bytes: usize) -> bool {
    let mut asked = Vec::<u8>::new();
    let is_there = bytes <= MAX_UNASKED || asked.try_reserve_exact(bytes.saturating_add(MIN_LEFT)).is_ok();
    // The compiler may leave out an allocation that nobody uses, and assume that it succeeds.
    black_box(asked);
    is_there
}

/// Raises `MemoryError` where there is no memory for so many bytes. Without this check, the allocation would end the process.
pub(crate) fn check_memory(bytes: usize, what: &str) -> PyResult<()> {
    if has_memory(bytes) {
        return Ok(());
    }
    Err(PyMemoryError::new_err(format!("there is no memory for {what}: it takes up to {bytes} bytes")))
}

/// Returns a copy of bytes that Python has: whatever a call copies may be as large as the user's data.
///
/// # Errors
///
/// `MemoryError` where there is no memory for the copy.
pub(crate) fn copied(bytes: &[u8]) -> PyResult<Vec<u8>> {
    let mut copy = space(bytes.len())?;
    copy.extend_from_slice(bytes);
    Ok(copy)
}

/// Returns a copy of the numbers of an `array.array` of Python.
///
/// # Errors
///
/// `MemoryError` where there is no memory for the copy.
pub(crate) fn copied_numbers(py: Python<'_>, numbers: &PyBuffer<f64>) -> PyResult<Vec<f64>> {
    let mut copy = space(numbers.item_count())?;
    copy.resize(numbers.item_count(), 0.0);
    numbers.copy_to_slice(py, &mut copy)?;
    Ok(copy)
}

/// Returns space for a copy of so many bytes, or other items.
///
/// # Errors
///
/// `MemoryError` where there is no memory for it.
pub(crate) fn space<T>(length: usize) -> PyResult<Vec<T>> {
    reserved(length).ok_or_else(|| refused(length.saturating_mul(size_of::<T>())))
}

/// Returns the error for a copy of so many bytes that there is no memory for.
fn refused(bytes: usize) -> PyErr {
    PyMemoryError::new_err(format!("there is no memory for a copy: it takes {bytes} bytes"))
}

/// Returns space for so many items, or `None` where there is no memory for it.
fn reserved<T>(length: usize) -> Option<Vec<T>> {
    let mut items = Vec::new();
    let is_there =
        has_memory(length.saturating_mul(size_of::<T>())) && items.try_reserve_exact(length).is_ok();
    is_there.then_some(items)
}

/// Returns the number that 16 bits are: IEEE 754, binary16.
fn half(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let fraction = f64::from(bits & 0x3ff);
    sign * match bits >> 10 & 0x1f {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        exponent => (1.0 + fraction / 1024.0) * 2f64.powi(i32::from(exponent) - 15),
    }
}
