//! Taking a backup of a running node.

use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use provost_control_state::State;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::{runtime::Handle, sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;

use super::format::{BackupHeader, BackupWriter};
use crate::{
    Caller, ControlError, ControlNode, ErrorKind, members::Deed, stored_state::write_state, write_behind::PartReader,
};

/// Parts that wait for the reader.
const WAITING_PARTS: usize = 4;
/// The longest wait for a reader that takes nothing.
const READER_LIMIT: Duration = Duration::from_secs(60);

/// The parts of a backup file, in order. Without its end it does not verify.
pub type BackupParts = ReceiverStream<Result<Vec<u8>, ControlError>>;

type Parts = mpsc::Sender<Result<Vec<u8>, ControlError>>;

impl ControlNode {
    /// The whole state at one revision, as the parts of a file. Writers are not held up: the state
    /// is immutable, and the parts are made as fast as they are read.
    pub async fn backup(&self, caller: &Caller) -> Result<BackupParts, ControlError> {
        caller.needs_cluster("a backup of everything")?;
        self.inner.group.read_barrier().await?;
        // Taken before the state: what that lists stays as long.
        let packages = self.inner.published.parts.reader();
        let state = self.inner.published.state.load_full();
        // Read after the state, so never behind it.
        let applied = self.inner.group.metrics().applied.unwrap_or(0);
        let header = BackupHeader {
            cluster: self.inner.config.cluster.clone(),
            revision: state.revision(),
            index: applied.max(state.revision().0),
            time: OffsetDateTime::now_utc().format(&Rfc3339).map_err(ControlError::internal)?,
            node: self.inner.config.node_name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let (sender, parts) = mpsc::channel(WAITING_PARTS);
        let deed = Deed::new("cluster.backup", Vec::new(), format!("revision {}", state.revision()));
        let (node, caller) = (self.clone(), caller.clone());
        tokio::spawn(async move {
            let written = write(sender.clone(), header, state, packages);
            if let Err(error) = node.recorded(&caller, deed, written).await {
                // The reader may be gone: then there is nobody to tell.
                let _ = sender.send(Err(error)).await;
            }
        });
        Ok(ReceiverStream::new(parts))
    }
}

async fn write(
    sender: Parts,
    header: BackupHeader,
    state: Arc<State>,
    packages: PartReader,
) -> Result<(), ControlError> {
    let runtime = Handle::current();
    let work = move || {
        let mut writer = BackupWriter::new(PartWriter { sender, runtime }, &header)?;
        write_state(&mut writer, &state, &mut |part| packages.read(part))?;
        writer.finish().map(drop)
    };
    let written = tokio::task::spawn_blocking(work).await.map_err(ControlError::internal)?;
    written
        .map_err(|e: io::Error| ControlError::new(ErrorKind::Refused, "PV-BACKUP-IO", e.to_string(), "take it again"))
}

/// Each write becomes a part: the writer above it writes a frame at a time.
struct PartWriter {
    sender: Parts,
    runtime: Handle,
}

impl Write for PartWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let sent = timeout(READER_LIMIT, self.sender.send(Ok(bytes.to_vec())));
        match self.runtime.block_on(sent) {
            Ok(Ok(())) => Ok(bytes.len()),
            Ok(Err(_)) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "the reader of the backup went away")),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the reader of the backup takes nothing")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
