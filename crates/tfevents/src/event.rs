//! What a record holds, borrowed from its bytes. Nothing is copied and nothing allocated, however many values there are.

use crate::fields::{DecodeError, FieldValue, Fields, number_of};
use crate::summary::{DataType, SessionStatus, Setting};

/// Event: the content of one record.
#[derive(Debug, Clone, PartialEq)]
pub struct Event<'a> {
    /// The time in seconds since 1970.
    pub wall_time: f64,
    /// The step; 0 where the writer gave none.
    pub step: i64,
    /// What the event tells.
    pub content: EventContent<'a>,
    /// The program that wrote the file, in its first event; empty in others.
    pub writer: &'a str,
}

/// Content of an [`Event`].
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum EventContent<'a> {
    /// A time and a step alone.
    #[default]
    Nothing,
    /// The version of the format: `brain.Event:2`.
    FileVersion(&'a str),
    /// A graph: the bytes of a `GraphDef` message.
    GraphDef(&'a [u8]),
    /// Values, each of a tag.
    Summary(Values<'a>),
    /// The state of a session.
    SessionLog {
        /// The state.
        state: SessionState,
        /// The path of a checkpoint; empty where there is none.
        checkpoint_path: &'a str,
        /// A text about it.
        message: &'a str,
    },
    /// What was measured of a step of the graph.
    TaggedRunMetadata {
        /// The tag.
        tag: &'a str,
        /// The bytes of a `RunMetadata` message.
        run_metadata: &'a [u8],
    },
    /// A graph with all that belongs to it: the bytes of a `MetaGraphDef` message.
    MetaGraphDef(&'a [u8]),
}

/// State of a session, as a file tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum SessionState {
    /// One that is not known here.
    #[default]
    Unspecified,
    /// A session starts: steps from here on replace earlier ones.
    Start,
    /// The session stops.
    Stop,
    /// A checkpoint was saved.
    Checkpoint,
}

impl<'a> Event<'a> {
    /// Reads the data of a record. Unknown fields are passed over.
    ///
    /// # Errors
    ///
    /// The first rule that the bytes break, anywhere in the event: then none of its values counts.
    pub fn decode(data: &'a [u8]) -> Result<Self, DecodeError> {
        let event = Self::read(data)?;
        event.content.check()?;
        Ok(event)
    }

    /// Reads all but the values, which are to be checked.
    pub(crate) fn read(data: &'a [u8]) -> Result<Self, DecodeError> {
        let mut event = Self { wall_time: 0.0, step: 0, content: EventContent::Nothing, writer: "" };
        for field in Fields::new(data) {
            match field? {
                (1, FieldValue::Fixed64(bytes)) => event.wall_time = f64::from_le_bytes(bytes),
                (2, FieldValue::Varint(step)) => event.step = step as i64,
                (3, FieldValue::Bytes(version)) => event.content = EventContent::FileVersion(text(version)?),
                (4, FieldValue::Bytes(graph)) => event.content = EventContent::GraphDef(graph),
                (5, FieldValue::Bytes(summary)) => {
                    event.content = EventContent::Summary(Values::new(summary))
                }
                (7, FieldValue::Bytes(log)) => event.content = read_session_log(log)?,
                (8, FieldValue::Bytes(tagged)) => event.content = read_tagged(tagged)?,
                (9, FieldValue::Bytes(graph)) => event.content = EventContent::MetaGraphDef(graph),
                (10, FieldValue::Bytes(source)) => {
                    for field in Fields::new(source) {
                        if let (1, FieldValue::Bytes(writer)) = field? {
                            event.writer = text(writer)?;
                        }
                    }
                }
                _ => {}
            }
        }
        Ok(event)
    }
}

impl EventContent<'_> {
    /// Checks what is read only when somebody asks for it.
    pub(crate) fn check(&self) -> Result<(), DecodeError> {
        let Self::Summary(values) = self else { return Ok(()) };
        for field in Fields::new(values.fields.message()) {
            if let (1, FieldValue::Bytes(value)) = field? {
                Value::read(value)?.check()?;
            }
        }
        Ok(())
    }
}

fn read_session_log(log: &[u8]) -> Result<EventContent<'_>, DecodeError> {
    let (mut state, mut checkpoint_path, mut message) = (SessionState::default(), "", "");
    for field in Fields::new(log) {
        match field? {
            (1, FieldValue::Varint(number)) => {
                state = match number {
                    1 => SessionState::Start,
                    2 => SessionState::Stop,
                    3 => SessionState::Checkpoint,
                    _ => SessionState::Unspecified,
                };
            }
            (2, FieldValue::Bytes(path)) => checkpoint_path = text(path)?,
            (3, FieldValue::Bytes(bytes)) => message = text(bytes)?,
            _ => {}
        }
    }
    Ok(EventContent::SessionLog { state, checkpoint_path, message })
}

