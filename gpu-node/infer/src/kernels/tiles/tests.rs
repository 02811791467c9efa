//! Products beside candle's weights, and beside themselves on other processors.

use std::borrow::Cow;

use candle_core::quantized::QStorage;
use half::f16;
use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::kinds::{Q4K_BYTES, Q6K_BYTES};
use super::rounded::{NO_BLOCK, round, round_anywhere};
use super::*;

const KINDS: [(GgmlDType, usize); 2] = [(GgmlDType::Q4K, Q4K_BYTES), (GgmlDType::Q6K, Q6K_BYTES)];

/// Blocks with every scale and value there may be, and what candle makes of them.
fn weights(dtype: GgmlDType, size: usize, rows: usize, columns: usize) -> (Vec<u8>, QTensor) {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut data = vec![0; rows * columns / TILE_COLUMNS * size];
    random.fill_bytes(&mut data);
    let d = || f16::from_f32(0.01 + random.next_u32() as f32 / u32::MAX as f32).to_le_bytes();
    for (block, d) in data.chunks_mut(size).zip(std::iter::repeat_with(d)) {
        match dtype {
            GgmlDType::Q4K => block[..4].copy_from_slice(&[d[0], d[1], d[1], d[1] & 0x3f]),
            _ => block[208..].copy_from_slice(&d),
        }
    }
    let storage = QStorage::from_data(Cow::Owned(data.clone()), &Device::Cpu, dtype).unwrap();
    (data, QTensor::new(storage, (rows, columns)).unwrap())
}

fn activations(rows: usize, columns: usize) -> Vec<f32> {
    (0..rows * columns).map(|at| (at as f32 * 0.37).sin() * (1.0 + (at / TILE_COLUMNS) as f32)).collect()
}

/// What a block stands for.
fn unrounded(block: &Block) -> Vec<f64> {
    let values = block.values.iter().flat_map(|word| word.to_le_bytes());
    values.map(|value| f64::from(value.cast_signed()) * f64::from(block.d)).collect()
}

