//! Values of tags, and the form that each has in a file.
//!
//! Several kinds have two forms. TensorBoard writes tensors, with a plugin that is named once for each tag; PyTorch and
//! tensorboardX write most kinds as messages of their own, which TensorBoard calls legacy. Both are shown. The numbers of fields
//! are those of TensorBoard's `summary.proto`, `tensor.proto` and the `plugin_data.proto` of each plugin.

use crate::wire::{Wire, push_varint};

/// Value of a tag at a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Summary<'a> {
    /// A number. TensorBoard's scalars are 32 bits wide; NaN and infinities are shown as such.
    Scalar(f32),
    /// A number as a tensor, which takes more bytes than [`Scalar`](Self::Scalar): PyTorch's `new_style`. A tag may have both.
    ScalarTensor(f32),
    /// A number of 64 bits as a tensor: PyTorch's `double_precision`. TensorBoard's default loader shows none.
    DoubleTensor(f64),
    /// Text, shown as Markdown.
    Text(&'a str),
    /// Texts below one another, as a tensor of rank 1. PyTorch writes every text so.
    Texts(&'a [&'a str]),
    /// A distribution: the count of values in each bin.
    Histogram {
        /// The edges of the bins, ascending: one more than there are counts. Surplus edges or counts are left out.
        edges: &'a [f64],
        /// The number of values in each bin.
        counts: &'a [u64],
    },
    /// A distribution in the legacy form.
    LegacyHistogram {
        /// The least value, from where the first bin begins.
        min: f64,
        /// The largest value, where the last bin ends.
        max: f64,
        /// The number of values.
        num: f64,
        /// The sum of the values.
        sum: f64,
        /// The sum of the squares of the values.
        sum_squares: f64,
        /// The upper limit of each bin, ascending: as many as there are counts. Surplus limits or counts are left out.
        limits: &'a [f64],
        /// The number of values in each bin.
        counts: &'a [f64],
    },
    /// A picture.
    Image {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The file: PNG, JPEG or GIF. TensorBoard tells them apart by their first bytes.
        encoded: &'a [u8],
    },
    /// A picture in the legacy form.
    LegacyImage {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The number of channels: 1 is gray, 2 gray with alpha, 3 RGB, 4 RGBA.
        colorspace: u32,
        /// The file: PNG, JPEG or GIF.
        encoded: &'a [u8],
    },
    /// A sound as a tensor.
    Audio {
        /// The WAV file.
        wav: &'a [u8],
    },
    /// A sound in the legacy form.
    LegacyAudio {
        /// Frames a second.
        sample_rate: f32,
        /// The number of channels.
        channels: u32,
        /// The number of frames.
        frames: u64,
        /// The file.
        encoded: &'a [u8],
        /// The media type of the file: `audio/wav`.
        content_type: &'a str,
    },
    /// Numbers of any shape. TensorBoard has no view of them, and hands them to its plugins.
    Tensor {
        /// The type of a number; [`DataType::String`] is refused.
        dtype: DataType,
        /// The size of each dimension. Empty for one number.
        shape: &'a [u64],
        /// The numbers in row-major order, each with its least byte first.
        content: &'a [u8],
    },
    /// A curve of precision over recall.
    PrCurve {
        /// Six numbers for each threshold: the counts of true positives, false positives, true negatives and false negatives,
        /// then precision and recall. Of rows that differ in length, the surplus is left out.
        rows: [&'a [f32]; 6],
    },
    /// One of the tensors of a mesh: see [`Mesh::summaries`], which makes them.
    MeshTensor {
        /// The mesh.
        mesh: Mesh<'a>,
        /// The part, which must be there: nothing else is written.
        part: MeshPart,
    },
    /// The charts of the dashboard of custom scalars, for the tag [`LAYOUT`].
    Layout(&'a [Category<'a>]),
    /// The hyper-parameters of a run, for the tag [`SESSION_START`].
    SessionStart {
        /// The name under which sessions of the same settings share a row; empty for a row of its own.
        group: &'a str,
        /// The hyper-parameters and their names, each name once. TensorBoard shows `optimizer/lr` for a nested one.
        settings: &'a [(&'a str, Setting<'a>)],
        /// Seconds since 1970.
        began_at: f64,
    },
    /// The end of a run, for the tag [`SESSION_END`].
    SessionEnd {
        /// Status: whether the session ended well.
        status: SessionStatus,
        /// Seconds since 1970.
        ended_at: f64,
    },
    /// The hyper-parameters and metrics of all runs, for the tag [`EXPERIMENT`]. Without it, TensorBoard finds both by itself.
    Experiment {
        /// The hyper-parameters: the columns of the table.
        hparams: &'a [HparamInfo<'a>],
        /// The metrics: the columns behind those.
        metrics: &'a [MetricInfo<'a>],
    },
    /// A whole `Summary` message that was encoded elsewhere: its values, each with a tag of its own. They are written as they
    /// are; neither their kinds nor their steps are compared with those of their tags.
    Encoded(&'a [u8]),
}