fn read_tagged(tagged: &[u8]) -> Result<EventContent<'_>, DecodeError> {
    let (mut tag, mut run_metadata) = ("", &[][..]);
    for field in Fields::new(tagged) {
        match field? {
            (1, FieldValue::Bytes(bytes)) => tag = text(bytes)?,
            (2, FieldValue::Bytes(bytes)) => run_metadata = bytes,
            _ => {}
        }
    }
    Ok(EventContent::TaggedRunMetadata { tag, run_metadata })
}

fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes)
        .map_err(|error| DecodeError { at: error.valid_up_to(), rule: "a text must be UTF-8" })
}

/// Iterator over the values of an event.
#[derive(Debug, Clone)]
pub struct Values<'a> {
    fields: Fields<'a>,
}

impl PartialEq for Values<'_> {
    /// Compares the bytes of the values.
    fn eq(&self, other: &Self) -> bool {
        self.fields.message() == other.fields.message()
    }
}

impl<'a> Values<'a> {
    fn new(summary: &'a [u8]) -> Self {
        Self { fields: Fields::new(summary) }
    }
}

impl<'a> Iterator for Values<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        // They were checked, all of them, before anybody got the event.
        self.fields.by_ref().map_while(Result::ok).find_map(|field| match field {
            (1, FieldValue::Bytes(value)) => Value::read(value).ok(),
            _ => None,
        })
    }
}

impl std::iter::FusedIterator for Values<'_> {}

/// Value of a tag.
#[derive(Debug, Clone, PartialEq)]
pub struct Value<'a> {
    /// The tag.
    pub tag: &'a str,
    /// What a plugin needs to show the tag. Writers may tell it with the first value of a tag in a file alone.
    pub metadata: Option<Metadata<'a>>,
    /// The value itself.
    pub content: ValueContent<'a>,
}

