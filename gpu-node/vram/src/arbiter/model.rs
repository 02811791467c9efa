//! What is remembered of each model: demand, and how long it stays.

use std::collections::BTreeMap;

use super::queue::Place;
use crate::{Priority, Weights, WeightsKey};

/// Models remembered. Beyond, the one least asked for is forgotten: it loses its demand, no more.
const MOST_MODELS: usize = 1024;

/// What is remembered of one model, in memory or not.
#[derive(Debug)]
pub(super) struct Model {
    /// Their class is the highest of those who asked for them since they were loaded.
    pub(super) weights: Weights,
    /// Uses, each counting half after the half-life.
    demand: f64,
    /// The same, each times the class weight of who asked.
    worth: f64,
    demand_at: u64,
    /// When it was first asked for.
    known_since: u64,
    /// It stays until then, once it is in memory.
    pub(super) stays_until: u64,
    /// It has served nobody since it was loaded. It is not given up before for those who came
    /// later than who waits for it: loads that serve nobody could follow each other for ever.
    pub(super) fresh: bool,
    /// The highest priority that it has served since it was loaded.
    pub(super) served: Priority,
    /// Bytes of the budgets of its running requests.
    pub(super) budgets: u64,
    /// Requests of it that have ended.
    pub(super) ended: u64,
    /// It takes no new requests that come after this one, which needs its memory.
    pub(super) yields_to: Option<Place>,
    /// Its last allocation failed and was tried again.
    pub(super) retried: bool,
}

impl Model {
    pub(super) fn demand(&self, now: u64, half_life: u64) -> f64 {
        self.demand * self.decay(now, half_life)
    }

    /// What keeping it is worth: class weight times demand, of each who asked by its own class, so that somebody else
    /// who asks for the same weights takes nothing from it.
    pub(super) fn worth(&self, now: u64, half_life: u64) -> f64 {
        self.worth * self.decay(now, half_life)
    }

    fn decay(&self, now: u64, half_life: u64) -> f64 {
        let passed = now.saturating_sub(self.demand_at) as f64 / half_life.max(1) as f64;
        (-passed).exp2()
    }

    /// Requests that come in a microsecond, as the demand has it: a steady stream of them comes to
    /// its rate times half-life / ln 2, and to less while the model has not been known for long.
    pub(super) fn rate(&self, now: u64, half_life: u64) -> f64 {
        let demand = self.demand(now, half_life);
        let half_life = half_life.max(1) as f64;
        let known = now.saturating_sub(self.known_since).max(self.weights.load_micros).max(1) as f64;
        let full = 1.0 - (-known / half_life).exp2();
        demand * std::f64::consts::LN_2 / (half_life * full)
    }
}

/// The models that have been asked for.
#[derive(Debug, Default)]
pub(super) struct Models(BTreeMap<WeightsKey, Model>);

impl Models {
    pub(super) fn get(&self, key: WeightsKey) -> Option<&Model> {
        self.0.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: WeightsKey) -> Option<&mut Model> {
        self.0.get_mut(&key)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Model> {
        self.0.values_mut()
    }

    /// Counts a request. What was measured of the weights is believed over what the request says.
    pub(super) fn ask(&mut self, weights: Weights, now: u64, half_life: u64) {
        let model = self.0.entry(weights.key).or_insert_with(|| Model {
            weights,
            demand: 0.0,
            worth: 0.0,
            demand_at: now,
            known_since: now,
            stays_until: 0,
            fresh: false,
            served: Priority::Background,
            budgets: 0,
            ended: 0,
            yields_to: None,
            retried: false,
        });
        model.demand = model.demand(now, half_life) + 1.0;
        model.worth = model.worth(now, half_life) + weights.class.weight();
        model.demand_at = now;
        model.weights.class = model.weights.class.max(weights.class);
    }

    /// Keeps within the bound; `needed` models stay.
    pub(super) fn forget(&mut self, now: u64, half_life: u64, needed: impl Fn(WeightsKey) -> bool) {
        while self.0.len() > MOST_MODELS {
            let idle = self.0.iter().filter(|(key, _)| !needed(**key));
            let least = idle.min_by(|(_, a), (_, b)| a.demand(now, half_life).total_cmp(&b.demand(now, half_life)));
            let Some(key) = least.map(|(key, _)| *key) else {
                return;
            };
            self.0.remove(&key);
        }
    }
}