/// Type of the numbers of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the names say it")]
pub enum DataType {
    Float32 = 1,
    Float64 = 2,
    Int32 = 3,
    Uint8 = 4,
    Int16 = 5,
    Int8 = 6,
    /// Bytes of any length.
    String = 7,
    Complex64 = 8,
    Int64 = 9,
    Bool = 10,
    Bfloat16 = 14,
    Uint16 = 17,
    Complex128 = 18,
    Float16 = 19,
    Uint32 = 22,
    Uint64 = 23,
}

impl DataType {
    const ALL: [Self; 16] = [
        Self::Float32,
        Self::Float64,
        Self::Int32,
        Self::Uint8,
        Self::Int16,
        Self::Int8,
        Self::String,
        Self::Complex64,
        Self::Int64,
        Self::Bool,
        Self::Bfloat16,
        Self::Uint16,
        Self::Complex128,
        Self::Float16,
        Self::Uint32,
        Self::Uint64,
    ];

    /// Returns the type of a number in TensorFlow's `DataType`, and `None` for one that is not known here.
    pub fn from_number(number: u64) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| *dtype as u64 == number)
    }

    /// Returns the size of one number in bytes, and `None` for strings.
    pub fn size(self) -> Option<usize> {
        match self {
            Self::Uint8 | Self::Int8 | Self::Bool => Some(1),
            Self::Int16 | Self::Uint16 | Self::Float16 | Self::Bfloat16 => Some(2),
            Self::Float32 | Self::Int32 | Self::Uint32 => Some(4),
            Self::Float64 | Self::Int64 | Self::Uint64 | Self::Complex64 => Some(8),
            Self::Complex128 => Some(16),
            Self::String => None,
        }
    }
}

/// Mesh: points, and what they are the corners of, or a cloud of points alone.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mesh<'a> {
    /// The name of the mesh. The tags of its parts begin with it.
    pub name: &'a str,
    /// The settings of the scene, as a JSON object: `{}` for the usual ones.
    pub config: &'a str,
    /// The points. Three numbers each.
    pub vertices: MeshTensor<'a>,
    /// The corners of triangles, as three indices of points each.
    pub faces: Option<MeshTensor<'a>>,
    /// The colours of the points: red, green and blue, 0 to 255.
    pub colors: Option<MeshTensor<'a>>,
}

/// Numbers of one part of a [`Mesh`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeshTensor<'a> {
    /// The number of meshes, of points or triangles in each, and of numbers for each of those, which is 3.
    pub shape: [u64; 3],
    /// The numbers in row-major order.
    pub values: &'a [f32],
}

/// Part of a [`Mesh`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MeshPart {
    /// The points.
    Vertices = 1,
    /// The triangles.
    Faces = 2,
    /// The colours.
    Colors = 3,
}