/// Content of a [`Value`].
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum ValueContent<'a> {
    /// None: PyTorch's hyper-parameters have metadata alone.
    #[default]
    Nothing,
    /// A number.
    Scalar(f32),
    /// A picture in the legacy form.
    Image(Image<'a>),
    /// A distribution in the legacy form.
    Histogram(Histogram<'a>),
    /// A sound in the legacy form.
    Audio(Audio<'a>),
    /// All else. The plugin in the metadata tells what it means.
    Tensor(Tensor<'a>),
}

/// Metadata of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Metadata<'a> {
    /// The name of the plugin that shows the tag.
    pub plugin: &'a str,
    /// What the plugin keeps beside the values, in its own form.
    pub plugin_content: &'a [u8],
    /// The title; empty for the tag itself.
    pub display_name: &'a str,
    /// A text about it, in Markdown.
    pub description: &'a str,
    /// The class of the data.
    pub data_class: DataClass,
}

/// Class of the data of a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum DataClass {
    /// Not given.
    #[default]
    Unknown,
    /// Numbers.
    Scalar,
    /// Tensors.
    Tensor,
    /// Sequences of files.
    BlobSequence,
}

impl<'a> Value<'a> {
    /// Reads a value. What lies deeper is to be checked.
    fn read(message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut value = Self { tag: "", metadata: None, content: ValueContent::Nothing };
        for field in Fields::new(message) {
            match field? {
                (1, FieldValue::Bytes(tag)) => value.tag = text(tag)?,
                (2, FieldValue::Fixed32(bytes)) => {
                    value.content = ValueContent::Scalar(f32::from_le_bytes(bytes));
                }
                (4, FieldValue::Bytes(image)) => value.content = ValueContent::Image(Image::read(image)?),
                (5, FieldValue::Bytes(histogram)) => {
                    value.content = ValueContent::Histogram(Histogram::read(histogram)?);
                }
                (6, FieldValue::Bytes(audio)) => value.content = ValueContent::Audio(Audio::read(audio)?),
                (8, FieldValue::Bytes(tensor)) => value.content = ValueContent::Tensor(Tensor::read(tensor)?),
                (9, FieldValue::Bytes(metadata)) => value.metadata = Some(Metadata::read(metadata)?),
                _ => {}
            }
        }
        Ok(value)
    }

    fn check(&self) -> Result<(), DecodeError> {
        match &self.content {
            ValueContent::Histogram(histogram) => histogram.check(),
            ValueContent::Tensor(tensor) => tensor.check(),
            _ => Ok(()),
        }
    }

    /// Returns the plugin that shows the value, as its own metadata or its form tells. `None` for a tensor whose tag was described
    /// by an earlier value.
    pub fn plugin(&self) -> Option<&'a str> {
        match (self.metadata, &self.content) {
            (Some(metadata), _) if !metadata.plugin.is_empty() => Some(metadata.plugin),
            (_, ValueContent::Scalar(_)) => Some("scalars"),
            (_, ValueContent::Image(_)) => Some("images"),
            (_, ValueContent::Histogram(_)) => Some("histograms"),
            (_, ValueContent::Audio(_)) => Some("audio"),
            _ => None,
        }
    }

    /// Returns the number of a scalar of either form: also of any other tensor of one number.
    pub fn scalar(&self) -> Option<f64> {
        match &self.content {
            ValueContent::Scalar(scalar) => Some(f64::from(*scalar)),
            ValueContent::Tensor(tensor) if tensor.shape().all(|size| size == 1) => tensor.numbers().next(),
            _ => None,
        }
    }

    /// Returns the bins of a distribution of either form, each with its left edge, its right edge and its count: also the rows of
    /// any other tensor of three columns. `None` for other values.
    ///
    /// The legacy form has no left edge of its first bin: that is the least value, and the right edge of its last bin is the
    /// largest one, as in TensorBoard.
    pub fn bins(&self) -> Option<Bins<'a>> {
        match &self.content {
            ValueContent::Histogram(histogram) => Some(Bins(BinsOf::Legacy {
                left: histogram.min,
                max: histogram.max,
                limits: histogram.numbers(6),
                next_limit: None,
                counts: histogram.numbers(7),
            })),
            ValueContent::Tensor(tensor) => {
                let mut shape = tensor.shape();
                let is_of_threes =
                    (shape.next().is_some(), shape.next(), shape.next()) == (true, Some(3), None);
                is_of_threes.then(|| Bins(BinsOf::Rows(tensor.numbers())))
            }
            _ => None,
        }
    }

    /// Returns the first picture of a value of either form. A tensor is one if its plugin says so, or if it was described by an
    /// earlier value and has strings of which the first two are numbers.
    pub fn image(&self) -> Option<Image<'a>> {
        match &self.content {
            ValueContent::Image(image) => Some(*image),
            ValueContent::Tensor(tensor) if self.plugin().is_none_or(|plugin| plugin == "images") => {
                let mut strings = tensor.strings();
                let number =
                    |bytes: &[u8]| std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
                let (width, height) = (strings.next().and_then(number)?, strings.next().and_then(number)?);
                Some(Image { width, height, colorspace: 0, encoded: strings.next()? })
            }
            _ => None,
        }
    }
}

impl<'a> Metadata<'a> {
    fn read(message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut metadata = Self::default();
        for field in Fields::new(message) {
            match field? {
                (1, FieldValue::Bytes(data)) => {
                    for field in Fields::new(data) {
                        match field? {
                            (1, FieldValue::Bytes(plugin)) => metadata.plugin = text(plugin)?,
                            (2, FieldValue::Bytes(content)) => metadata.plugin_content = content,
                            _ => {}
                        }
                    }
                }
                (2, FieldValue::Bytes(name)) => metadata.display_name = text(name)?,
                (3, FieldValue::Bytes(bytes)) => metadata.description = text(bytes)?,
                (4, FieldValue::Varint(class)) => {
                    metadata.data_class = match class {
                        1 => DataClass::Scalar,
                        2 => DataClass::Tensor,
                        3 => DataClass::BlobSequence,
                        _ => DataClass::Unknown,
                    };
                }
                _ => {}
            }
        }
        Ok(metadata)
    }

