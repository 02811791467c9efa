//! `cargo xtask cuda-build`: cargo, with what a build for CUDA devices needs.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;

use super::manifest::patched;
use super::toolchain::Toolchain;

/// What is built where no other arguments of cargo are given.
pub const BUILT: [&str; 4] = ["build", "--release", "--package", "provost"];
/// Where builds for CUDA are, below the target folder: the other binary of the same name is not overwritten.
const BELOW_TARGET: &str = "cuda";
/// Where cudarc declares the driver's functions.
const BINDINGS: &str = "src/driver/sys/mod.rs";

/// Packages of the build, as cargo knows them.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_root: PathBuf,
    target_directory: PathBuf,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    manifest_path: PathBuf,
}

/// Runs cargo with the feature `cuda`; without arguments it builds [`BUILT`]. `here` is any folder of the workspace.
/// `only_toolchain` brings the toolchain and prints its environment instead.
///
/// # Errors
/// When the toolchain cannot be had, candle-core is another one than expected, or cargo cannot be run.
pub fn build(here: &Path, arguments: &[String], only_toolchain: bool) -> Result<ExitCode> {
    let metadata = Metadata::read(here)?;
    let toolchain = Toolchain::ensure(&metadata.folder_of("cudarc")?.0.join(BINDINGS))?;
    if only_toolchain {
        print_environment(&toolchain)?;
        return Ok(ExitCode::SUCCESS);
    }
    let target = metadata.target_directory.join(BELOW_TARGET);
    let candle = metadata.copy_of_candle(&target)?;
    let lock = Lock::keep(metadata.workspace_root.join("Cargo.lock"))?;
    let mut command = Command::new(cargo());
    // What follows `--` is for the program that cargo runs.
    let ends = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
    let (for_cargo, for_program) = arguments.split_at(ends);
    match for_cargo {
        [] => command.args(BUILT),
        given => command.args(given),
    };
    command.args(["--features", "cuda", "--target-dir"]).arg(&target);
    command.arg("--config").arg(format!("patch.crates-io.candle-core.path={:?}", candle.display().to_string()));
    command.args(for_program);
    command.envs(toolchain.environment()?).current_dir(&metadata.workspace_root);
    let status = command.status().context("cannot run cargo")?;
    lock.restore()?;
    if !status.success() {
        return Ok(ExitCode::FAILURE);
    }
    eprintln!("cuda-build: in {}", target.display());
    eprintln!(
        "cuda-build: where it uses a device, LD_LIBRARY_PATH names cuBLAS and its like: {}",
        toolchain.libraries().display()
    );
    Ok(ExitCode::SUCCESS)
}

#[allow(clippy::print_stdout, reason = "the environment is what was asked for")]
fn print_environment(toolchain: &Toolchain) -> Result<()> {
    for (name, value) in toolchain.environment()? {
        println!("export {name}={}", quoted(&value.to_string_lossy()));
    }
    println!(
        "# LD_LIBRARY_PATH of programs that use a device, where no toolkit is installed; and with a driver that has no device:"
    );
    println!("export PROVOST_CUDA_LIBRARIES={}", quoted(&toolchain.libraries().display().to_string()));
    println!("export PROVOST_CUDA_STUBS={}", quoted(&toolchain.stubs().display().to_string()));
    Ok(())
}

/// A value as a shell reads it.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\'', r"'\''"))
}

fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

impl Metadata {
    /// What a build with the feature has; downloads what is not there.
    fn read(here: &Path) -> Result<Self> {
        let mut command = Command::new(cargo());
        command.args(["metadata", "--locked", "--format-version", "1", "--features", "provost/cuda"]);
        let out = command.current_dir(here).output().context("cannot run cargo")?;
        if !out.status.success() {
            bail!("cargo metadata failed:\n{}", String::from_utf8_lossy(&out.stderr));
        }
        serde_json::from_slice(&out.stdout).context("cargo metadata is not what we expect")
    }

