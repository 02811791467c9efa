//! The tools as clients see them, and the form of their answers.
//!
//! An answer is structured, and the same as text for models: numbered, each number with the place that it comes from.

use std::fmt::Write as _;

use provost_mcp::RawJson;
use provost_types::Name;
use serde_json::{Value, json};

use super::{
    search::{LIST_LIMITS, MAX_QUERY_BYTES, Mode},
    service::Standing,
    store::{Document, Passage},
};
use crate::{Definition, Definitions};

/// Files that are no documents, of one answer.
const MAX_LEFT_OUT: usize = 50;

/// The tools of a corpus.
pub(super) fn tools(folder: &Name, max_results: usize) -> Definitions {
    let tools = [search_tool(folder, max_results), documents_tool(folder), read_tool()];
    let tools = tools.into_iter().map(|tool| Definition {
        name: tool["name"].as_str().unwrap_or_default().to_owned(),
        raw: RawJson::from(tool),
    });
    std::sync::Arc::new(tools.collect())
}

fn search_tool(folder: &Name, max_results: usize) -> Value {
    json!({
        "name": "search",
        "title": "Search documents",
        "description": format!(
            "Finds the pieces of the documents in `{folder}` that answer a question, best first, each with the document, \
             headings, page and lines that it comes from. Cite them where you use them."
        ),
        "inputSchema": {
            "type": "object",
            "properties": {
                "query": {"type": "string", "minLength": 1, "maxLength": MAX_QUERY_BYTES,
                          "description": "A question, or words to look for."},
                "limit": {"type": "integer", "minimum": 1, "maximum": max_results, "description": "How many pieces; 5."},
                "mode": {"enum": ["hybrid", "vector", "keyword"],
                         "description": "By meaning (`vector`), by words (`keyword`), or both (`hybrid`), which is the default."},
            },
            "required": ["query"],
            "additionalProperties": false,
        },
        "outputSchema": {
            "type": "object",
            "properties": {
                "results": {"type": "array", "items": {
                    "type": "object",
                    "properties": {
                        "score": {"type": "number"},
                        "text": {"type": "string"},
                        "citation": citation_schema(),
                    },
                    "required": ["score", "text", "citation"],
                }},
                "mode": {"type": "string"},
                "complete": {"type": "boolean", "description": "Whether all documents were read; if not, more may be found later."},
                "pending": {"type": "integer", "description": "Documents that wait to be read."},
                "problem": {"type": "string", "description": "Why no documents are read now."},
            },
            "required": ["results", "mode", "complete", "pending"],
        },
        "annotations": read_only(),
    })
}

fn citation_schema() -> Value {
    json!({
        "type": "object",
        "properties": {
            "document": {"type": "string", "description": "Its path, for `read`."},
            "title": {"type": "string"},
            "headingPath": {"type": "array", "items": {"type": "string"}},
            "page": {"type": "integer"},
            "from": {"type": "integer", "description": "The first line."},
            "to": {"type": "integer", "description": "The last line."},
            "digest": {"type": "string", "description": "SHA-256 of the file that was read."},
        },
        "required": ["document", "title", "headingPath", "from", "to", "digest"],
    })
}

fn documents_tool(folder: &Name) -> Value {
    json!({
        "name": "documents",
        "title": "List documents",
        "description": format!("Lists the documents in `{folder}` with their state; one that cannot be read says why."),
        "inputSchema": {
            "type": "object",
            "properties": {
                "after": {"type": "string", "description": "Begin behind this document."},
                "limit": {"type": "integer", "minimum": 1, "maximum": LIST_LIMITS.1},
            },
            "additionalProperties": false,
        },
        "outputSchema": {
            "type": "object",
            "properties": {
                "documents": {"type": "array", "items": {
                    "type": "object",
                    "properties": {
                        "document": {"type": "string"},
                        "title": {"type": "string"},
                        "state": {"enum": ["indexed", "failed"]},
                        "reason": {"type": "string"},
                        "bytes": {"type": "integer"},
                        "pieces": {"type": "integer"},
                        "pages": {"type": "integer"},
                        "digest": {"type": "string"},
                    },
                    "required": ["document", "title", "state", "bytes", "pieces"],
                }},
                "more": {"type": "boolean"},
                "complete": {"type": "boolean"},
                "pending": {"type": "integer"},
                "problem": {"type": "string", "description": "Why no documents are read now."},
                "leftOut": {"type": "array", "items": {"type": "string"}},
            },
            "required": ["documents", "more", "complete", "pending", "leftOut"],
        },
        "annotations": read_only(),
    })
}

