//! Traffic: which model is asked for when.

use provost_gpu_vram::Priority;

/// A model of a trace.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// Bytes of its weights.
    pub bytes: u64,
    /// Time to load them, alone on the bus. Microseconds.
    pub load_micros: u64,
    /// How much keeping it matters.
    pub class: Priority,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// When it comes. Microseconds from the beginning.
    pub at: u64,
    /// Index of its model.
    pub model: usize,
    /// Bytes that it needs beside the weights.
    pub budget_bytes: u64,
    /// How long it runs. Microseconds.
    pub service_micros: u64,
    /// How much it matters.
    pub priority: Priority,
}

/// Traffic for one device.
#[derive(Clone, Debug)]
pub struct Trace {
    /// What kind of traffic.
    pub name: &'static str,
    /// Bytes of the device.
    pub capacity: u64,
    /// Requests that run at once.
    pub slots: usize,
    /// The models.
    pub models: Vec<Model>,
    /// The requests in order of time.
    pub arrivals: Vec<Arrival>,
}