    /// Returns what the plugin of the hyper-parameters keeps, and `None` for another plugin.
    ///
    /// # Errors
    ///
    /// The first rule that its content breaks.
    pub fn hparams(&self) -> Result<Option<Hparams<'a>>, DecodeError> {
        if self.plugin != "hparams" {
            return Ok(None);
        }
        let mut found = None;
        for field in Fields::new(self.plugin_content) {
            match field? {
                (2, FieldValue::Bytes(experiment)) => found = Some(Hparams::Experiment(experiment)),
                (3, FieldValue::Bytes(start)) => found = Some(read_session_start(start)?),
                (4, FieldValue::Bytes(end)) => found = Some(read_session_end(end)?),
                _ => {}
            }
        }
        Ok(found)
    }
}

/// Hyper-parameters of a run, its end, or the description of all runs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Hparams<'a> {
    /// A run begins.
    SessionStart {
        /// The name under which sessions of the same settings share a row; empty for a row of its own.
        group: &'a str,
        /// The hyper-parameters.
        settings: Settings<'a>,
        /// Seconds since 1970; 0 where it is not given.
        began_at: f64,
    },
    /// A run ended.
    SessionEnd {
        /// How it ended; `None` where it is not given.
        status: Option<SessionStatus>,
        /// Seconds since 1970; 0 where it is not given.
        ended_at: f64,
    },
    /// The description of all runs: the bytes of an `Experiment` message, for [`Fields`].
    Experiment(&'a [u8]),
}

fn read_session_start(start: &[u8]) -> Result<Hparams<'_>, DecodeError> {
    let (mut group, mut began_at) = ("", 0.0);
    for field in Fields::new(start) {
        match field? {
            (1, FieldValue::Bytes(entry)) => _ = read_setting(entry)?,
            (4, FieldValue::Bytes(name)) => group = text(name)?,
            (5, FieldValue::Fixed64(bytes)) => began_at = f64::from_le_bytes(bytes),
            _ => {}
        }
    }
    Ok(Hparams::SessionStart { group, settings: Settings { fields: Fields::new(start) }, began_at })
}

fn read_session_end(end: &[u8]) -> Result<Hparams<'_>, DecodeError> {
    let (mut status, mut ended_at) = (None, 0.0);
    for field in Fields::new(end) {
        match field? {
            (1, FieldValue::Varint(number)) => {
                status = match number {
                    1 => Some(SessionStatus::Success),
                    2 => Some(SessionStatus::Failure),
                    3 => Some(SessionStatus::Running),
                    _ => None,
                };
            }
            (2, FieldValue::Fixed64(bytes)) => ended_at = f64::from_le_bytes(bytes),
            _ => {}
        }
    }
    Ok(Hparams::SessionEnd { status, ended_at })
}

/// Reads a name and its setting, and `None` for a setting of another type than the table knows.
fn read_setting(entry: &[u8]) -> Result<(&str, Option<Setting<'_>>), DecodeError> {
    let (mut name, mut setting) = ("", None);
    for field in Fields::new(entry) {
        match field? {
            (1, FieldValue::Bytes(bytes)) => name = text(bytes)?,
            (2, FieldValue::Bytes(value)) => {
                for field in Fields::new(value) {
                    setting = match field? {
                        (2, FieldValue::Fixed64(bytes)) => Some(Setting::Number(f64::from_le_bytes(bytes))),
                        (3, FieldValue::Bytes(bytes)) => Some(Setting::Text(text(bytes)?)),
                        (4, FieldValue::Varint(is)) => Some(Setting::Bool(is != 0)),
                        _ => setting,
                    };
                }
            }
            _ => {}
        }
    }
    Ok((name, setting))
}

/// Iterator over hyper-parameters: numbers, truth values and texts, with their names.
#[derive(Debug, Clone)]
pub struct Settings<'a> {
    fields: Fields<'a>,
}

impl PartialEq for Settings<'_> {
    /// Compares the bytes of the settings.
    fn eq(&self, other: &Self) -> bool {
        self.fields.message() == other.fields.message()
    }
}

