//! Rows on their way to the caller, within bounds.

use serde_json::{Value, json};

use super::SqlError;

/// Most bytes of one answer's rows as JSON.
pub(super) const MAX_RESULT_BYTES: usize = 4 * 1024 * 1024;
/// Integers beyond this are sent as text: readers that keep numbers as doubles would change them.
const MAX_EXACT_INTEGER: u64 = 1 << 53;

/// The rows of an answer.
#[derive(Debug)]
pub(super) struct Rows {
    columns: Vec<String>,
    rows: Vec<Value>,
    max_rows: usize,
    bytes: usize,
    truncated: bool,
}

impl Rows {
    pub(super) fn new(columns: Vec<String>, max_rows: usize) -> Self {
        Self { columns, rows: Vec::new(), max_rows, bytes: 0, truncated: false }
    }

    /// Adds a row. `false`: there is no room, and no further row is wanted.
    pub(super) fn push(&mut self, row: Vec<Value>) -> Result<bool, SqlError> {
        let row = Value::Array(row);
        let bytes = row.to_string().len() + 1;
        if bytes > MAX_RESULT_BYTES {
            return Err(SqlError::TooLarge(MAX_RESULT_BYTES));
        }
        if self.rows.len() >= self.max_rows || self.bytes + bytes > MAX_RESULT_BYTES {
            self.truncated = true;
            return Ok(false);
        }
        self.bytes += bytes;
        self.rows.push(row);
        Ok(true)
    }

    /// The MCP tool result: structured, and the same as text.
    pub(super) fn into_tool_result(self) -> Value {
        tool_result(json!({
            "columns": self.columns,
            "rowCount": self.rows.len(),
            "rows": self.rows,
            "truncated": self.truncated,
        }))
    }
}

/// A result with `structuredContent` and its JSON as text, for clients that read only text.
pub(super) fn tool_result(structured: Value) -> Value {
    json!({
        "content": [{ "type": "text", "text": structured.to_string() }],
        "structuredContent": structured,
        "isError": false,
    })
}

/// An integer as a number where it is exact everywhere, else as text.
pub(super) fn integer(n: i64) -> Value {
    if n.unsigned_abs() <= MAX_EXACT_INTEGER { n.into() } else { n.to_string().into() }
}

/// A float as a number; what JSON has no number for (`NaN`, infinities) as text.
pub(super) fn float(f: f64) -> Value {
    serde_json::Number::from_f64(f).map_or_else(|| f.to_string().into(), Value::Number)
}

/// Bytes as base64.
pub(super) fn blob(bytes: &[u8]) -> Value {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes).into()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_bounded() {
        let mut rows = Rows::new(vec!["a".into()], 2);
        assert_eq!(rows.push(vec![1.into()]), Ok(true));
        assert_eq!(rows.push(vec![2.into()]), Ok(true));
        assert_eq!(rows.push(vec![3.into()]), Ok(false));
        let result = rows.into_tool_result();
        let expect = json!({"columns": ["a"], "rows": [[1], [2]], "rowCount": 2, "truncated": true});
        assert_eq!(result["structuredContent"], expect);
        let text: Value = serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
        assert_eq!(text, expect);

        let mut rows = Rows::new(vec!["a".into()], 10);
        let big = "x".repeat(MAX_RESULT_BYTES - 100);
        assert_eq!(rows.push(vec![big.clone().into()]), Ok(true));
        assert_eq!(rows.push(vec!["y".repeat(200).into()]), Ok(false));
        let huge = format!("{big}{big}");
        assert_eq!(rows.push(vec![huge.into()]), Err(SqlError::TooLarge(MAX_RESULT_BYTES)));
    }

    #[test]
    fn numbers_keep_their_value() {
        assert_eq!(integer(1 << 53), json!(9_007_199_254_740_992_i64));
        assert_eq!(integer((1 << 53) + 1), json!("9007199254740993"));
        assert_eq!(integer(i64::MIN), json!("-9223372036854775808"));
        assert_eq!(float(1.5), json!(1.5));
        assert_eq!(float(f64::NAN), json!("NaN"));
    }
}