impl<'a> Mesh<'a> {
    const PARTS: [(MeshPart, &'static str); 3] =
        [(MeshPart::Vertices, "VERTEX"), (MeshPart::Faces, "FACE"), (MeshPart::Colors, "COLOR")];

    /// Returns the summary of each part that is there, with its tag: `<name>_VERTEX`, `<name>_FACE`, `<name>_COLOR`. All belong
    /// to one step.
    pub fn summaries(self) -> impl Iterator<Item = (String, Summary<'a>)> {
        Self::PARTS.into_iter().filter(move |(part, _)| self.tensor(*part).is_some()).map(
            move |(part, name)| (format!("{}_{name}", self.name), Summary::MeshTensor { mesh: self, part }),
        )
    }

    fn tensor(&self, part: MeshPart) -> Option<MeshTensor<'a>> {
        match part {
            MeshPart::Vertices => Some(self.vertices),
            MeshPart::Faces => self.faces,
            MeshPart::Colors => self.colors,
        }
    }

    fn push_content(&self, part: MeshPart, content: &mut Vec<u8>) {
        let shape = self.tensor(part).map_or([0; 3], |tensor| tensor.shape);
        let there = Self::PARTS.into_iter().filter(|(part, _)| self.tensor(*part).is_some());
        content.bytes(2, self.name.as_bytes());
        content.varint(3, part as u64);
        content.bytes(5, self.config.as_bytes());
        content.message(6, |sizes| shape.into_iter().for_each(|size| push_varint(sizes, size)));
        content.varint(7, there.fold(0, |all, (part, _)| all | 1 << part as u64));
    }
}

/// Group of charts in the dashboard of custom scalars.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Category<'a> {
    /// The title.
    pub title: &'a str,
    /// The charts.
    pub charts: &'a [Chart<'a>],
    /// Whether the group is folded at first.
    pub is_closed: bool,
}

/// Chart in the dashboard of custom scalars.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Chart<'a> {
    /// The title.
    pub title: &'a str,
    /// The curves.
    pub content: ChartContent<'a>,
}

/// Curves of a [`Chart`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ChartContent<'a> {
    /// The curves of all tags that match one of these regular expressions.
    Multiline(&'a [&'a str]),
    /// Curves with a band around them.
    Margin(&'a [Margin<'a>]),
}

/// Curve with a band around it: three tags.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Margin<'a> {
    /// The tag of the curve.
    pub value: &'a str,
    /// The tag of the lower end of the band.
    pub lower: &'a str,
    /// The tag of the upper end of the band.
    pub upper: &'a str,
}

/// Value of a hyper-parameter. TensorBoard's table knows these three types.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Setting<'a> {
    /// A number.
    Number(f64),
    /// A truth value.
    Bool(bool),
    /// A text.
    Text(&'a str),
}

/// Hyper-parameter in the description of all runs.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct HparamInfo<'a> {
    /// The name, as in the settings of a run.
    pub name: &'a str,
    /// The title of the column; the name if it is empty.
    pub display_name: &'a str,
    /// A text about it, in Markdown.
    pub description: &'a str,
    /// The type of its values.
    pub kind: HparamType,
    /// The values that it may have. Without them, TensorBoard offers no filter.
    pub domain: Option<Domain<'a>>,
}

/// Type of the values of a hyper-parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HparamType {
    /// Not given.
    #[default]
    Unset = 0,
    /// Texts.
    Text = 1,
    /// Truth values.
    Bool = 2,
    /// Numbers.
    Number = 3,
}

/// Values that a hyper-parameter may have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Domain<'a> {
    /// One of these.
    Discrete(&'a [Setting<'a>]),
    /// Numbers from `min` to `max`.
    Interval {
        /// The least.
        min: f64,
        /// The largest.
        max: f64,
    },
}

/// Metric in the description of all runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MetricInfo<'a> {
    /// The tag of its scalars.
    pub tag: &'a str,
    /// The folder of its scalars below that of the run; empty for the same.
    pub group: &'a str,
    /// The title of the column; the tag if it is empty.
    pub display_name: &'a str,
    /// A text about it, in Markdown.
    pub description: &'a str,
    /// The data that it is measured on.
    pub dataset: DatasetType,
}

/// Data that a metric is measured on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DatasetType {
    /// Not given.
    #[default]
    Unknown = 0,
    /// The data of the training.
    Training = 1,
    /// The data of the validation.
    Validation = 2,
}

