//! Numbers as Parquet: a row for each, as in CSV. <https://parquet.apache.org/docs/file-format/>.

use std::io::Write;
use std::sync::Arc;

use parquet::basic::Encoding;
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::Result;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;

/// The columns. A moment is in nanoseconds since 1970, of UTC.
const COLUMNS: &str = "message numbers {
    required binary run (STRING);
    required binary name (STRING);
    optional int64 step;
    required int64 time (TIMESTAMP(NANOS, true));
    required double value;
}";

/// Rows that are held before they are written, and may be read by themselves later; and bytes of their names and those of their runs.
const MAX_ROWS: usize = 100_000;
const MAX_BYTES: usize = 16 << 20;

/// Writer of one file.
pub(super) struct Numbers<W: Write + Send> {
    file: SerializedFileWriter<W>,
    runs: Vec<ByteArray>,
    names: Vec<ByteArray>,
    bytes: usize,
    /// The steps that there are, and of each row whether it has one.
    steps: Vec<i64>,
    has_step: Vec<i16>,
    times: Vec<i64>,
    values: Vec<f64>,
}

impl<W: Write + Send> Numbers<W> {
    pub(super) fn new(file: W) -> Result<Self> {
        let mut properties = WriterProperties::builder().set_created_by("forebay".to_owned());
        // Two rows that follow each other differ by about the same number everywhere: the differences take a few bits.
        for column in ["step", "time"] {
            let column = ColumnPath::from(column);
            properties = properties
                .set_column_dictionary_enabled(column.clone(), false)
                .set_column_encoding(column, Encoding::DELTA_BINARY_PACKED);
        }
        properties = properties.set_column_dictionary_enabled(ColumnPath::from("value"), false);
        let columns = Arc::new(parse_message_type(COLUMNS)?);
        let file = SerializedFileWriter::new(file, columns, Arc::new(properties.build()))?;
        let (runs, names, steps, has_step) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Ok(Self { file, runs, names, bytes: 0, steps, has_step, times: Vec::new(), values: Vec::new() })
    }

    pub(super) fn push(
        &mut self,
        run: &ByteArray,
        name: &str,
        step: Option<i64>,
        unix_nanos: u64,
        value: f64,
    ) -> Result<()> {
        self.runs.push(run.clone());
        self.names.push(ByteArray::from(name));
        // The bytes of a run are shared until they are written.
        self.bytes += run.len() + name.len();
        self.steps.extend(step);
        self.has_step.push(i16::from(step.is_some()));
        // A record's moment has 62 bits.
        self.times.push(i64::try_from(unix_nanos).unwrap_or(i64::MAX));
        self.values.push(value);
        if self.values.len() >= MAX_ROWS || self.bytes >= MAX_BYTES { self.write() } else { Ok(()) }
    }

    /// Writes the rows that are held.
    fn write(&mut self) -> Result<()> {
        if self.values.is_empty() {
            return Ok(());
        }
        let mut group = self.file.next_row_group()?;
        column::<ByteArrayType, _>(&mut group, &self.runs, None)?;
        column::<ByteArrayType, _>(&mut group, &self.names, None)?;
        column::<Int64Type, _>(&mut group, &self.steps, Some(&self.has_step))?;
        column::<Int64Type, _>(&mut group, &self.times, None)?;
        column::<DoubleType, _>(&mut group, &self.values, None)?;
        group.close()?;
        self.runs.clear();
        self.names.clear();
        self.bytes = 0;
        self.steps.clear();
        self.has_step.clear();
        self.times.clear();
        self.values.clear();
        Ok(())
    }

    /// Writes what is held, and the end of the file.
    pub(super) fn end(mut self) -> Result<()> {
        self.write()?;
        self.file.close()?;
        Ok(())
    }
}

/// Writes the next column of a group of rows.
fn column<T: DataType, W: Write + Send>(
    group: &mut SerializedRowGroupWriter<'_, W>,
    values: &[T::T],
    has_value: Option<&[i16]>,
) -> Result<()> {
    // There are as many as were declared.
    if let Some(mut column) = group.next_column()? {
        column.typed::<T>().write_batch(values, has_value, None)?;
        column.close()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use parquet::file::reader::{FileReader, SerializedFileReader};

    use super::*;

    #[test]
    fn rows_are_written_before_their_names_take_much() {
        let (file, run) = (tempfile::tempfile().unwrap(), ByteArray::from("a"));
        let mut numbers = Numbers::new(&file).unwrap();
        let names = ["x".repeat(100_000), "y".repeat(100_000)];
        for row in 0..400 {
            numbers.push(&run, &names[row % 2], Some(row as i64), 1, 0.5).unwrap();
            let held: usize = numbers.names.iter().map(ByteArray::len).sum();
            assert!(held < MAX_BYTES, "{held}");
        }
        numbers.end().unwrap();
        let file = SerializedFileReader::new(file).unwrap();
        let rows = file.metadata().row_groups().iter().map(|group| group.num_rows());
        assert_eq!(rows.collect::<Vec<_>>(), [168, 168, 64]);
    }
}
