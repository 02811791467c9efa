//! `provost chat`: a chat model of the cluster, by the node's OpenAI-compatible API.
//!
//! Purpose: one answer, streamed, or a conversation on a terminal. The node decides, limits and records it as
//! any call. Invariants: stdout holds what the model said, or JSON, and nothing else; whoever is interrupted
//! closes the connection, which cancels the answer there.
//! Left out: editing of lines, functions (`tools`), pictures.

mod answer;
mod api;
mod conversation;
mod listed;
mod output;
mod refused;

use std::{
    io::{BufRead, IsTerminal, Read, Write},
    process::ExitCode,
};

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use self::{
    api::Api,
    conversation::{Conversation, Sampling},
    output::Output,
};
use super::endpoint::{Node, NodeArgs};
use crate::failure::{self, Failure, Usage};

/// The longest prompt that is read.
const MAX_PROMPT_BYTES: u64 = 1 << 20;

#[derive(Args)]
pub struct ChatArgs {
    /// What to ask; several words need no quotes. Without: what stdin holds, or line after line of a terminal.
    prompt: Vec<String>,
    /// The model. Default: the only chat model that the caller may use.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// What the model is told before the conversation.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    /// The longest answer. Default: the node's.
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    max_tokens: Option<u32>,
    /// How freely tokens are chosen: 0 takes the likeliest each time. Default: the node's.
    #[arg(long, value_parser = temperature)]
    temperature: Option<f64>,
    /// Repeats what is left to chance.
    #[arg(long, allow_negative_numbers = true)]
    seed: Option<i64>,
    /// Print each answer as one line of JSON, with the tokens that were used.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeArgs,
    /// Bearer token. Better given by the environment or a file than here.
    #[arg(long, env = "PROVOST_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

impl ChatArgs {
    fn node(&self) -> anyhow::Result<Node> {
        self.node.find(self.token.as_deref(), |dev| Ok(dev.openai.clone()))
    }

    fn conversation(&self, model: String) -> Conversation {
        let sampling = Sampling { max_tokens: self.max_tokens, temperature: self.temperature, seed: self.seed };
        Conversation::new(model, self.system.as_deref(), sampling)
    }
}

/// What JSON can carry and makes sense for some model; the node knows its own bounds.
fn temperature(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err("give a number that is not negative, such as 0.7".to_owned()),
    }
}

