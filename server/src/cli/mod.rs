//! The command line: one file a family of commands.

pub mod admin;
pub mod arguments;
mod audit;
mod chat;
mod cluster;
mod connections;
pub mod context;
pub mod documents;
pub mod endpoint;
mod finetune;
mod health;
mod kill_switch;
mod model;
mod plugin;
mod resources;
mod secrets;
mod shipped;
mod simulate;
mod table;
mod terminal;
mod top;
pub mod using;
mod watch;
mod why;

pub use audit::is_audit_verify;
pub use secrets::parse_duration;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, Parser, Subcommand};

use crate::{
    bench, bridge,
    config::{
        gpu::threads_of,
        telemetry::{LogFormat, log_format},
    },
    dev, open_files,
    roles::run,
};

/// Provost runs an organisation's MCP: one policy, one quota ledger and one provable record for
/// every call to a tool or a model.
#[derive(Parser)]
#[command(name = "provost", version, max_term_width = 100)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Write logs as JSON.
    #[arg(long, global = true, env = "PROVOST_LOG_JSON")]
    log_json: bool,
}

#[derive(Subcommand)]
enum Command {
    /// Run every role on this machine, on embedded storage.
    #[command(after_help = "Example: provost dev --data-dir ./data --http 127.0.0.1:8420")]
    Dev(dev::DevArgs),
    /// Run the roles that a configuration file names.
    #[command(after_help = "Example: provost server --config /etc/provost/provost.toml")]
    Server(run::ServerArgs),
    /// Ask whether a node answers: exit code 0 means that it does.
    #[command(after_help = "Example: provost health --url http://127.0.0.1:8420/readyz")]
    Health(health::HealthArgs),