/// Result of a run, in the table of hyper-parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionStatus {
    /// The run ended well.
    Success = 1,
    /// The run failed.
    Failure = 2,
    /// The run goes on.
    Running = 3,
}

/// The tag of [`Summary::Experiment`].
pub const EXPERIMENT: &str = "_hparams_/experiment";

/// The tag of [`Summary::SessionStart`].
pub const SESSION_START: &str = "_hparams_/session_start_info";

/// The tag of [`Summary::SessionEnd`].
pub const SESSION_END: &str = "_hparams_/session_end_info";

/// The tag of [`Summary::Layout`].
pub const LAYOUT: &str = "custom_scalars__config__";

/// Kind of the values of a tag. It never changes: TensorBoard cannot show a tag with two kinds.
///
/// The two forms of a kind differ here, because one needs metadata with the first value of a tag and the other has none. The
/// tensors of scalars always have metadata, so a tag may have both forms of those.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Scalar,
    Text,
    Histogram,
    LegacyHistogram,
    Image,
    LegacyImage,
    Audio,
    LegacyAudio,
    Tensor,
    PrCurve,
    Mesh,
    Layout,
    Settings,
    /// Many kinds, or none. No tag has it.
    Encoded,
}

impl Summary<'_> {
    /// Appends the value to an encoded `Summary` message, under its tag and with the metadata that its plugin needs: for
    /// [`Encoded`](Self::Encoded). Nothing is checked.
    ///
    /// ```
    /// use tfevents::Summary;
    ///
    /// let mut message = Vec::new();
    /// Summary::Scalar(1.0).encode("a", &mut message);
    /// assert_eq!(message, *b"\x0a\x08\x0a\x01a\x15\0\0\x80\x3f");
    /// ```
    pub fn encode(&self, tag: &str, message: &mut Vec<u8>) {
        if let Summary::Encoded(values) = self {
            message.extend_from_slice(values);
            return;
        }
        message.message(1, |value| {
            value.bytes(1, tag.as_bytes());
            self.push_metadata(value);
            self.push(value);
        });
    }

    pub(super) fn kind(&self) -> Kind {
        match self {
            Summary::Scalar(_) | Summary::ScalarTensor(_) | Summary::DoubleTensor(_) => Kind::Scalar,
            Summary::Text(_) | Summary::Texts(_) => Kind::Text,
            Summary::Histogram { .. } => Kind::Histogram,
            Summary::LegacyHistogram { .. } => Kind::LegacyHistogram,
            Summary::Image { .. } => Kind::Image,
            Summary::LegacyImage { .. } => Kind::LegacyImage,
            Summary::Audio { .. } => Kind::Audio,
            Summary::LegacyAudio { .. } => Kind::LegacyAudio,
            Summary::Tensor { .. } => Kind::Tensor,
            Summary::PrCurve { .. } => Kind::PrCurve,
            Summary::MeshTensor { .. } => Kind::Mesh,
            Summary::Layout(_) => Kind::Layout,
            Summary::SessionStart { .. } | Summary::SessionEnd { .. } | Summary::Experiment { .. } => {
                Kind::Settings
            }
            Summary::Encoded(_) => Kind::Encoded,
        }
    }

    /// Returns how many bytes a tensor must have and has, where these differ. Strings have no number of bytes, so 0 is as wrong
    /// as any.
    pub(super) fn wrong_length(&self) -> Option<(u64, u64)> {
        let (size, shape, length) = match self {
            Summary::Tensor { dtype, shape, content } => (dtype.size()?, *shape, content.len()),
            Summary::MeshTensor { mesh, part } => {
                return mesh
                    .tensor(*part)
                    .and_then(|tensor| wrong_length(4, &tensor.shape, 4 * tensor.values.len()));
            }
            _ => return None,
        };
        wrong_length(size, shape, length)
    }

    /// Returns how many bytes the value takes at least, without its tag. Where names of tags and titles are all there is, 0.
    pub(super) fn payload_bytes(&self) -> usize {
        match self {
            Summary::Scalar(_) | Summary::ScalarTensor(_) | Summary::DoubleTensor(_) => 0,
            Summary::Text(text) => text.len(),
            Summary::Texts(texts) => texts.iter().fold(0, |all, text| all.saturating_add(text.len() + 2)),
            Summary::Histogram { counts, .. } => counts.len().saturating_mul(3 * size_of::<f64>()),
            Summary::LegacyHistogram { counts, .. } => counts.len().saturating_mul(2 * size_of::<f64>()),
            Summary::Image { encoded, .. }
            | Summary::LegacyImage { encoded, .. }
            | Summary::LegacyAudio { encoded, .. } => encoded.len(),
            Summary::Audio { wav } => wav.len(),
            Summary::Tensor { content, .. } => content.len(),
            Summary::PrCurve { rows } => columns(rows).saturating_mul(6 * size_of::<f32>()),
            Summary::MeshTensor { mesh, part } => {
                mesh.tensor(*part).map_or(0, |tensor| size_of_val(tensor.values)) + mesh.config.len()
            }
            Summary::SessionStart { settings, .. } => settings.iter().fold(0, |all, (name, setting)| {
                let text = if let Setting::Text(text) = setting { text.len() } else { 0 };
                all.saturating_add(name.len()).saturating_add(text)
            }),
            Summary::Layout(_) | Summary::SessionEnd { .. } | Summary::Experiment { .. } => 0,
            Summary::Encoded(bytes) => bytes.len(),
        }
    }

    /// Returns whether every value needs the metadata of its tag, and not only the first in a file.
    pub(super) fn has_metadata_always(&self) -> bool {
        // That of settings holds all that a session has; that of scalars may come behind values without any.
        matches!(self, Summary::ScalarTensor(_) | Summary::DoubleTensor(_)) || self.kind() == Kind::Settings
    }

    /// Appends the metadata that a plugin of TensorBoard needs of a tag.
    pub(super) fn push_metadata(&self, value: &mut Vec<u8>) {
        const SCALAR: u64 = 1;
        const TENSOR: u64 = 2;
        const BLOB_SEQUENCE: u64 = 3;
        let (plugin, class) = match self.kind() {
            Kind::Scalar if !self.has_metadata_always() => return,
            Kind::Scalar => ("scalars", SCALAR),
            Kind::Text => ("text", TENSOR),
            Kind::Histogram => ("histograms", TENSOR),
            Kind::Image => ("images", BLOB_SEQUENCE),
            Kind::Audio => ("audio", BLOB_SEQUENCE),
            Kind::Tensor => ("tensor", TENSOR),
            Kind::PrCurve => ("pr_curves", TENSOR),
            Kind::Mesh => ("mesh", TENSOR),
            Kind::Layout => ("custom_scalars", TENSOR),
            Kind::Settings => ("hparams", TENSOR),
            // These need none, in either loader.
            Kind::LegacyHistogram | Kind::LegacyImage | Kind::LegacyAudio | Kind::Encoded => return,
        };
        value.message(9, |metadata| {
            metadata.message(1, |data| {
                data.bytes(1, plugin.as_bytes());
                self.push_plugin_content(data);
            });
            metadata.varint(4, class);
        });
    }

    /// Appends what the plugin keeps beside the values.
    fn push_plugin_content(&self, data: &mut Vec<u8>) {
        match self {
            Summary::SessionStart { group, settings, began_at } => {
                data.message(2, |content| push_session_start(content, group, settings, *began_at));
            }
            Summary::SessionEnd { status, ended_at } => data.message(2, |content| {
                content.message(4, |end| {
                    end.varint(1, *status as u64);
                    end.fixed64(2, *ended_at);
                });
            }),
            Summary::Experiment { hparams, metrics } => data.message(2, |content| {
                content.message(2, |experiment| {
                    hparams.iter().for_each(|info| info.push(experiment));
                    metrics.iter().for_each(|info| info.push(experiment));
                });
            }),
            Summary::PrCurve { rows } => data.message(2, |content| content.varint(2, columns(rows) as u64)),
            Summary::MeshTensor { mesh, part } => {
                data.message(2, |content| mesh.push_content(*part, content))
            }
            // The encoding: WAV.
            Summary::Audio { .. } => data.message(2, |content| content.varint(2, 11)),
            _ => {}
        }
    }

    /// Appends the value itself.
    pub(super) fn push(&self, value: &mut Vec<u8>) {
        match self {
            Summary::Scalar(scalar) => value.fixed32(2, *scalar),
            Summary::LegacyHistogram { min, max, num, sum, sum_squares, limits, counts } => {
                value.message(5, |histogram| {
                    for (field, number) in (1..).zip([*min, *max, *num, *sum, *sum_squares]) {
                        // As in every protocol buffer, zeros are left out.
                        if number.to_bits() != 0 {
                            histogram.fixed64(field, number);
                        }
                    }
                    let bins = limits.len().min(counts.len());
                    push_doubles(histogram, 6, &limits[..bins]);
                    push_doubles(histogram, 7, &counts[..bins]);
                });
            }
            Summary::LegacyImage { width, height, colorspace, encoded } => value.message(4, |image| {
                push_nonzero(image, 1, u64::from(*height));
                push_nonzero(image, 2, u64::from(*width));
                push_nonzero(image, 3, u64::from(*colorspace));
                image.bytes(4, encoded);
            }),
            Summary::LegacyAudio { sample_rate, channels, frames, encoded, content_type } => {
                value.message(6, |audio| {
                    audio.fixed32(1, *sample_rate);
                    push_nonzero(audio, 2, u64::from(*channels));
                    push_nonzero(audio, 3, *frames);
                    audio.bytes(4, encoded);
                    audio.bytes(5, content_type.as_bytes());
                });
            }
            Summary::Encoded(_) => {}
            _ => value.message(8, |tensor| self.push_tensor(tensor)),
        }
    }

    /// Appends the content of a tensor.
    fn push_tensor(&self, tensor: &mut Vec<u8>) {
        let push_type = |tensor: &mut Vec<u8>, dtype: DataType| tensor.varint(1, dtype as u64);
        match self {
            Summary::ScalarTensor(scalar) => {
                push_type(tensor, DataType::Float32);
                push_shape(tensor, &[]);
                push_floats(tensor, &[&[*scalar]]);
            }
            Summary::DoubleTensor(scalar) => {
                push_type(tensor, DataType::Float64);
                push_shape(tensor, &[]);
                push_doubles(tensor, 6, &[*scalar]);
            }
            Summary::Text(text) => {
                push_type(tensor, DataType::String);
                push_shape(tensor, &[]);
                tensor.bytes(8, text.as_bytes());
            }
            Summary::Texts(texts) => {
                push_type(tensor, DataType::String);
                push_shape(tensor, &[texts.len() as u64]);
                texts.iter().for_each(|text| tensor.bytes(8, text.as_bytes()));
            }
            Summary::Histogram { edges, counts } => {
                push_type(tensor, DataType::Float64);
                let bins = edges.len().saturating_sub(1).min(counts.len());
                push_shape(tensor, &[bins as u64, 3]);
                tensor.message(4, |content| {
                    for (edges, count) in edges.windows(2).zip(*counts) {
                        for number in [edges[0], edges[1], *count as f64] {
                            content.extend_from_slice(&number.to_le_bytes());
                        }
                    }
                });
            }
            Summary::Image { width, height, encoded } => {
                push_type(tensor, DataType::String);
                push_shape(tensor, &[3]);
                tensor.bytes(8, width.to_string().as_bytes());
                tensor.bytes(8, height.to_string().as_bytes());
                tensor.bytes(8, encoded);
            }
            Summary::Audio { wav } => {
                push_type(tensor, DataType::String);
                push_shape(tensor, &[1, 2]);
                tensor.bytes(8, wav);
                // Its label, which TensorBoard shows no more.
                tensor.bytes(8, &[]);
            }
            Summary::Tensor { dtype, shape, content } => {
                push_type(tensor, *dtype);
                push_shape(tensor, shape);
                tensor.bytes(4, content);
            }
            Summary::PrCurve { rows } => {
                let columns = columns(rows);
                push_type(tensor, DataType::Float32);
                push_shape(tensor, &[6, columns as u64]);
                push_floats(tensor, &rows.map(|row| &row[..columns]));
            }
            Summary::MeshTensor { mesh, part } => {
                let (shape, values) = mesh.tensor(*part).map_or(([0; 3], &[][..]), |t| (t.shape, t.values));
                push_type(tensor, DataType::Float32);
                push_shape(tensor, &shape);
                push_floats(tensor, &[values]);
            }
            Summary::Layout(categories) => {
                push_type(tensor, DataType::String);
                push_shape(tensor, &[]);
                tensor.message(8, |layout| categories.iter().for_each(|category| category.push(layout)));
            }
            // The metadata holds all that they tell, but TensorBoard's Python loader finds no value without a tensor.
            Summary::SessionStart { .. } | Summary::SessionEnd { .. } | Summary::Experiment { .. } => {
                push_type(tensor, DataType::Float32);
                push_shape(tensor, &[1]);
                tensor.bytes(4, &[0; 4]);
            }
            // These are no tensors.
            Summary::Scalar(_)
            | Summary::LegacyHistogram { .. }
            | Summary::LegacyImage { .. }
            | Summary::LegacyAudio { .. }
            | Summary::Encoded(_) => {}
        }
    }
}

