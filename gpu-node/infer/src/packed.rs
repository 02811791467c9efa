//! What is kept of quantised weights beside them.
//!
//! For products on the processor a matrix is laid out anew, and that is kept with the weights as they came for as long as they are
//! there: by `kernels::tiles` when a model is loaded, and by candle when a matrix is first multiplied by, once for each kind of
//! product. How much candle keeps follows from its forms (candle-core 0.11.1, `quantized/repack.rs` and `repack_x86.rs`); a test
//! holds all of it against what is allocated.

use candle_core::quantized::GgmlDType;

use crate::kernels::{TILE_COLUMNS, TILE_ROWS, has_tiles, tiles_bytes};

/// Of each tile of candle's (as many rows and columns as ours): scales and minima as 32-bit numbers, and values of four bits.
const TILE_Q4K_BYTES: u64 = 3072;
/// The same with values of eight bits.
const TILE_Q4K_AMX_BYTES: u64 = 5120;
/// Twice as many scales, and values of eight bits.
const TILE_Q6K_BYTES: u64 = 5120;

/// Which layouts it makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(dead_code, reason = "each architecture has its own")]
pub(crate) enum Layouts {
    /// None.
    None,
    /// Tiles of x86-64; `own`: ours of `Q4_K` and `Q6_K` in place of candle's, `vnni`: also of `Q8_0`, `amx`: also others of
    /// `Q4_K`, for many rows.
    X86 { own: bool, vnni: bool, amx: bool },
    /// Rows side by side, on ARM with dot products.
    Arm,
}

impl Layouts {
    /// Those of this processor.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn here() -> Self {
        use std::arch::is_x86_feature_detected;

        let own = has_tiles();
        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
            return Self::X86 { own, vnni: true, amx: has_amx() };
        }
        if !is_x86_feature_detected!("avx2") {
            return Self::None;
        }
        if is_x86_feature_detected!("avxvnni") {
            return Self::X86 { own, vnni: true, amx: false };
        }
        if is_x86_feature_detected!("fma") { Self::X86 { own, vnni: false, amx: false } } else { Self::None }
    }

    /// Those of this processor.
    #[cfg(target_arch = "aarch64")]
    pub(crate) fn here() -> Self {
        if std::arch::is_aarch64_feature_detected!("dotprod") { Self::Arm } else { Self::None }
    }

    /// Those of this processor.
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    pub(crate) fn here() -> Self {
        Self::None
    }

    /// The most bytes that all layouts of one matrix take, beside those of the matrix.
    pub(crate) fn bytes(self, dtype: GgmlDType, rows: usize, columns: usize) -> u64 {
        let stored = (rows.saturating_mul(columns) / dtype.block_size()).saturating_mul(dtype.type_size()) as u64;
        match self {
            Self::None => 0,
            Self::X86 { own, vnni, amx } => {
                if !rows.is_multiple_of(TILE_ROWS) || !columns.is_multiple_of(TILE_COLUMNS) {
                    return 0;
                }
                let tiles = (rows / TILE_ROWS).saturating_mul(columns / TILE_COLUMNS) as u64;
                let own = if own { tiles_bytes(dtype, rows, columns) } else { 0 };
                match dtype {
                    GgmlDType::Q4K if own > 0 && amx => tiles.saturating_mul(TILE_Q4K_AMX_BYTES).saturating_add(own),
                    _ if own > 0 => own,
                    GgmlDType::Q4K if amx => tiles.saturating_mul(TILE_Q4K_BYTES + TILE_Q4K_AMX_BYTES),
                    GgmlDType::Q4K => tiles.saturating_mul(TILE_Q4K_BYTES),
                    GgmlDType::Q6K => tiles.saturating_mul(TILE_Q6K_BYTES),
                    GgmlDType::Q8_0 if vnni => stored,
                    _ => 0,
                }
            }
            Self::Arm => match dtype {
                GgmlDType::Q4_0 | GgmlDType::Q8_0 if rows.is_multiple_of(4) => stored,
                GgmlDType::Q4K | GgmlDType::Q5K | GgmlDType::Q6K if rows.is_multiple_of(8) => stored,
                _ => 0,
            },
        }
    }
}

/// Whether the processor has tiles of AMX. That the system may refuse them is left out: then less is kept.
pub(crate) fn has_amx() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        use std::sync::LazyLock;

        const TILE: u32 = 1 << 24;
        const INT8: u32 = 1 << 25;
        // Asked for with each product, and a virtual machine's host answers.
        static FEATURES: LazyLock<u32> = LazyLock::new(|| std::arch::x86_64::__cpuid_count(7, 0).edx);
        cfg!(target_os = "linux") && *FEATURES & TILE != 0 && *FEATURES & INT8 != 0
    }
    #[cfg(not(target_arch = "x86_64"))]
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_those_that_are_kept() {
        const AVX2: Layouts = Layouts::X86 { own: false, vnni: false, amx: false };
        const VNNI: Layouts = Layouts::X86 { own: false, vnni: true, amx: false };
        const AMX: Layouts = Layouts::X86 { own: false, vnni: true, amx: true };
        const OWN: Layouts = Layouts::X86 { own: true, vnni: true, amx: false };
        const OWN_AMX: Layouts = Layouts::X86 { own: true, vnni: true, amx: true };
        let matrix = (32, 512);
        let table = [
            // Of 32 x 512 weights: 64 blocks of 144, of 210 or 512 of 34 bytes, or four tiles.
            (AVX2, GgmlDType::Q4K, matrix, 4 * 3072),
            (AVX2, GgmlDType::Q6K, matrix, 4 * 5120),
            (AVX2, GgmlDType::Q8_0, matrix, 0),
            (VNNI, GgmlDType::Q8_0, matrix, 512 * 34),
            (VNNI, GgmlDType::Q4K, matrix, 4 * 3072),
            (AMX, GgmlDType::Q4K, matrix, 4 * (3072 + 5120)),
            (AMX, GgmlDType::Q5K, matrix, 0),
            // 37 and 53 lines of a cache.
            (OWN, GgmlDType::Q4K, matrix, 4 * 2368),
            (OWN, GgmlDType::Q6K, matrix, 4 * 3392),
            (OWN, GgmlDType::Q8_0, matrix, 512 * 34),
            (OWN, GgmlDType::Q5K, matrix, 0),
            (OWN, GgmlDType::Q6K, (24, 512), 0),
            (OWN_AMX, GgmlDType::Q4K, matrix, 4 * (2368 + 5120)),
            (OWN_AMX, GgmlDType::Q6K, matrix, 4 * 3392),
            (AMX, GgmlDType::F32, matrix, 0),
            // What is no multiple of a tile is computed as it is.
            (AMX, GgmlDType::Q4K, (24, 512), 0),
            (AMX, GgmlDType::Q8_0, (32, 288), 0),
            (Layouts::Arm, GgmlDType::Q4K, matrix, 64 * 144),
            (Layouts::Arm, GgmlDType::Q5K, matrix, 64 * 176),
            (Layouts::Arm, GgmlDType::Q8_0, (4, 32), 4 * 34),
            (Layouts::Arm, GgmlDType::Q6K, (4, 256), 0),
            (Layouts::None, GgmlDType::Q4K, matrix, 0),
        ];
        for (layouts, dtype, (rows, columns), expect) in table {
            assert_eq!(layouts.bytes(dtype, rows, columns), expect, "{layouts:?} {dtype:?} {rows} x {columns}");
        }
    }
}
