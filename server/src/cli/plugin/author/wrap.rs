//! A core module, as cargo makes it for `wasm32-unknown-unknown`, as a component.

use wit_component::ComponentEncoder;

use crate::failure::Failure;

/// How a core module begins: magic and version.
const MODULE: &[u8] = b"\0asm\x01\0\0\0";
/// How a component begins.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";
const HINT: &str = "give a component, or a module that was compiled for wasm32-unknown-unknown with the kit";

/// Whether these bytes are WebAssembly of any kind.
pub(super) fn is_wasm(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\0asm")
}

/// The component: as it is, or made of a module.
pub(super) fn component(bytes: Vec<u8>) -> Result<Vec<u8>, Failure> {
    if bytes.starts_with(COMPONENT) {
        return Ok(bytes);
    }
    if !bytes.starts_with(MODULE) {
        return Err(Failure::new("PV-PLUGIN-COMPONENT", "the file is neither a component nor a module", HINT));
    }
    let encoder = ComponentEncoder::default().module(&bytes);
    encoder.and_then(|encoder| encoder.validate(true).encode()).map_err(|cause| {
        Failure::new("PV-PLUGIN-COMPONENT", format!("no component can be made of it: {cause:#}"), HINT)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_stay_and_what_is_neither_is_refused() {
        let text = include_bytes!("../../../../../examples/plugins/rust-text/text.wasm").to_vec();
        assert_eq!(component(text.clone()).unwrap(), text);
        for wrong in [&b""[..], b"PK\x03\x04", b"\0asm\x02\0\0\0", b"\0asm\x01\0\0\0\xff"] {
            let error = component(wrong.to_vec()).unwrap_err();
            assert_eq!(error.code, "PV-PLUGIN-COMPONENT", "{wrong:?}");
        }
        // The smallest module there is. What it lacks, the engine says.
        assert!(component(MODULE.to_vec()).unwrap().starts_with(COMPONENT));
    }
}
