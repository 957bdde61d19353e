//! The runtime of the test kernels: from the loader to named checks and an exit code.
//!
//! A program is a file in `src/bin` that asks one question of the machine and says `guests::program!(run)`. On the
//! host the same file is an ordinary binary that says how to build it, so that the workspace builds, tests and lints
//! without a bare-metal target. `unsafe` stays in this library.
#![cfg_attr(target_os = "none", no_std)]

pub mod apic;
pub mod boot;
pub mod chaos;
pub mod code;
pub mod cpu;
pub mod devices;
pub mod diverge;
pub mod exit;
pub mod exits;
pub mod net;
pub mod net_interrupts;
pub mod pmu;
pub mod report;
pub mod ring3;
pub mod serial;
pub mod smp;
pub mod steps;
pub mod timers;
pub mod traps;
pub mod virtio;
pub mod vmx;
pub mod wild;

pub use report::Report;

/// Makes `$run: fn(&mut Report)` the program.
#[macro_export]
macro_rules! program {
    ($run:path) => {
        #[cfg(target_os = "none")]
        #[allow(unsafe_code)]
        // SAFETY: the only symbol of this name; the runtime declares it with this signature.
        #[unsafe(no_mangle)]
        fn guest_main() {
            let mut report = $crate::Report::new();
            $run(&mut report);
            report.finish()
        }

        #[cfg(not(target_os = "none"))]
        fn main() {
            let _: fn(&mut $crate::Report) = $run;
            std::println!("this is a test kernel; run it by: cargo xtask guest {}", env!("CARGO_BIN_NAME"));
        }
    };
}

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    println!("@@ panic {info}");
    exit::exit(exit::Code::Panic)
}