/// Returns how many bytes so many numbers must have and have, where these differ.
fn wrong_length(size: usize, shape: &[u64], length: usize) -> Option<(u64, u64)> {
    let due = shape.iter().fold(size as u64, |product, size| product.saturating_mul(*size));
    (due != length as u64).then_some((due, length as u64))
}

/// Returns the number of thresholds that all rows of a curve have.
fn columns(rows: &[&[f32]; 6]) -> usize {
    rows.iter().map(|row| row.len()).min().unwrap_or(0)
}

fn push_nonzero(message: &mut Vec<u8>, field: u8, number: u64) {
    if number != 0 {
        message.varint(field, number);
    }
}

/// Appends packed doubles; nothing where there are none.
fn push_doubles(message: &mut Vec<u8>, field: u8, numbers: &[f64]) {
    if !numbers.is_empty() {
        message.key_of_message(field, 8 * numbers.len() as u64);
        numbers.iter().for_each(|number| message.extend_from_slice(&number.to_le_bytes()));
    }
}

/// Appends the numbers of a tensor of floats, row by row.
fn push_floats(tensor: &mut Vec<u8>, rows: &[&[f32]]) {
    let numbers: usize = rows.iter().map(|row| row.len()).sum();
    if numbers > 0 {
        tensor.key_of_message(5, 4 * numbers as u64);
        rows.iter().copied().flatten().for_each(|number| tensor.extend_from_slice(&number.to_le_bytes()));
    }
}