fn multiplied(tiles: &Tiles, x: &[f32], rows: usize) -> Vec<f32> {
    let x = Tensor::from_vec(x.to_vec(), (rows, tiles.columns), &Device::Cpu).unwrap();
    let outputs = products(&[tiles], &x).unwrap();
    outputs[0].flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn products_are_those_of_the_weights_as_candle_reads_them() {
    for (dtype, size) in KINDS {
        // More outputs than fit in equal parts, and rows that fill no group.
        for (outputs, columns, rows) in [(16, 256, 1), (560, 512, 3), (48, 768, 39)] {
            let (data, weights) = weights(dtype, size, outputs, columns);
            let tiles = Tiles::laid_out(dtype, &data, outputs, columns).unwrap();
            let x = activations(rows, columns);
            let found = multiplied(&tiles, &x, rows);
            let weights: Vec<f32> = weights.dequantize(&Device::Cpu).unwrap().flatten_all().unwrap().to_vec1().unwrap();
            let blocks = rounded(&x, rows, columns);
            for (row, found) in found.chunks(outputs).enumerate() {
                let x: Vec<f64> = blocks.chunks(rows).flat_map(|blocks| unrounded(&blocks[row])).collect();
                for (found, weights) in found.iter().zip(weights.chunks(columns)) {
                    let each = || x.iter().zip(weights).map(|(x, weight)| x * f64::from(*weight));
                    let (expected, size): (f64, f64) = (each().sum(), each().map(f64::abs).sum());
                    let off = (f64::from(*found) - expected).abs();
                    assert!(off <= 1e-6 * size, "{dtype:?} {outputs} x {columns}, row {row}: {found}, {expected}");
                }
            }
        }
    }
}

#[test]
fn all_processors_come_to_the_same_to_the_bit() {
    let (rows, columns) = (7, 512);
    let x = activations(rows, columns);
    let blocks = rounded(&x, rows, columns);
    let mut same = vec![NO_BLOCK; 1];
    for (x, block) in x.as_chunks().0.iter().zip([0, rows, 1, 1 + rows]) {
        round_anywhere(x, &mut same[0]);
        assert_eq!((same[0].values, same[0].d.to_bits()), (blocks[block].values, blocks[block].d.to_bits()));
        assert_eq!((same[0].sums_of_16, same[0].sums_of_32), (blocks[block].sums_of_16, blocks[block].sums_of_32));
    }
    for (dtype, size) in KINDS {
        let (data, _) = weights(dtype, size, TILE_ROWS, columns);
        let tiles = Tiles::laid_out(dtype, &data, TILE_ROWS, columns).unwrap();
        let mut sums = vec![[0.0; TILE_ROWS]; rows];
        match &tiles.kept {
            Kept::Q4K(tiles) => add_anywhere(tiles, blocks.chunks(rows), &mut sums),
            Kept::Q6K(tiles) => add_anywhere(tiles, blocks.chunks(rows), &mut sums),
        }
        let bits = |sums: &[f32]| -> Vec<u32> { sums.iter().map(|sum| sum.to_bits()).collect() };
        assert_eq!(bits(sums.as_flattened()), bits(&multiplied(&tiles, &x, rows)), "{dtype:?}");
        // And a row alone to the same as among others.
        let alone = multiplied(&tiles, &x[5 * columns..6 * columns], 1);
        assert_eq!(bits(&sums[5]), bits(&alone), "{dtype:?}");
    }
}

#[test]
fn activations_are_rounded_to_a_254th_and_no_number_stays_none() {
    let mut block = NO_BLOCK;
    let mut x = [0.0; TILE_COLUMNS];
    round(&x, &mut block);
    assert_eq!((block.values, block.d.to_bits()), ([0; 64], 0), "nothing");
    (x[3], x[100], x[255]) = (-2.0, 1.5, 0.001);
    round(&x, &mut block);
    for (x, found) in x.iter().zip(unrounded(&block)) {
        assert!((f64::from(*x) - found).abs() <= 2.0 / 254.0 + 1e-7, "{x} {found}");
    }
    for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -f32::NAN] {
        x[77] = odd;
        for (dtype, size) in KINDS {
            let (data, _) = weights(dtype, size, TILE_ROWS, TILE_COLUMNS);
            let tiles = Tiles::laid_out(dtype, &data, TILE_ROWS, TILE_COLUMNS).unwrap();
            assert!(multiplied(&tiles, &x, 1).iter().all(|y| !y.is_finite()), "{odd} {dtype:?}");
            let mut same = NO_BLOCK;
            round_anywhere(&x, &mut same);
            assert!(!same.d.is_finite(), "{odd}");
        }
    }
    // So small that their scale has no inverse.
    x = [f32::MIN_POSITIVE / 4.0; TILE_COLUMNS];
    round(&x, &mut block);
    assert_eq!(block.values, [0; 64]);
}

#[test]
fn what_does_not_belong_together_is_an_error() {
    let (data, _) = weights(GgmlDType::Q4K, Q4K_BYTES, 16, 512);
    let message = |found: Result<Tiles>| found.err().unwrap().to_string();
    assert!(message(Tiles::laid_out(GgmlDType::Q4K, &data[1..], 16, 512)).contains("4607 bytes of weights"));
    assert!(message(Tiles::laid_out(GgmlDType::Q4K, &data, 32, 512)).contains("32 rows"));
    assert!(message(Tiles::laid_out(GgmlDType::Q5K, &data, 16, 512)).contains("no tiles"));
    let tiles = Tiles::laid_out(GgmlDType::Q4K, &data, 16, 512).unwrap();
    let x = Tensor::from_vec(activations(2, 256), (2, 256), &Device::Cpu).unwrap();
    assert!(products(&[&tiles], &x).unwrap_err().to_string().contains("256 columns"));
}
