//! Runs cases.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use jsonschema::PatternOptions;
use provost_data_wasm::{
    CallContext, Engine, Grants, PluginAnswer, PluginCall, PluginError, PluginLimits, PluginSettings, PluginTool,
    WasmPlugin,
};
use provost_mcp::RawJson;
use provost_package::Wants;
use serde_json::{Map, Value};

use super::{
    super::trial,
    cases::{Case, CaseFile},
    compare::{Ended, problems},
    host::StubHost,
};
use crate::failure::Failure;

/// What a case came to.
pub(super) struct Report<'a> {
    pub(super) case: &'a Case,
    /// Nothing: it is as it should be.
    pub(super) problems: Vec<String>,
    pub(super) log: Vec<String>,
    /// How long the call took, in milliseconds; without making the plugin ready.
    pub(super) ms: u64,
}

/// A component that cases are run against.
pub(super) struct Runner<'a> {
    engine: Arc<Engine>,
    component: Bytes,
    wants: Option<Wants>,
    file: &'a CaseFile,
    /// One installation a configuration, by its text.
    installed: parking_lot::Mutex<HashMap<String, Arc<WasmPlugin>>>,
}

impl<'a> Runner<'a> {
    pub(super) fn new(component: Bytes, wants: Option<Wants>, file: &'a CaseFile) -> Result<Self, Failure> {
        Ok(Self { engine: trial::engine()?, component, wants, file, installed: parking_lot::Mutex::default() })
    }

    /// Runs one case. An error is one of the component as a whole: no case of it can be run.
    pub(super) async fn run<'c>(&self, case: &'c Case) -> Result<Report<'c>, Failure> {
        let plugin = self.installed(case.config.as_ref().or(self.file.config.as_ref()));
        let tools = match trial::tools(&plugin).await {
            Ok(tools) => tools,
            // What a case can be about.
            Err(error @ PluginError::Config(_)) => return Ok(refused(case, &error)),
            Err(error) => return Err(trial::refused(&error)),
        };
        let host = Arc::new(StubHost::new(case, self.wants.clone()));
        let began = Instant::now();
        let ended = self.call(&plugin, &tools, case, host.clone()).await;
        let ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        let tool = tools.iter().find(|tool| tool.name == case.tool);
        let seen = host.finish();
        let mut found = problems(&case.expect, &ended, &seen.kv, &seen.log);
        found.extend(tool.and_then(|tool| unfit_answer(tool, &ended)));
        found.extend(seen.problems);
        Ok(Report { case, problems: found, log: seen.log, ms })
    }

    async fn call(&self, plugin: &WasmPlugin, tools: &[PluginTool], case: &Case, host: Arc<StubHost>) -> Ended {
        let Some(tool) = tools.iter().find(|tool| tool.name == case.tool) else {
            return Ended::failed(&PluginError::UnknownTool(case.tool.clone()));
        };
        let arguments = Value::Object(case.arguments.clone());
        if let Some(why) = unfit(tool, "inputSchema", &arguments) {
            // As a node has it: the plugin is not asked.
            return Ended::Failed { code: "PV-ARGS-SCHEMA".to_owned(), message: why };
        }
        let context = CallContext {
            request_id: "test".to_owned(),
            traceparent: None,
            principal: case.principal.clone(),
            input_responses: case.answers.clone().map(|answers| RawJson::from(Value::Object(answers))),
            request_state: case.state.clone(),
        };
        let call = PluginCall {
            tool: case.tool.clone(),
            arguments: RawJson::from(arguments),
            context,
            deadline: Instant::now() + Duration::from_millis(case.deadline_ms),
            depth: 0,
        };
        match plugin.call(&call, host).await {
            Ok(PluginAnswer::Complete { body, is_error }) => {
                Ended::Answered { body: body.parse().unwrap_or_default(), is_error }
            }
            Ok(PluginAnswer::InputRequired(body)) => Ended::Asked(body.parse().unwrap_or_default()),
            Err(error) => Ended::failed(&error),
        }
    }

    fn installed(&self, config: Option<&Map<String, Value>>) -> Arc<WasmPlugin> {
        let config = config.map(|config| RawJson::from(Value::Object(config.clone())));
        let key = config.as_ref().map(|config| config.as_str().to_owned()).unwrap_or_default();
        let mut limits = PluginLimits::default();
        if self.file.memory_mib > 0 {
            limits.memory_bytes = usize::try_from(self.file.memory_mib).unwrap_or(usize::MAX).saturating_mul(1 << 20);
        }
        if self.file.compute_ms > 0 {
            limits.compute = Duration::from_millis(self.file.compute_ms.into());
        }
        let grants = Grants { http: self.wants.as_ref().is_none_or(|wants| !wants.hosts.is_empty()) };
        let settings = PluginSettings { tenant: None, config, grants, limits };
        let made = || Arc::new(trial::plugin(&self.engine, &self.component, settings));
        self.installed.lock().entry(key).or_insert_with(made).clone()
    }
}

/// A case whose configuration the component does not take.
fn refused<'c>(case: &'c Case, error: &PluginError) -> Report<'c> {
    let problems = problems(&case.expect, &Ended::failed(error), &std::collections::BTreeMap::new(), &[]);
    Report { case, problems, log: Vec::new(), ms: 0 }
}

/// Why the structured answer is not what the tool says that it is.
fn unfit_answer(tool: &PluginTool, ended: &Ended) -> Option<String> {
    let Ended::Answered { body, is_error: false } = ended else { return None };
    let why = unfit(tool, "outputSchema", body.get("structuredContent")?)?;
    Some(format!("the structured answer does not fit the tool's `outputSchema`: {why}"))
}

/// Why a value does not fit a schema of the tool; one that cannot be used checks nothing, as on a node.
fn unfit(tool: &PluginTool, schema: &str, value: &Value) -> Option<String> {
    let definition: Value = tool.definition.parse().ok()?;
    let options = jsonschema::options().with_pattern_options(PatternOptions::regex()).offline();
    let validator = options.build(definition.get(schema)?).ok()?;
    let problem = validator.iter_errors(value).next()?;
    let at = problem.instance_path().to_string();
    Some(if at.is_empty() { problem.to_string() } else { format!("{at}: {problem}") })
}
