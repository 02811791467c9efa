//! The walls around a stdio plugin's process, from the node's side: how its launcher is started, and what it tells.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf, sync::Arc};

use parking_lot::Mutex;
use provost_types::IsolationSpec;
use secrecy::ExposeSecret;
use tokio::process::Command;

use super::stdio::StdioTarget;
use crate::{
    UpstreamError,
    launch::{ASKED, LAUNCHER_NAME, PLAN_VARIABLE, Plan, Stage, TARGET_PREFIX, Walls, demanded},
};

/// What a child within walls inherits; its home is its own.
const INHERITED: [&str; 2] = ["PATH", "LANG"];

/// What is built around the processes of one plugin.
#[derive(Clone, Debug)]
pub(crate) struct Walled {
    isolation: IsolationSpec,
    /// The program that builds it; `None`: nobody does.
    launcher: Option<PathBuf>,
    /// Folders of the node that nobody within sees.
    hidden: Vec<PathBuf>,
    /// What stands around the process that was started last.
    standing: Arc<Mutex<Option<Walls>>>,
}

impl Walled {
    /// `None`: the document wants no walls.
    pub(crate) fn new(isolation: &IsolationSpec, launcher: Option<PathBuf>, hidden: Vec<PathBuf>) -> Option<Self> {
        let walled = Self { isolation: isolation.clone(), launcher, hidden, standing: Arc::default() };
        isolation.enabled.then_some(walled)
    }

    /// What stands; `None` before the first process.
    pub(crate) fn standing(&self) -> Option<Walls> {
        self.standing.lock().clone()
    }

    /// The command that starts the launcher, and what begins its notes. `None`: there is no launcher, and the document
    /// does without.
    pub(super) fn launch(&self, target: &StdioTarget) -> Result<Option<(Command, String)>, UpstreamError> {
        let Some(launcher) = self.launcher.as_ref().filter(|_| cfg!(target_os = "linux")) else {
            let cause = "this node builds no walls; it takes Linux";
            if !demanded(&self.isolation).is_empty() {
                return Err(UpstreamError::Isolation(cause.to_owned()));
            }
            self.stand(&target.plugin, Walls::none(&self.isolation, cause));
            return Ok(None);
        };
        let nonce = hex::encode(rand::random::<[u8; 16]>());
        let plan = Plan {
            nonce: nonce.clone(),
            isolation: self.isolation.clone(),
            cwd: target.cwd.clone(),
            hidden: self.hidden.clone(),
            space: Default::default(),
            no_space: String::new(),
        };
        let plan = serde_json::to_string(&plan).map_err(|cause| UpstreamError::Config(cause.to_string()))?;
        let mut command = Command::new(launcher);
        // What lists of processes show.
        #[cfg(unix)]
        command.arg0(LAUNCHER_NAME);
        command.args([ASKED, Stage::Outer.as_str(), target.command.as_str()]).args(&target.args).env_clear();
        command.env(PLAN_VARIABLE, plan);
        let mut environment: BTreeMap<String, OsString> =
            INHERITED.iter().filter_map(|k| Some(((*k).to_owned(), std::env::var_os(k)?))).collect();
        environment.extend(target.env.iter().map(|(k, v)| (k.clone(), OsString::from(v))));
        environment.extend(target.secret_env.iter().map(|(k, v)| (k.clone(), OsString::from(v.expose_secret()))));
        command.envs(environment.into_iter().map(|(k, v)| (format!("{TARGET_PREFIX}{k}"), v)));
        Ok(Some((command, nonce)))
    }

    /// Notes what stands. Says once what is missing. Always `true`.
    pub(super) fn stand(&self, plugin: &str, walls: Walls) -> bool {
        let mut standing = self.standing.lock();
        if standing.as_ref() != Some(&walls) && !walls.missing.is_empty() {
            tracing::warn!(plugin, missing = walls.told(), "a plugin's process runs without some of its walls");
        }
        *standing = Some(walls);
        true
    }
}
