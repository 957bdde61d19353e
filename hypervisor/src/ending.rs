//! What happens when the boot work is done: crash on purpose, exit, park, reboot or power off.

use crate::arch::{cpu, crash, percpu};
use crate::events::{Event, Stage};
use crate::machine_line;
use crate::options::{After, Options};

/// Does what the options say. The boot work is done.
pub fn end(options: &Options<'_>) -> ! {
    percpu::record(Event::Stage(Stage::Done));
    machine_line!("boot verdict=done after={:?}", options.after);
    if let Some(way) = options.crash {
        crash::crash(way);
    }
    match options.after {
        After::Exit => cpu::exit(cpu::ExitCode::Success),
        After::Park | After::Reboot | After::PowerOff => {
            log::info!("parked");
            cpu::halt_forever()
        }
    }
}