impl<'a> Iterator for Settings<'a> {
    type Item = (&'a str, Setting<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        // They were checked before anybody got them.
        self.fields.by_ref().map_while(Result::ok).find_map(|field| match field {
            (1, FieldValue::Bytes(entry)) => {
                read_setting(entry).ok().and_then(|(name, setting)| Some((name, setting?)))
            }
            _ => None,
        })
    }
}

/// Picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Image<'a> {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// The number of channels; 0 where it is not given.
    pub colorspace: u32,
    /// The file: PNG, JPEG or GIF.
    pub encoded: &'a [u8],
}

impl<'a> Image<'a> {
    fn read(message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut image = Self::default();
        for field in Fields::new(message) {
            match field? {
                (1, FieldValue::Varint(height)) => image.height = height as u32,
                (2, FieldValue::Varint(width)) => image.width = width as u32,
                (3, FieldValue::Varint(channels)) => image.colorspace = channels as u32,
                (4, FieldValue::Bytes(encoded)) => image.encoded = encoded,
                _ => {}
            }
        }
        Ok(image)
    }
}

/// Sound.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Audio<'a> {
    /// Frames a second.
    pub sample_rate: f32,
    /// The number of channels.
    pub channels: u64,
    /// The number of frames.
    pub frames: u64,
    /// The file.
    pub encoded: &'a [u8],
    /// The media type of the file: `audio/wav`.
    pub content_type: &'a str,
}

impl<'a> Audio<'a> {
    fn read(message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut audio = Self::default();
        for field in Fields::new(message) {
            match field? {
                (1, FieldValue::Fixed32(bytes)) => audio.sample_rate = f32::from_le_bytes(bytes),
                (2, FieldValue::Varint(channels)) => audio.channels = channels,
                (3, FieldValue::Varint(frames)) => audio.frames = frames,
                (4, FieldValue::Bytes(encoded)) => audio.encoded = encoded,
                (5, FieldValue::Bytes(bytes)) => audio.content_type = text(bytes)?,
                _ => {}
            }
        }
        Ok(audio)
    }
}

/// Distribution in the legacy form. [`Value::bins`] has the bins of both forms.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Histogram<'a> {
    /// The least value.
    pub min: f64,
    /// The largest value.
    pub max: f64,
    /// The number of values.
    pub num: f64,
    /// The sum of the values.
    pub sum: f64,
    /// The sum of the squares of the values.
    pub sum_squares: f64,
    message: &'a [u8],
}

impl<'a> Histogram<'a> {
    fn read(message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut histogram = Self { min: 0.0, max: 0.0, num: 0.0, sum: 0.0, sum_squares: 0.0, message };
        for field in Fields::new(message) {
            let (number, FieldValue::Fixed64(bytes)) = field? else { continue };
            let place = match number {
                1 => &mut histogram.min,
                2 => &mut histogram.max,
                3 => &mut histogram.num,
                4 => &mut histogram.sum,
                5 => &mut histogram.sum_squares,
                _ => continue,
            };
            *place = f64::from_le_bytes(bytes);
        }
        Ok(histogram)
    }

    /// Returns the upper limit of each bin.
    pub fn limits(&self) -> impl Iterator<Item = f64> + 'a {
        self.numbers(6)
    }

    /// Returns the number of values in each bin.
    pub fn counts(&self) -> impl Iterator<Item = f64> + 'a {
        self.numbers(7)
    }

    fn numbers(&self, field: u32) -> Numbers<'a> {
        Numbers::of_fields(DataType::Float64, self.message, field)
    }

    fn check(&self) -> Result<(), DecodeError> {
        check_numbers(DataType::Float64, self.message, 6)?;
        check_numbers(DataType::Float64, self.message, 7)
    }
}

/// Tensor: numbers or strings of a shape.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tensor<'a> {
    /// The type; `None` for one that is not known here.
    pub dtype: Option<DataType>,
    /// The numbers in row-major order, each with its least byte first, where the writer stored them so. Else it is empty, and
    /// [`numbers`](Self::numbers) has them.
    pub content: &'a [u8],
    message: &'a [u8],
}

