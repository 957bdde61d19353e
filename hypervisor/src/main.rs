//! The Lockstep kernel: boot order on one screen. Built for the bare machine by
//! `cargo build --release -p lockstep --target x86_64-unknown-none`; for the host only its pure modules are tested.
#![cfg_attr(target_os = "none", no_std, no_main)]
#![cfg_attr(not(target_os = "none"), allow(dead_code))]

#[cfg(target_os = "none")]
mod arch;
#[cfg(target_os = "none")]
mod console;
#[cfg(target_os = "none")]
mod panic;

mod events;
mod memory;
mod options;
mod symbols;

/// Entered by the boot code on the boot processor: 64-bit mode, interrupts off, the boot page tables.
#[cfg(target_os = "none")]
#[allow(unsafe_code)]
// SAFETY: the name is unique; boot's entry.rs calls it once.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(info: u64) -> ! {
    arch::percpu::init(0);
    arch::time::start();
    console::init();
    log::info!("Lockstep {}", env!("CARGO_PKG_VERSION"));
    let info = arch::physical::boot_information(info).expect("the loader left a boot information");
    let info = boot::multiboot::BootInfo::parse(info).unwrap_or_else(|e| panic!("boot information: {e}"));
    log::info!("loaded by {}, command line: {}", info.loader, info.command_line);
    if info.command_line.contains("exit-port=0xf4") {
        arch::cpu::allow_exit_port();
    }
    machine_line!("boot stage=main");
    arch::cpu::exit(arch::cpu::ExitCode::Success)
}

#[cfg(target_os = "none")]
#[unsafe(no_mangle)]
extern "C" fn ap_main(_argument: u64) -> ! {
    arch::cpu::halt_forever()
}

/// The host build has no kernel in it.
#[cfg(not(target_os = "none"))]
fn main() {
    println!("this is a kernel: build it with `cargo xtask build`, boot it with `cargo xtask demo`");
}
