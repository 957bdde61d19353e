//! All processors: started one after the other, parked, called to work, stopped by a panic.

use crate::arch::apic::{self, Ipi};
use crate::arch::idt::{self, vector};
use crate::arch::percpu::{self, MAX_CPUS, PerCpu};
use crate::arch::{cpu, gdt, paging, physical, stack, time};
use crate::memory::{self, FRAME, OutOfFrames, Zone};
use core::sync::atomic::{AtomicUsize, Ordering};

/// Microseconds a processor has to come up after its second start-up message.
const START_PATIENCE: u64 = 1_000_000;

/// Microseconds a processor has to follow the call to stop.
const STOP_PATIENCE: u64 = 100_000;

/// Work that a processor can be called to do.
pub type Work = fn();

/// By processor: the address of the [`Work`] to do, 0 = none. The processor clears it when done.
static WORK: [AtomicUsize; MAX_CPUS] = [const { AtomicUsize::new(0) }; MAX_CPUS];

/// What came of starting the processors.
#[derive(Clone, Copy, Debug, Default)]
pub struct Started {
    /// Processors that run, with the boot processor.
    pub online: usize,
    /// Processors that did not answer, or could not be called.
    pub silent: usize,
    /// Processors beyond [`MAX_CPUS`].
    pub beyond: usize,
}

/// Starts the processors with these APIC identifiers; the boot processor's own is passed over.
///
/// # Errors
/// No memory for stacks or start-up code.
pub fn start(apic_ids: impl Iterator<Item = u32>) -> Result<Started, OutOfFrames> {
    let code = memory::frames().take(1, FRAME, Zone::Low)?;
    physical::copy_to(code, boot::entry::ap_trampoline());
    let page = (code.start / FRAME) as u8;
    let mut started = Started { online: 1, ..Default::default() };
    let others = apic_ids.filter(|id| *id != percpu::this().apic_id());
    for (number, apic_id) in others.enumerate().map(|(i, id)| (i + 1, id)) {
        if number >= MAX_CPUS {
            started.beyond += 1;
        } else if apic::mode() == apic::Mode::XApic && apic_id > apic::MAX_XAPIC_ID {
            log::error!("processor with APIC id {apic_id} cannot be called without x2APIC; left out");
            started.silent += 1;
        } else if start_one(number, apic_id, page)? {
            started.online += 1;
        } else {
            // Its number and stack stay unused, in case it wakes up late.
            log::error!(
                "processor with APIC id {apic_id} did not answer within {START_PATIENCE} us; left out"
            );
            started.silent += 1;
        }
    }
    memory::frames().give_back(code);
    Ok(started)
}

/// INIT, start-up, start-up (SDM 3A, 10.4.4.1).
fn start_one(number: usize, apic_id: u32, page: u8) -> Result<bool, OutOfFrames> {
    let cpu = percpu::of(number);
    cpu.set_apic_id(apic_id);
    boot::entry::offer_ap_stack(stack::allocate(stack::MAIN_BYTES)?.top, number as u64);
    apic::send(apic_id, Ipi::Init);
    time::wait_micros(10_000);
    for patience in [200, START_PATIENCE] {
        apic::send(apic_id, Ipi::StartUp(page));
        if time::wait_until(patience, || cpu.is_online()) {
            return Ok(true);
        }
    }
    if boot::entry::withdraw_ap_stack() {
        return Ok(false);
    }
    // It has taken its stack, so it is on its way.
    Ok(time::wait_until(START_PATIENCE, || cpu.is_online()))
}

/// A started processor's first Rust code.
pub fn run(number: usize) -> ! {
    percpu::init(number);
    paging::enter();
    gdt::init().unwrap_or_else(|e| panic!("interrupt stacks: {e}"));
    idt::load();
    apic::init_this();
    let this = percpu::this();
    if apic::id() != this.apic_id() {
        log::error!("APIC id {} came when {} was called; halted", apic::id(), this.apic_id());
        cpu::halt_forever();
    }
    log::info!("APIC id {} is up", apic::id());
    this.set_online();
    park(this)
}

/// Waits, halted, for work.
fn park(this: &'static PerCpu) -> ! {
    let work = &WORK[this.number()];
    loop {
        cpu::halt_until_interrupt(|| work.load(Ordering::Acquire) != 0);
        let address = work.load(Ordering::Acquire);
        if address != 0 {
            cpu::call(address);
            work.store(0, Ordering::Release);
        }
    }
}

/// Has processor `number` do `work` and waits until it is done, at most `micros` microseconds. Returns whether it is.
/// On the calling processor itself the work is done at once.
pub fn call(number: usize, work: Work, micros: u64) -> bool {
    if number == percpu::number() {
        work();
        return true;
    }
    let place = &WORK[number];
    if place.compare_exchange(0, work as usize, Ordering::AcqRel, Ordering::Relaxed).is_err() {
        return false;
    }
    apic::send(percpu::of(number).apic_id(), Ipi::Fixed(vector::WAKE));
    time::wait_until(micros, || place.load(Ordering::Acquire) == 0)
}

/// Stops every other processor, by NMI. Returns how many have not followed.
pub fn stop_others() -> usize {
    idt::stop_on_nmi();
    if apic::mode() == apic::Mode::None {
        return 0;
    }
    let me = percpu::number();
    let others = || percpu::online().filter(move |c| c.number() != me);
    others().for_each(|c| apic::send(c.apic_id(), Ipi::Nmi));
    time::wait_until(STOP_PATIENCE, || others().all(PerCpu::is_stopped));
    others().filter(|c| !c.is_stopped()).count()
}
