//! Stored packages for nodes.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{Stream, StreamExt, TryStreamExt};
use provost_control_state::{PACKAGE_PART_BYTES, PackageKey, PartKey};
use provost_types::{FileDigest, Name};

use crate::{ControlError, ControlNode, ErrorKind};

impl ControlNode {
    /// A package as this node has it: its size, and its bytes from `offset` on, part by part as they are asked for.
    pub fn package_parts(
        &self,
        tenant: &Name,
        digest: FileDigest,
        offset: u64,
    ) -> Result<(u64, impl Stream<Item = Result<Bytes, ControlError>> + Send + use<>), ControlError> {
        // Taken before the state: what that lists stays as long.
        let reader = Arc::new(self.inner.published.parts.reader());
        let state = self.inner.published.state.load_full();
        let key = PackageKey { tenant: tenant.clone(), digest };
        let Some(package) = state.packages().get(&key) else {
            let text = format!("{key} is not stored here");
            return Err(ControlError::new(ErrorKind::NotFound, "PV-PACKAGE-MISSING", text, ""));
        };
        let (bytes, parts) = (package.facts.bytes, package.facts.parts());
        if offset > bytes {
            let text = format!("{key} has {bytes} bytes, and none at {offset}");
            return Err(ControlError::new(ErrorKind::Invalid, "PV-PACKAGE-SIZE", text, ""));
        }
        let part_bytes = PACKAGE_PART_BYTES as u64;
        let first = u32::try_from(offset / part_bytes).unwrap_or(u32::MAX);
        let skip = usize::try_from(offset % part_bytes).unwrap_or(0);
        let parts = futures::stream::iter(first..parts).then(move |index| {
            let (reader, part) = (reader.clone(), PartKey { package: key.clone(), index });
            async move {
                let content = tokio::task::spawn_blocking(move || reader.read(&part)).await;
                let content = content.map_err(ControlError::internal)?.map_err(ControlError::internal)?;
                let content = Bytes::from(content);
                let from = if index == first { skip.min(content.len()) } else { 0 };
                Ok::<_, ControlError>(content.slice(from..))
            }
        });
        Ok((bytes, parts))
    }

    /// A whole package as this node has it, for the data plane of this process.
    pub async fn package(&self, tenant: &Name, digest: FileDigest) -> Result<Bytes, ControlError> {
        let (_, parts) = self.package_parts(tenant, digest, 0)?;
        let all = parts.try_fold(BytesMut::new(), |mut all, part| async move {
            all.extend_from_slice(&part);
            Ok(all)
        });
        Ok(all.await?.freeze())
    }
}
