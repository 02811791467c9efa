//! Writes a Parquet file, row group after row group.

use std::{io::Write, sync::Arc};

use parquet::{
    basic::{Compression, ZstdLevel},
    column::writer::ColumnWriter,
    data_type::ByteArray,
    errors::ParquetError,
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};

use super::{
    ExportError, Sink,
    columns::{COLUMNS, Cell, Kind},
};
use crate::query::Found;

/// Rows in a row group: what is held in memory before it is written.
const GROUP_ROWS: usize = 16_384;

/// The file that is being written.
pub(super) struct ParquetFile<W: Write + Send> {
    out: SerializedFileWriter<W>,
    buffers: Vec<Buffer>,
    rows: usize,
}

/// The values of one column, and for each row whether it has one.
#[derive(Default)]
struct Buffer {
    texts: Vec<ByteArray>,
    numbers: Vec<i64>,
    present: Vec<i16>,
}

impl<W: Write + Send> ParquetFile<W> {
    pub(super) fn create(out: W) -> Result<Self, ExportError> {
        let schema = Arc::new(parse_message_type(&message_type())?);
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_created_by(format!("provost {}", env!("CARGO_PKG_VERSION")))
            .build();
        let out = SerializedFileWriter::new(out, schema, Arc::new(properties))?;
        let buffers = COLUMNS.iter().map(|_| Buffer::default()).collect();
        Ok(Self { out, buffers, rows: 0 })
    }

    fn flush(&mut self) -> Result<(), ExportError> {
        if self.rows == 0 {
            return Ok(());
        }
        let mut group = self.out.next_row_group()?;
        for (column, buffer) in COLUMNS.iter().zip(&mut self.buffers) {
            let present = column.optional.then_some(buffer.present.as_slice());
            let mut writer = group.next_column()?.ok_or_else(|| schema_differs(column.name))?;
            match writer.untyped() {
                ColumnWriter::ByteArrayColumnWriter(typed) => typed.write_batch(&buffer.texts, present, None)?,
                ColumnWriter::Int64ColumnWriter(typed) => typed.write_batch(&buffer.numbers, present, None)?,
                _ => return Err(schema_differs(column.name).into()),
            };
            writer.close()?;
            *buffer = Buffer::default();
        }
        group.close()?;
        self.rows = 0;
        Ok(())
    }
}

impl<W: Write + Send> Sink for ParquetFile<W> {
    fn take(&mut self, found: &Found, _origin: &str) -> Result<(), ExportError> {
        for (column, buffer) in COLUMNS.iter().zip(&mut self.buffers) {
            let present = match (column.get)(found) {
                Cell::Text(value) => {
                    let missing = (!column.optional).then(String::new);
                    value.or(missing).map(|text| buffer.texts.push(ByteArray::from(text.into_bytes()))).is_some()
                }
                Cell::Number(value) => {
                    let missing = (!column.optional).then_some(0);
                    value.or(missing).map(|number| buffer.numbers.push(number)).is_some()
                }
            };
            buffer.present.push(i16::from(present));
        }
        self.rows += 1;
        if self.rows == GROUP_ROWS { self.flush() } else { Ok(()) }
    }

    fn end(mut self: Box<Self>) -> Result<(), ExportError> {
        self.flush()?;
        self.out.finish()?;
        Ok(())
    }
}

fn schema_differs(column: &str) -> ParquetError {
    ParquetError::General(format!("column {column} has no place in the schema"))
}

fn message_type() -> String {
    let line = |column: &super::columns::Column| {
        let repetition = if column.optional { "OPTIONAL" } else { "REQUIRED" };
        let (kind, logical) = match column.kind {
            Kind::Text => ("BYTE_ARRAY", "(STRING)"),
            Kind::Json => ("BYTE_ARRAY", "(JSON)"),
            Kind::Number => ("INT64", ""),
            Kind::Time => ("INT64", "(TIMESTAMP(NANOS,true))"),
        };
        format!("  {repetition} {kind} {} {logical};\n", column.name)
    };
    format!("message provost_audit {{\n{}}}\n", COLUMNS.iter().map(line).collect::<String>())
}