impl<'a> Tensor<'a> {
    fn read(message: &'a [u8]) -> Result<Self, DecodeError> {
        let mut tensor = Self { dtype: None, content: &[], message };
        for field in Fields::new(message) {
            match field? {
                (1, FieldValue::Varint(number)) => tensor.dtype = DataType::from_number(number),
                (4, FieldValue::Bytes(content)) => tensor.content = content,
                _ => {}
            }
        }
        Ok(tensor)
    }

    /// Returns the size of each dimension; none for one number.
    pub fn shape(&self) -> impl Iterator<Item = u64> + 'a {
        let fields = |message| Fields::new(message).map_while(Result::ok);
        let messages = move |message, field| {
            fields(message).filter_map(move |found| match found {
                (number, FieldValue::Bytes(bytes)) if number == field => Some(bytes),
                _ => None,
            })
        };
        messages(self.message, 2).flat_map(move |shape| messages(shape, 2)).map(move |dimension| {
            let size = fields(dimension).find_map(|field| match field {
                (1, FieldValue::Varint(size)) => Some(size),
                _ => None,
            });
            size.unwrap_or(0)
        })
    }

    /// Returns the numbers, in row-major order. Whole numbers beyond 2^53 are rounded; [`content`](Self::content) has them as they
    /// are. None for strings, complex numbers and types that are not known here.
    pub fn numbers(&self) -> Numbers<'a> {
        let Some(dtype) = self.dtype else { return Numbers::none() };
        let Some(field) = field_of(dtype) else { return Numbers::none() };
        if self.content.is_empty() {
            Numbers::of_fields(dtype, self.message, field)
        } else {
            Numbers { dtype, layout: Layout::Plain, bytes: self.content, fields: Fields::new(&[]), field: 0 }
        }
    }

    /// Returns the strings, in row-major order. None for numbers.
    pub fn strings(&self) -> impl Iterator<Item = &'a [u8]> + 'a {
        Fields::new(self.message).map_while(Result::ok).filter_map(|field| match field {
            (8, FieldValue::Bytes(bytes)) => Some(bytes),
            _ => None,
        })
    }

    fn check(&self) -> Result<(), DecodeError> {
        for field in Fields::new(self.message) {
            let (2, FieldValue::Bytes(shape)) = field? else { continue };
            for field in Fields::new(shape) {
                let (2, FieldValue::Bytes(dimension)) = field? else { continue };
                Fields::new(dimension).try_for_each(|field| field.map(drop))?;
            }
        }
        let Some(dtype) = self.dtype else { return Ok(()) };
        if dtype.size().is_some_and(|size| !self.content.len().is_multiple_of(size)) {
            return Err(DecodeError { at: 0, rule: "the content of a tensor must be whole numbers" });
        }
        field_of(dtype).map_or(Ok(()), |field| check_numbers(dtype, self.message, field))
    }
}

/// Returns the field that holds the numbers of a type one by one.
fn field_of(dtype: DataType) -> Option<u32> {
    Some(match dtype {
        DataType::Float32 => 5,
        DataType::Float64 => 6,
        DataType::Int32 | DataType::Int16 | DataType::Int8 | DataType::Uint16 | DataType::Uint8 => 7,
        DataType::Int64 => 10,
        DataType::Bool => 11,
        DataType::Float16 | DataType::Bfloat16 => 13,
        DataType::Uint32 => 16,
        DataType::Uint64 => 17,
        DataType::String | DataType::Complex64 | DataType::Complex128 => return None,
    })
}

/// Checks that packed numbers are whole ones.
fn check_numbers(dtype: DataType, message: &[u8], field: u32) -> Result<(), DecodeError> {
    let layout = Layout::packed(dtype);
    for found in Fields::new(message) {
        let (number, FieldValue::Bytes(mut bytes)) = found? else { continue };
        if number != field {
            continue;
        }
        let length = bytes.len();
        while !bytes.is_empty() {
            if number_of(&mut bytes, layout.width()).is_none() {
                let at = length - bytes.len();
                return Err(DecodeError { at, rule: "packed numbers must be whole" });
            }
        }
    }
    Ok(())
}