fn push_shape(tensor: &mut Vec<u8>, dimensions: &[u64]) {
    tensor.message(2, |shape| {
        for size in dimensions {
            shape.message(2, |dimension| dimension.varint(1, *size));
        }
    });
}

impl Setting<'_> {
    fn push(self, value: &mut Vec<u8>) {
        match self {
            Setting::Number(number) => value.fixed64(2, number),
            Setting::Text(text) => value.bytes(3, text.as_bytes()),
            Setting::Bool(is) => value.varint(4, u64::from(is)),
        }
    }
}

fn push_session_start(content: &mut Vec<u8>, group: &str, settings: &[(&str, Setting<'_>)], began_at: f64) {
    content.message(3, |start| {
        for (name, setting) in settings {
            start.message(1, |entry| {
                entry.bytes(1, name.as_bytes());
                entry.message(2, |value| setting.push(value));
            });
        }
        start.bytes(4, group.as_bytes());
        start.fixed64(5, began_at);
    });
}

/// Appends a text; nothing where it is empty.
fn push_text(message: &mut Vec<u8>, field: u8, text: &str) {
    if !text.is_empty() {
        message.bytes(field, text.as_bytes());
    }
}

impl HparamInfo<'_> {
    fn push(&self, experiment: &mut Vec<u8>) {
        experiment.message(4, |info| {
            push_text(info, 1, self.name);
            push_text(info, 2, self.display_name);
            push_text(info, 3, self.description);
            push_nonzero(info, 4, self.kind as u64);
            match self.domain {
                None => {}
                Some(Domain::Discrete(settings)) => info.message(5, |list| {
                    for setting in settings {
                        list.message(1, |value| setting.push(value));
                    }
                }),
                Some(Domain::Interval { min, max }) => info.message(6, |interval| {
                    interval.fixed64(1, min);
                    interval.fixed64(2, max);
                }),
            }
        });
    }
}

impl MetricInfo<'_> {
    fn push(&self, experiment: &mut Vec<u8>) {
        experiment.message(5, |info| {
            info.message(1, |name| {
                push_text(name, 1, self.group);
                push_text(name, 2, self.tag);
            });
            push_text(info, 3, self.display_name);
            push_text(info, 4, self.description);
            push_nonzero(info, 5, self.dataset as u64);
        });
    }
}

