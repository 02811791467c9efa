//! What the thread says of its models, for those who choose among nodes.

use std::collections::HashMap;

use provost_gpu_vram::WeightsKey;

use super::Scheduler;
use crate::board::{ModelNow, Now};

impl Scheduler {
    /// Says where models are and who wants them.
    pub(super) fn tell(&self) {
        self.board.tell(|| {
            let mut running: HashMap<WeightsKey, u64> = HashMap::new();
            for key in self.chats.keys().chain(self.embeds.keys()).chain(self.speeches.keys()) {
                *running.entry(key).or_default() += 1;
            }
            let mut models: HashMap<String, ModelNow> = HashMap::new();
            for (name, key) in self.residency.names() {
                let of = self.measured.of(key);
                let now = ModelNow {
                    state: self.residency.state(key),
                    waiting: 0,
                    running: running.get(&key).copied().unwrap_or_default(),
                    load: of.load,
                    tokens_per_s: of.tokens_per_s,
                };
                models.insert(name.to_owned(), now);
            }
            let asked = self.asked.iter().map(|asked| asked.job.work.model());
            for name in asked.chain(self.preparing.models()).chain(self.turns.models()) {
                models.entry(name.to_owned()).or_default().waiting += 1;
            }
            Now { models, service_micros: self.turns.service_micros() }
        });
    }
}
