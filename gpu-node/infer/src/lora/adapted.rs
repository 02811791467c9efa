//! Which rows of a pass belong to which adapter.

use candle_core::{Device, Result, Tensor};

use super::{Adapter, Target};

/// The rows of one pass, grouped by adapter.
pub(crate) struct Adapted<'a> {
    groups: Vec<Group<'a>>,
}

struct Group<'a> {
    adapter: &'a Adapter,
    /// None: all rows of the pass.
    rows: Option<Tensor>,
}

impl<'a> Adapted<'a> {
    /// Groups segments of these lengths; those beyond the end of `adapters` have none.
    pub(crate) fn new(lengths: &[usize], adapters: &[Option<&'a Adapter>], device: &Device) -> Result<Self> {
        let mut rows_of: Vec<(&'a Adapter, Vec<u32>)> = Vec::new();
        let mut start = 0u32;
        for (index, length) in lengths.iter().enumerate() {
            let end = start + *length as u32;
            if let Some(adapter) = adapters.get(index).copied().flatten() {
                match rows_of.iter_mut().find(|(known, _)| known.digest() == adapter.digest()) {
                    Some((_, rows)) => rows.extend(start..end),
                    None => rows_of.push((adapter, (start..end).collect())),
                }
            }
            start = end;
        }
        let groups = rows_of.into_iter().map(|(adapter, rows)| {
            let count = rows.len();
            let rows = match count == start as usize {
                true => None,
                false => Some(Tensor::from_vec(rows, count, device)?),
            };
            Ok(Group { adapter, rows })
        });
        Ok(Self { groups: groups.collect::<Result<_>>()? })
    }

    /// Adds to `y`, which a layer of the base made of `x`, what the adapters of the rows say.
    pub(crate) fn add(&self, layer: usize, target: Target, x: &Tensor, mut y: Tensor) -> Result<Tensor> {
        for Group { adapter, rows } in &self.groups {
            let Some(low) = adapter.low(layer, target) else { continue };
            y = match rows {
                None => (y + low.delta(x)?)?,
                Some(rows) => {
                    let delta = low.delta(&x.index_select(rows, 0)?)?;
                    y.index_add(rows, &delta, 0)?
                }
            };
        }
        Ok(y)
    }
}