    /// The folder of a package, and its version.
    fn folder_of(&self, name: &str) -> Result<(&Path, &str)> {
        let package = self.packages.iter().find(|package| package.name == name);
        let package = package.with_context(|| format!("{name} is not in the build"))?;
        let folder = package.manifest_path.parent().with_context(|| format!("{name} has no folder"))?;
        Ok((folder, &package.version))
    }

    /// candle-core below the target folder, with its manifest patched.
    fn copy_of_candle(&self, target: &Path) -> Result<PathBuf> {
        let (folder, version) = self.folder_of("candle-core")?;
        let copy = target.join(format!("candle-core-{version}"));
        let manifest = std::fs::read_to_string(folder.join("Cargo.toml"))
            .with_context(|| format!("cannot read the manifest in {}", folder.display()))?;
        let manifest = patched(&manifest)?;
        // Cargo compares times of files: what is there and the same stays.
        if std::fs::read_to_string(copy.join("Cargo.toml")).is_ok_and(|there| there == manifest) {
            return Ok(copy);
        }
        copy_folder(&folder.join("src"), &copy.join("src"))?;
        // Last: it says that the copy is complete.
        std::fs::write(copy.join("Cargo.toml"), manifest)?;
        Ok(copy)
    }
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    for entry in std::fs::read_dir(from).with_context(|| format!("cannot list {}", from.display()))? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        match entry.file_type()?.is_dir() {
            true => copy_folder(&from, &to)?,
            false => {
                std::fs::copy(&from, &to).with_context(|| format!("cannot copy {}", from.display()))?;
            }
        }
    }
    Ok(())
}

/// The workspace's lock file: a patched package has another source there, which is not to stay.
struct Lock {
    path: PathBuf,
    text: String,
}

impl Lock {
    fn keep(path: PathBuf) -> Result<Self> {
        let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        Ok(Self { path, text })
    }

    /// Puts the file back as it was; says where versions were others than locked.
    fn restore(self) -> Result<()> {
        let built = std::fs::read_to_string(&self.path)?;
        if built == self.text {
            return Ok(());
        }
        std::fs::write(&self.path, &self.text).with_context(|| format!("cannot write {}", self.path.display()))?;
        if versions(&built) != versions(&self.text) {
            bail!("the build has other versions than Cargo.lock says: run `cargo metadata --locked` and look why");
        }
        Ok(())
    }
}

/// Names and versions of a lock file, in its order.
fn versions(lock: &str) -> Vec<(&str, &str)> {
    let lines: Vec<&str> = lock.lines().collect();
    let pairs = lines.windows(2).filter_map(|pair| match pair {
        [name, version] if name.starts_with("name = ") && version.starts_with("version = ") => Some((*name, *version)),
        _ => None,
    });
    pairs.collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const REGISTRY: &str = "[[package]]\nname = \"candle-core\"\nversion = \"0.11.1\"\nsource = \"registry\"\n";

    #[test]
    fn another_source_is_no_other_version() {
        let patched = "[[package]]\nname = \"candle-core\"\nversion = \"0.11.1\"\n";
        assert_eq!(versions(REGISTRY), [("name = \"candle-core\"", "version = \"0.11.1\"")]);
        assert_eq!(versions(REGISTRY), versions(patched));
        assert_ne!(versions(REGISTRY), versions(&patched.replace("0.11.1", "0.11.2")));
    }

    #[test]
    fn a_lock_file_is_put_back_and_other_versions_are_told() {
        let folder = std::env::temp_dir().join(format!("provost-xtask-lock-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("Cargo.lock");
        std::fs::write(&path, REGISTRY).unwrap();
        let lock = Lock::keep(path.clone()).unwrap();
        std::fs::write(&path, REGISTRY.replace("0.11.1", "0.12.0")).unwrap();
        assert!(lock.restore().is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), REGISTRY);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn values_are_quoted_for_a_shell() {
        assert_eq!(quoted("a b'c"), r"'a b'\''c'");
    }
}
