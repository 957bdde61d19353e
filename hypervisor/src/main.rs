//! The Lockstep kernel: boot order on one screen. Built for the bare machine by
//! `cargo build --release -p lockstep --target x86_64-unknown-none`; for the host only its pure modules are tested.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![cfg_attr(not(target_os = "none"), allow(dead_code))]

extern crate alloc;

mod bridge;
mod calibration;
mod duties;
mod events;
mod firmware;
mod font;
mod memory;
mod options;
mod proof;
mod ring;
mod shell;
mod symbols;

#[cfg(target_os = "none")]
mod arch;
/// What the firmware's tests need of it, and what is tested itself.
#[cfg(not(target_os = "none"))]
mod arch {
    pub mod acpi;
    #[cfg(all(test, target_arch = "x86_64"))]
    pub mod crc;
    #[cfg(all(test, target_arch = "x86_64"))]
    pub mod gcm;
}
#[cfg(target_os = "none")]
mod console;
#[cfg(target_os = "none")]
mod ending;
#[cfg(target_os = "none")]
mod guest;
#[cfg(target_os = "none")]
mod hal;
#[cfg(target_os = "none")]
mod heap;
#[cfg(target_os = "none")]
mod logging;
#[cfg(target_os = "none")]
mod network;
#[cfg(target_os = "none")]
mod pair;
#[cfg(target_os = "none")]
mod panic;
#[cfg(target_os = "none")]
mod platform;
#[cfg(target_os = "none")]
mod smp;
#[cfg(target_os = "none")]
mod startup;
#[cfg(target_os = "none")]
mod terminal;
#[cfg(target_os = "none")]
mod vcpu;
#[cfg(target_os = "none")]
mod vmm;

/// Entered by the boot code on the boot processor: 64-bit mode, interrupts off, the boot page tables and stack.
#[cfg(target_os = "none")]
// SAFETY: the name is unique; boot's entry.rs calls it once.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(info: u64) -> ! {
    arch::percpu::init(0);
    arch::time::start();
    console::init();
    startup::catch_exceptions();
    let told = startup::read_loader(info);
    startup::start_clock();
    startup::set_up_memory(&told.info);
    startup::change_stack(on_own_stack)
}

/// The rest of the boot, on a stack with a guard page and the kernel's own page tables.
#[cfg(target_os = "none")]
extern "C" fn on_own_stack() -> ! {
    let startup::Told { info, options } = startup::told();
    startup::check_paging();
    startup::list_modules(info);
    startup::set_up_apic(options);
    let platform = platform::read(info);
    startup::start_processors(platform::processors(platform));
    platform::list_pci(platform);
    let ability = vmm::start();
    startup::report_memory();
    arch::crc::accelerate();
    let proof = proof::run(options);
    vmm::end_if_refused(ability, options);
    proof::end_if_failed(proof, options);
    logging::trial::run_if_wanted(info, options);
    guest::start(info, options, proof == proof::Outcome::Holds);
    ending::end(options)
}

/// Entered by the boot code on every other processor.
#[cfg(target_os = "none")]
// SAFETY: the name is unique; boot's entry.rs calls it once per started processor.
#[unsafe(no_mangle)]
extern "C" fn ap_main(number: u64) -> ! {
    smp::run(number as usize)
}

/// The host build has no kernel in it.
#[cfg(not(target_os = "none"))]
fn main() {
    println!("this is a kernel: build it with `cargo xtask build`, boot it with `cargo xtask demo`");
}
