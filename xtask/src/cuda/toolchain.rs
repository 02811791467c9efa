//! The CUDA toolchain of a build, in the user's cache.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::stub::{driver_functions, source_of};

/// What is installed, with hashes.
const REQUIREMENTS: &str = include_str!("requirements.txt");
/// Where the wheels have their files.
const WITHIN: &str = "nvidia/cu13";
/// Written last, with the requirements that the folder was made from: it says that the folder is complete.
const COMPLETE: &str = "complete.txt";
/// The compute capability that kernels are compiled for, where the environment names no other: 9.0 (H100, H200). The compiled
/// form runs on later devices too.
const COMPUTE_CAP: &str = "90";

/// A folder with compiler, headers and libraries of CUDA.
#[derive(Clone, Debug)]
pub(super) struct Toolchain {
    home: PathBuf,
    /// For the linker: the CUDA runtime, to be linked statically, and nothing else.
    link: PathBuf,
    /// A driver without a device.
    stubs: PathBuf,
}

impl Toolchain {
    /// The toolchain of this machine's user: what is there, or else downloaded, checked and unpacked now. `driver_bindings` is
    /// cudarc's source of the driver's functions.
    ///
    /// # Errors
    /// When pip or a C compiler is missing or fails: a hash that differs, no network.
    pub(super) fn ensure(driver_bindings: &Path) -> Result<Self> {
        let root = cache()?.join("cuda-toolchain");
        let toolchain = Self::below(&root);
        let complete = root.join(COMPLETE);
        if std::fs::read_to_string(&complete).is_ok_and(|text| text == REQUIREMENTS) {
            return Ok(toolchain);
        }
        if root.exists() {
            std::fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
        }
        std::fs::create_dir_all(&root).with_context(|| format!("cannot make {}", root.display()))?;
        eprintln!("cuda-toolchain: about 680 MB to download, 1.3 GB on disk, in {}", root.display());
        install(&root)?;
        toolchain.link_names()?;
        toolchain.make_stub(driver_bindings)?;
        std::fs::write(&complete, REQUIREMENTS).with_context(|| format!("cannot write {}", complete.display()))?;
        Ok(toolchain)
    }

    fn below(root: &Path) -> Self {
        Self { home: root.join(WITHIN), link: root.join("link"), stubs: root.join("stubs") }
    }

    /// The variables that a build needs, as they are now and with the toolchain.
    ///
    /// # Errors
    /// When `PATH` cannot be made longer.
    pub(super) fn environment(&self) -> Result<Vec<(&'static str, OsString)>> {
        let cap = std::env::var_os("CUDA_COMPUTE_CAP").unwrap_or_else(|| COMPUTE_CAP.into());
        Ok(vec![
            ("CUDA_HOME", self.home.clone().into()),
            ("CUDA_PATH", self.home.clone().into()),
            ("CUDA_COMPUTE_CAP", cap),
            ("NVCC", self.home.join("bin/nvcc").into()),
            ("PATH", before("PATH", &self.home.join("bin"))?),
            ("LIBRARY_PATH", before("LIBRARY_PATH", &self.link)?),
        ])
    }

    /// Where the libraries are that a binary loads when it uses a device: cuBLAS, cuRAND, NVRTC.
    pub(super) fn libraries(&self) -> PathBuf {
        self.home.join("lib")
    }

    /// Where the driver without a device is.
    pub(super) fn stubs(&self) -> &Path {
        &self.stubs
    }