    /// Apply resources: all of them at one revision, or nothing.
    #[command(after_help = "Example: provost apply -f examples/quickstart --dry-run")]
    Apply(resources::ApplyArgs),
    /// Show what an apply would change.
    #[command(after_help = "Example: provost diff -f policies/")]
    Diff(resources::DiffArgs),
    /// Show which recorded calls would be decided otherwise after an apply, and why.
    #[command(after_help = "Example: provost simulate -f policies/ --since 24h\n\n\
                            Nothing is changed. Exits with 0 also when calls would change, unless --fail-on-change.")]
    Simulate(simulate::SimulateArgs),
    /// Explain why a call is allowed or denied.
    #[command(
        after_help = "Examples:\n  provost why DENY --principal ana --tool sql.query --arg sql='DROP TABLE orders'\n  \
                            provost why ALLOW --record 17 --tenant acme"
    )]
    Why(why::WhyArgs),
    /// List resources, or print one.
    #[command(after_help = "Example: provost get Plugin -o yaml")]
    Get(resources::GetArgs),
    /// Show one resource with its history.
    #[command(after_help = "Example: provost describe Principal ana")]
    Describe(resources::DescribeArgs),
    /// Delete a resource.
    #[command(after_help = "Example: provost delete RoleBinding analysts")]
    Delete(resources::DeleteArgs),
    /// List past revisions.
    #[command(after_help = "Example: provost history --limit 20")]
    History(resources::HistoryArgs),
    /// Make the state what it was at a revision, as a new revision.
    #[command(after_help = "Example: provost rollback --to 42")]
    Rollback(resources::RollbackArgs),
    /// Print changes as they happen.
    #[command(after_help = "Example: provost watch Plugin --from 42 --json")]
    Watch(watch::WatchArgs),
    /// Explain the fields of a kind.
    #[command(after_help = "Example: provost explain Plugin")]
    Explain(resources::ExplainArgs),
    /// Print the JSON Schema of all kinds, for editors.
    #[command(after_help = "Example: provost schema > provost.schema.json")]
    Schema(resources::SchemaArgs),

    /// Make tokens.
    #[command(subcommand, after_help = "Example: provost token create --principal ana --ttl 8h")]
    Token(secrets::TokenCommand),
    /// Set secrets.
    #[command(subcommand, after_help = "Example: provost secret set github-token < token.txt")]
    Secret(secrets::SecretCommand),

    /// Manage the cluster's nodes, keys and backups.
    #[command(subcommand, after_help = "Example: provost cluster status")]
    Cluster(cluster::ClusterCommand),

    /// Stop calls on every node at once, and let them through again.
    #[command(
        subcommand,
        after_help = "Example: provost kill-switch on --tool 'sql.*' --reason 'migration until 14:00'"
    )]
    KillSwitch(kill_switch::KillSwitchCommand),
    /// List and end what users let plugins do in their names.
    #[command(subcommand, after_help = "Example: provost connections list --json")]
    Connections(connections::ConnectionsCommand),
    /// Install packages of plugins; look at plugins' tools, approve their definitions, take them out of use.
    #[command(subcommand, after_help = "Example: provost plugin list --json")]
    Plugin(plugin::PluginCommand),

    /// Bring models onto a node's disk; look at how models stand on nodes, load, unload and pin them.
    #[command(subcommand, after_help = "Example: provost model status")]
    Model(model::ModelCommand),

    /// List the tools that a token may call.
    #[command(after_help = "Example: provost tools --json")]
    Tools(using::ToolsArgs),
    /// Call a tool.
    #[command(after_help = "Examples:\n  provost call sql.query --arg sql='SELECT count(*) FROM orders'\n  \
                            provost call echo.echo --arg text=hi --transport quic --show-meta")]
    Call(using::CallArgs),
    /// Talk to a chat model of the cluster.
    #[command(after_help = "Examples:\n  provost chat --model qwen3 'Why is the sky blue?'\n  \
                            provost chat --system 'Answer in one line.' --json < question.txt\n  \
                            provost chat\n\n\
                            Without a prompt, on a terminal, it asks for one line after the other and keeps the \
                            conversation: Ctrl-C ends an answer, Ctrl-D the conversation.")]
    Chat(chat::ChatArgs),
    /// Serve MCP over stdio, from a cluster: for desktop clients.
    #[command(after_help = "Example: PROVOST_TOKEN=pv_… provost bridge --url wss://mcp.example.com/mcp\n\n\
                            The token comes from --token-file or PROVOST_TOKEN, never from an argument. Logs go \
                            to stderr. Ends when stdin has ended and what was asked is answered.")]
    Bridge(bridge::BridgeArgs),

    /// Query, show and verify the audit log.
    #[command(subcommand, after_help = "Example: provost audit query --status denied --since 24h")]
    Audit(audit::AuditCommand),

    /// Show how nodes stand now: calls, times, denials, errors, revisions, leaders, quotas near their limit.
    #[command(after_help = "Examples:\n  provost top\n  provost top --metrics cp-1:8422,dp-1:8422 --once --json\n\n\
                            Nodes are asked at `listen.metrics`. Ends with Ctrl-C.")]
    Top(top::TopArgs),

    /// Train an adapter (LoRA) for a chat model on conversations, on this machine; or look after the tasks of nodes.
    #[command(
        after_help = "Examples:\n  provost finetune --model models/qwen3-0.6b --data chats.jsonl --out adapters/support\n  \
                            provost finetune list\n\n\
                            Each line of the data is {\"messages\": [{\"role\": …, \"content\": …}, …]}, the last of them the answer \
                            to learn. Run it again to go on after an interruption. Ends with Ctrl-C."
    )]
    Finetune(finetune::FinetuneArgs),
    /// Measure an MCP endpoint: open loop, free of coordinated omission.
    #[command(after_help = "Examples:\n  provost bench --tool echo.echo --arg text=hi --rate 500 --duration 10s\n  \
                            provost bench --tool echo.echo --arg text=hi --transport ws --saturate\n  \
                            provost bench --tool echo.echo --arg text=hi --transport ws --idle 2000\n  \
                            provost bench suite --quick")]
    Bench(bench::BenchArgs),

    /// Print a script that completes this program's arguments in a shell.
    #[command(after_help = "Example: provost completions bash > ~/.local/share/bash-completion/completions/provost")]
    Completions(shipped::CompletionsArgs),
    /// Write the man pages of all commands into a folder.
    #[command(after_help = "Example: provost man ~/.local/share/man/man1")]
    Man(shipped::ManArgs),
}

impl Cli {
    /// Whether the command is a long-running server, which logs more.
    pub fn is_server(&self) -> bool {
        match &self.command {
            Command::Dev(_) | Command::Server(_) => true,
            Command::Audit(command) => command.is_server(),
            _ => false,
        }
    }

