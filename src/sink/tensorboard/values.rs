//! Values of one record: which are shown, under which tag and step.

use tfevents::{EncodeError, SESSION_END, SESSION_START, SessionStatus, Summary};

use super::folder::RunFolder;
use super::hparams::Hparams;
use super::settings::{BackwardStep, MissingStep, Settings, seconds};
use super::sub_runs::Others;
use crate::event::catalog::training;
use crate::event::shown::{self, Shown};
use crate::event::{Encoded, Event, Image, ImageFormat, Record, Value};
use crate::sink::SinkError;
use crate::sync::Home;

/// Maximum bytes that the tags of one record take. Each value of nested fields has the names of all that it lies in, so
/// a record of 9 MiB could have tags of gigabytes.
const MAX_RECORD_TAG_BYTES: usize = 4 << 20;

/// Writer of the values of one record.
pub(super) struct Writer<'a> {
    settings: &'a Settings,
    folder: &'a mut RunFolder,
    /// The other sub-runs, for the record of a sub-run.
    others: Option<&'a mut Others>,
    step: Option<i64>,
    wall_time: f64,
    /// Process that the batch belongs to.
    home: Home,
    /// Bytes that the tags of this record may still take.
    left: usize,
    /// Reason why the first of its values was refused.
    refused: Option<SinkError>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        settings: &'a Settings,
        folder: &'a mut RunFolder,
        others: Option<&'a mut Others>,
        record: &Record,
        home: Home,
    ) -> Self {
        Self {
            settings,
            folder,
            others,
            step: record.signed_step(),
            wall_time: seconds(record.unix_nanos()),
            home,
            left: MAX_RECORD_TAG_BYTES,
            refused: None,
        }
    }

    /// Encodes all that a record shows, and notes what becomes of it. `tag` is empty; its memory is used.
    pub(super) fn encode(mut self, tag: &mut String, record: &Record) {
        if self.push_name(tag, Event::name(record)) {
            self.session(record);
            self.show(tag, record);
        }
        let Self { folder, refused, .. } = self;
        folder.note_encoded(refused);
    }

    /// Appends what a name becomes to a tag; `false` if the mapping of the caller panicked.
    fn push_name(&mut self, tag: &mut String, name: &str) -> bool {
        match self.settings.tags.push(tag, name, self.home) {
            Ok(()) => true,
            Err(said) => {
                self.refused.get_or_insert_with(|| SinkError::panicked("the mapping of tags", &said));
                false
            }
        }
    }

    /// Writes what is shown of a record, whose name `tag` is made of.
    fn show(&mut self, tag: &mut String, record: &Record) {
        match shown::shown_of(record) {
            Shown::Value => self.value(tag, record.value()),
            Shown::Metrics { group, metrics, number } => {
                self.step = self.step.or(number);
                for (name, value) in metrics.iter() {
                    if !self.spend(name.len()) {
                        return;
                    }
                    tag.clear();
                    if !group.is_empty() {
                        tag.push_str(group);
                        tag.push('/');
                    }
                    if self.push_name(tag, name) {
                        self.value(tag, value);
                    }
                }
            }
            Shown::Text(text) => self.add(tag, Summary::Text(&text)),
            Shown::Nothing => {}
        }
    }

    /// Writes a value, and those inside of it behind its tag. The tag is left as it was.
    fn value(&mut self, tag: &mut String, value: &Value) {
        match value {
            Value::Empty | Value::List(_) => {}
            Value::TooDeep => self.refuse(|| format!("{tag:?} is nested too deep")),
            Value::Scalar(number) => self.add(tag, Summary::Scalar(*number as f32)),
            Value::Integer(number) => self.add(tag, Summary::Scalar(*number as f32)),
            Value::Bool(is) => self.add(tag, Summary::Scalar(f32::from(*is))),
            Value::Text(text) => self.add(tag, Summary::Text(text)),
            Value::Histogram(histogram) => {
                // Both at the same step, which is not that of the fields behind them.
                let step = self.step.replace(self.step_of(tag));
                self.add(tag, Summary::Histogram { edges: histogram.edges(), counts: histogram.counts() });
                if histogram.non_finite() > 0 {
                    let count = histogram.non_finite() as f32;
                    self.add(&format!("{tag}/non_finite"), Summary::Scalar(count));
                }
                self.step = step;
            }
            Value::Image(image) => match as_file(image) {
                Ok(file) => {
                    let (width, height) = (image.width, image.height);
                    self.add(tag, Summary::Image { width, height, encoded: &file });
                }
                Err(why) => self.refuse(|| format!("image {tag:?}: {why}")),
            },
            Value::Encoded(encoded) => match &**encoded {
                Encoded::Summary(bytes) => self.add(tag, Summary::Encoded(bytes)),
                Encoded::Event(bytes) => self.add_event(bytes),
            },
            Value::Fields(fields) => {
                let end = tag.len();
                for (name, value) in fields.iter() {
                    // Also where it has nothing to show: to put the tag together takes time.
                    if !self.spend(1 + name.len()) {
                        return;
                    }
                    tag.push('/');
                    if self.push_name(tag, name) {
                        self.value(tag, value);
                    }
                    tag.truncate(end);
                }
            }
        }
    }

    /// Takes so many bytes of what the tags of the record may have; `false` when there are not that many left.
    fn spend(&mut self, bytes: usize) -> bool {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                true
            }
            None => {
                self.left = 0;
                let why = || format!("the tags of one record must take at most {MAX_RECORD_TAG_BYTES} bytes");
                self.refuse(why);
                false
            }
        }
    }

    /// Notes that a part of the record is not written. The first reason is reported.
    fn refuse(&mut self, why: impl FnOnce() -> String) {
        self.refused.get_or_insert_with(|| SinkError::write_failed(why()).permanent());
    }

    /// Writes what the table of hyper-parameters shows of the life of a run.
    fn session(&mut self, record: &Record) {
        if !Event::name(record).starts_with("training.") {
            return;
        }
        let fields = record.value().as_fields();
        let ended = |status| Summary::SessionEnd { status, ended_at: seconds(record.unix_nanos()) };
        match Event::name(record) {
            training::Started::NAME => {
                let settings = shown::settings(fields);
                let hparams = Hparams::flatten(&settings);
                if hparams.left_out > 0 {
                    self.refuse(|| {
                        format!(
                            "{} settings were left out: their paths are taken or too long",
                            hparams.left_out
                        )
                    });
                }
                // Without a name of its group, a folder has a row of its own in the table.
                let start = Summary::SessionStart {
                    group: "",
                    settings: &hparams.settings(),
                    began_at: self.wall_time,
                };
                self.add(SESSION_START, start);
            }
            training::Completed::NAME | training::EarlyStopped::NAME => {
                self.add(SESSION_END, ended(SessionStatus::Success));
            }
            training::Failed::NAME => self.add(SESSION_END, ended(SessionStatus::Failure)),
            _ => {}
        }
    }

    /// Returns the step of the record, or the one that a value of `tag` has without.
    fn step_of(&self, tag: &str) -> i64 {
        self.step.unwrap_or_else(|| match self.settings.missing {
            MissingStep::Next => self.folder.encoder.next_step(tag),
            MissingStep::Zero => 0,
        })
    }

    fn add(&mut self, tag: &str, summary: Summary<'_>) {
        if self.folder.is_broken() || !self.spend(tag.len()) {
            return;
        }
        let step = self.step_of(tag);
        loop {
            match self.folder.encoder.add(self.wall_time, step, tag, summary) {
                Ok(()) => return,
                Err(EncodeError::Backward { .. }) if self.settings.backward == BackwardStep::NewFile => {
                    self.folder.next_file(step, &self.settings.suffix);
                    if self.folder.is_broken() {
                        return;
                    }
                }
                Err(EncodeError::TooManyTags { .. } | EncodeError::TooManyTagBytes { .. })
                    if self.make_room(tag) => {}
                Err(refused) => return self.refuse(|| refused.to_string()),
            }
        }
    }

    fn add_event(&mut self, parts: &[u8]) {
        if self.folder.is_broken() {
            return;
        }
        let step = self.step.unwrap_or_default();
        if let Err(refused) = self.folder.encoder.add_event(self.wall_time, step, parts) {
            self.refuse(|| refused.to_string());
        }
    }

    /// Makes room for a tag of a sub-run, at the cost of the one that was used least recently. Returns `false` if that cannot help.
    fn make_room(&mut self, tag: &str) -> bool {
        let Some(others) = &mut self.others else { return false };
        let (encoder, settings) = (&self.folder.encoder, self.settings);
        let is_possible = encoder.tags() < settings.max_tags
            && tag.len() <= settings.max_tag_bytes.saturating_sub(encoder.tag_bytes());
        if !is_possible || !others.forget_oldest() {
            return false;
        }
        others.limit(self.folder, settings);
        true
    }
}

/// Returns the bytes of a file that TensorBoard shows.
fn as_file(image: &Image) -> Result<std::borrow::Cow<'_, [u8]>, String> {
    let color = match image.format {
        ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::Gif => return Ok((&image.bytes[..]).into()),
        ImageFormat::Gray8 => png::ColorType::Grayscale,
        ImageFormat::Rgb8 => png::ColorType::Rgb,
        ImageFormat::Rgba8 => png::ColorType::Rgba,
    };
    // Its fields are public: it need not be one of the constructors'.
    image.check().map_err(|error| error.to_string())?;
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, image.width, image.height);
    encoder.set_color(color);
    encoder.set_depth(png::BitDepth::Eight);
    // The worker has other things to do: large files are better than late ones.
    encoder.set_compression(png::Compression::Fast);
    let written = encoder.write_header().and_then(|mut writer| {
        writer.write_image_data(&image.bytes)?;
        writer.finish()
    });
    match written {
        Ok(()) => Ok(file.into()),
        Err(error) => Err(error.to_string()),
    }
}
