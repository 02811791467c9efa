//! Packages of plugins: bringing them, running them, going back.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use bytes::Bytes;
use clap::{Args, Subcommand};
use provost_package::{MAX_PACKAGE_BYTES, Package, PackageError, Wants};
use provost_types::{FileDigest, Name, PluginSource, PublisherKey};
use provost_wire::{
    PackagesConnection,
    packages::{
        GovernPluginRequest, InstallPluginRequest, InstalledPluginResponse, ListPackagesRequest, PackageView,
        PutPackageRequest, RemovePackageRequest,
    },
    packages_over,
};
use serde_json::{Map, Value, json};

use super::{
    ListArgs, find,
    wait::{Change, WaitArgs, Waited, wait},
    wants,
};
use crate::{
    cli::{
        AdminArgs,
        admin::{connect, dial, failed, tenant},
        table,
    },
    failure::{Failure, Usage},
};

/// Bytes of one message of an upload.
const CHUNK_BYTES: usize = 256 << 10;

#[derive(Subcommand)]
pub enum PackageCommand {
    /// Store a package, and make a plugin of it or change one to it.
    #[command(after_help = "Examples:\n  provost plugin install text-1.2.0.pvp\n  \
                            provost plugin install text-1.2.0.pvp --name notes --set separator=_\n  \
                            provost plugin install sha256:9f86d081884c7d65… --name notes --unset separator\n\n\
                            A Publisher of the tenant must have the key that signed it. What a plugin that exists was \
                            granted (egress, credentials) stays; a new one is granted nothing. Waits until every \
                            connected node that serves calls runs it.")]
    Install(InstallArgs),
    /// Have every node start a plugin anew: processes and connections too, without a change of what it is.
    #[command(after_help = "Example: provost plugin reload files --reason 'leaks memory, INC-12'")]
    Reload(GovernArgs),
    /// Change a plugin to the package that it had before, with the configuration that it had then.
    #[command(after_help = "Example: provost plugin rollback text --reason 'INC-13'\n\n\
                            Egress and credentials stay as they are now. A second rollback goes forth again.")]
    Rollback(GovernArgs),
    /// List the stored packages and the plugins that run them.
    #[command(after_help = "Example: provost plugin packages --json")]
    Packages(ListArgs),
    /// Remove a stored package that no plugin runs.
    #[command(after_help = "Example: provost plugin remove sha256:9f86d081884c7d65…")]
    Remove(RemoveArgs),
    /// Look at a package without a cluster: is it whole, what is in it, who signed it.
    #[command(after_help = "Example: provost plugin verify text-1.2.0.pvp --key ed25519:…")]
    Verify(VerifyArgs),
}

#[derive(Args)]
pub struct InstallArgs {
    /// The package, or the digest (`sha256:…`) of one that is stored.
    #[arg(value_name = "FILE|DIGEST")]
    file: PathBuf,
    /// The plugin. Default: the package's own name.
    #[arg(long)]
    name: Option<Name>,
    /// A JSON file whose object becomes the configuration. Default: as it was.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A member of the configuration, as JSON or plain text.
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// A member to take out of the configuration.
    #[arg(long, value_name = "KEY")]
    unset: Vec<String>,
    /// Why. It is recorded.
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    waiting: WaitArgs,
    #[command(flatten)]
    plain: ListArgs,
}

#[derive(Args)]
pub struct GovernArgs {
    /// The plugin.
    name: String,
    /// Why. It is recorded.
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    waiting: WaitArgs,
    #[command(flatten)]
    plain: ListArgs,
}

#[derive(Args)]
pub struct RemoveArgs {
    /// The package's digest, `sha256:…`.
    digest: FileDigest,
    #[command(flatten)]
    plain: ListArgs,
}

#[derive(Args)]
pub struct VerifyArgs {
    /// The package.
    file: PathBuf,
    /// A key that is trusted; without one only the signature itself is checked.
    #[arg(long, value_name = "KEY")]
    key: Vec<PublisherKey>,
    /// Print as JSON.
    #[arg(long)]
    json: bool,
}