    /// Whether logs are JSON: the flag, else what a server's file says.
    pub fn log_json(&self) -> bool {
        let of_file = |args: &run::ServerArgs| log_format(args.config()) == LogFormat::Json;
        self.log_json || matches!(&self.command, Command::Server(args) if of_file(args))
    }

    /// Whether the command may compute models in this process.
    pub fn computes(&self) -> bool {
        match &self.command {
            Command::Dev(_) | Command::Server(_) | Command::Finetune(_) => true,
            Command::Bench(args) => args.is_suite(),
            _ => false,
        }
    }

    /// The threads for that which a server's file names.
    pub fn compute_threads(&self) -> Option<usize> {
        match &self.command {
            Command::Server(args) => threads_of(args.config()),
            _ => None,
        }
    }
}

/// Which admin API to talk to.
#[derive(Args, Clone)]
pub struct AdminArgs {
    /// Addresses of the admin API, `HOST:PORT` or `https://HOST:PORT`, separated by commas: the
    /// first that answers is used. Default: the running `provost dev`.
    #[arg(long, env = "PROVOST_ADMIN")]
    admin: Option<String>,
    /// The cluster's CA, PEM, for an admin API behind TLS.
    #[arg(long, value_name = "FILE", env = "PROVOST_ADMIN_CA")]
    admin_ca: Option<PathBuf>,
    /// Admin token. Better given by the environment than here.
    #[arg(long, env = "PROVOST_ADMIN_TOKEN", hide_env_values = true)]
    admin_token: Option<String>,
    /// Where the running `provost dev` keeps its data.
    #[arg(long, env = "PROVOST_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// The tenant of what is named by flags, such as secrets and tokens; documents say their own. Default: the only
    /// tenant there is.
    #[arg(long, env = "PROVOST_TENANT")]
    tenant: Option<String>,
}

/// Runs the command.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    if cli.is_server() {
        open_files::raise_for_a_server();
    }
    match cli.command {
        Command::Dev(args) => dev::run(args).await.map(|()| ExitCode::SUCCESS),
        Command::Server(args) => run::run(args).await.map(|()| ExitCode::SUCCESS),
        Command::Health(args) => health::run(args).await,
        Command::Apply(args) => resources::apply(args).await,
        Command::Diff(args) => resources::diff(args).await,
        Command::Simulate(args) => simulate::run(args).await,
        Command::Why(args) => why::run(args).await,
        Command::Get(args) => resources::get(args).await,
        Command::Describe(args) => resources::describe(args).await,
        Command::Delete(args) => resources::delete(args).await,
        Command::History(args) => resources::history(args).await,
        Command::Rollback(args) => resources::rollback(args).await,
        Command::Watch(args) => watch::run(args).await,
        Command::Explain(args) => resources::explain(args).await,
        Command::Schema(args) => resources::schema(args).await,
        Command::Token(command) => secrets::token(command).await,
        Command::Secret(command) => secrets::secret(command).await,
        Command::Cluster(command) => cluster::run(command).await,
        Command::Plugin(command) => plugin::run(command).await,
        Command::Model(command) => model::run(command).await,
        Command::KillSwitch(command) => kill_switch::run(command).await,
        Command::Connections(command) => connections::run(command).await,
        Command::Tools(args) => using::tools(args).await,
        Command::Call(args) => using::call(args).await,
        Command::Chat(args) => chat::run(args).await,
        Command::Bridge(args) => bridge::run(args).await,
        Command::Audit(command) => audit::run(command).await,
        Command::Top(args) => top::run(args).await,
        Command::Finetune(args) => finetune::run(args).await,
        Command::Bench(args) => bench::run(args).await.map(|()| ExitCode::SUCCESS),
        Command::Completions(args) => shipped::completions(&args),
        Command::Man(args) => shipped::man(&args),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn without_example(command: &clap::Command, path: &str, found: &mut Vec<String>) {
        for below in command.get_subcommands() {
            let path = format!("{path} {}", below.get_name());
            if !below.get_after_help().is_some_and(|help| help.to_string().contains("Example")) {
                found.push(path.clone());
            }
            without_example(below, &path, found);
        }
    }

    #[test]
    fn the_help_of_every_command_has_an_example() {
        let mut found = Vec::new();
        without_example(&Cli::command(), "provost", &mut found);
        assert!(found.is_empty(), "{found:?}");
    }
}
