//! The contract itself, generated. For what the kit does not wrap.
#![allow(missing_docs, clippy::all, unsafe_op_in_unsafe_fn)]

wit_bindgen::generate!({
    path: "../../data-plane/wasm/wit",
    world: "tool-plugin",
    pub_export_macro: true,
    export_macro_name: "export_component",
    default_bindings_module: "provost_plugin::bindings",
});

/// What a plugin exports that has prompts.
#[cfg(feature = "prompts")]
pub mod prompts {
    wit_bindgen::generate!({
        path: "../../data-plane/wasm/wit",
        world: "prompt-plugin",
        pub_export_macro: true,
        export_macro_name: "export_prompts",
        default_bindings_module: "provost_plugin::bindings::prompts",
        with: { "provost:plugin/types@0.1.0": crate::bindings::provost::plugin::types },
    });
}

/// What a plugin exports that has resources.
#[cfg(feature = "resources")]
pub mod resources {
    wit_bindgen::generate!({
        path: "../../data-plane/wasm/wit",
        world: "resource-plugin",
        pub_export_macro: true,
        export_macro_name: "export_resources",
        default_bindings_module: "provost_plugin::bindings::resources",
        with: { "provost:plugin/types@0.1.0": crate::bindings::provost::plugin::types },
    });
}