impl Category<'_> {
    fn push(&self, layout: &mut Vec<u8>) {
        layout.message(2, |category| {
            push_text(category, 1, self.title);
            for chart in self.charts {
                category.message(2, |out| chart.push(out));
            }
            push_nonzero(category, 3, u64::from(self.is_closed));
        });
    }
}

impl Chart<'_> {
    fn push(&self, chart: &mut Vec<u8>) {
        push_text(chart, 1, self.title);
        match self.content {
            ChartContent::Multiline(tags) => {
                chart.message(2, |content| tags.iter().for_each(|tag| content.bytes(1, tag.as_bytes())));
            }
            ChartContent::Margin(margins) => chart.message(3, |content| {
                for margin in margins {
                    content.message(1, |series| {
                        push_text(series, 1, margin.value);
                        push_text(series, 2, margin.lower);
                        push_text(series, 3, margin.upper);
                    });
                }
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(summary: &Summary<'_>) -> Vec<u8> {
        let mut value = Vec::new();
        summary.push(&mut value);
        value
    }

    #[test]
    fn surplus_edges_and_counts_of_a_histogram_are_left_out() {
        let histogram = |edges: &[f64], counts: &[u64]| encoded(&Summary::Histogram { edges, counts });
        let whole = histogram(&[0.0, 1.0, 2.0], &[3, 4]);
        assert_eq!(histogram(&[0.0, 1.0, 2.0, 3.0], &[3, 4]), whole);
        assert_eq!(histogram(&[0.0, 1.0, 2.0], &[3, 4, 5]), whole);
        assert_eq!(histogram(&[], &[3]), histogram(&[0.0], &[]));
        let legacy = |limits: &[f64], counts: &[f64]| {
            let (min, max, num, sum, sum_squares) = (0.0, 1.0, 2.0, 3.0, 4.0);
            encoded(&Summary::LegacyHistogram { min, max, num, sum, sum_squares, limits, counts })
        };
        assert_eq!(legacy(&[1.0, 2.0], &[3.0]), legacy(&[1.0], &[3.0, 4.0]));
    }

    #[test]
    fn surplus_numbers_of_a_row_are_left_out() {
        let row = [0.5, 0.25, 0.125];
        let curve = |columns: [usize; 6]| encoded(&Summary::PrCurve { rows: columns.map(|n| &row[..n]) });
        assert_eq!(curve([3, 2, 3, 3, 2, 3]), curve([2; 6]));
        assert_ne!(curve([2; 6]), curve([3; 6]));
    }

    #[test]
    fn types_are_found_by_their_number() {
        for dtype in DataType::ALL {
            assert_eq!(DataType::from_number(dtype as u64), Some(dtype));
        }
        for number in [0, 11, 101, u64::MAX] {
            assert_eq!(DataType::from_number(number), None);
        }
    }
}
