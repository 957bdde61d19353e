//! What happens when the boot work is done: crash on purpose, exit, park, restart or switch off.

use crate::arch::{cpu, crash, percpu, reset};
use crate::events::{Event, Stage};
use crate::options::{After, Options};
use crate::{machine_line, platform, terminal};

/// Does what the options say. The boot work is done.
pub fn end(options: &Options<'_>) -> ! {
    percpu::record(Event::Stage(Stage::Done));
    machine_line!("boot verdict=done after={}", options.after.word());
    if let Some(way) = options.crash {
        crash::crash(way);
    }
    let platform = platform::get();
    match options.after {
        After::Exit if cpu::exit_port_allowed() => cpu::exit(cpu::ExitCode::Success),
        After::Exit => log::warn!("after=exit without exit-port=0xf4: parked instead"),
        After::Park => {}
        After::Shell => terminal::run(),
        After::Reboot => {
            log::info!("restart");
            reset::restart(platform.and_then(|p| p.reset))
        }
        After::PowerOff => match platform.and_then(|p| p.power_off.as_ref()) {
            Some(way) => {
                log::info!("power off");
                reset::power_off(way);
            }
            None => log::warn!("after=poweroff: the ACPI tables do not say how; parked instead"),
        },
    }
    log::info!("parked");
    cpu::halt_forever()
}
