//! Recording a virtual machine and replaying the log on another emulated host: what the verbs, the machine tests, the campaign
//! and the benchmark share.
//!
//! [`record`] runs a [`Vm`](crate::vm::Vm) with a `[record]` section and leaves its log and the sidecar in files; [`replay`] starts a
//! separate host with the same kernel, configuration and files, and the log as one more module, and says what the kernel
//! found.

pub mod campaign;
pub mod guests;
pub mod inspect;
pub mod lines;
pub mod logfile;
pub mod points;
pub mod progress;
pub mod recording;
pub mod replay;
pub mod sidecar;

pub use points::{Plant, Restore, Until};
pub use recording::{RecordOptions, Recording, record};
pub use replay::{Kind, ReplayOptions, Verdict, replay};
