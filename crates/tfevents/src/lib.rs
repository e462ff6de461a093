//! Encoder and decoder of TensorBoard's event files.
//!
//! A file is a sequence of records. Each is framed by its length and two checksums ([`masked_crc32c`]) and holds an `Event`, a
//! protocol buffer. The first event tells the version of the file, the second that a session starts.
//!
//! [`Encoder`] encodes into memory and writes no file. The format follows the sources of TensorBoard 2.21, and both of
//! TensorBoard's loaders read the result back in the tests of `forebay`, whose `TensorBoardSink` writes such files.
//!
//! [`Reader`] reads such files, also while they grow, and those of PyTorch, tensorboardX and TensorBoard. It checks both checksums
//! and bounds its memory. At damage it stops, or it skips the damage and reports it, as its owner chooses.
//!
//! ```
//! use tfevents::{Encoder, Summary};
//!
//! let mut encoder = Encoder::new();
//! encoder.begin_file(1_700_000_000.0, 0);
//! encoder.add(1_700_000_000.5, 1, "train/loss", Summary::Scalar(0.25))?;
//! encoder.add(1_700_000_000.5, 1, "train/accuracy", Summary::Scalar(0.5))?;
//! let bytes = encoder.take();
//! // To be written with one call, so that a reader never sees half a record for long.
//! # assert!(bytes.len() > 100);
//! # Ok::<(), tfevents::EncodeError>(())
//! ```

mod wire;

mod fields;

mod schema;

mod summary;

mod tags;

mod encoder;

mod event;

mod reader;

pub use encoder::{EncodeError, Encoder};
pub use event::{
    Audio, Bins, DataClass, Event, EventContent, Histogram, Hparams, Image, Metadata, Numbers, SessionState,
    Settings, Tensor, Value, ValueContent, Values,
};
pub use fields::{DecodeError, FieldValue, Fields};
pub use reader::{Damage, DamageReason, OnDamage, Position, ReadError, Reader, Record, Skipped};
pub use summary::{
    Category, Chart, ChartContent, DataType, DatasetType, Domain, EXPERIMENT, HparamInfo, HparamType, LAYOUT,
    Margin, Mesh, MeshPart, MeshTensor, MetricInfo, SESSION_END, SESSION_START, SessionStatus, Setting,
    Summary,
};
pub use wire::masked_crc32c;
