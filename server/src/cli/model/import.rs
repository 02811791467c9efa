//! `provost model import`.

use std::path::{Path, PathBuf};

use clap::Args;
use indicatif::ProgressBar;
use provost_gpu_serve::Imported;
use provost_types::Name;
use serde_json::json;

use super::store_of;
use crate::failure::{Failure, Usage};

#[derive(Args)]
pub struct ImportArgs {
    /// The model: a folder with `config.json` and `model.safetensors`, or a `.gguf` file.
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// What it is to be called. Default: the name of the folder or file.
    #[arg(long)]
    name: Option<String>,
    /// Where the node on this machine keeps its data. Default: that of `provost dev`.
    #[arg(long, env = "PROVOST_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(args: &ImportArgs) -> anyhow::Result<()> {
    let name = name_of(args)?;
    let store = store_of(args.data_dir.as_ref());
    // Shown on a terminal only.
    let (shown, mut read) = (ProgressBar::new_spinner(), 0_u64);
    let imported = store.import_telling(&args.path, name.as_str(), &mut |bytes| {
        read = read.saturating_add(bytes);
        shown.set_message(format!("{} MiB read", read >> 20));
        shown.tick();
    });
    shown.finish_and_clear();
    let Imported { manifest, was_there } = imported?;
    if args.json {
        let text = json!({
            "name": name, "digest": manifest.digest, "format": manifest.format, "dtype": manifest.dtype,
            "bytes": manifest.bytes(), "files": manifest.files, "wasThere": was_there,
            "place": store.place_of(manifest.digest),
        });
        println!("{}", serde_json::to_string_pretty(&text)?);
        return Ok(());
    }
    let (count, bytes, digest) = (manifest.files.len(), manifest.bytes(), manifest.digest);
    let done = if was_there { "there already" } else { "imported" };
    // The document alone goes to stdout.
    eprintln!("{done}: {digest}, {count} files, {bytes} bytes; apply this to serve it:");
    println!(
        "apiVersion: provost/v1\nkind: Model\nmetadata: {{ name: {name} }}\nspec:\n  source: {{ blob: '{digest}' }}"
    );
    Ok(())
}

/// The name that was given, else one that the path suggests.
fn name_of(args: &ImportArgs) -> anyhow::Result<Name> {
    let suggested = suggested(&args.path);
    let text = args.name.as_deref().unwrap_or(&suggested);
    Name::new(text).map_err(|cause| {
        let hint = "give it a name with --name";
        Usage(Failure::new("PV-CLI-MODEL-NAME", cause.to_string(), hint)).into()
    })
}

fn suggested(path: &Path) -> String {
    // `.` and `..` have no name of their own.
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let is_gguf = whole.extension().is_some_and(|extension| extension == "gguf");
    let name = if is_gguf { whole.file_stem() } else { whole.file_name() };
    name.unwrap_or_default().to_string_lossy().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_suggests_a_name() {
        for (path, name) in [
            ("/models/Qwen3-8B", "qwen3-8b"),
            ("/models/Qwen3-8B-Q4_0.gguf", "qwen3-8b-q4_0"),
            ("/models/tiny.v2/", "tiny.v2"),
        ] {
            assert_eq!(suggested(Path::new(path)), name);
        }
    }
}
