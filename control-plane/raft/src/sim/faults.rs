//! What goes wrong in a run, as the seed decides: crashes of single nodes and of many, ways cut in
//! one direction or both, slow disks, snapshots at bad moments.

use std::time::Duration;

use super::world::{World, name};

/// How long faults happen.
const TROUBLE: Duration = Duration::from_secs(12);
/// Before the first: there is something to disturb.
const CALM: Duration = Duration::from_millis(1_500);

impl World {
    fn log(&self, fault: String) {
        self.record.lock().faults.push(format!("{:6} ms {fault}", self.sim.elapsed().as_millis()));
    }

    /// Lets things go wrong for a while.
    pub(super) fn trouble(&mut self) {
        self.advance(CALM);
        while self.sim.elapsed() < TROUBLE {
            let wait = self.random.millis(50..500);
            self.advance(wait);
            self.fault();
        }
    }

    fn any_node(&mut self) -> u64 {
        self.random.below(self.hosts.len() as u64) + 1
    }

    fn fault(&mut self) {
        let (a, b) = (self.any_node(), self.any_node());
        let leader = self.leader().unwrap_or(a);
        match self.random.below(12) {
            0 => self.crash(a),
            1 => self.crash(leader),
            2 => {
                // Power fails for a majority, or for all.
                let count = self.hosts.len() as u64 / 2 + 1 + self.random.below(2);
                for n in 0..count.min(self.hosts.len() as u64) {
                    self.crash((a + n) % self.hosts.len() as u64 + 1);
                }
            }
            3..6 => {
                let down: Vec<u64> = self.up.iter().filter(|(_, up)| !**up).map(|(id, _)| *id).collect();
                let chosen = self.random.below(down.len() as u64) as usize;
                if let Some(id) = down.get(chosen) {
                    self.start(*id);
                }
            }
            6 if a != b => {
                self.log(format!("cut {a} -> {b}"));
                self.sim.partition_oneway(name(a), name(b));
            }
            6 | 7 => {
                let cut = if self.random.percent(60) { leader } else { a };
                self.log(format!("cut {cut} off"));
                for other in self.others(cut) {
                    self.sim.partition(name(cut), name(other));
                }
            }
            8 | 9 => self.mend(),
            10 => {
                let slow = self.random.percent(50);
                self.log(format!("disk of {a} slow: {slow}"));
                self.hosts[&a].disk.set_slow(slow);
            }
            _ => {
                let group = self.hosts[&a].group.lock().unwrap().clone();
                self.log(format!("snapshot on {a}"));
                // Dropped with the future if the node is down: there is nobody to take it.
                if let Some(group) = group {
                    let _ = futures::FutureExt::now_or_never(group.snapshot_now());
                }
            }
        }
        if self.disks_lie && self.random.percent(20) {
            for id in 1..=self.hosts.len() as u64 {
                self.crash(id);
            }
        }
    }

    fn leader(&self) -> Option<u64> {
        let groups = self.hosts.iter().filter_map(|(id, host)| Some((*id, host.group.lock().unwrap().clone()?)));
        groups.into_iter().find(|(_, group)| group.is_leader()).map(|(id, _)| id)
    }

    fn others(&self, id: u64) -> Vec<u64> {
        self.hosts.keys().copied().filter(|other| *other != id).collect()
    }

    fn crash(&mut self, id: u64) {
        if !self.up[&id] {
            return;
        }
        self.hosts[&id].group.lock().unwrap().take();
        self.sim.crash(name(id));
        let lost = self.hosts[&id].disk.crash();
        self.log(format!("crash {id}: {lost} writes lost"));
        self.up.insert(id, false);
    }

    fn start(&mut self, id: u64) {
        if !self.up[&id] {
            self.log(format!("start {id}"));
            self.sim.bounce(name(id));
            self.up.insert(id, true);
        }
    }

    fn mend(&mut self) {
        self.log("mend all ways".to_owned());
        for a in self.hosts.keys() {
            for b in self.others(*a) {
                // Both undo only what was done in the same way.
                self.sim.repair_oneway(name(*a), name(b));
                self.sim.repair(name(*a), name(b));
            }
        }
    }

    /// Undoes all that went wrong.
    pub(super) fn heal(&mut self) {
        self.mend();
        for (id, host) in self.hosts.clone() {
            host.disk.set_slow(false);
            self.start(id);
        }
    }
}