/// Form in which a number stands among others.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Layout {
    /// With as many bytes as its type has.
    Plain,
    /// As a `float` or `double`.
    Fixed(usize),
    /// As an integer of one to ten bytes.
    Varint,
}

impl Layout {
    /// Returns the form of the field that [`field_of`] tells.
    fn packed(dtype: DataType) -> Self {
        match dtype {
            DataType::Float32 => Self::Fixed(4),
            DataType::Float64 => Self::Fixed(8),
            _ => Self::Varint,
        }
    }

    /// Returns the number of bytes, and `None` for one to ten.
    fn width(self) -> Option<usize> {
        match self {
            Self::Fixed(bytes) => Some(bytes),
            Self::Plain | Self::Varint => None,
        }
    }
}

/// Iterator over numbers of any type.
#[derive(Debug, Clone)]
pub struct Numbers<'a> {
    dtype: DataType,
    layout: Layout,
    /// The numbers of the field at hand.
    bytes: &'a [u8],
    /// What follows that field.
    fields: Fields<'a>,
    /// The field that numbers stand in.
    field: u32,
}

impl<'a> Numbers<'a> {
    fn none() -> Self {
        Self::of_fields(DataType::Float64, &[], 0)
    }

    fn of_fields(dtype: DataType, message: &'a [u8], field: u32) -> Self {
        let layout = Layout::packed(dtype);
        Self { dtype, layout, bytes: &[], fields: Fields::new(message), field }
    }
}

impl Iterator for Numbers<'_> {
    type Item = f64;

    fn next(&mut self) -> Option<f64> {
        loop {
            if !self.bytes.is_empty() {
                let width = match self.layout {
                    Layout::Plain => self.dtype.size(),
                    layout => layout.width(),
                };
                return Some(as_f64(self.dtype, number_of(&mut self.bytes, width)?));
            }
            let (number, value) = self.fields.next()?.ok()?;
            if number != self.field {
                continue;
            }
            match (value, self.layout) {
                (FieldValue::Bytes(bytes), _) => self.bytes = bytes,
                (FieldValue::Varint(bits), Layout::Varint) => return Some(as_f64(self.dtype, bits)),
                (FieldValue::Fixed32(bytes), Layout::Fixed(4)) => {
                    return Some(f64::from(f32::from_le_bytes(bytes)));
                }
                (FieldValue::Fixed64(bytes), Layout::Fixed(8)) => return Some(f64::from_le_bytes(bytes)),
                _ => {}
            }
        }
    }
}

impl std::iter::FusedIterator for Numbers<'_> {}

/// Returns a number of a type from its bits.
fn as_f64(dtype: DataType, bits: u64) -> f64 {
    match dtype {
        DataType::Float32 => f64::from(f32::from_bits(bits as u32)),
        DataType::Float64 => f64::from_bits(bits),
        DataType::Float16 => float16(bits as u16),
        // The upper half of a float.
        DataType::Bfloat16 => f64::from(f32::from_bits((bits as u32 & 0xffff) << 16)),
        DataType::Int8 => f64::from(bits as i8),
        DataType::Int16 => f64::from(bits as i16),
        DataType::Int32 => f64::from(bits as i32),
        DataType::Int64 => bits as i64 as f64,
        DataType::Uint8 => f64::from(bits as u8),
        DataType::Uint16 => f64::from(bits as u16),
        DataType::Uint32 => f64::from(bits as u32),
        DataType::Bool => f64::from(bits != 0),
        DataType::Uint64 | DataType::String | DataType::Complex64 | DataType::Complex128 => bits as f64,
    }
}

/// Returns the number of 16 bits of IEEE 754: a sign, 5 bits of exponent, 10 of fraction.
fn float16(bits: u16) -> f64 {
    let sign = if bits >> 15 == 1 { -1.0 } else { 1.0 };
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    sign * match exponent {
        0 => fraction * 2.0_f64.powi(-24),
        0x1f if fraction == 0.0 => f64::INFINITY,
        0x1f => f64::NAN,
        _ => (1.0 + fraction / 1024.0) * 2.0_f64.powi(exponent - 15),
    }
}

/// Iterator over the bins of a distribution: left edge, right edge, count.
#[derive(Debug, Clone)]
pub struct Bins<'a>(BinsOf<'a>);