/// Answers the prompt, or talks until its input ends.
pub async fn run(args: ChatArgs) -> anyhow::Result<ExitCode> {
    let prompt = prompt(&args.prompt)?;
    let api = Api::new(&args.node()?)?;
    let model = match &args.model {
        Some(model) => model.clone(),
        None => listed::only(api.models().await?)?,
    };
    let mut conversation = args.conversation(model);
    let output = Output::new(args.json);
    match prompt {
        // An interrupt ends the process, and the connection with it.
        Some(prompt) => answer(&api, &mut conversation, &prompt, output).await?,
        None => talk(&api, &mut conversation, output).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// The prompt of the command line or of stdin; `None`: somebody is at the terminal to be asked.
fn prompt(words: &[String]) -> anyhow::Result<Option<String>> {
    let stdin = std::io::stdin();
    let text = match words {
        [] if stdin.is_terminal() => return Ok(None),
        // The newline at a file's end is no part of what is asked.
        [] => bounded(stdin.lock())?.trim_end_matches(['\n', '\r']).to_owned(),
        words => words.join(" "),
    };
    if text.trim().is_empty() {
        let hint = "give it as an argument or on stdin, or run the command on a terminal";
        return Err(Usage(Failure::new("PV-CLI-PROMPT", "the prompt is empty", hint)).into());
    }
    Ok(Some(text))
}

/// All of an input, under the bound.
fn bounded(input: impl Read) -> anyhow::Result<String> {
    let mut bytes = Vec::new();
    input.take(MAX_PROMPT_BYTES + 1).read_to_end(&mut bytes).context("PV-CLI-PROMPT: stdin cannot be read")?;
    text(bytes)
}

/// A prompt of bytes that were read.
fn text(bytes: Vec<u8>) -> anyhow::Result<String> {
    let wrong = |what: String| Usage(Failure::new("PV-CLI-PROMPT", what, "a prompt is UTF-8 text of at most 1 MiB"));
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > MAX_PROMPT_BYTES {
        return Err(wrong(format!("the prompt is longer than {MAX_PROMPT_BYTES} bytes")).into());
    }
    Ok(String::from_utf8(bytes).map_err(|cause| wrong(format!("the prompt is no text: {cause}")))?)
}

/// One prompt, its answer as it comes, and both in the conversation.
async fn answer(api: &Api, conversation: &mut Conversation, prompt: &str, output: Output) -> anyhow::Result<()> {
    let body = conversation.request(prompt)?;
    let mut has_begun = false;
    let answered = api
        .chat(&body, |piece| {
            has_begun = true;
            output.piece(piece);
        })
        .await;
    match answered {
        Ok(answer) => {
            output.end(&answer);
            conversation.keep(prompt, &answer.content);
            Ok(())
        }
        Err(cause) => {
            if has_begun {
                output.cut();
            }
            Err(cause)
        }
    }
}

/// Line in, answer out, until the input ends. What failed is told, and is no part of the conversation.
async fn talk(api: &Api, conversation: &mut Conversation, output: Output) -> anyhow::Result<()> {
    let mut interrupts = signal(SignalKind::interrupt())?;
    eprintln!("{}: Ctrl-C ends an answer, Ctrl-D the conversation", conversation.model());
    loop {
        eprint!("> ");
        let _ = std::io::stderr().flush();
        let line = tokio::select! {
            line = read_line() => line,
            _ = interrupts.recv() => Ok(None),
        };
        let Some(line) = line? else {
            eprintln!();
            return Ok(());
        };
        if line.trim().is_empty() {
            continue;
        }
        tokio::select! {
            answered = answer(api, conversation, &line, output) => {
                if let Err(cause) = answered {
                    failure::print(&cause);
                }
            }
            _ = interrupts.recv() => {
                output.cut();
                eprintln!("(cancelled; the conversation goes on without it)");
            }
        }
    }
}

/// The next line of the terminal without its end; `None` at the end of the input.
async fn read_line() -> anyhow::Result<Option<String>> {
    // Reading a terminal blocks.
    let read = tokio::task::spawn_blocking(|| {
        let mut line = Vec::new();
        std::io::stdin().lock().take(MAX_PROMPT_BYTES + 1).read_until(b'\n', &mut line).map(|_| line)
    });
    let line = read.await?.context("PV-CLI-PROMPT: the terminal cannot be read")?;
    if line.is_empty() {
        return Ok(None);
    }
    let line = text(line)?;
    Ok(Some(line.trim_end_matches(['\n', '\r']).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_the_words_or_a_text_under_the_bound() {
        let words = ["why".to_owned(), "not?".to_owned()];
        assert_eq!(prompt(&words).ok().flatten().as_deref(), Some("why not?"));
        assert!(prompt(&[" ".to_owned()]).is_err_and(|error| error.to_string().contains("is empty")));
        assert_eq!(bounded(&b"hello"[..]).ok().as_deref(), Some("hello"));
        assert!(bounded(&[0xff_u8, 0xfe][..]).is_err_and(|error| error.to_string().contains("no text")));
        let long = std::io::repeat(b'x').take(MAX_PROMPT_BYTES + 7);
        assert!(bounded(long).is_err_and(|error| error.to_string().contains("longer than")));
    }

    #[test]
    fn a_temperature_is_a_number_that_json_has() {
        assert_eq!(temperature("0.5"), Ok(0.5));
        for text in ["-1", "nan", "inf", "warm", ""] {
            assert!(temperature(text).is_err(), "{text}");
        }
    }
}
