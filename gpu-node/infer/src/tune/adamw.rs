//! AdamW (Loshchilov and Hutter, 2019). candle's own keeps its moments to itself; here they are part of checkpoints, without which a run
//! that goes on would take other steps than one that was not interrupted.

use candle_core::{Result, Tensor, Var};

const BETA_1: f64 = 0.9;
const BETA_2: f64 = 0.999;
const EPSILON: f64 = 1e-8;
const WEIGHT_DECAY: f64 = 0.01;
/// Gradients that are longer, all variables together, are shortened to this.
const MAX_GRADIENT_NORM: f64 = 1.0;

/// The state of the optimiser.
pub(super) struct AdamW {
    learning_rate: f64,
    /// Steps taken.
    pub(super) step: u64,
    /// First and second moment of each variable.
    pub(super) moments: Vec<(Tensor, Tensor)>,
}

impl AdamW {
    /// For variables of these shapes, before the first step.
    pub(super) fn new(learning_rate: f64, variables: &[&Var]) -> Result<Self> {
        let zeros = |var: &&Var| Ok((var.zeros_like()?, var.zeros_like()?));
        Ok(Self { learning_rate, step: 0, moments: variables.iter().map(zeros).collect::<Result<_>>()? })
    }

    /// Moves the variables against their gradients, which are in the same order.
    pub(super) fn step(&mut self, variables: &[&Var], gradients: &[Tensor]) -> Result<()> {
        let mut squares = 0f64;
        for gradient in gradients {
            squares += f64::from(gradient.sqr()?.sum_all()?.to_scalar::<f32>()?);
        }
        let shorten = (MAX_GRADIENT_NORM / squares.sqrt()).min(1.0);
        self.step += 1;
        let steps = i32::try_from(self.step).unwrap_or(i32::MAX);
        let (scale_1, scale_2) = (1.0 / (1.0 - BETA_1.powi(steps)), 1.0 / (1.0 - BETA_2.powi(steps)));
        for ((var, gradient), (first, second)) in variables.iter().zip(gradients).zip(&mut self.moments) {
            let gradient = (gradient * shorten)?;
            *first = ((&*first * BETA_1)? + (&gradient * (1.0 - BETA_1))?)?;
            *second = ((&*second * BETA_2)? + (gradient.sqr()? * (1.0 - BETA_2))?)?;
            let root = ((&*second * scale_2)?.sqrt()? + EPSILON)?;
            let direction = ((&*first * scale_1)? / root)?;
            let kept = (var.as_detached_tensor() * (1.0 - self.learning_rate * WEIGHT_DECAY))?;
            var.set(&(kept - (direction * self.learning_rate)?)?)?;
        }
        Ok(())
    }
}
