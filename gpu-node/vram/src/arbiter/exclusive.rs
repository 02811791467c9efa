//! The whole device for one user, such as a training run.
//!
//! Open -> Draining -> Granted -> Open. Each state but the first has an end that needs nobody:
//! a drain its deadline, a grant its next sign of life and its longest time.

use super::Arbiter;
use crate::{Action, ExclusiveToken, Lease, Rejection, Weights};

/// What the user of a whole device asks for. Microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExclusiveRequest {
    /// What runs may run on for this long; if it has not ended then, the request fails.
    pub drain_micros: u64,
    /// The holder shows a sign of life at least this often.
    pub heartbeat_micros: u64,
    /// It ends after this time whatever happens.
    pub most_micros: u64,
}

#[derive(Debug, Default)]
pub(super) enum Exclusive {
    #[default]
    Open,
    Draining {
        token: ExclusiveToken,
        until: u64,
        request: ExclusiveRequest,
    },
    Granted {
        token: ExclusiveToken,
        alive_until: u64,
        ends: u64,
        heartbeat_micros: u64,
        /// All bytes of the device.
        device: Option<Lease>,
    },
}

impl Exclusive {
    pub(super) fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }

    pub(super) fn token(&self) -> Option<ExclusiveToken> {
        match self {
            Self::Open => None,
            Self::Draining { token, .. } | Self::Granted { token, .. } => Some(*token),
        }
    }

    /// How long it can last yet; none when the device is open.
    pub(super) fn remaining(&self, now: u64) -> Option<u64> {
        let end = match self {
            Self::Open => return None,
            Self::Draining { until, request, .. } => until.saturating_add(request.most_micros),
            Self::Granted { ends, .. } => *ends,
        };
        Some(end.saturating_sub(now).max(1))
    }

    pub(super) fn wake(&self) -> Option<u64> {
        match self {
            Self::Open => None,
            Self::Draining { until, .. } => Some(*until),
            Self::Granted { alive_until, ends, .. } => Some(*alive_until.min(ends)),
        }
    }
}

impl Arbiter {
    /// Asks for the device alone. Those who wait are refused and nobody else may wait; the next
    /// polls say whether it is granted.
    ///
    /// # Errors
    /// [`Rejection::Exclusive`] when somebody has it or is about to.
    pub fn exclusive(&mut self, now: u64, request: ExclusiveRequest) -> Result<ExclusiveToken, Rejection> {
        self.advance(now);
        if let Some(retry_after_micros) = self.exclusive.remaining(self.now) {
            return Err(Rejection::Exclusive { retry_after_micros });
        }
        let token = ExclusiveToken(self.next_ticket);
        self.next_ticket += 1;
        self.exclusive = Exclusive::Draining { token, until: self.now.saturating_add(request.drain_micros), request };
        let retry_after_micros = self.exclusive.remaining(self.now).unwrap_or(1);
        for waiting in self.queue.take(|_| true) {
            let why = Rejection::Exclusive { retry_after_micros };
            self.outbox.push(Action::Refuse { ticket: waiting.ticket, why });
        }
        Ok(token)
    }

    /// The holder is alive. False: the token is void, and the holder has to stop.
    pub fn heartbeat(&mut self, now: u64, held: ExclusiveToken) -> bool {
        self.advance(now);
        match &mut self.exclusive {
            Exclusive::Granted { token, alive_until, ends, heartbeat_micros, .. }
                if *token == held && self.now < (*alive_until).min(*ends) =>
            {
                *alive_until = self.now.saturating_add(*heartbeat_micros);
                true
            }
            _ => false,
        }
    }

    /// Gives the device back, or stops asking for it. What was resident is loaded again, the most
    /// valuable first, as far as nobody waits. False: the token was void already.
    pub fn end_exclusive(&mut self, now: u64, held: ExclusiveToken) -> bool {
        self.advance(now);
        let own = self.exclusive.token() == Some(held);
        if own {
            self.reopen();
        }
        own
    }

    pub(super) fn step_exclusive(&mut self) {
        match self.exclusive {
            Exclusive::Open => {}
            Exclusive::Draining { token, request, .. } if self.active() == 0 && self.loading.is_none() => {
                self.empty_device();
                let device = self.memory.reserve(self.memory.free()).ok().map(|reserved| reserved.lease);
                self.exclusive = Exclusive::Granted {
                    token,
                    alive_until: self.now.saturating_add(request.heartbeat_micros),
                    ends: self.now.saturating_add(request.most_micros),
                    heartbeat_micros: request.heartbeat_micros,
                    device,
                };
                self.outbox.push(Action::ExclusiveGranted { token });
            }
            Exclusive::Draining { token, until, .. } if self.now >= until => {
                self.reopen();
                self.outbox.push(Action::ExclusiveRefused { token });
            }
            Exclusive::Granted { token, alive_until, ends, .. } if self.now >= alive_until.min(ends) => {
                self.reopen();
                self.outbox.push(Action::ExclusiveLapsed { token });
            }
            _ => {}
        }
    }

    /// Evicts everything and notes what is to come back, the most worth first.
    fn empty_device(&mut self) {
        let ready = self.ready();
        let known = ready.iter().rev().filter_map(|ready| self.models.get(ready.key));
        let resident: Vec<Weights> = known.map(|model| model.weights).collect();
        self.restore = resident.into();
        self.evict(&ready);
    }

    fn reopen(&mut self) {
        if let Exclusive::Granted { device: Some(device), .. } = std::mem::take(&mut self.exclusive) {
            self.memory.release(device);
        }
    }
}
