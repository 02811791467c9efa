//! The rules that a stdio plugin's `isolation` keeps: bounds within which a program starts at all, and folders that can
//! be opened without opening everything.

use std::path::{Component, Path};

use provost_types::IsolationSpec;

use crate::fields::Check;

const BASE: &str = "spec.source.mcp-stdio.isolation";
/// Memory of one plugin: a tebibyte.
const MEMORY_MIB: (u32, u32) = (16, 1 << 20);
/// Processor time: from a twentieth of a core to 1024 of them.
const CPU_PERCENT: (u32, u32) = (5, 102_400);
/// Processes and threads.
const PROCESSES: (u32, u32) = (4, 65_536);
/// Open files of a process.
const OPEN_FILES: (u32, u32) = (16, 1 << 20);
/// Folders of each list.
const MAX_FOLDERS: usize = 64;

/// Checks the field by itself.
pub(crate) fn check(check: &mut Check<'_>, spec: &IsolationSpec) {
    for (name, value, (least, most)) in [
        ("memoryMib", spec.memory_mib, MEMORY_MIB),
        ("cpuPercent", spec.cpu_percent, CPU_PERCENT),
        ("processes", spec.processes, PROCESSES),
        ("openFiles", spec.open_files, OPEN_FILES),
    ] {
        check.require((least..=most).contains(&value), &format!("{BASE}.{name}"), || {
            format!("is {value}, and must be from {least} to {most}")
        });
    }
    for (name, folders) in [("writable", &spec.writable), ("readable", &spec.readable)] {
        let field = format!("{BASE}.{name}");
        check.require(folders.len() <= MAX_FOLDERS, &field, || format!("has more than {MAX_FOLDERS} folders"));
        for folder in folders {
            check.require(is_folder(folder), &field, || {
                format!("`{folder}` is not the absolute path of a folder below `/`, without `..`")
            });
        }
    }
}

fn is_folder(text: &str) -> bool {
    let path = Path::new(text);
    let mut parts = path.components();
    let from_root = parts.next() == Some(Component::RootDir);
    let mut below = parts.peekable();
    from_root
        && below.peek().is_some()
        && below.all(|part| matches!(part, Component::Normal(_)))
        && !text.contains('\0')
}
