//! Descriptors for tests, out of their source.
#![allow(clippy::unwrap_used)]

use base64::{Engine, prelude::BASE64_STANDARD};
use prost_reflect::DescriptorPool;

use super::descriptors::Files;

/// What Google's APIs say of fields.
const BEHAVIOUR: &str = r#"
syntax = "proto3";
package google.api;
import "google/protobuf/descriptor.proto";
extend google.protobuf.FieldOptions { repeated FieldBehavior field_behavior = 1052 [packed = false]; }
enum FieldBehavior { FIELD_BEHAVIOR_UNSPECIFIED = 0; OPTIONAL = 1; REQUIRED = 2; OUTPUT_ONLY = 3; INPUT_ONLY = 4; }
"#;

/// The set of a file, in Base64.
pub(super) fn set(source: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("google/api")).unwrap();
    std::fs::write(dir.path().join("google/api/field_behavior.proto"), BEHAVIOUR).unwrap();
    std::fs::write(dir.path().join("sample.proto"), source).unwrap();
    let mut compiler = protox::Compiler::new([dir.path()]).unwrap();
    compiler.include_source_info(true).include_imports(true);
    compiler.open_file("sample.proto").unwrap();
    BASE64_STANDARD.encode(compiler.encode_file_descriptor_set())
}

/// The files of a file and its imports.
pub(super) fn files(source: &str) -> Files {
    Files::of_base64(&set(source)).unwrap()
}

/// What a file describes.
pub(super) fn pool(source: &str) -> DescriptorPool {
    let (pool, left_out) = files(source).read();
    assert!(left_out.is_empty(), "{left_out:?}");
    pool
}