pub async fn run(command: PackageCommand) -> anyhow::Result<ExitCode> {
    match command {
        PackageCommand::Install(args) => install(args).await?,
        PackageCommand::Reload(args) => govern(args, false).await?,
        PackageCommand::Rollback(args) => govern(args, true).await?,
        PackageCommand::Packages(args) => list(&args).await?,
        PackageCommand::Remove(args) => remove(args).await?,
        PackageCommand::Verify(args) => verify(&args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn unusable(cause: &PackageError) -> Failure {
    let hint = match cause {
        PackageError::Unsigned { .. } => "`provost plugin sign` signs a package",
        PackageError::UnknownPublisher { .. } => "if you trust this key, give it, or apply a Publisher with it",
        _ => "build it again, or get the file again",
    };
    Failure::new(cause.code(), cause.to_string(), hint)
}

/// A whole package that somebody signed. Whether they are trusted is for others to say.
fn read(path: &Path) -> anyhow::Result<Package> {
    let unread = |cause: std::io::Error| {
        let hint = "name a package: `provost plugin build` writes one, `provost plugin packages` lists stored ones";
        Failure::new("PV-CLI-FILE", format!("{} cannot be read: {cause}", path.display()), hint)
    };
    let size = std::fs::metadata(path).map_err(unread)?.len();
    if size > MAX_PACKAGE_BYTES {
        return Err(unusable(&PackageError::TooLarge { bytes: size, limit: MAX_PACKAGE_BYTES }).into());
    }
    // What is no file has no size before it is read.
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(MAX_PACKAGE_BYTES + 1).read_to_end(&mut bytes));
    read.map_err(unread)?;
    let package = Package::read(Bytes::from(bytes)).map_err(|cause| unusable(&cause))?;
    let own: Vec<PublisherKey> = package.signature().map(|signature| signature.key).into_iter().collect();
    package.check_signature(&own).map_err(|cause| unusable(&cause))?;
    Ok(package)
}

async fn packages(admin: &AdminArgs) -> anyhow::Result<(PackagesConnection, String)> {
    let (mut client, context) = connect(admin).await?;
    let tenant = tenant(&mut client, context.tenant.as_deref()).await?;
    let (channel, token, _) = dial(admin).await?;
    Ok((packages_over(channel, token), tenant))
}

/// What is to be installed.
enum Wanted {
    /// A package that the command brings.
    Brought(Box<Package>),
    /// One that the control plane has.
    Stored(FileDigest),
}

impl Wanted {
    fn of(named: &Path) -> anyhow::Result<Self> {
        let Some(digest) = named.to_str().filter(|text| text.starts_with("sha256:")) else {
            return Ok(Self::Brought(Box::new(read(named)?)));
        };
        let digest = digest.parse::<FileDigest>().map_err(|cause| {
            Usage(Failure::new("PV-CLI-ARGUMENTS", cause.to_string(), "`provost plugin packages` lists the digests"))
        })?;
        Ok(Self::Stored(digest))
    }

    /// The package's own name.
    async fn name(&self, client: &mut PackagesConnection, tenant: &str) -> anyhow::Result<String> {
        let digest = match self {
            Self::Brought(package) => return Ok(package.manifest().name.to_string()),
            Self::Stored(digest) => digest.to_string(),
        };
        let request = ListPackagesRequest { tenant: tenant.to_owned() };
        let listed = client.list(request).await.map_err(failed)?.into_inner().packages;
        match listed.into_iter().find(|package| package.digest == digest) {
            Some(package) => Ok(package.name),
            None => {
                let hint = "`provost plugin packages` lists those that are";
                Err(Failure::new("PV-PACKAGE-MISSING", format!("{tenant}/{digest} is not stored"), hint).into())
            }
        }
    }

    /// Stores what is not stored, and says its digest.
    async fn store(&self, client: &mut PackagesConnection, tenant: &str) -> anyhow::Result<String> {
        let package = match self {
            Self::Brought(package) => package,
            Self::Stored(digest) => return Ok(digest.to_string()),
        };
        let chunks: Vec<PutPackageRequest> = (0..package.bytes().len())
            .step_by(CHUNK_BYTES)
            .map(|from| {
                let to = from.saturating_add(CHUNK_BYTES).min(package.bytes().len());
                PutPackageRequest { tenant: tenant.to_owned(), chunk: package.bytes().slice(from..to) }
            })
            .collect();
        Ok(client.put(futures::stream::iter(chunks)).await.map_err(failed)?.into_inner().digest)
    }

    /// What it asks for, as far as that is known here.
    fn wants(&self) -> Option<&Wants> {
        match self {
            Self::Brought(package) => Some(&package.manifest().wants),
            Self::Stored(_) => None,
        }
    }
}

async fn install(args: InstallArgs) -> anyhow::Result<()> {
    let wanted = Wanted::of(&args.file)?;
    let (mut client, tenant) = packages(&args.plain.admin).await?;
    let name = match &args.name {
        Some(name) => name.to_string(),
        None => wanted.name(&mut client, &tenant).await?,
    };
    let config = configuration(&args, &name).await?;
    let request = InstallPluginRequest {
        tenant: tenant.clone(),
        name: name.clone(),
        digest: wanted.store(&mut client, &tenant).await?,
        config: config.as_ref().map(|config| Value::Object(config.clone()).to_string()).unwrap_or_default(),
        reason: args.reason.clone(),
    };
    let done = client.install(request).await.map_err(failed)?.into_inner();
    let plugin = find(&args.plain.admin, &name).await?.into_iter().next();
    let granted = plugin.as_ref().and_then(|plugin| match &plugin.spec.source {
        PluginSource::Wasm(wasm) => Some(&**wasm),
        _ => None,
    });
    let lacks = wanted.wants().map(|wanted| wants::not_granted(wanted, granted));
    let waits = done.changed && !args.waiting.no_wait;
    if !args.plain.json {
        report(&name, &done, "installed");
        for want in lacks.iter().flatten() {
            println!("  it wants {want}, and is not granted that");
        }
        if done.changed && !waits {
            println!(
                "  nodes fetch, check and compile it now; `provost plugin status {name}` shows its tools once one has"
            );
        }
    }
    let change = Change { tenant: &tenant, plugin: &name, revision: done.revision };
    let waited = if waits { Some(wait(&mut client, &change).await?) } else { None };
    let nodes = waited.as_ref().map_or(Value::Null, Waited::json);
    if args.plain.json {
        let text = json!({ "plugin": name, "result": json_of(&done), "notGranted": lacks, "nodes": nodes });
        println!("{}", serde_json::to_string_pretty(&text)?);
    }
    finish(waited.as_ref(), &change, args.plain.json)
}

/// Says how far the nodes are; an error unless all that are waited for run it.
fn finish(waited: Option<&Waited>, change: &Change<'_>, is_json: bool) -> anyhow::Result<()> {
    let Some(waited) = waited else { return Ok(()) };
    waited.check(change)?;
    if !is_json {
        println!("  {}", waited.text());
    }
    Ok(())
}

/// The configuration that is asked for; `None`: it stays.
async fn configuration(args: &InstallArgs, name: &str) -> anyhow::Result<Option<Map<String, Value>>> {
    if args.config.is_none() && args.set.is_empty() && args.unset.is_empty() {
        return Ok(None);
    }
    let mut config = match &args.config {
        Some(path) => {
            let unread = |cause: &dyn std::fmt::Display| {
                let text = format!("{} cannot be read as a JSON object: {cause}", path.display());
                Failure::new("PV-CLI-FILE", text, "write the configuration as one object: {\"KEY\": VALUE}")
            };
            let text = std::fs::read(path).map_err(|cause| unread(&cause))?;
            serde_json::from_slice(&text).map_err(|cause| unread(&cause))?
        }
        None => present(&args.plain.admin, name).await?,
    };
    for key in &args.unset {
        if config.remove(key).is_none() {
            let text = format!("--unset {key}: the configuration of {name} has no such member");
            return Err(
                Usage(Failure::new("PV-CLI-ARGUMENTS", text, "`provost get Plugin NAME -o yaml` shows it")).into()
            );
        }
    }
    for member in &args.set {
        let (key, value) = member.split_once('=').ok_or_else(|| {
            Usage(Failure::new("PV-CLI-ARGUMENTS", format!("`{member}` has no `=`"), "write it as KEY=VALUE"))
        })?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
        config.insert(key.to_owned(), value);
    }
    Ok(Some(config))
}

/// The configuration that a plugin has, if there is one.
async fn present(admin: &AdminArgs, name: &str) -> anyhow::Result<Map<String, Value>> {
    let plugin = find(admin, "").await?.into_iter().find(|plugin| plugin.name == name);
    Ok(match plugin.map(|plugin| plugin.spec.source) {
        Some(PluginSource::Wasm(wasm)) => wasm.config,
        _ => Map::new(),
    })
}

async fn govern(args: GovernArgs, goes_back: bool) -> anyhow::Result<()> {
    let (mut client, tenant) = packages(&args.plain.admin).await?;
    let request = GovernPluginRequest { tenant: tenant.clone(), name: args.name.clone(), reason: args.reason };
    let done = if goes_back { client.rollback(request).await } else { client.reload(request).await };
    let done = done.map_err(failed)?.into_inner();
    if !args.plain.json {
        report(&args.name, &done, if goes_back { "put back" } else { "reloading" });
    }
    let change = Change { tenant: &tenant, plugin: &args.name, revision: done.revision };
    let waits = done.changed && !args.waiting.no_wait;
    let waited = if waits { Some(wait(&mut client, &change).await?) } else { None };
    if args.plain.json {
        let mut told = json_of(&done);
        told["nodes"] = waited.as_ref().map_or(Value::Null, Waited::json);
        println!("{}", serde_json::to_string_pretty(&told)?);
    }
    finish(waited.as_ref(), &change, args.plain.json)
}

fn report(name: &str, done: &InstalledPluginResponse, verb: &str) {
    let what = done.package.as_ref().map(|p| format!(": {} {} ({})", p.name, p.version, p.digest)).unwrap_or_default();
    match done.changed {
        true => println!("{verb}: plugin {name}{what}; revision {}", done.revision),
        false => println!("nothing to do: plugin {name} is so already{what}"),
    }
}

fn json_of(done: &InstalledPluginResponse) -> Value {
    json!({
        "revision": done.revision, "changed": done.changed, "created": done.created,
        "package": done.package.as_ref().map(view_json),
    })
}

fn view_json(package: &PackageView) -> Value {
    json!({
        "tenant": package.tenant, "digest": package.digest, "name": package.name, "version": package.version,
        "publisher": package.publisher, "key": package.key, "bytes": package.bytes, "stored": package.stored,
        "by": package.by, "plugins": package.plugins,
    })
}

async fn list(args: &ListArgs) -> anyhow::Result<()> {
    let (channel, token, context) = dial(&args.admin).await?;
    let request = ListPackagesRequest { tenant: context.tenant.unwrap_or_default() };
    let found = packages_over(channel, token).list(request).await.map_err(failed)?.into_inner().packages;
    if args.json {
        let all: Vec<Value> = found.iter().map(view_json).collect();
        println!("{}", serde_json::to_string_pretty(&json!({ "packages": all }))?);
        return Ok(());
    }
    let row = |p: PackageView| {
        let plugins = if p.plugins.is_empty() { "-".to_owned() } else { p.plugins.join(", ") };
        vec![p.tenant, p.name, p.version, p.publisher, p.bytes.to_string(), p.stored, plugins, p.digest]
    };
    let rows: Vec<Vec<String>> = found.into_iter().map(row).collect();
    table::print(&["TENANT", "NAME", "VERSION", "PUBLISHER", "BYTES", "STORED", "PLUGINS", "DIGEST"], &rows);
    Ok(())
}

async fn remove(args: RemoveArgs) -> anyhow::Result<()> {
    let (mut client, tenant) = packages(&args.plain.admin).await?;
    let request = RemovePackageRequest { tenant, digest: args.digest.to_string() };
    client.remove(request).await.map_err(failed)?;
    if args.plain.json {
        println!("{}", serde_json::to_string_pretty(&json!({ "removed": args.digest }))?);
    } else {
        println!("removed: {}", args.digest);
    }
    Ok(())
}

fn verify(args: &VerifyArgs) -> anyhow::Result<()> {
    let package = read(&args.file)?;
    if !args.key.is_empty() {
        package.check_signature(&args.key).map_err(|cause| unusable(&cause))?;
    }
    let (manifest, key) = (package.manifest(), package.signature().map(|signature| signature.key));
    if args.json {
        let text = json!({
            "digest": package.digest(), "manifest": manifest, "key": key, "trusted": !args.key.is_empty(),
        });
        println!("{}", serde_json::to_string_pretty(&text)?);
        return Ok(());
    }
    println!("{} of publisher {}", manifest.title(), manifest.publisher);
    println!("  digest {}", package.digest());
    if let Some(key) = key {
        let trust = if args.key.is_empty() { "not compared with any; give --key" } else { "trusted" };
        println!("  signed by {key}: {trust}");
    }
    for part in &manifest.parts {
        println!("  {}: {} bytes, {}", part.name, part.bytes, part.digest);
    }
    for want in wants::not_granted(&manifest.wants, None) {
        println!("  wants {want}");
    }
    Ok(())
}