fn read_tool() -> Value {
    json!({
        "name": "read",
        "title": "Read a document",
        "description": "Reads lines of a document, such as those around a citation.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "document": {"type": "string", "minLength": 1},
                "from": {"type": "integer", "minimum": 1, "description": "The first line; 1."},
                "to": {"type": "integer", "minimum": 1, "description": "The last line; as many as fit."},
            },
            "required": ["document"],
            "additionalProperties": false,
        },
        "outputSchema": {
            "type": "object",
            "properties": {
                "document": {"type": "string"},
                "title": {"type": "string"},
                "digest": {"type": "string"},
                "from": {"type": "integer"},
                "to": {"type": "integer"},
                "lines": {"type": "integer", "description": "How many lines the document has."},
                "text": {"type": "string"},
            },
            "required": ["document", "title", "digest", "from", "to", "lines", "text"],
        },
        "annotations": read_only(),
    })
}

fn read_only() -> Value {
    json!({"readOnlyHint": true, "destructiveHint": false, "idempotentHint": true, "openWorldHint": false})
}

/// What a search found.
pub(super) fn results(found: &[(&Passage, f64)], mode: Mode, standing: &Standing) -> Value {
    let mut text = String::new();
    for (n, (passage, _)) in found.iter().enumerate() {
        // Writing to a text does not fail.
        let _ = write!(text, "[{}] {}\n{}\n\n", n + 1, place(passage), passage.text);
    }
    if found.is_empty() {
        text.push_str("Nothing was found.\n\n");
    }
    let waits = standing.pending > 0 && standing.trouble.is_some();
    if waits || !standing.is_complete {
        let why = standing.trouble.as_ref().map_or_else(|| "ask again later.".to_owned(), ToString::to_string);
        let _ = write!(text, "Not all documents are read yet ({} wait): {why}", standing.pending);
    }
    let results: Vec<Value> = found
        .iter()
        .map(|(passage, score)| json!({"score": score, "text": passage.text, "citation": citation(passage)}))
        .collect();
    let mut answer =
        json!({"results": results, "mode": mode, "complete": standing.is_complete, "pending": standing.pending});
    if let Some(cause) = &standing.trouble {
        answer["problem"] = cause.to_string().into();
    }
    structured(text.trim_end(), answer)
}

fn citation(passage: &Passage) -> Value {
    let mut citation = json!({
        "document": passage.path,
        "title": passage.title,
        "headingPath": passage.headings,
        "from": passage.first_line,
        "to": passage.last_line,
        "digest": passage.digest,
    });
    if let Some(page) = passage.page {
        citation["page"] = page.into();
    }
    citation
}

/// Where a piece stands, for people.
fn place(passage: &Passage) -> String {
    let mut place = passage.path.clone();
    if let Some(page) = passage.page {
        let _ = write!(place, ", page {page}");
    }
    let _ = write!(place, ", lines {}-{}", passage.first_line, passage.last_line);
    if !passage.headings.is_empty() {
        let _ = write!(place, ": {}", passage.headings.join(" > "));
    }
    place
}

/// A list of documents.
pub(super) fn documents(page: &[&Document], has_more: bool, standing: &Standing) -> Value {
    let documents: Vec<Value> = page.iter().map(|document| of_list(document)).collect();
    let left_out: Vec<&String> = standing.left_out.iter().take(MAX_LEFT_OUT).collect();
    let mut list = json!({
        "documents": documents,
        "more": has_more,
        "complete": standing.is_complete,
        "pending": standing.pending,
        "leftOut": left_out,
    });
    if let Some(cause) = &standing.trouble {
        list["problem"] = cause.to_string().into();
    }
    structured(&list.to_string(), list)
}

fn of_list(document: &Document) -> Value {
    let mut shown = json!({
        "document": document.path,
        "title": document.title,
        "state": if document.failure.is_some() { "failed" } else { "indexed" },
        "bytes": document.bytes,
        "pieces": document.chunks,
    });
    if !document.digest.is_empty() {
        shown["digest"] = document.digest.clone().into();
    }
    if document.pages > 0 {
        shown["pages"] = document.pages.into();
    }
    if let Some(reason) = &document.failure {
        shown["reason"] = reason.clone().into();
    }
    shown
}

/// Lines of a document, beginning with one.
pub(super) fn lines(document: &Document, from: usize, lines: &[&str], total: usize) -> Value {
    let text = lines.join("\n");
    structured(
        &text,
        json!({
            "document": document.path,
            "title": document.title,
            "digest": document.digest,
            "from": from,
            "to": from + lines.len() - 1,
            "lines": total,
            "text": text,
        }),
    )
}

fn structured(text: &str, structured: Value) -> Value {
    json!({"content": [{"type": "text", "text": text}], "structuredContent": structured})
}
