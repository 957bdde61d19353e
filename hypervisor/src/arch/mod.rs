//! Every privileged instruction of the kernel: the only module, with `hal.rs` and the allocator, that holds unsafe
//! code. Functions here are safe to call where the kernel's own invariants (stated at each SAFETY comment) hold.

pub mod acpi;
pub mod alarm;
pub mod apic;
pub mod backtrace;
pub mod cpu;
pub mod crash;
pub mod crc;
pub mod fpu;
pub mod gcm;
pub mod gdt;
pub mod idt;
pub mod ioapic;
pub mod paging;
pub mod percpu;
pub mod physical;
pub mod pmu;
pub mod port;
pub mod probe;
pub mod proof;
pub mod reset;
pub mod rtc;
pub mod screen;
pub mod serial;
mod simd;
pub mod stack;
pub mod sums;
pub mod time;
pub mod tiny_guests;
pub mod vmenter;
pub mod vmx;
