//! The last words: what went wrong, and the end of the run.

use crate::arch::cpu;
use core::panic::PanicInfo;

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    log::error!("{info}");
    cpu::exit(cpu::ExitCode::Panic)
}
