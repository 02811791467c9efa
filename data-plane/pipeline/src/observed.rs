//! What is told of a call once it is over: how long each stage took, and how it ended.

use std::sync::Arc;

use crate::{Answer, Caller, Request, Target, Usage};

/// A stage of a call, as metrics and traces name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// From the arrival until the caller is known: the rest of the body and the keys of an issuer come in here.
    Authenticate,
    /// Until it is known what is meant; an upstream's list may be asked for.
    Resolve,
    /// Switches and policy.
    Authorise,
    /// A place on the node, and units of quotas.
    Limit,
    /// The arguments' schema and the guards of what goes out.
    GuardIn,
    /// The intent, durable.
    Intent,
    /// The plugin or model.
    Execute,
    /// The guards of what comes back, and settling.
    GuardOut,
    /// The outcome or the refusal, durable.
    Outcome,
}

impl Stage {
    /// How many there are.
    pub const COUNT: usize = 9;

    /// All, in their order.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Authenticate,
        Self::Resolve,
        Self::Authorise,
        Self::Limit,
        Self::GuardIn,
        Self::Intent,
        Self::Execute,
        Self::GuardOut,
        Self::Outcome,
    ];

    /// Its name in metrics and traces.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authenticate => "authenticate",
            Self::Resolve => "resolve",
            Self::Authorise => "authorise",
            Self::Limit => "limit",
            Self::GuardIn => "guard_in",
            Self::Intent => "intent",
            Self::Execute => "execute",
            Self::GuardOut => "guard_out",
            Self::Outcome => "outcome",
        }
    }
}

/// When each stage of a call ended, nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks([Option<u64>; Stage::COUNT]);

impl Marks {
    /// A stage ended.
    pub fn end(&mut self, stage: Stage, now_ns: u64) {
        if let Some(mark) = self.0.get_mut(stage as usize) {
            *mark = Some(now_ns);
        }
    }

    /// The call was refused: the first stage that has not ended is the one that refused it.
    pub fn refused(&mut self, now_ns: u64) {
        if let Some(mark) = self.0.iter_mut().find(|mark| mark.is_none()) {
            *mark = Some(now_ns);
        }
    }

    /// The stages that the call went through, each with its begin and end. A clock that is set back makes a stage
    /// empty, never negative.
    pub fn stages(&self, arrived_ns: u64) -> impl Iterator<Item = (Stage, u64, u64)> {
        let mut begin = arrived_ns;
        Stage::ALL.into_iter().zip(self.0).filter_map(move |(stage, mark)| {
            let (from, to) = (begin, mark?.max(begin));
            begin = to;
            Some((stage, from, to))
        })
    }

    /// When the last stage ended that did; the arrival, if none has.
    pub fn last(&self, arrived_ns: u64) -> u64 {
        self.stages(arrived_ns).map(|(_, _, to)| to).last().unwrap_or(arrived_ns)
    }
}

/// A call that is over: its records are written, or could not be.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    /// What was asked.
    pub request: &'a Arc<Request>,
    /// Who asked; `None`: nobody who is known.
    pub caller: Option<&'a Arc<Caller>>,
    /// What it touched, where that became known.
    pub target: Option<&'a Arc<Target>>,
    /// Whether a guard or policy keeps what was called out of the log: then it is kept out of telemetry too.
    pub is_target_hidden: bool,
    /// When each stage ended.
    pub marks: &'a Marks,
    /// What it used.
    pub usage: Usage,
    /// How often it was tried; 0: it did not run, or the answer was kept from before.
    pub attempts: u32,
    /// What is answered.
    pub answer: &'a Answer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_follow_each_other_and_a_refusal_ends_the_one_that_it_came_in() {
        let mut marks = Marks::default();
        marks.end(Stage::Authenticate, 15);
        // The clock was set back.
        marks.end(Stage::Resolve, 12);
        marks.refused(20);
        marks.end(Stage::Outcome, 30);
        let stages: Vec<_> = marks.stages(10).collect();
        let expect = [
            (Stage::Authenticate, 10, 15),
            (Stage::Resolve, 15, 15),
            (Stage::Authorise, 15, 20),
            (Stage::Outcome, 20, 30),
        ];
        assert_eq!(stages, expect);
        assert_eq!((marks.last(10), Marks::default().last(10)), (30, 10));
    }

    #[test]
    fn every_stage_has_its_place() {
        for (place, stage) in Stage::ALL.into_iter().enumerate() {
            assert_eq!(stage as usize, place, "{}", stage.as_str());
        }
    }
}