    /// The names under which compilers, the linker and programs look for libraries.
    fn link_names(&self) -> Result<()> {
        let lib = self.libraries();
        link(Path::new("lib"), &self.home.join("lib64"))?;
        let names = ["libcublas.so", "libcublasLt.so", "libcurand.so", "libnvrtc.so"];
        for entry in std::fs::read_dir(&lib).with_context(|| format!("cannot list {}", lib.display()))? {
            let name = entry?.file_name();
            let text = name.to_string_lossy();
            let plain = names.iter().find(|plain| text.strip_prefix(**plain).is_some_and(|rest| rest.starts_with('.')));
            if let Some(plain) = plain {
                link(Path::new(&name), &lib.join(plain))?;
            }
        }
        // `-lcudart` finds the archive here, and no shared library beside it: the runtime becomes a part of the binary.
        std::fs::create_dir_all(&self.link)?;
        let archive = lib.join("libcudart_static.a");
        if !archive.is_file() {
            bail!("{} is missing: the wheels are not what they were", archive.display());
        }
        link(&archive, &self.link.join("libcudart.a"))
    }

    fn make_stub(&self, driver_bindings: &Path) -> Result<()> {
        let bindings = std::fs::read_to_string(driver_bindings)
            .with_context(|| format!("cannot read {}", driver_bindings.display()))?;
        let functions = driver_functions(&bindings);
        if functions.is_empty() {
            bail!("{} declares no functions of the driver", driver_bindings.display());
        }
        std::fs::create_dir_all(&self.stubs)?;
        let source = self.stubs.join("cuda.c");
        std::fs::write(&source, source_of(&functions))?;
        let library = self.stubs.join("libcuda.so.1");
        let cc = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
        let mut command = Command::new(cc);
        command.args(["-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o"]).arg(&library).arg(&source);
        succeed(&mut command, "the C compiler")?;
        link(Path::new("libcuda.so.1"), &self.stubs.join("libcuda.so"))
    }
}

/// Downloads, checks and unpacks the wheels, with pip.
fn install(root: &Path) -> Result<()> {
    let requirements = root.join("requirements.txt");
    std::fs::write(&requirements, REQUIREMENTS)?;
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile", "--no-deps"]);
    command
        .args(["--only-binary=:all:", "--require-hashes", "--target"])
        .arg(root)
        .arg("--requirement")
        .arg(&requirements);
    succeed(&mut command, "pip")
}

/// The cache of Provost's scripts.
fn cache() -> Result<PathBuf> {
    let of_user = std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    let cache = of_user.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
    Ok(cache.context("neither XDG_CACHE_HOME nor HOME is set")?.join("provost"))
}

/// A variable of folders with one more in front.
fn before(name: &str, folder: &Path) -> Result<OsString> {
    let known = std::env::var_os(name).unwrap_or_default();
    let folders = std::iter::once(folder.to_owned()).chain(std::env::split_paths(&known));
    let folders = folders.filter(|folder| !folder.as_os_str().is_empty());
    std::env::join_paths(folders).with_context(|| format!("{} cannot be put into {name}", folder.display()))
}

fn link(to: &Path, at: &Path) -> Result<()> {
    std::os::unix::fs::symlink(to, at).with_context(|| format!("cannot link {}", at.display()))
}

fn succeed(command: &mut Command, what: &str) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {what}: is it installed?"))?;
    if !status.success() {
        bail!("{what} failed: {status}");
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn each_wheel_has_one_version_and_one_hash() {
        let wheels: Vec<&str> = REQUIREMENTS.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(wheels.len(), 8);
        for wheel in wheels {
            let (name, rest) = wheel.split_once("==").unwrap();
            let (version, hash) = rest.split_once(" --hash=sha256:").unwrap();
            assert!(
                name.starts_with("nvidia-") && version.split('.').all(|part| part.parse::<u32>().is_ok()),
                "{wheel}"
            );
            assert!(hash.len() == 64 && hash.chars().all(|c| c.is_ascii_hexdigit()), "{wheel}");
        }
    }

    #[test]
    fn a_folder_comes_before_those_that_are_there() {
        let path = before("PATH", Path::new("/one")).unwrap();
        let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
        assert_eq!(folders.first().unwrap(), Path::new("/one"));
        let alone = before("PROVOST_NO_SUCH_VARIABLE", Path::new("/one")).unwrap();
        assert_eq!(alone, "/one");
    }
}
