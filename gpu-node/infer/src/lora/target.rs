//! The linear layers that an adapter may change.

use crate::config::DecoderConfig;

/// A linear layer of each block of a decoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    Query,
    Key,
    Value,
    Output,
    Gate,
    Up,
    Down,
}

impl Target {
    pub(crate) const ALL: [Self; 7] =
        [Self::Query, Self::Key, Self::Value, Self::Output, Self::Gate, Self::Up, Self::Down];

    /// The name that `target_modules` uses.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Query => "q_proj",
            Self::Key => "k_proj",
            Self::Value => "v_proj",
            Self::Output => "o_proj",
            Self::Gate => "gate_proj",
            Self::Up => "up_proj",
            Self::Down => "down_proj",
        }
    }

    pub(crate) fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|target| target.name() == name)
    }

    /// All names, for messages.
    pub(crate) fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    /// The name of a tensor of an adapter as PEFT writes it; `part` is `lora_A` (`[rank, inputs]`) or `lora_B`
    /// (`[outputs, rank]`).
    pub(crate) fn tensor(self, layer: usize, part: &str) -> String {
        let block = match self {
            Self::Query | Self::Key | Self::Value | Self::Output => "self_attn",
            Self::Gate | Self::Up | Self::Down => "mlp",
        };
        format!("base_model.model.model.layers.{layer}.{block}.{}.{part}.weight", self.name())
    }

    /// Widths of what goes in and comes out.
    pub(crate) fn shape(self, config: &DecoderConfig) -> (usize, usize) {
        let (queries, keys) = (config.heads * config.head_dim, config.kv_heads * config.head_dim);
        match self {
            Self::Query => (config.hidden, queries),
            Self::Key | Self::Value => (config.hidden, keys),
            Self::Output => (queries, config.hidden),
            Self::Gate | Self::Up => (config.hidden, config.intermediate),
            Self::Down => (config.intermediate, config.hidden),
        }
    }
}