#[derive(Debug, Clone)]
enum BinsOf<'a> {
    /// Three numbers each.
    Rows(Numbers<'a>),
    Legacy {
        /// The left edge of the next bin.
        left: f64,
        max: f64,
        limits: Numbers<'a>,
        /// The limit of the next bin, which is looked at beforehand: the last one does not count.
        next_limit: Option<f64>,
        counts: Numbers<'a>,
    },
}

impl Iterator for Bins<'_> {
    type Item = (f64, f64, f64);

    fn next(&mut self) -> Option<Self::Item> {
        match &mut self.0 {
            BinsOf::Rows(numbers) => Some((numbers.next()?, numbers.next()?, numbers.next()?)),
            BinsOf::Legacy { left, max, limits, next_limit, counts } => {
                let limit = next_limit.take().or_else(|| limits.next())?;
                let count = counts.next()?;
                *next_limit = limits.next();
                let right = if next_limit.is_some() { limit } else { *max };
                Some((std::mem::replace(left, right), right, count))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_floats_are_read_as_the_standard_has_them() {
        for (bits, number) in [
            (0x0000, 0.0),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x7bff, 65504.0),
            (0x0001, 2.0_f64.powi(-24)),
            (0x0400, 2.0_f64.powi(-14)),
            (0x7c00, f64::INFINITY),
            (0xfc00, f64::NEG_INFINITY),
            (0x3555, 0.33325195),
        ] {
            assert!((float16(bits) - number).abs() < 1e-8 || float16(bits) == number, "{bits:x}");
        }
        assert!(float16(0x7e00).is_nan());
        assert!(float16(0x8000).is_sign_negative());
    }

    #[test]
    fn numbers_of_every_type_are_read_in_both_forms() {
        let read = |dtype: DataType, rest: &[u8]| -> Vec<f64> {
            let message = [&[0x08, dtype as u8], rest].concat();
            let tensor = Tensor::read(&message).unwrap();
            tensor.check().unwrap();
            tensor.numbers().collect()
        };
        // Little-endian bytes in `tensor_content`.
        assert_eq!(read(DataType::Int16, &[0x22, 4, 0xff, 0xff, 1, 0]), [-1.0, 1.0]);
        assert_eq!(read(DataType::Bfloat16, &[0x22, 2, 0x80, 0x3f]), [1.0]);
        assert_eq!(read(DataType::Bool, &[0x22, 3, 1, 0, 1]), [1.0, 0.0, 1.0]);
        assert_eq!(
            read(DataType::Uint64, &[0x22, 8, 255, 255, 255, 255, 255, 255, 255, 255]),
            [u64::MAX as f64]
        );
        // One by one: packed, not packed, and both.
        let minus_one = [255, 255, 255, 255, 255, 255, 255, 255, 255, 1];
        assert_eq!(read(DataType::Int32, &[&[0x3a, 12, 1, 2], &minus_one[..]].concat()), [1.0, 2.0, -1.0]);
        assert_eq!(read(DataType::Int8, &[&[0x38], &minus_one[..], &[0x3a, 1, 5]].concat()), [-1.0, 5.0]);
        assert_eq!(read(DataType::Float16, &[0x6a, 3, 0x80, 0x78, 0]), [1.0, 0.0]);
        assert_eq!(read(DataType::Float32, &[0x2d, 0, 0, 0x80, 0x3f]), [1.0]);
        assert_eq!(read(DataType::Uint32, &[0x82, 1, 1, 7, 0x80, 1, 9]), [7.0, 9.0]);
        assert_eq!(read(DataType::String, &[0x42, 1, b'7']), []);
    }

    #[test]
    fn numbers_that_are_not_whole_are_an_error() {
        for message in [
            &[0x08, 1, 0x22, 3, 0, 0, 0][..],
            &[0x08, 1, 0x2a, 5, 0, 0, 0, 0, 0],
            &[0x08, 3, 0x3a, 1, 0x80],
            &[0x12, 1, 0x08],
            &[0x12, 3, 0x12, 1, 0x08],
        ] {
            assert!(Tensor::read(message).unwrap().check().is_err(), "{message:?}");
        }
        assert!(Histogram::read(&[0x32, 4, 0, 0, 0, 0]).unwrap().check().is_err());
    }
}
