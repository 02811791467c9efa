//! What the contract in `wit/plugin.wit` is in Rust, generated.
#![allow(missing_docs, clippy::all, reason = "generated")]

wasmtime::component::bindgen!({
    path: "wit",
    world: "tool-plugin",
    imports: {
        "provost:plugin/host.kv-get": async,
        "provost:plugin/host.kv-set": async,
        "provost:plugin/host.call-tool": async,
        "provost:plugin/http.send": async,
    },
    exports: { default: async },
});

/// What a plugin exports that has prompts.
pub mod prompts {
    #![allow(dead_code, unused_imports, reason = "generated")]

    wasmtime::component::bindgen!({
        path: "wit",
        world: "prompt-plugin",
        with: { "provost:plugin/types": crate::bindings::provost::plugin::types },
        exports: { default: async },
    });
}

/// What a plugin exports that has resources.
pub mod resources {
    #![allow(dead_code, unused_imports, reason = "generated")]

    wasmtime::component::bindgen!({
        path: "wit",
        world: "resource-plugin",
        with: { "provost:plugin/types": crate::bindings::provost::plugin::types },
        exports: { default: async },
    });
}
