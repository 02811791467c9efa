//! C2SP tlog-tiles: names of tiles and entry bundles, and the bytes of both.
//!
//! Source: <https://c2sp.org/tlog-tiles>. A tile holds up to 256 hashes of one level; level 0 are
//! leaf hashes, each hash above is the root of a full tile below. A bundle holds the leaves
//! themselves.

use crate::{hash::Hash, record::MAX_LEAF};

/// Hashes of a full tile.
pub const TILE_WIDTH: u64 = 256;
/// The highest level that a tile may have; a tree of 2^64 leaves ends below it.
const MAX_LEVEL: u8 = 63;
const _: () = assert!(MAX_LEAF <= u16::MAX as usize, "a bundle's lengths have 16 bits");

/// What a tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TileKind {
    /// Hashes of this level.
    Hashes(u8),
    /// Leaves.
    Entries,
}

/// One tile: kind, index within its level, width (256 when full).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TileName {
    /// Hashes of a level, or leaves.
    pub kind: TileKind,
    /// Index within its level.
    pub index: u64,
    /// From 1 to 256.
    pub width: u64,
}

impl TileName {
    /// The path below a log's prefix: `tile/0/x001/234.p/5`.
    pub fn path(&self) -> String {
        let mut index = self.index;
        let mut number = format!("{:03}", index % 1000);
        while index >= 1000 {
            index /= 1000;
            number = format!("x{:03}/{number}", index % 1000);
        }
        let level = match self.kind {
            TileKind::Hashes(level) => level.to_string(),
            TileKind::Entries => "entries".to_owned(),
        };
        match self.width {
            TILE_WIDTH => format!("tile/{level}/{number}"),
            width => format!("tile/{level}/{number}.p/{width}"),
        }
    }

    /// Reads a path; only the one way of writing each name is taken.
    pub fn parse(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("tile/")?;
        let (level, rest) = rest.split_once('/')?;
        let kind = match level {
            "entries" => TileKind::Entries,
            number => TileKind::Hashes(number.parse().ok().filter(|level| *level <= MAX_LEVEL)?),
        };
        let (number, width) = match rest.split_once(".p/") {
            Some((number, width)) => (number, width.parse().ok().filter(|w| (1..TILE_WIDTH).contains(w))?),
            None => (rest, TILE_WIDTH),
        };
        let mut index: u64 = 0;
        for part in number.split('/') {
            let digits = part.strip_prefix('x').unwrap_or(part);
            let value: u64 = digits.parse().ok().filter(|_| digits.len() == 3)?;
            index = index.checked_mul(1000)?.checked_add(value)?;
        }
        let name = Self { kind, index, width };
        (name.path() == path).then_some(name)
    }

    /// Whether a tree of `size` leaves has at least this much of the tile.
    pub fn is_in(&self, size: u64) -> bool {
        let level = match self.kind {
            TileKind::Hashes(level) => level,
            TileKind::Entries => 0,
        };
        let hashes = size.checked_shr(8 * u32::from(level)).unwrap_or_default();
        let end = self.index.checked_mul(TILE_WIDTH).and_then(|first| first.checked_add(self.width));
        self.width > 0 && end.is_some_and(|end| end <= hashes)
    }
}

/// Appends one leaf to a bundle.
pub fn push_entry(bundle: &mut Vec<u8>, leaf: &[u8]) {
    // Leaves are never longer than 65,535 bytes; see the assertion above.
    let len = u16::try_from(leaf.len()).unwrap_or(u16::MAX);
    bundle.extend_from_slice(&len.to_be_bytes());
    bundle.extend_from_slice(leaf);
}

/// The bytes of a tile of hashes.
pub fn tile_bytes(hashes: &[Hash]) -> Vec<u8> {
    hashes.iter().flat_map(|hash| hash.0).collect()
}

/// Every tile of hashes of a growing log, made in one pass with one open tile a level.
#[derive(Debug, Default)]
pub struct TileBuilder {
    /// By level: index of the open tile, and its hashes.
    open: Vec<(u64, Vec<Hash>)>,
}

