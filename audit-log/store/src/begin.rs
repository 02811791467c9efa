//! How a writer takes its place: the next epoch, and the chains as they stand once older processes of
//! its name are shut out.

use tokio::sync::mpsc;

use crate::{
    batch::Build,
    entry::Reply,
    own_events::own_event,
    proposer::ProposeError,
    sequencer::{Message, RETRY, Sequencer, Stage},
};

/// How often the same first batch is sent before everything is asked anew.
const START_ATTEMPTS: u32 = 20;

impl Sequencer {
    /// Takes the next epoch; false when everybody has gone before that.
    pub(crate) async fn begin(&mut self, queue: &mpsc::Receiver<Message>) -> bool {
        let mut pause = RETRY.0;
        loop {
            match self.try_begin().await {
                Ok(true) => {
                    let epoch = self.numbering.epoch;
                    self.shared.cause.lock().take();
                    self.shared.stage.send_replace(Stage::Writing { epoch });
                    tracing::info!(writer = self.numbering.writer, epoch, "the audit log takes this node's records");
                    return true;
                }
                Ok(false) => {}
                Err(ProposeError::Again(why)) => {
                    tracing::debug!(%why, "the audit log is not reached yet");
                    *self.shared.cause.lock() = Some(why);
                }
                Err(ProposeError::Refused(why)) => {
                    self.fail(why);
                    return true;
                }
            }
            if queue.is_closed() {
                return false;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY.1);
        }
    }

    /// One attempt. False: another process took the epoch first; the next attempt takes a later one,
    /// because whoever started last is the one that writes.
    async fn try_begin(&mut self) -> Result<bool, ProposeError> {
        let state = self.proposer.clone().writer_state(self.numbering.writer.clone()).await?;
        self.numbering.begin(state);
        let mut build = Build::default();
        let start = own_event(&self.numbering.writer, "log.start", self.numbering.epoch);
        self.numbering.add(&mut build, Box::new(start), None);
        let Some(batch) = self.numbering.batch(build) else {
            return Err(ProposeError::Refused("the first record cannot be made".to_owned()));
        };
        let mut last = ProposeError::Again(String::new());
        // The same bytes each time, so that it is recorded once.
        for _ in 0..START_ATTEMPTS {
            match self.proposer.clone().propose(batch.bytes.clone()).await {
                Ok(Reply::Appended(_)) => return self.take_chains().await,
                Ok(Reply::Fenced { .. }) => return Ok(false),
                // An older process of this name wrote on between the question and this record.
                Ok(Reply::Invalid(why)) => return Err(ProposeError::Again(why)),
                Ok(other) => return Err(ProposeError::Refused(format!("the audit machine refused: {other:?}"))),
                Err(error @ ProposeError::Again(_)) => last = error,
                Err(refused) => return Err(refused),
            }
            tokio::time::sleep(RETRY.1).await;
        }
        Err(last)
    }

    /// Until the first record shut them out, older processes of this name may have written on: only now
    /// do the chains stand still.
    async fn take_chains(&mut self) -> Result<bool, ProposeError> {
        let mut last = ProposeError::Again(String::new());
        for _ in 0..START_ATTEMPTS {
            match self.proposer.clone().writer_state(self.numbering.writer.clone()).await {
                Ok(state) if state.epoch == self.numbering.epoch => {
                    self.numbering.take_chains(state);
                    return Ok(true);
                }
                Ok(state) => return Err(ProposeError::Refused(fenced(&self.numbering.writer, state.epoch))),
                Err(error @ ProposeError::Again(_)) => last = error,
                Err(refused) => return Err(refused),
            }
            tokio::time::sleep(RETRY.1).await;
        }
        Err(last)
    }
}

/// Why a writer stops for good.
pub(crate) fn fenced(writer: &str, epoch: u64) -> String {
    format!("PV-AUDIT-FENCED: a later process writes as {writer} (epoch {epoch}); this one must end")
}
