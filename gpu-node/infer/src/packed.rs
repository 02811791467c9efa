//! What candle keeps of quantised weights beside them.
//!
//! For its products on the processor it lays a matrix out anew when it is first multiplied by, once for each kind of product,
//! and keeps that and the weights as they came for as long as they are there. How much it is follows from its forms
//! (candle-core 0.11.1, `quantized/repack.rs` and `repack_x86.rs`); a test holds it against what is allocated.

use candle_core::quantized::GgmlDType;

/// Rows and columns of one tile of x86-64.
const TILE_ROWS: usize = 16;
const TILE_COLUMNS: usize = 256;
/// Of each tile: scales and minima as 32-bit numbers, and values of four bits.
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
    /// Tiles of x86-64; `vnni`: also of `Q8_0`, `amx`: also others of `Q4_K`, for many rows.
    X86 { vnni: bool, amx: bool },
    /// Rows side by side, on ARM with dot products.
    Arm,
}

impl Layouts {
    /// Those of this processor.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn here() -> Self {
        use std::arch::is_x86_feature_detected;

        if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vnni") {
            return Self::X86 { vnni: true, amx: has_amx() };
        }
        if !is_x86_feature_detected!("avx2") {
            return Self::None;
        }
        if is_x86_feature_detected!("avxvnni") {
            return Self::X86 { vnni: true, amx: false };
        }
        if is_x86_feature_detected!("fma") { Self::X86 { vnni: false, amx: false } } else { Self::None }
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
            Self::X86 { vnni, amx } => {
                if !rows.is_multiple_of(TILE_ROWS) || !columns.is_multiple_of(TILE_COLUMNS) {
                    return 0;
                }
                let tiles = (rows / TILE_ROWS).saturating_mul(columns / TILE_COLUMNS) as u64;
                match dtype {
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
#[cfg(target_arch = "x86_64")]
fn has_amx() -> bool {
    const TILE: u32 = 1 << 24;
    const INT8: u32 = 1 << 25;
    let features = std::arch::x86_64::__cpuid_count(7, 0).edx;
    cfg!(target_os = "linux") && features & TILE != 0 && features & INT8 != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_those_of_candle() {
        const AVX2: Layouts = Layouts::X86 { vnni: false, amx: false };
        const VNNI: Layouts = Layouts::X86 { vnni: true, amx: false };
        const AMX: Layouts = Layouts::X86 { vnni: true, amx: true };
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
