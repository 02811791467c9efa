//! The contract itself, generated. For what the kit does not wrap.
#![allow(missing_docs, clippy::all, unsafe_op_in_unsafe_fn)]

wit_bindgen::generate!({
    path: "../../data-plane/wasm/wit",
    world: "tool-plugin",
    pub_export_macro: true,
    export_macro_name: "export_component",
    default_bindings_module: "provost_plugin::bindings",
});
