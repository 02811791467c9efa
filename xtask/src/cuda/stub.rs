//! A `libcuda.so` that has every function of the driver and no device.
//!
//! Programs that are linked with the driver can be linked against it, and a program that looks for the driver finds one that
//! fails: that it goes on without a device can be shown on any machine.

use std::collections::BTreeSet;
use std::fmt::Write as _;

/// What each function returns: CUDA_ERROR_STUB_LIBRARY, as NVIDIA's own stub does.
const STUB_LIBRARY: u32 = 34;

/// The names of the driver's functions that cudarc's sources declare.
pub(super) fn driver_functions(source: &str) -> BTreeSet<&str> {
    let after = source.split("fn cu").skip(1);
    let names = after.filter_map(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_')?;
        let name = rest.get(..end)?;
        // `cuInit`, `cuMemAlloc_v2`: what follows `cu` is a capital letter.
        let is_function = rest[end..].starts_with('(') && name.starts_with(|c: char| c.is_ascii_uppercase());
        is_function.then_some(name)
    });
    names.collect()
}

/// The C source of a library with these functions, named without their `cu`.
pub(super) fn source_of(functions: &BTreeSet<&str>) -> String {
    let mut source = String::new();
    for name in functions {
        // Writing to a string does not fail.
        let _ = writeln!(source, "int cu{name}(void) {{ return {STUB_LIBRARY}; }}");
    }
    source
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_of_the_driver_are_found_and_nothing_else() {
        let source = "pub unsafe fn cuInit(Flags: u32) -> CUresult {\n(culib().cuInit)(Flags)\n}\n\
            pub(super) fn cuMemAlloc_v2(p: *mut u64) -> CUresult;\nfn culib() -> &'static Lib {}\nfn customary(x: u8) {}\n\
            pub cuMemFree_v2: unsafe extern \"C\" fn(u64),\n";
        let functions = driver_functions(source);
        assert_eq!(functions, BTreeSet::from(["Init", "MemAlloc_v2"]));
        assert_eq!(source_of(&functions), "int cuInit(void) { return 34; }\nint cuMemAlloc_v2(void) { return 34; }\n");
    }
}
