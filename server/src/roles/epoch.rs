//! A number that grows with each start of a node: what it held before is known to be of the past.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::Path,
};

/// The next epoch, durable before it is used: a crash after this only leaves one out.
pub fn next(path: &Path) -> io::Result<u64> {
    let last = match fs::read_to_string(path) {
        Ok(text) => text.trim().parse::<u64>().map_err(|_| {
            let text = format!("{} does not hold a number; remove the node and join it anew", path.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?,
        Err(e) if e.kind() == io::ErrorKind::NotFound => 0,
        Err(e) => return Err(e),
    };
    let next = last + 1;
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(next.to_string().as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    if let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok(next)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    #[test]
    fn epochs_grow_and_a_damaged_file_is_refused() {
        let dir = std::env::temp_dir().join(format!("provost-epoch-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("epoch");
        assert_eq!((super::next(&path).unwrap(), super::next(&path).unwrap()), (1, 2));
        std::fs::write(&path, "x").unwrap();
        assert!(super::next(&path).is_err());
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
