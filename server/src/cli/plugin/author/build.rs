//! `provost plugin build`: a project as a package.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use bytes::Bytes;
use clap::Args;
use provost_data_wasm::{Grants, PluginLimits, PluginSettings, PluginTool};
use provost_package::{COMPONENT, DOCS, MAX_PACKAGE_BYTES, Package, Source};
use serde_json::{Value, json};

use super::{
    super::diff::visible,
    artefact::{self, ArtefactArgs},
    files, keys,
    project::Project,
    sign, test, trial,
};

/// Memory for a component that only says what its tools are: what an installation gives it is not known yet.
const MEMORY_BYTES: usize = 512 << 20;

#[derive(Args)]
pub struct BuildArgs {
    /// The project's folder, where `plugin.yaml` is.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Sign it with this private key (`provost plugin keygen`).
    #[arg(long, value_name = "FILE")]
    key: Option<PathBuf>,
    /// The package. Default: `NAME-VERSION.pvp` in the project's folder.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    artefact: ArtefactArgs,
}

pub async fn run(args: BuildArgs) -> anyhow::Result<ExitCode> {
    let project = Project::read(&args.dir)?;
    // Before the work, so that a wrong key costs nothing.
    let key = args.key.as_deref().map(keys::read).transpose()?;
    let component = artefact::obtain(&project, &args.artefact).await?;
    let limits = PluginLimits { memory_bytes: MEMORY_BYTES, ..PluginLimits::default() };
    let grants = Grants { http: !project.said.wants.hosts.is_empty() };
    let settings = PluginSettings { grants, limits, ..PluginSettings::default() };
    let (tools, config) = trial::check(&component, settings).await?;
    let sources = sources(&project, component)?;
    let package = Package::make(project.manifest(), &sources, key.as_ref()).map_err(|error| sign::refused(&error))?;
    let out = args.output.clone().unwrap_or_else(|| project.package_file());
    files::write(&out, package.bytes())?;
    let config = config.map(|schema| schema.parse::<Value>()).transpose()?;
    report(&args, &out, &package, (&tools[..], config))?;
    Ok(ExitCode::SUCCESS)
}

/// The package's parts.
fn sources(project: &Project, component: Bytes) -> anyhow::Result<Vec<Source>> {
    let mut sources = vec![Source { name: COMPONENT.to_owned(), content: component }];
    if let Some(docs) = &project.said.docs {
        let content = files::read(&project.path(docs), MAX_PACKAGE_BYTES)?.into();
        sources.push(Source { name: DOCS.to_owned(), content });
    }
    if let Some(tests) = &project.said.tests {
        let path = project.path(tests);
        let content = files::read(&path, test::MAX_CASES_BYTES)?;
        // Who installs the package can run them: they have to be some.
        test::parse(&path.display().to_string(), &content)?;
        sources.push(Source { name: test::PART.to_owned(), content: content.into() });
    }
    Ok(sources)
}

fn report(
    args: &BuildArgs,
    out: &Path,
    package: &Package,
    (tools, config): (&[PluginTool], Option<Value>),
) -> anyhow::Result<()> {
    let (manifest, bytes, digest) = (package.manifest(), package.bytes().len(), package.digest().to_string());
    let signer = package.signature().map(|signature| signature.key.to_string());
    let tools: Vec<&str> = tools.iter().map(|tool| tool.name.as_str()).collect();
    if args.json {
        let value = json!({
            "file": out, "bytes": bytes, "digest": digest, "signedBy": signer, "tools": tools,
            "name": manifest.name, "version": manifest.version.to_string(), "publisher": manifest.publisher,
            "configSchema": config,
        });
        println!("{}", serde_json::to_string_pretty(&value)?);
        return Ok(());
    }
    println!("{}: {}, {bytes} bytes", out.display(), manifest.title());
    println!("tools: {}", tools.join(", "));
    if let Some(members) = config.as_ref().and_then(|schema| schema["properties"].as_object()) {
        let members: Vec<String> = members.keys().map(|member| visible(member)).collect();
        println!("configuration: {}", members.join(", "));
    }
    println!("digest: {digest}");
    match signer {
        Some(key) => println!("signed by: {key}"),
        None => println!("not signed: provost plugin sign {} --key FILE", out.display()),
    }
    Ok(())
}
