//! The vectors of a corpus in memory, and which are nearest to one.
//!
//! Invariants: the search is exact, each vector is looked at, so that its answer depends on the documents only and not
//! on the order in which they came; vectors are those of documents that the index holds, whole documents at a time.

use std::{cmp::Ordering, collections::BTreeMap, collections::BinaryHeap, sync::Arc};

use parking_lot::Mutex;

/// The vectors of one document.
pub(super) struct Segment {
    /// Ids of its pieces.
    pub(super) chunks: Vec<i64>,
    /// As many vectors, one after the other.
    pub(super) values: Vec<f32>,
}

/// By the document's id.
type Segments = BTreeMap<i64, Arc<Segment>>;

/// The vectors of one corpus.
#[derive(Default)]
pub(super) struct Vectors(Mutex<Arc<Segments>>);

impl Vectors {
    pub(super) fn put(&self, document: i64, segment: Segment) {
        let mut segments = self.0.lock();
        Arc::make_mut(&mut segments).insert(document, Arc::new(segment));
    }

    pub(super) fn remove(&self, document: i64) {
        let mut segments = self.0.lock();
        Arc::make_mut(&mut segments).remove(&document);
    }

    pub(super) fn replace(&self, segments: BTreeMap<i64, Arc<Segment>>) {
        *self.0.lock() = Arc::new(segments);
    }

    /// Whether those of one of these documents are not there.
    pub(super) fn lacks_any(&self, documents: impl IntoIterator<Item = i64>) -> bool {
        let segments = self.0.lock().clone();
        documents.into_iter().any(|document| !segments.contains_key(&document))
    }

    /// How many pieces there are.
    pub(super) fn count(&self) -> usize {
        self.0.lock().values().map(|segment| segment.chunks.len()).sum()
    }

    /// As they are now.
    pub(super) fn view(&self) -> View {
        View(self.0.lock().clone())
    }
}

/// The vectors as they were at one time.
pub(super) struct View(Arc<Segments>);

impl View {
    /// The pieces nearest to a vector of unit length, with the cosine, best first. Computes: not for a thread of
    /// the runtime.
    pub(super) fn nearest(&self, query: &[f32], count: usize) -> Vec<(i64, f32)> {
        // The least of the best is on top.
        let mut best = BinaryHeap::with_capacity(count + 1);
        for segment in self.0.values() {
            for (chunk, vector) in segment.chunks.iter().zip(segment.values.chunks_exact(query.len().max(1))) {
                let near = Near { cosine: dot(query, vector), chunk: *chunk };
                if best.len() < count {
                    best.push(near);
                } else if let Some(mut least) = best.peek_mut()
                    && near < *least
                {
                    *least = near;
                }
            }
        }
        best.into_sorted_vec().into_iter().map(|near| (near.chunk, near.cosine)).collect()
    }
}

/// A piece; what is nearer is less.
#[derive(Clone, Copy)]
struct Near {
    cosine: f32,
    chunk: i64,
}

impl Ord for Near {
    fn cmp(&self, other: &Self) -> Ordering {
        other.cosine.total_cmp(&self.cosine).then(self.chunk.cmp(&other.chunk))
    }
}

impl PartialOrd for Near {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Near {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Near {}

/// Several sums side by side, which the compiler makes vector instructions of.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 8;
    let mut sums = [0.0_f32; LANES];
    let (a_whole, a_rest) = a.as_chunks::<LANES>();
    let (b_whole, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a_whole.iter().zip(b_whole) {
        for ((sum, x), y) in sums.iter_mut().zip(a).zip(b) {
            *sum += x * y;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(chunks: &[(i64, [f32; 2])]) -> Segment {
        Segment {
            chunks: chunks.iter().map(|(id, _)| *id).collect(),
            values: chunks.iter().flat_map(|(_, vector)| *vector).collect(),
        }
    }

    #[test]
    fn the_nearest_come_first_and_no_more_than_asked_for() {
        let vectors = Vectors::default();
        vectors.put(1, segment(&[(10, [1.0, 0.0]), (11, [0.0, 1.0])]));
        vectors.put(2, segment(&[(20, [0.8, 0.6]), (21, [-1.0, 0.0]), (22, [1.0, 0.0])]));
        let ids = |count| vectors.view().nearest(&[1.0, 0.0], count).into_iter().map(|(id, _)| id).collect::<Vec<_>>();
        assert_eq!(ids(3), [10, 22, 20]);
        assert_eq!(ids(1), [10]);
        assert_eq!(ids(9), [10, 22, 20, 11, 21]);
        assert_eq!((ids(0), vectors.count()), (Vec::new(), 5));
        vectors.remove(1);
        assert_eq!(ids(2), [22, 20]);
        vectors.put(2, segment(&[(30, [0.0, 1.0])]));
        assert_eq!(ids(2), [30]);
    }

    #[test]
    fn a_product_is_the_sum_of_products() {
        let a: Vec<f32> = (0_u8..19).map(f32::from).collect();
        assert!((dot(&a, &a) - 2109.0).abs() < 1e-3);
    }
}