impl TileBuilder {
    /// Takes the next leaf hash; gives each tile that it fills.
    pub fn push(&mut self, leaf: Hash, mut full: impl FnMut(TileName, &[Hash])) {
        let mut next = Some(leaf);
        let mut level = 0;
        while let Some(hash) = next.take() {
            if self.open.len() == level {
                self.open.push((0, Vec::new()));
            }
            let Some((index, hashes)) = self.open.get_mut(level) else { return };
            hashes.push(hash);
            if hashes.len() as u64 == TILE_WIDTH {
                full(name(level, *index, TILE_WIDTH), hashes);
                next = Some(crate::proof::root_of(hashes));
                hashes.clear();
                *index += 1;
            }
            level += 1;
        }
    }

    /// The tiles that are not full.
    pub fn partial(&self) -> impl Iterator<Item = (TileName, &[Hash])> {
        let open = self.open.iter().enumerate().filter(|(_, (_, hashes))| !hashes.is_empty());
        open.map(|(level, (index, hashes))| (name(level, *index, hashes.len() as u64), hashes.as_slice()))
    }
}

fn name(level: usize, index: u64, width: u64) -> TileName {
    // 256^8 leaves is the whole of 64 bits: there is no ninth level.
    TileName { kind: TileKind::Hashes(u8::try_from(level).unwrap_or(MAX_LEVEL)), index, width }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::{hash::leaf_hash, proof::root_of};

    #[test]
    fn names_have_one_form() {
        let hashes = |level, index, width| TileName { kind: TileKind::Hashes(level), index, width };
        for (name, path) in [
            (hashes(0, 1_234_067, 256), "tile/0/x001/x234/067"),
            (hashes(1, 5, 17), "tile/1/005.p/17"),
            (hashes(63, 999, 1), "tile/63/999.p/1"),
            (hashes(0, 1_000, 255), "tile/0/x001/000.p/255"),
            (TileName { kind: TileKind::Entries, index: 0, width: 256 }, "tile/entries/000"),
        ] {
            assert_eq!(name.path(), path);
            assert_eq!(TileName::parse(path), Some(name));
        }
        for bad in [
            "tile/0/1",
            "tile/0/0001",
            "tile/0/001/234",
            "tile/0/x000/001",
            "tile/00/001",
            "tile/64/001",
            "tile/0/001.p/0",
            "tile/0/001.p/256",
            "tile/0/001.p/01",
            "tile/0/001.p/",
            "tile/entries",
            "tile/0/../x",
            "tile/0/x001/x234/x067",
            "tile/-1/000",
            "tile/0/+01",
            "tile/0/x99999999999999999999/000",
            "",
        ] {
            assert_eq!(TileName::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_tree_has_the_tiles_of_the_specification() {
        // The example of c2sp.org/tlog-tiles: 70,000 leaves.
        let mut builder = TileBuilder::default();
        let mut full = [0; 3];
        for n in 0..70_000u64 {
            builder.push(leaf_hash(&n.to_be_bytes()), |name, _| match name.kind {
                TileKind::Hashes(level) => full[usize::from(level)] += 1,
                TileKind::Entries => {}
            });
        }
        assert_eq!(full, [273, 1, 0]);
        let partial: Vec<_> = builder.partial().map(|(name, _)| name.path()).collect();
        assert_eq!(partial, ["tile/0/273.p/112", "tile/1/001.p/17", "tile/2/000.p/1"]);
        for path in ["tile/0/273.p/112", "tile/0/272", "tile/1/000", "tile/2/000.p/1", "tile/entries/273.p/1"] {
            assert!(TileName::parse(path).unwrap().is_in(70_000), "{path}");
        }
        for path in ["tile/0/273", "tile/0/273.p/113", "tile/1/001", "tile/2/000.p/2", "tile/3/000.p/1"] {
            assert!(!TileName::parse(path).unwrap().is_in(70_000), "{path}");
        }
        let huge = TileName { kind: TileKind::Hashes(0), index: u64::MAX, width: 256 };
        assert!(!huge.is_in(u64::MAX));
    }

    #[test]
    fn each_hash_is_the_root_of_a_tile_below() {
        let leaves: Vec<Hash> = (0..1_024u64).map(|n| leaf_hash(&n.to_be_bytes())).collect();
        let mut builder = TileBuilder::default();
        leaves.iter().for_each(|leaf| builder.push(*leaf, |_, _| ()));
        let level_1: Vec<Hash> = builder.partial().flat_map(|(_, hashes)| hashes.to_vec()).collect();
        let roots: Vec<Hash> = leaves.chunks(256).map(root_of).collect();
        assert_eq!(level_1, roots);
        assert_eq!(tile_bytes(&roots).len(), 4 * 32);
    }
}
