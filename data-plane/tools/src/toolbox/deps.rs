//! What plugins need of the node.

use std::{path::PathBuf, sync::Arc};

use provost_types::{Inference, Name, SealedSecret};
use secrecy::SecretString;

use crate::{Limits, PackagePort, connections::Connections, siblings::Siblings};

/// Opened secrets of a tenant.
pub trait SecretSource: Send + Sync {
    /// The secret's value; `None` if there is none under this name, or it has no value yet.
    fn secret(&self, tenant: &Name, name: &Name) -> Option<SecretString>;

    /// The tokens of a connection, as they were sealed in the resource of this name; `None`: they do not open.
    fn tokens(&self, _tenant: &Name, _connection: &Name, _sealed: &SealedSecret) -> Option<SecretString> {
        None
    }
}

/// What plugins need of the node.
pub struct ToolboxDeps {
    /// For headers, environments and settings.
    pub secrets: Arc<dyn SecretSource>,
    /// For the `inference` built-in.
    pub inference: Arc<dyn Inference>,
    /// The node's data directory: where relative `sqlite:` paths begin.
    pub data_dir: PathBuf,
    /// Bounds.
    pub limits: Limits,
    /// The other nodes that run the same plugins; `None`: there are none.
    pub siblings: Option<Arc<dyn Siblings>>,
    /// What users consented to; `None`: plugins that need it do not run.
    pub connections: Option<Arc<Connections>>,
    /// The program whose `main` begins with [`crate::launch_if_asked`]; `None`: plugins that need walls do not run.
    pub launcher: Option<PathBuf>,
    /// The control plane's packages; `None`: plugins of packages do not run.
    pub packages: Option<Arc<dyn PackagePort>>,
}
