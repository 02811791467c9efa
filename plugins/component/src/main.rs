//! `provost-component MODULE OUT`: wraps a plugin's module, as cargo builds it for wasm32-unknown-unknown, as a
//! component. For a machine without `wasm-tools`, whose `component new` does the same.

use std::{path::Path, process::ExitCode};

use anyhow::{Context, Result};
use wit_component::ComponentEncoder;

fn main() -> Result<ExitCode> {
    let (Some(module), Some(out)) = (std::env::args().nth(1), std::env::args().nth(2)) else {
        eprintln!("usage: provost-component MODULE OUT");
        return Ok(ExitCode::from(2));
    };
    wrap(Path::new(&module), Path::new(&out))?;
    Ok(ExitCode::SUCCESS)
}

fn wrap(module: &Path, out: &Path) -> Result<()> {
    let bytes = std::fs::read(module).with_context(|| format!("cannot read {}", module.display()))?;
    let component = ComponentEncoder::default().module(&bytes)?.validate(true).encode();
    let component = component.with_context(|| format!("{} is not the module of a plugin", module.display()))?;
    std::fs::write(out, component).with_context(|| format!("cannot write {}", out.display()))
}
